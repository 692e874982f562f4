"""From the scores of lm-eval's documents to metrics: its own sums, each with an error and an interval by name."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lm_eval.api.group import Group
from lm_eval.api.metrics import mean, stderr_for_metric
from lm_eval.api.task import Task as LmTask

from harness.records import Metric, Sample
from harness.stats.averages import macro_average
from harness.stats.intervals import Z95, summarise
from harness.stats.resampling import bootstrap_rows
from suites.from_lm_eval.scoring import DISAGREE, PASSAGE, is_checks, item_of, metric_name, split_name

REPLICATES = 1000
FEWEST_REPLICATES = 100
BOOTSTRAP_ITEMS = 5_000_000
"""Most items that a bootstrap reads in all."""


@dataclass(frozen=True)
class TaskTotals:
    """Metrics of one lm-eval task."""

    metrics: Mapping[str, Metric]
    values: Mapping[str, Sequence[float]]
    """Of the metrics that are plain means: what they are the means of."""
    raw: Mapping[str, Any]
    """The same as lm-eval's groups want them: 'acc,none' -> value, 'acc_stderr,none', 'sample_len'."""


def total_task(
    task: LmTask, samples: Sequence[Sample], bootstrap_iters: int, names: Sequence[str] = ()
) -> TaskTotals:
    """Metrics of one lm-eval task over its samples: lm-eval's aggregation functions and standard errors.

    Args: names: metrics to report even where no sample has them (value None).
    """
    found = dict.fromkeys([*(name for sample in samples for name in sample.scores), *names])
    metrics: dict[str, Metric] = {}
    values: dict[str, list[float]] = {}
    raw: dict[str, Any] = {"sample_len": 0}
    for name in found:
        items, passages, failed = _items(samples, name)
        metric, filter_name = split_name(name)
        metrics[name] = _metric(task, metric, Items(items, passages, failed), bootstrap_iters)
        if task.aggregation().get(metric, mean) is mean and all(isinstance(item, float) for item in items):
            values[name] = items
        if items:
            raw[f"{metric},{filter_name}"] = metrics[name].value
            stderr = metrics[name].stderr
            raw[f"{metric}_stderr,{filter_name}"] = "N/A" if stderr is None else stderr
            raw["sample_len"] = max(raw["sample_len"], len(items))
    return TaskTotals(metrics, values, raw)


class Items(NamedTuple):
    """What one metric is taken over."""

    items: list[Any]
    passages: list[str]
    """Of each: the text that it shares with others, or its own name."""
    failed: int


def _items(samples: Sequence[Sample], name: str) -> Items:
    found = Items([], [], 0)
    failed = 0
    for sample in samples:
        score = sample.scores.get(name)
        if sample.error is not None or (score is not None and score.value is None and score.error):
            failed += 1
        elif score is not None:
            found.items.append(item_of(score))
            found.passages.append(str(sample.metadata.get(PASSAGE, sample.sample_id)))
    return found._replace(failed=failed)


def _metric(task: LmTask, name: str, over: Items, bootstrap_iters: int) -> Metric:
    items, passages, failed = over
    upward = bool((task.higher_is_better() or {}).get(name, name != DISAGREE))
    if not items:
        return Metric(None, 0, failed, upward)
    function = task.aggregation().get(name, mean)
    value = float(function(items))
    if all(is_checks(item) for item in items):
        return _over_checks(items, value, failed, upward)
    if function is mean and all(isinstance(item, float) for item in items):
        own = summarise(items, n_failed=failed, higher_is_better=upward, clusters=passages)
        return replace(own, value=value, cluster=_shared(passages))
    metric = Metric(value, len(items), failed, upward, _stderr(function, name, items, bootstrap_iters))
    if metric.stderr is None:
        return _bootstrapped(metric, function, over)
    return _with_normal_interval(
        metric, "normal" if function is mean else f"normal, {bootstrap_iters} bootstraps"
    )


def _shared(passages: Sequence[str]) -> str | None:
    """Name of the metadata by which samples belong together; None where each has a text of its own."""
    return PASSAGE if len(set(passages)) < len(passages) else None


def _bootstrapped(metric: Metric, function: Any, over: Items) -> Metric:
    """A metric for which lm-eval has no error, with that of a bootstrap over its documents."""

    def statistic(rows: Any) -> float:
        return float(function([over.items[int(row)] for row in rows]))

    replicates = BOOTSTRAP_ITEMS // max(len(over.items), 1)
    if len(over.items) < 2 or replicates < FEWEST_REPLICATES:
        return metric
    with _in_process():
        found = bootstrap_rows(
            range(len(over.items)),  # type: ignore[arg-type]
            statistic,
            clusters=over.passages,
            replicates=min(replicates, REPLICATES),
        )
    return replace(metric, stderr=found.stderr, ci95=found.ci95, interval=found.interval)


def _over_checks(items: list[Any], value: float, failed: int, upward: bool) -> Metric:
    """lm-eval's value, with an interval over checks (n of them) in which those of one document are a cluster.

    lm-eval has no standard error for it. A sum of its own that is not the share of checks stays without.
    """
    flat = [(float(held), document) for document, checks in enumerate(items) for held in checks]
    held, documents = zip(*flat, strict=True)
    own = summarise(held, n_failed=failed, higher_is_better=upward, clusters=documents)
    if own.value is None or abs(own.value - value) > 1e-9:
        return Metric(value, len(items), failed, upward)
    return replace(own, value=value)


def _stderr(function: Any, name: str, items: list[Any], iters: int) -> float | None:
    """lm-eval's standard error; None where it has none."""
    draws = min(iters, 100) if name in ("bleu", "chrf", "chrf++", "ter") else iters
    estimate = stderr_for_metric(metric=function, bootstrap_iters=draws)
    if estimate is None or len(items) < 2:
        return None
    with _in_process():
        return float(estimate(items))


@contextlib.contextmanager
def _in_process() -> Iterator[None]:
    """lm-eval's bootstrap forks a process per core and prints; the numbers are the same without."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before


def _with_normal_interval(metric: Metric, name: str) -> Metric:
    if metric.value is None or not metric.stderr:  # an error of 0 is no variance seen, not certainty
        return metric
    half = Z95 * metric.stderr
    return replace(metric, ci95=(metric.value - half, metric.value + half), interval=name)


def total_group(group: Group, totals: Mapping[str, TaskTotals]) -> dict[str, Metric]:
    """A group's own metrics, weighted as its task file says, and the plain means over its tasks as NAME/macro.

    Empty where it declares none.
    """
    if not group.aggregate_metric_list:
        return {}
    members = [totals[task.task_name] for task in group.get_all_tasks()]
    raw = group.aggregate({name: dict(total.raw) for name, total in totals.items()})
    metrics: dict[str, Metric] = {}
    means: dict[str, Metric] = {}
    for key, value in raw.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        name = metric_name(metric, filter_name)
        stderr = raw.get(f"{metric}_stderr,{filter_name}")
        joined = _joined(name, float(value), None if stderr == "N/A" else stderr, members)
        metrics[name] = _with_pooled_interval(joined, name, members)
        means[f"{name}/macro"] = macro_average([total.metrics[name] for total in _having(name, members)])
    return metrics | means


def _with_pooled_interval(metric: Metric, name: str, members: Sequence[TaskTotals]) -> Metric:
    """Error and interval of a group's mean: over all samples (micro), those of a task being a cluster, or over tasks.

    lm-eval's pooled error takes the tasks' samples for independent, and would say 0 ± 0 where nothing was right.
    """
    micro, macro = (
        _micro(name, members),
        macro_average([total.metrics[name] for total in _having(name, members)]),
    )
    for own in (micro, macro):
        if own is not None and own.value is not None and abs(own.value - (metric.value or 0.0)) < 1e-9:
            return replace(
                metric, stderr=own.stderr, ci95=own.ci95, interval=own.interval, cluster=own.cluster
            )
    return _with_normal_interval(metric, "normal, lm-eval's pooled error")


def _having(name: str, members: Sequence[TaskTotals]) -> list[TaskTotals]:
    return [total for total in members if name in total.metrics]


def _micro(name: str, members: Sequence[TaskTotals]) -> Metric | None:
    """Mean over the samples of all tasks, a task's samples being a cluster; None where it is no mean of samples."""
    having = _having(name, members)
    parts = [total.values.get(name) for total in having]
    if not parts or any(
        part is None or len(part) != total.metrics[name].n for part, total in zip(parts, having, strict=True)
    ):
        return None
    pairs = [(value, number) for number, part in enumerate(parts) for value in part or ()]
    mean = summarise(
        [value for value, _ in pairs],
        n_failed=sum(total.metrics[name].n_failed for total in having),
        higher_is_better=all(total.metrics[name].higher_is_better for total in having),
        clusters=[number for _, number in pairs] if len(parts) > 1 else None,
    )
    return replace(mean, cluster="subtask") if len(parts) > 1 else mean


def total_tag(totals: Mapping[str, TaskTotals]) -> dict[str, Metric]:
    """Means over tasks, for a tag or a group without an aggregate of its own; those over samples are NAME/micro."""
    members = list(totals.values())
    means: dict[str, Metric] = {}
    pooled: dict[str, Metric] = {}
    for name in dict.fromkeys(name for total in members for name in total.metrics):
        if len(_having(name, members)) < len(members):
            continue
        means[name] = macro_average([total.metrics[name] for total in members])
        micro = _micro(name, members)
        if micro is not None:
            pooled[f"{name}/micro"] = micro
    return means | pooled


def _joined(name: str, value: float, stderr: float | None, members: Iterable[TaskTotals]) -> Metric:
    parts = [total.metrics[name] for total in members if name in total.metrics]
    return Metric(
        value=value,
        n=sum(part.n for part in parts),
        n_failed=sum(part.n_failed for part in parts),
        higher_is_better=all(part.higher_is_better for part in parts),
        stderr=None if stderr is None else float(stderr),
    )
