"""From queued requests to answers: what both ways of computing share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from harness.engines import generation
from harness.engines.batching import fit_prompt
from harness.engines.generation import Decoding, Row
from harness.engines.loading import first_line
from harness.engines.queue import Queued
from harness.errors import EngineError
from harness.records import Completion, GenerateRequest

NOT_A_NUMBER = (
    "the model gave NaN: its weights are damaged, or its number type overflows (try --dtype float32)"
)
TOO_LARGE = "one request alone does not fit into memory; shorten it or use a larger device"
NO_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "bad_alloc",
    "out of memory",
)
"""Words by which torch's allocator, C++ and oneDNN report it, in errors of no type of their own."""
Fault = (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError, MemoryError)
"""What a model's code raises; torch's out-of-memory error is a RuntimeError."""


@dataclass
class Counts:
    """Since the engine was loaded."""

    requests: int = 0
    prompt: int = 0
    cached: int = 0
    output: int = 0


class Work:
    """Answers futures and counts what was answered.

    Args:
        decoding: what decoding needs of the model.
        max_length: longest prompt plus answer, tokens.
        closed: asked between batches; True: stop.
    """

    def __init__(
        self, decoding: Decoding, max_length: int, counts: Counts, closed: Callable[[], bool]
    ) -> None:
        self.decoding = decoding
        self.max_length = max_length
        self.counts = counts
        self.closed = closed

    def score(self, queued: list[Queued]) -> None:
        raise NotImplementedError

    def generate(self, queued: list[Queued]) -> None:
        raise NotImplementedError

    # Answers

    def answer(self, item: Queued, completion: Completion) -> None:
        if item.future.done():
            return
        if completion.loglikelihood is not None and math.isnan(completion.loglikelihood):
            item.fail(EngineError(NOT_A_NUMBER))
            return
        self.counts.prompt += completion.prompt_tokens
        self.counts.cached += completion.cached_tokens
        self.counts.output += completion.output_tokens
        item.future.set_result(completion)

    def rows(self, queued: Sequence[Queued], first: int = 0) -> list[Row]:
        """The rows of generation requests; a row names its request by its place in queued, counted from first."""
        rows: list[Row] = []
        for index, item in enumerate(queued, first):
            if isinstance(item.request, GenerateRequest):
                window = fit_prompt(item.request, self.max_length)
                tail = self._stop_tail(item.request.sampling.stop)
                rows += generation.make_rows(index, window, item.request, item.queued_s, tail)
        return rows

    def _stop_tail(self, stops: Sequence[str]) -> int:
        encode = self.decoding.tokenizer.encode
        longest = max((len(encode(stop, add_special_tokens=False)) for stop in stops), default=0)
        return longest + generation.STOP_TAIL_TOKENS

    def finish(self, item: Queued, rows: list[Row]) -> None:
        """Answer a request whose rows are all finished; a text that cannot be decoded fails it alone."""
        if any(row.broken for row in rows):
            item.fail(EngineError(NOT_A_NUMBER))
            return
        rows.sort(key=lambda row: row.draw)
        try:
            outputs = tuple(generation.finish_output(self.decoding, row) for row in rows)
        except Fault as exc:
            item.fail(as_engine_error(exc))
            return
        completion = Completion(
            outputs=outputs,
            prompt_tokens=len(rows[0].window.ids),
            cached_tokens=min(row.cached_tokens for row in rows),
            output_tokens=sum(len(row.ids) for row in rows),
            dropped_prompt_tokens=rows[0].window.dropped,
            queued_s=item.queued_s,
            started_s=min(row.started_s for row in rows),
            first_token_s=item.queued_s + min(row.times_s[0] for row in rows),
            done_s=item.queued_s + max(row.times_s[-1] for row in rows),
        )
        self.answer(item, completion)


class Gathering:
    """Collects the rows of each request, and hands them on when the last one is there."""

    def __init__(self, queued: Sequence[Queued], finish: Callable[[Queued, list[Row]], None]) -> None:
        self._queued = queued
        self._finish = finish
        self._found: dict[int, list[Row]] = {}

    def add(self, row: Row) -> None:
        item = self._queued[row.request]
        found = self._found.setdefault(row.request, [])
        found.append(row)
        if len(found) == row.sampling.n:
            self._finish(item, self._found.pop(row.request))


def is_out_of_memory(exc: BaseException) -> bool:
    if isinstance(exc, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(exc) for words in NO_MEMORY)


def as_engine_error(exc: BaseException) -> EngineError:
    """What a model's code raised, as the failure of a request."""
    if isinstance(exc, EngineError):
        return exc
    return EngineError(f"{type(exc).__name__}: {first_line(exc)}")


def release(device: torch.device) -> None:
    """Give memory that is no longer used back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
