"""What an inspect task asks first: its solver is run with a model that notes the question and stops there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import Any

from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, get_model, modelapi
from inspect_ai.tool import ToolChoice, ToolInfo

from harness.errors import BadInput, HarnessError
from suites.from_inspect.model import check_supported, plain_text
from suites.from_inspect.quiet import quiet
from suites.from_inspect.run import SETTINGS

Turns = list[dict[str, str]]


class Noted(Exception):
    """The question is noted; nothing more of the sample is wanted."""


class NotingAPI(ModelAPI):
    """Keeps the first conversation that it is asked, and answers none."""

    def __init__(self, model_name: str, *_: Any, config: GenerateConfig, **__: Any) -> None:
        super().__init__(model_name, None, None, [], config)
        self.turns: Turns | None = None
        self.problem: BadInput | None = None
        """Why the harness could not ask this."""

    def should_retry(self, ex: BaseException) -> bool:
        return False

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        if self.turns is None:
            try:
                check_supported(tools, config)
                self.turns = [{"role": one.role, "content": plain_text(one)} for one in input]
            except BadInput as exc:
                self.problem = self.problem or exc
        raise Noted


@modelapi(name="harness_preview")
def harness_preview() -> type[ModelAPI]:
    """The provider under which inspect knows it."""
    return NotingAPI


def first_question(task: Any, sample: Any, roles: Sequence[str]) -> Turns | None:
    """The conversation that a task's solver sends first for a sample; None: it sends none.

    Args: roles: names under which the task may ask for a judge.
    Raises: BadInput: it asks for something that the harness does not do (tools, pictures).
    """
    import inspect_ai
    from inspect_ai import task_with
    from inspect_ai._util.error import PrerequisiteError
    from inspect_ai.dataset import MemoryDataset

    with ExitStack() as stack:
        log_dir = stack.enter_context(TemporaryDirectory(prefix="inspect-logs-"))
        stack.enter_context(quiet())
        model = get_model("harness_preview/none", memoize=False)
        one = task_with(task, dataset=MemoryDataset([sample]))
        settings = {**SETTINGS, "score": False, "model_roles": dict.fromkeys(roles, model)}
        try:
            inspect_ai.eval(one, model=model, log_dir=log_dir, **settings)
        except PrerequisiteError as exc:
            raise BadInput(
                f"inspect refuses task {task.name!r}: {' '.join(str(exc.message).split())}"
            ) from exc
    api = model.api
    if not isinstance(api, NotingAPI):
        raise HarnessError(f"inspect gave {type(api).__name__} for the model that notes questions")
    if api.problem is not None:
        raise api.problem
    return api.turns
