"""One call of inspect's eval: every finished sample goes to the journal at once, no log file stays behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import Any, ClassVar
from unittest.mock import patch

from inspect_ai.hooks import Hooks, SampleEnd, hooks

from harness.errors import BadInput, HarnessError
from suites.from_inspect.model import MAX_CONNECTIONS, HarnessAPI
from suites.from_inspect.quiet import quiet

SETTINGS: Mapping[str, Any] = {
    "log_samples": False, "log_realtime": False, "log_level": "critical", "display": "none", "score_display": False,
    "fail_on_error": False, "retry_on_error": 0, "epochs": 1, "max_connections": MAX_CONNECTIONS,
    "max_samples": MAX_CONNECTIONS, "ctl_server": False,
}  # fmt: skip
"""Arguments of inspect_ai.eval: no display, no log, one epoch at a time, as many samples at once as may be."""


@hooks(name="harness_journal", description="hands every finished sample to the harness's journal")
class JournalHook(Hooks):
    """inspect keeps one instance for the life of the process; it is awake inside listening() alone."""

    listener: ClassVar[Callable[[Any], None] | None] = None

    def enabled(self) -> bool:
        return JournalHook.listener is not None

    async def on_sample_end(self, data: SampleEnd) -> None:
        if JournalHook.listener is not None:
            JournalHook.listener(data.sample)


def evaluate(task: Any, model: Any, journal: Callable[[Any], None], options: dict[str, Any]) -> None:
    """Run an inspect task, handing on each sample as it finishes.

    Args: options: further arguments of inspect_ai.eval: model_roles, generation settings.
    Raises:
        KeyboardInterrupt: Ctrl-C, which inspect itself would turn into a status.
        BadInput: inspect refuses to start; the task wants what the engine does not have.
        HarnessError: inspect gave up on the task, or the journal could not be written.
    """
    import inspect_ai
    from inspect_ai._util.error import PrerequisiteError

    api: HarnessAPI = model.api

    def hand_on(sample: Any) -> None:
        if api.stopped is not None and sample.error is not None:
            return  # what fails from now on fails for that reason, and will be asked again
        try:
            journal(sample)
        except HarnessError as exc:
            # inspect swallows what a hook raises; the run must not go on for an hour without a journal.
            api.stopped = exc

    with ExitStack() as stack:
        log_dir = stack.enter_context(TemporaryDirectory(prefix="inspect-logs-"))
        stack.enter_context(quiet())
        stack.enter_context(patch.object(JournalHook, "listener", hand_on))
        try:
            (log,) = inspect_ai.eval(
                task,
                model=model,
                log_dir=log_dir,
                **SETTINGS,
                **options,
            )
        except PrerequisiteError as exc:
            raise BadInput(
                f"inspect refuses task {task.name!r}: {' '.join(str(exc.message).split())}"
            ) from exc
    if api.stopped is not None:
        raise api.stopped
    if log.status == "cancelled":
        raise KeyboardInterrupt
    if log.status == "error" and log.error is not None:
        raise HarnessError(
            f"inspect gave up on task {task.name!r}: {' '.join(log.error.message.split())[:500]}"
        )
