"""A suite in one of its profiles, and the one number that its metrics make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.protocols import TaskRef
from harness.records import Headline, Metric
from harness.stats.averages import Term, weighted_mean
from harness.stats.intervals import Z95


@dataclass(frozen=True)
class TaskSpec:
    """One task, ready to be loaded."""

    label: str
    ref: TaskRef
    metric: str | None = None
    """Headline metric; None: the first that the task reports."""
    higher_is_better: bool | None = None
    chance: float | None = None
    weight: float = 1.0
    limit: int | None = None
    """Limit of the suite file for this task; the user's --limit goes before it."""
    most: int | None = None
    """What the profile itself gives this task, e.g. samples per subtask: --limit takes fewer, never more."""
    headline: bool = True
    """False: run and reported, and no part of the suite's one number."""

    def samples(self, asked: int | None) -> int | None:
        """How many samples of the task, or of each of its subtasks, are run; None: all. asked: the user's --limit."""
        if asked is None:
            return self.limit
        return asked if self.most is None else min(asked, self.most)


@dataclass(frozen=True)
class SuiteSpec:
    """A suite in one profile."""

    name: str
    version: str
    description: str
    profile: str
    headline: str
    higher_is_better: bool | None
    """None: as the metrics of its tasks say; up, where they do not agree."""
    tasks: tuple[TaskSpec, ...]
    limit: int | None = None
    sizes: tuple[str, ...] = ()
    """How much of the tasks the profile runs; the user's --limit takes its place."""
    notes: tuple[str, ...] = ()
    """What a reader must know beside the score, e.g. 'quick profile: first 100 samples per task'."""

    def said_sizes(self, asked: int | None) -> tuple[str, ...]:
        """How much of the tasks is run, in words. asked: the user's --limit."""
        if asked is None:
            return self.sizes
        fewer = [f"{task.most} of {task.label}" for task in self.tasks if task.most and task.most < asked]
        kept = f", {', '.join(fewer)} (of each subtask, where a task has some)" if fewer else ""
        return (f"{self.profile} profile, limited to {asked} samples per task{kept}",)


def headline(spec: SuiteSpec, metrics: Mapping[str, Mapping[str, Metric]]) -> Headline:
    """The suite's one number: weighted mean over tasks of each one's headline metric. Pure.

    A metric whose direction is not the headline's enters as 1 - value, so it must be a share of [0, 1].
    The interval joins the tasks' own intervals by MOVER, which gives back the task's own where there is
    one task, and the normal interval of the mean where all are normal. Tasks with headline=False do not enter.

    Args: metrics: task label -> metric name -> Metric.
    Returns: value None, with the reason, where any task has no value; no task is dropped in silence.
    """
    entering = [task for task in spec.tasks if task.headline]
    found = [_task_metric(task, metrics.get(task.label, {})) for task in entering]
    upward = _direction(spec, entering, found)
    blank = Headline(spec.headline, None, None, None, upward, 0, 0)
    counted = replace(
        blank,
        n=sum(metric.n for metric in found if isinstance(metric, Metric)),
        n_failed=sum(metric.n_failed for metric in found if isinstance(metric, Metric)),
    )
    terms: list[Term] = []
    for task, metric in zip(entering, found, strict=True):
        term = metric if isinstance(metric, str) else _term(task, metric, upward)
        if isinstance(term, str):
            return replace(counted, reason=term)
        terms.append(term)
    if not terms:
        return replace(counted, reason="no task enters the headline")
    joined = weighted_mean(terms, is_share=all(isinstance(m, Metric) and m.unit is None for m in found))
    return replace(counted, value=joined.value, stderr=joined.stderr, ci95=joined.ci95)


def _direction(spec: SuiteSpec, entering: Sequence[TaskSpec], found: Sequence[Metric | str]) -> bool:
    """Whether more is better: as the suite says, else as its metrics do; one with a unit (ms) by itself is as it is."""
    known = [
        (task, metric) for task, metric in zip(entering, found, strict=True) if isinstance(metric, Metric)
    ]
    upward = [_upward(task, metric) for task, metric in known]
    if spec.higher_is_better is None or (len(found) == 1 and known and known[0][1].unit is not None):
        return not upward or any(upward)
    return spec.higher_is_better


def _upward(task: TaskSpec, metric: Metric) -> bool:
    return metric.higher_is_better if task.higher_is_better is None else task.higher_is_better


def headline_metric(task: TaskSpec, metrics: Mapping[str, Metric]) -> str | None:
    """Name of the metric that enters the headline; None where the task reports none."""
    return task.metric if task.metric is not None else next(iter(metrics), None)


def with_chance(spec: SuiteSpec, metrics: Mapping[str, Mapping[str, Metric]]) -> dict[str, dict[str, Metric]]:
    """The metrics, the main one of each task with the score of guessing that the suite gives, if any. Pure."""
    found = {label: dict(own) for label, own in metrics.items()}
    for task in spec.tasks:
        own = found.get(task.label, {})
        name = headline_metric(task, own)
        if task.chance is not None and name in own:
            own[name] = replace(own[name], chance=task.chance)
    return found


def headline_name(spec: SuiteSpec, chosen: Mapping[str, str]) -> str:
    """The headline's name, with the metrics that the suite leaves to its tasks: 'toxicity: profanity_rate'.

    A task whose metric depends on the classifier or the judge at hand must not have two numbers under one name.

    Args: chosen: task label -> its headline metric.
    """
    left_open = dict.fromkeys(chosen[t.label] for t in spec.tasks if t.metric is None and t.label in chosen)
    return f"{spec.headline}: {', '.join(left_open)}" if left_open else spec.headline


def _task_metric(task: TaskSpec, metrics: Mapping[str, Metric]) -> Metric | str:
    """The task's headline metric, or why there is none."""
    name = headline_metric(task, metrics)
    if name is None:
        return f"task {task.label!r} reports no metric"
    if name not in metrics:
        return f"task {task.label!r} has no metric {name!r}; it has {', '.join(metrics) or 'none'}"
    return metrics[name]


def _term(task: TaskSpec, metric: Metric, higher_is_better: bool) -> Term | str:
    """What a task adds to the headline, oriented like it; or why it cannot."""
    if metric.value is None or not math.isfinite(metric.value):
        return (
            f"task {task.label!r} could not be scored ({metric.n_failed} samples failed, {metric.n} scored)"
        )
    low, high = metric.ci95 or (None, None)
    if low is None and metric.stderr is not None:
        low, high = metric.value - Z95 * metric.stderr, metric.value + Z95 * metric.stderr
    if _upward(task, metric) == higher_is_better:
        return Term(task.weight, metric.value, metric.stderr, low, high, metric.n)
    if metric.unit is not None or not 0.0 <= metric.value <= 1.0:
        return (
            f"task {task.label!r} points the other way and is no share of [0, 1]; give it a suite of its own"
        )
    if low is not None and high is not None:
        low, high = 1.0 - high, 1.0 - low
    return Term(task.weight, 1.0 - metric.value, metric.stderr, low, high, metric.n)
