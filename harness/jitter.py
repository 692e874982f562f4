"""How much scores move between batch plans: the same samples again, grouped otherwise, and what became of them.

Floating point sums depend on their order, and so on what is computed together. The first plan is the run itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from functools import partial

from harness.binding import Binder, Bound, measures_speed
from harness.engines.lazy import SharedEngine
from harness.feeding import prepare, run_tasks
from harness.journal import Key
from harness.protocols import Engine, Progress, Strategy
from harness.records import (
    Completion,
    Headline,
    Jitter,
    Json,
    LoglikelihoodRequest,
    Request,
    RunRecord,
    Sample,
)
from harness.suitespec import headline

NOTE = "jitter:"
"""Begins the note."""


class Noted:
    """A strategy under which the loglikelihoods of all requests are noted, by request."""

    def __init__(self, inner: Strategy) -> None:
        self.name = inner.name
        self.inner = inner
        self.values: dict[int, float] = {}

    def identity(self) -> Mapping[str, Json]:
        return self.inner.identity()

    def submit(self, engine: Engine, requests: Sequence[Request]) -> list[Future[Completion]]:
        futures = self.inner.submit(engine, requests)
        for request, future in zip(requests, futures, strict=True):
            if isinstance(request, LoglikelihoodRequest):
                # the hash, for the requests themselves would fill the memory
                future.add_done_callback(partial(self._note, hash(request)))
        return futures

    def taken(self) -> dict[int, float]:
        """What was noted so far; the next run begins anew."""
        values, self.values = self.values, {}
        return values

    def _note(self, key: int, done: Future[Completion]) -> None:
        if done.exception() is None and (value := done.result().loglikelihood) is not None:
            self.values[key] = value


class Regrouped(Noted):
    """Puts requests to the engine in another order and in separate groups, each when the one before is answered.

    Args: plan: number of the plan, 1 for the first that is not the run's own; 0 changes nothing.
    """

    def __init__(self, inner: Strategy, plan: int) -> None:
        super().__init__(inner)
        self._plan = plan

    def submit(self, engine: Engine, requests: Sequence[Request]) -> list[Future[Completion]]:
        order = list(range(len(requests)))
        if self._plan:
            random.Random(self._plan).shuffle(order)
        parts = min(1 + 2 * self._plan, max(len(order), 1)) if self._plan else 1
        found: dict[int, Future[Completion]] = {}
        for part in range(parts):
            chosen = order[part::parts]
            futures = super().submit(engine, [requests[place] for place in chosen])
            if part < parts - 1:
                wait(futures)
            found |= dict(zip(chosen, futures, strict=True))
        return [found[place] for place in range(len(requests))]


@dataclass
class Pass:
    """The samples of a run under one batch plan."""

    samples: Mapping[Key, Sample]
    loglikelihoods: Mapping[int, float]
    headline: Headline | None = field(default=None)


class Passes:
    """Answers a run's samples again.

    Args:
        binder: its strategy is used, under other groupings.
        bound: the run; tasks that measure speed are left out.
        shared: the engine that the run was computed on.
    """

    def __init__(self, binder: Binder, bound: Bound, shared: SharedEngine, progress: Progress) -> None:
        self._binder = binder
        self._bound = bound
        self._progress = progress
        # no response cache: an answer that is read back cannot differ
        self._shared = SharedEngine(shared.name, shared.engine)

    def answer(self, plan: int) -> Pass:
        """Run, grade and add up under a plan; weighs and journals nothing."""
        strategy = self._binder.strategy
        regrouped = Regrouped(strategy.inner if isinstance(strategy, Noted) else strategy, plan)
        bound = self._binder.under(regrouped).bind(self._bound.checkpoint, self._bound.spec, self._shared)
        tasks = {label: task for label, task in bound.tasks.items() if not measures_speed([task])}
        samples: dict[Key, Sample] = {}

        def record(sample: Sample) -> None:
            samples[sample.task, sample.sample_id] = sample
            self._progress.advance()

        label = f"{bound.checkpoint.name} · {bound.spec.name} · batch plan {plan + 1}"
        self._progress.start(label, sum(len(task.sample_ids) for task in tasks.values()))
        try:
            prepare(tasks.values())
            run_tasks([(task, task.sample_ids) for task in tasks.values()], record)
        finally:
            self._progress.finish()
        for name, task in tasks.items():
            waiting = [s for s in samples.values() if s.task == name and not s.graded and s.error is None]
            samples |= {(name, s.sample_id): s for s in task.grade(waiting)}
        metrics = {
            name: task.aggregate([samples[name, sample_id] for sample_id in task.sample_ids])
            for name, task in tasks.items()
        }
        whole = len(tasks) == len(bound.tasks)
        return Pass(samples, regrouped.values, headline(bound.spec, metrics) if whole else None)


def spread(first: Pass, others: Sequence[Pass]) -> Jitter:
    """What the passes differ in. Pure."""
    keys = set().union(*(other.samples for other in others))
    changed = sum(
        any(_differ(first.samples.get(key), other.samples.get(key)) for other in others) for key in keys
    )
    values = [None if one.headline is None else one.headline.value for one in (first, *others)]
    known = [value for value in values if value is not None]
    whole = len(known) == len(values)
    return Jitter(
        plans=1 + len(others),
        n_samples=len(keys),
        n_changed=changed,
        share_changed=changed / len(keys) if keys else None,
        max_loglikelihood_difference=_largest([first, *others]),
        headline_low=min(known) if whole else None,
        headline_high=max(known) if whole else None,
    )


def _differ(a: Sample | None, b: Sample | None) -> bool:
    """A sample that failed under either plan never counts as equal."""
    if a is None or b is None or a.failed or b.failed:
        return True
    return {n: s.value for n, s in a.scores.items()} != {n: s.value for n, s in b.scores.items()}


def _largest(passes: Sequence[Pass]) -> float | None:
    """Largest range of one request's loglikelihoods, nats; None where none was answered twice."""
    by_request: dict[int, list[float]] = {}
    for one in passes:
        for key, value in one.loglikelihoods.items():
            by_request.setdefault(key, []).append(value)
    return max(
        (0.0 if max(v) == min(v) else max(v) - min(v) for v in by_request.values() if len(v) > 1),
        default=None,
    )


def with_jitter(record: RunRecord, passes: Passes, plans: int, own: Pass | None) -> RunRecord:
    """The record with its jitter over so many plans; the scores in it stay those of the first.

    Args: own: the first plan's answers; None: not all were given in this process, so it is gone through again.
    """
    start = time.perf_counter()
    first = passes.answer(0) if own is None else own
    others = [passes.answer(plan) for plan in range(1, plans)]
    jitter = spread(replace(first, headline=record.headline), others)
    notes = [note for note in record.notes if not note.startswith(NOTE)]
    seconds = round(time.perf_counter() - start, 3)
    return replace(
        record,
        jitter=jitter,
        notes=(*notes, note_of(jitter)),
        phases_s={**record.phases_s, "jitter": seconds},
    )


def note_of(jitter: Jitter) -> str:
    """What a reader must know beside the score."""
    moved = "none was scored by loglikelihood"
    if jitter.max_loglikelihood_difference is not None:
        moved = f"loglikelihoods moved by at most {jitter.max_loglikelihood_difference:.2g} nats"
    changed = f"{jitter.n_changed} of {jitter.n_samples} samples changed their score"
    text = f"{NOTE} over {jitter.plans} batch plans {changed}"
    if jitter.headline_low is None or jitter.headline_high is None:
        return f"{text}, {moved}"
    return (
        f"{text}, the headline lies between {jitter.headline_low:.4g} and {jitter.headline_high:.4g}, {moved}"
    )
