"""Requests answered over a tree of their prefixes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from harness.engines import tree_scoring
from harness.engines.generation import Row
from harness.engines.packed import PackedModel
from harness.engines.queue import Queued
from harness.engines.tree_generation import Limits, TreeGeneration
from harness.engines.tree_scoring import Plan, Tally
from harness.engines.work import TOO_LARGE, Fault, Gathering, Work, as_engine_error, is_out_of_memory, release
from harness.errors import EngineError, OutOfMemory
from harness.records import Completion, LoglikelihoodRequest

SMALLEST_PASS = 128
"""Tokens: a pass that does not fit with so few fails its requests."""
MOST_JOINED = 16
"""Batches of rows that may join one another without a pause; what is held per request is given back in between."""


class TreeWork(Work):
    """Scores and decodes with a PackedModel; out of memory halves the limits for good and tries again."""

    packed: PackedModel
    limits: Limits
    arrivals: Callable[[int, int], list[Queued]]
    """(least, most): generation requests that came in since the batch was taken."""

    def score(self, queued: list[Queued]) -> None:
        waiting = [item for item in queued if isinstance(item.request, LoglikelihoodRequest)]
        while waiting and not self.closed():
            attempt = _Attempt(self, waiting)
            try:
                attempt.run()
            except (EngineError, *Fault) as exc:
                release(self.packed.device)
                if is_out_of_memory(exc) and self.limits.pass_tokens > SMALLEST_PASS:
                    self.limits.pass_tokens //= 2
                else:
                    attempt.fail(OutOfMemory(TOO_LARGE) if is_out_of_memory(exc) else as_engine_error(exc))
            waiting = [item for item in waiting if not item.future.done()]

    def generate(self, queued: list[Queued]) -> None:
        gathering = Gathering(queued, self.finish)

        def join(least: int) -> list[Row]:
            first = len(queued)
            queued.extend(self.arrivals(least, MOST_JOINED * self.limits.rows - first))
            return self.rows(queued[first:], first)

        work = TreeGeneration(self.decoding, self.packed, self.limits, gathering.add, self.closed)
        work.more = join
        work.seat(self.rows(queued))
        while (work.pending or work.state.live) and not self.closed():
            try:
                work.run()
            except (EngineError, *Fault) as exc:
                flying = work.restart()
                release(self.packed.device)
                if is_out_of_memory(exc) and (len(flying) > 1 or self.limits.pass_tokens > SMALLEST_PASS):
                    self.limits.halve()
                    work.seat([seat.row for seat in work.pending])  # pieces are as long as a pass now
                else:
                    problem = OutOfMemory(TOO_LARGE) if is_out_of_memory(exc) else as_engine_error(exc)
                    self._give_up(work, queued, flying, problem)

    def _give_up(
        self, work: TreeGeneration, queued: list[Queued], flying: Sequence[Row], problem: EngineError
    ) -> None:
        """Fail the requests that were in flight; the others go on."""
        lost = {row.request for row in flying}
        for index in lost:
            queued[index].fail(problem)
        work.seat([seat.row for seat in work.pending if seat.row.request not in lost])


class _Attempt:
    """One plan over all requests that are not answered yet."""

    def __init__(self, work: TreeWork, waiting: Sequence[Queued]) -> None:
        self.work = work
        self.waiting = waiting
        self.started_s = time.perf_counter()
        self.chosen: list[int] = []
        """Pieces of the pass in progress."""
        requests = [item.request for item in waiting if isinstance(item.request, LoglikelihoodRequest)]
        self.plan: Plan = tree_scoring.make_plan(requests, work.max_length, work.limits.pass_tokens)

    def run(self) -> None:
        for done in tree_scoring.score(
            self.work.packed, self.plan, self.work.limits.pass_tokens, self._begin
        ):
            now = time.perf_counter()
            for index in done:
                self.work.answer(self.waiting[index], self._completion(index, now))

    def _begin(self, chosen: list[int]) -> bool:
        self.chosen = chosen
        self.started_s = time.perf_counter()
        return not self.work.closed()

    def _completion(self, index: int, now: float) -> Completion:
        tally: Tally = self.plan.tallies[index]
        return Completion(
            loglikelihood=tally.loglikelihood,
            is_greedy=tally.is_greedy,
            prompt_tokens=tally.prompt_tokens,
            cached_tokens=tally.cached_tokens,
            dropped_prompt_tokens=tally.dropped,
            queued_s=self.waiting[index].queued_s,
            started_s=self.started_s,
            done_s=now,
        )

    def fail(self, problem: EngineError) -> None:
        """Fail the requests that the pass in progress was for."""
        chosen = set(self.chosen)
        for index, last in enumerate(self.plan.tree.last):
            if chosen.intersection(self.plan.tree.path(last)):
                self.waiting[index].fail(problem)
