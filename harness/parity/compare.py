"""Ask several engines the very same requests, and hold their answers against those of the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness.binding import Binder, Bound, measures_speed
from harness.engines.lazy import SharedEngine
from harness.errors import BadInput, NotComparable
from harness.parity.pairs import answers_of, loglikelihoods_of, with_gaps
from harness.parity.records import TOLERANCE, Answers, EngineParity, Loglikelihoods, Pair, Parity, TaskParity
from harness.parity.sides import Asked, Recorder, Replayer, Side, parse_sides, wait_for
from harness.plan import EvalPlan
from harness.protocols import Engine, Progress, SilentProgress, Task
from harness.records import Json, Metric, Request, Sample
from harness.suitespec import headline_metric
from harness.tokens import PROBE

SMALL_BYTES = 1 << 30
"""Weights (at four bytes a parameter) up to which two engines are kept in memory at once."""
Key = tuple[int, str]
"""(place of the suite, label of the task)"""


@dataclass
class Answered:
    """A task after one engine has answered it."""

    asked: list[Asked]
    samples: list[Sample]
    metrics: Mapping[str, Metric]


@dataclass
class Opened:
    """An engine of the comparison, loaded, with the tasks bound to it."""

    side: Side
    binder: Binder
    shared: SharedEngine
    recorder: Recorder
    facts: Mapping[str, Json] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        return self.shared.engine(self.binder.checkpoints[0])

    def bound(self) -> Iterator[tuple[int, Bound]]:
        for place, spec in enumerate(self.binder.suites):
            yield place, self.binder.bind(self.binder.checkpoints[0], spec, self.shared)


def compare(
    plan: EvalPlan,
    engines: Sequence[str],
    tolerance: float | None = None,
    progress: Progress | None = None,
) -> Parity:
    """Compare engines on one checkpoint, sample by sample.

    The requests that the plan's tasks make with the first engine go to every other one as they are. Nothing is
    written. One engine is loaded at a time, but for small models.

    Args:
        plan: one checkpoint, and suites or tasks; its engine settings hold for every engine that sets none.
        engines: two or more, as harness.parity.sides.parse_sides reads them.
        tolerance: nats; None: by the coarser number type of the two (TOLERANCE).
        progress: told what is loaded and asked.
    Raises:
        BadInput: fewer than two engines, several checkpoints, a task that measures speed.
        NotComparable: tokenizers that differ.
        UserError: whatever else in the plan cannot be used.
    """
    sides = parse_sides(engines, plan.engine)
    if len(plan.checkpoints) != 1 or plan.adapters:
        raise BadInput(f"parity takes one checkpoint; {', '.join(plan.checkpoints)} given")
    shown = progress or SilentProgress()
    kinds = [Recorder, *[Replayer] * (len(sides) - 1)]
    # whatever is wrong in any of them comes out now
    binders = [_binder(plan, side, kind, shown) for side, kind in zip(sides, kinds, strict=True)]
    binders[0].check()
    with _opened(sides[0], binders[0]) as first:
        reference = _ask(first, shown)
        probe = first.engine.tokenizer.encode(PROBE)
        facts = first.facts = dict(first.engine.describe())
        if not _is_small(binders):
            first.shared.close()
        others = []
        for side, binder in zip(sides[1:], binders[1:], strict=True):
            with _opened(side, binder) as other:
                _refuse_other_tokenizer(probe, first.side, other)
                others.append(_hold(other, first, reference, tolerance))
    return Parity(binders[0].checkpoints[0].name, sides[0].label, facts, tuple(others))


def _binder(plan: EvalPlan, side: Side, kind: type[Recorder], progress: Progress) -> Binder:
    """Resolve the plan for one side; its tasks will ask through a recorder."""
    checkpoints = [side.checkpoint] if side.checkpoint else plan.checkpoints
    fields = {"engine": side.spec, "checkpoints": checkpoints, "cache": "off"}
    binder = Binder(plan.model_copy(update=fields), progress)
    binder.strategy = kind(binder.strategy)
    return binder


@contextmanager
def _opened(side: Side, binder: Binder) -> Iterator[Opened]:
    shared, recorder = binder.shared_engine(), binder.strategy
    if not isinstance(recorder, Recorder):
        raise TypeError("tasks of a comparison ask through a recorder")
    try:
        yield Opened(side, binder, shared, recorder)
    finally:
        shared.close()


def _is_small(binders: Sequence[Binder]) -> bool:
    counts = [binder.checkpoints[0].parameters for binder in binders]
    return all(count is not None and 4 * count <= SMALL_BYTES for count in counts)


def _refuse_other_tokenizer(probe: Sequence[int], first: Side, other: Opened) -> None:
    """Raises: NotComparable: the same ids would be other texts."""
    if list(other.engine.tokenizer.encode(PROBE)) != list(probe):
        raise NotComparable(
            f"the tokenizers of {first.label!r} and {other.side.label!r} give other tokens for the same text; "
            "the same requests cannot be put to both: compare engines on one checkpoint"
        )


# Asking


def _ask(first: Opened, progress: Progress) -> dict[Key, Answered]:
    """Run all tasks with the first engine, remembering what they ask."""
    answered = {}
    for place, bound in first.bound():
        if measures_speed(bound.tasks.values()):
            slow = next(label for label, task in bound.tasks.items() if measures_speed([task]))
            raise BadInput(f"task {slow!r} measures speed and has no answers to compare; leave it out")
        for label, task in bound.tasks.items():
            first.recorder.task = f"{place} {label}"
            answered[place, label] = _run(task, first.recorder, f"{first.side.label} · {label}", progress)
    return answered


def _run(task: Task, recorder: Recorder, label: str, progress: Progress) -> Answered:
    samples: dict[str, Sample] = {}

    def record(sample: Sample) -> None:
        samples[sample.sample_id] = sample
        progress.advance()

    progress.start(label, len(task.sample_ids))
    try:
        task.run(task.sample_ids, record)
    finally:
        progress.finish()
    waiting = [sample for sample in samples.values() if not sample.graded and sample.error is None]
    samples |= {sample.sample_id: sample for sample in task.grade(waiting)}
    ordered = [samples[sample_id] for sample_id in task.sample_ids]
    return Answered(list(recorder.asked[recorder.task]), ordered, task.aggregate(ordered))


def _hold(
    other: Opened, first: Opened, reference: Mapping[Key, Answered], tolerance: float | None
) -> EngineParity:
    """Put the first engine's requests to another, and score the tasks with its answers."""
    other.facts = dict(other.engine.describe())
    nats = _tolerance(first.facts, other.facts) if tolerance is None else tolerance
    tasks = []
    for place, bound in other.bound():
        for label, task in bound.tasks.items():
            ours = reference[place, label]
            theirs = _repeat(other, task, label, ours)
            tasks.append(_task_parity(_Held(bound, label, ours, theirs), first, other, nats))
    return EngineParity(other.side.label, nats, tuple(tasks), other.facts)


def _tolerance(first: Mapping[str, Json], other: Mapping[str, Json]) -> float:
    names = (str(facts.get("dtype")).removeprefix("torch.") for facts in (first, other))
    return max(TOLERANCE.get(name, TOLERANCE["float32"]) for name in names)


@dataclass
class _Repeated:
    answered: Answered
    pairs: list[Pair]
    n_own: int


def _repeat(other: Opened, task: Task, label: str, ours: Answered) -> _Repeated:
    replayer = other.recorder
    if not isinstance(replayer, Replayer):
        raise TypeError("an engine that is held against the first replays")
    requests: list[Request] = [request for request, _ in ours.asked]
    futures = other.engine.submit(requests)
    pairs = []
    for (request, mine), future in zip(ours.asked, futures, strict=True):
        a, b = wait_for(mine), wait_for(future)
        pairs.append(Pair(request, a.completion, b.completion, a.error, b.error))
    replayer.keep(label, map(Asked, requests, futures))
    before = len(replayer.asked[label])
    answered = _run(task, replayer, f"{other.side.label} · {label}", other.binder.progress)
    return _Repeated(answered, pairs, len(replayer.asked[label]) - before)


# Adding up


@dataclass
class _Held:
    bound: Bound
    label: str
    ours: Answered
    theirs: _Repeated


def _task_parity(held: _Held, first: Opened, other: Opened, tolerance: float) -> TaskParity:
    pairs, tokenizer = held.theirs.pairs, other.engine.tokenizer
    scoring, answers = loglikelihoods_of(pairs, tokenizer), answers_of(pairs, tokenizer)
    if answers is not None and answers.divergences:
        parted = with_gaps(answers.divergences, pairs, other.engine, "b")
        if first.shared.is_active(first.binder.checkpoints[0]):
            parted = with_gaps(parted, pairs, first.engine, "a")
        answers = Answers(answers.n, answers.n_failed, answers.share_equal, parted, answers.n_sampled)
    failed = sum(pair.a is None for pair in pairs), sum(pair.b is None for pair in pairs)
    spec = next(task for task in held.bound.spec.tasks if task.label == held.label)
    a, b = held.ours, held.theirs.answered
    return TaskParity(
        suite=held.bound.spec.name,
        task=held.label,
        n_requests=len(pairs),
        n_failed_a=failed[0],
        n_failed_b=failed[1],
        first_error=next((pair.error_a or pair.error_b for pair in pairs if pair.failed), None),
        loglikelihoods=scoring,
        answers=answers,
        scores={
            name: (_value(a.metrics, name), _value(b.metrics, name)) for name in {**a.metrics, **b.metrics}
        },
        headline_metric=headline_metric(spec, a.metrics),
        n_samples=len(a.samples),
        n_samples_changed=sum(map(_changed, a.samples, b.samples)),
        n_own_requests=held.theirs.n_own,
        within=not any(failed) and _within(scoring, answers, tolerance),
    )


def _value(metrics: Mapping[str, Metric], name: str) -> float | None:
    return metrics[name].value if name in metrics else None


def _changed(a: Sample, b: Sample) -> bool:
    """A sample that failed on either side never counts as equal."""
    if a.failed or b.failed:
        return True
    return {k: s.value for k, s in a.scores.items()} != {k: s.value for k, s in b.scores.items()}


def _within(scoring: Loglikelihoods | None, answers: Answers | None, tolerance: float) -> bool:
    if scoring is not None and (scoring.max_difference is None or scoring.max_difference > tolerance):
        return False
    return answers is None or all(one.is_tie(tolerance) for one in answers.divergences)
