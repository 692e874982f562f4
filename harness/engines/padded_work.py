"""Requests answered in padded batches, for models whose attention cannot be taken over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from harness.engines import batching, padded, scoring
from harness.engines.generation import Row
from harness.engines.queue import Queued
from harness.engines.tree_generation import Limits
from harness.engines.work import TOO_LARGE, Fault, Gathering, Work, as_engine_error, is_out_of_memory, release
from harness.errors import EngineError, OutOfMemory
from harness.records import Completion, LoglikelihoodRequest

T = TypeVar("T")


class PaddedWork(Work):
    """Scores with right padding, decodes with left padding; out of memory halves a batch."""

    projection: scoring.Projection
    limits: Limits

    def score(self, queued: list[Queued]) -> None:
        waiting = [item for item in queued if isinstance(item.request, LoglikelihoodRequest)]
        requests = [item.request for item in waiting if isinstance(item.request, LoglikelihoodRequest)]
        rows = batching.score_rows(requests, self.max_length)
        for batch in batching.cut(rows, lambda row: len(row.input_ids), self.limits.pass_tokens):
            concerned = [waiting[index] for row in batch for index, _ in row.targets]
            if self.closed():
                return
            self._guarded(batch, lambda part: self._score_rows(part, waiting), concerned)

    def _score_rows(self, rows: Sequence[batching.ScoreRow], waiting: list[Queued]) -> None:
        started = time.perf_counter()
        results = scoring.score_batch(self.projection, rows, self.decoding.device)
        done = time.perf_counter()
        for row in rows:
            for place, (index, _) in enumerate(row.targets):
                completion = Completion(
                    loglikelihood=results[index].loglikelihood,
                    is_greedy=results[index].is_greedy,
                    prompt_tokens=len(row.input_ids),
                    cached_tokens=len(row.input_ids) if place else 0,
                    dropped_prompt_tokens=row.dropped,
                    queued_s=waiting[index].queued_s,
                    started_s=started,
                    done_s=done,
                )
                self.answer(waiting[index], completion)

    def generate(self, queued: list[Queued]) -> None:
        rows = self.rows(queued)
        rows.sort(key=lambda row: (-_cost(row), row.window.ids, row.request, row.draw))
        gathering = Gathering(queued, self.finish)
        for batch in batching.cut(rows, _cost, self.limits.cache_tokens, self.limits.rows):
            concerned = [queued[index] for index in sorted({row.request for row in batch})]
            if self.closed():
                return
            self._guarded(batch, self._decode, concerned)
            for row in batch:
                if not queued[row.request].future.done():
                    gathering.add(row)

    def _decode(self, rows: Sequence[Row]) -> None:
        now = time.perf_counter()
        for row in rows:
            row.started_s = now
        padded.generate_batch(self.decoding, rows)

    # Faults

    def _guarded(
        self, batch: Sequence[T], compute: Callable[[Sequence[T]], None], concerned: Sequence[Queued]
    ) -> None:
        """Compute a batch; out of memory halves it, anything else fails the requests concerned."""
        try:
            self._halving(batch, compute)
        except (EngineError, *Fault) as exc:
            for item in concerned:
                item.fail(as_engine_error(exc))

    def _halving(self, batch: Sequence[T], compute: Callable[[Sequence[T]], None]) -> None:
        try:
            compute(batch)
            return
        except Fault as exc:
            if not is_out_of_memory(exc):
                raise
            if len(batch) == 1:
                raise OutOfMemory(TOO_LARGE) from exc
        release(self.decoding.device)
        for row in batch:
            if isinstance(row, Row):
                row.restart()
        half = (len(batch) + 1) // 2
        self._halving(batch[:half], compute)
        self._halving(batch[half:], compute)


def _cost(row: Row) -> int:
    """Cells of the KV cache that a row may fill."""
    return len(row.window.ids) + row.window.max_tokens
