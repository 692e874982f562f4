"""inspect-ai's ModelAPI over a harness engine: inspect awaits the engine's futures, everything else is the engine's.

Differences from inspect's own `hf` provider that change results: greedy unless a temperature is asked for (hf samples
by default), no second BOS where the chat template writes one, true token counts (hf counts padding).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import anyio
import sniffio
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from harness import chat
from harness.engines.lazy import LazyEngine
from harness.errors import BadCheckpoint, BadInput, EngineError, HarnessError
from harness.protocols import Engine, Strategy
from harness.records import Completion, GenerateRequest, Sampling

MAX_CONNECTIONS = 512
"""Requests in flight; inspect's adaptive default would leave the engine half empty."""
DEFAULT_MAX_TOKENS = 2048
"""Answer length where a task names none: that of inspect's hf provider."""
REFUSED = (
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "response_schema",
    "frequency_penalty",
    "presence_penalty",
)
"""Settings that change an answer and that the engine does not have: refused, never ignored."""


class HarnessAPI(ModelAPI):
    """Answers from an engine that is already loaded; in `inspect eval --model harness/PATH`, from one of its own."""

    def __init__(  # noqa: PLR0913  the base class's signature
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008
        *,
        engine: Engine | None = None,
        strategy: Strategy | None = None,
        chat: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        self.engine: Engine = engine or load_engine(model_name)
        self.strategy = strategy
        self.chat = chat
        self.seed = seed
        self.stopped: HarnessError | None = None
        """Why no more answers are given: a full disk, or a task that wants what the engine does not have."""

    def max_connections(self) -> int:
        return MAX_CONNECTIONS

    def max_tokens(self) -> int | None:
        return min(DEFAULT_MAX_TOKENS, self.engine.max_length // 2)

    def connection_key(self) -> str:
        return f"harness-{id(self.engine)}"

    def should_retry(self, ex: BaseException) -> bool:
        return False

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Raises: EngineError: the engine could not answer; inspect fails the sample."""
        if self.stopped is not None:
            raise EngineError("the run is being stopped")
        try:
            check_supported(tools, config)
            request = GenerateRequest(
                self.encode(input),
                sampling_of(config, self.seed, self.max_tokens() or DEFAULT_MAX_TOKENS),
            )
            submit = partial(self.strategy.submit, self.engine) if self.strategy else self.engine.submit
            # The first use may load the model; the event loop must not stand still meanwhile.
            futures = (
                await anyio.to_thread.run_sync(submit, [request]) if _lazy(self.engine) else submit([request])
            )
            return model_output(self.model_name, await answer(futures[0]))
        except EngineError:
            raise
        except HarnessError as exc:  # no answer of this run can be had: a setting, or a server's cost limit
            self.stopped = self.stopped or exc
            raise

    def encode(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """Token ids of a conversation, through the chat template unless chat is off.

        Raises: BadCheckpoint: no chat template. BadInput: something other than text.
        """
        turns = [{"role": message.role, "content": plain_text(message)} for message in messages]
        tokenizer = self.engine.tokenizer
        if self.chat == "off":
            return tuple(
                tokenizer.encode("\n\n".join(turn["content"] for turn in turns), add_special_tokens=True)
            )
        if not tokenizer.chat_template:
            raise BadCheckpoint(
                f"inspect tasks are chats and the tokenizer of {self.model_name!r} has no chat template; give one "
                "(chat_template.jinja beside the tokenizer) or ask in plain text with --chat off"
            )
        # The template writes its own special tokens: adding them again would double the BOS.
        return tuple(tokenizer.encode(render(tokenizer, turns, self.model_name), add_special_tokens=False))


def load_engine(spec: str) -> Engine:
    """The default engine on a checkpoint as the command line names it: folder, hub id, base+adapter."""
    from harness import registry
    from harness.checkpoints import resolve
    from harness.endpoints import is_endpoint

    name = "endpoint" if is_endpoint(spec) else "transformers"
    loaded: Engine = registry.load("engine", name).load(resolve(spec), {})
    return loaded


@modelapi(name="harness")
def harness() -> type[ModelAPI]:
    """The provider under which inspect knows it: harness/NAME."""
    return HarnessAPI


def render(tokenizer: Any, turns: list[dict[str, str]], whose: str = "the checkpoint") -> str:
    """Text of a conversation; a last turn of the assistant's is gone on with, not closed.

    Raises: BadCheckpoint: the template refuses it, with the system message in the first turn too.
    """
    prefilled = turns[-1]["role"] == "assistant"
    options = {"add_generation_prompt": not prefilled, "continue_final_message": prefilled}
    try:
        return chat.render(tokenizer, turns, whose, **options)
    except BadCheckpoint:
        if turns[0]["role"] != "system" or len(turns) < 2 or turns[1]["role"] != "user":
            raise
        first = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
        return chat.render(tokenizer, [first, *turns[2:]], whose, **options)


def plain_text(message: ChatMessage) -> str:
    if message.role == "tool" or getattr(message, "tool_calls", None):
        raise BadInput(
            "this inspect task calls tools, which the harness engine does not; choose another task"
        )
    if not isinstance(message.content, str):
        kinds = {part.type for part in message.content} - {"text", "reasoning"}
        if kinds:
            raise BadInput(
                f"this inspect task sends {', '.join(sorted(kinds))}; the harness engine reads text alone"
            )
    return message.text


def check_supported(tools: Sequence[ToolInfo], config: GenerateConfig) -> None:
    """Raises: BadInput: tools or a generation setting that the engine does not have."""
    if tools:
        names = ", ".join(tool.name for tool in tools)
        raise BadInput(f"this inspect task gives tools ({names}), which the harness engine does not call")
    for name in REFUSED:
        if getattr(config, name):
            raise BadInput(f"this inspect task sets {name}, which the harness engine does not have")


def sampling_of(config: GenerateConfig, seed: int, max_tokens: int) -> Sampling:
    """Greedy unless a temperature is asked for."""
    return Sampling(
        max_tokens=config.max_tokens or max_tokens,
        temperature=config.temperature or 0.0,
        top_p=1.0 if config.top_p is None else config.top_p,
        top_k=config.top_k or 0,
        stop=tuple(config.stop_seqs or ()),
        seed=seed if config.seed is None else config.seed,
        n=config.num_choices or 1,
    )


def model_output(model: str, completion: Completion) -> ModelOutput:
    choices = [
        ChatCompletionChoice(
            message=ChatMessageAssistant(content=output.text, model=model, source="generate"),
            stop_reason="max_tokens" if output.finish_reason == "length" else "stop",
        )
        for output in completion.outputs
    ]
    usage = ModelUsage(
        input_tokens=completion.prompt_tokens - completion.cached_tokens,
        input_tokens_cache_read=completion.cached_tokens,
        output_tokens=completion.output_tokens,
        total_tokens=completion.prompt_tokens + completion.output_tokens,
    )
    first = None if completion.first_token_s is None else completion.first_token_s - completion.queued_s
    facts: Mapping[str, Any] = {
        "dropped_prompt_tokens": completion.dropped_prompt_tokens,
        "first_token_s": None if completion.reused else first,
        "answers": len(completion.outputs),
        "reused": completion.reused,
        "reused_tokens": completion.reused_tokens,
    }
    seconds = completion.done_s - completion.queued_s
    return ModelOutput(model=model, choices=choices, usage=usage, time=seconds, metadata=dict(facts))


async def answer(future: Future[Completion]) -> Completion:
    """Wait for the engine without holding a thread (asyncio) or the loop (trio)."""
    if sniffio.current_async_library() == "asyncio":
        return await asyncio.wrap_future(future)
    return await anyio.to_thread.run_sync(future.result, limiter=anyio.CapacityLimiter(MAX_CONNECTIONS))


def _lazy(engine: Engine) -> bool:
    return isinstance(engine, LazyEngine)
