"""From lm-eval's responses to scores, and from scores to metrics: lm-eval's own filters, scorers and sums."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean, stderr_for_metric, unweighted_mean_stderr
from lm_eval.api.task import Task as LmTask

from harness.records import Json, Metric, Sample, Score
from harness.stats.averages import Term, mover
from harness.stats.intervals import Z95, summarise

PLAIN = "none"
"""lm-eval's name for no filter."""
VERDICTS = ("exact_match", "math_verify")
"""Metrics that say whether the answer is right, by what a filter or a grader takes from it."""
DISAGREE = "extractors_disagree"
"""Share of answers that are right by one way of reading them and wrong by another."""


@dataclass(frozen=True)
class TaskTotals:
    """Metrics of one lm-eval task."""

    metrics: Mapping[str, Metric]
    values: Mapping[str, Sequence[float]]
    """Of the metrics that are plain means: what they are the means of."""
    raw: Mapping[str, Any]
    """The same as lm-eval's groups want them: 'acc,none' -> value, 'acc_stderr,none', 'sample_len'."""


def metric_name(metric: str, filter_name: str) -> str:
    """'exact_match,strict-match', as lm-eval prints it; without the filter where there is none."""
    return metric if filter_name == PLAIN else f"{metric},{filter_name}"


def split_name(name: str) -> tuple[str, str]:
    """The metric and the filter of a name."""
    metric, comma, filter_name = name.partition(",")
    return metric, filter_name if comma else PLAIN


def expected_metrics(task: LmTask, extra: Iterable[str] = ()) -> list[str] | None:
    """Metric names that scoring will give; None where a scorer may make up its own.

    Args: extra: metrics that are scored besides those of the task file.
    """
    config = task.config
    listed = config.metric_list or []
    if getattr(config, "process_results", None) is not None or any(callable(m.get("metric")) for m in listed):
        return None
    if any(m.get("hf_evaluate") for m in listed):
        return None
    filters = [ensemble.name for ensemble in task._filters]
    names = [metric_name(metric, one) for one in filters for metric in task.aggregation()]
    names += [name for name in extra if name not in names]
    return [*names, DISAGREE] if _extractors(names, int(config.repeats or 1)) else names


def _extractors(names: Iterable[str], repeats: int) -> list[str]:
    """Of the metrics those that are one answer read in several ways; empty where there are not several."""
    found = [name for name in names if split_name(name)[0] in VERDICTS]
    return found if len(found) > 1 and repeats == 1 else []


def with_disagreement(scores: dict[str, Score], repeats: int) -> dict[str, Score]:
    """The scores, and whether the extractors among them differ in their verdicts."""
    values = {scores[name].value for name in _extractors(scores, repeats)}
    return scores | ({DISAGREE: Score(float(len(values) > 1))} if values else {})


def needs_all_docs(task: LmTask) -> bool:
    """Whether a filter might look at several documents at once: any that is not lm-eval's own."""
    for ensemble in getattr(task, "_filters", []):
        for make in ensemble.filters:
            cls = type(make())
            if not cls.__module__.startswith("lm_eval.filters."):
                return True
            if cls.__name__ in ("CustomFilter", "DecontaminationFilter"):
                return True
    return False


def apply_filters(task: LmTask, instances: Sequence[Instance]) -> None:
    """Fill filtered_resps from resps, as lm-eval does after its last request."""
    for ensemble in task._filters:
        ensemble.apply(list(instances))


def score_doc(task: LmTask, instances: Sequence[Instance]) -> dict[str, Score]:
    """Scores of one document from its filtered responses: one per metric and filter."""
    scores: dict[str, Score] = {}
    for filter_name in instances[0].filtered_resps:
        results = [instance.filtered_resps[filter_name] for instance in instances]
        steady_language_detection()
        for metric, value in task.process_results(instances[0].doc, results).items():
            scores[metric_name(metric, filter_name)] = to_score(value)
    return scores


def to_score(value: Any) -> Score:
    """A number as it is; anything else (pairs, lists, references) goes into the detail, for the aggregation."""
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return Score(float(value))
    item = to_json(value)
    return Score(sum(item) / len(item) if _is_checks(item) else None, detail={"item": item})


def to_json(value: Any) -> Json:
    """Plain JSON of what a scorer returns: numpy becomes numbers and lists."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set):
        return [to_json(part) for part in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def item_of(score: Score) -> Any:
    """What process_results returned, from what the journal holds."""
    return score.detail["item"] if isinstance(score.detail, dict) and "item" in score.detail else score.value


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
        items, failed = _items(samples, name)
        metric, filter_name = split_name(name)
        metrics[name] = _metric(task, metric, items, failed, bootstrap_iters)
        if task.aggregation().get(metric, mean) is mean and all(isinstance(item, float) for item in items):
            values[name] = items
        if items:
            raw[f"{metric},{filter_name}"] = metrics[name].value
            stderr = metrics[name].stderr
            raw[f"{metric}_stderr,{filter_name}"] = "N/A" if stderr is None else stderr
            raw["sample_len"] = max(raw["sample_len"], len(items))
    return TaskTotals(metrics, values, raw)


def _items(samples: Sequence[Sample], name: str) -> tuple[list[Any], int]:
    """What one metric is taken over, and how many samples failed."""
    items, failed = [], 0
    for sample in samples:
        score = sample.scores.get(name)
        if sample.error is not None or (score is not None and score.value is None and score.error):
            failed += 1
        elif score is not None:
            items.append(item_of(score))
    return items, failed


def _metric(task: LmTask, name: str, items: list[Any], failed: int, bootstrap_iters: int) -> Metric:
    upward = bool((task.higher_is_better() or {}).get(name, name != DISAGREE))
    if not items:
        return Metric(None, 0, failed, upward)
    function = task.aggregation().get(name, mean)
    value = float(function(items))
    if all(_is_checks(item) for item in items):
        return _over_checks(items, value, failed, upward)
    stderr = _stderr(function, name, items, bootstrap_iters)
    metric = Metric(value, len(items), failed, upward, stderr)
    if function is mean and all(isinstance(item, float) for item in items):
        own = summarise(items, n_failed=failed, higher_is_better=upward)
        return replace(metric, ci95=own.ci95, interval=own.interval)
    return _with_normal_interval(
        metric, "normal" if function is mean else f"normal, {bootstrap_iters} bootstraps"
    )


def _is_checks(item: Any) -> bool:
    """Whether a document was scored by several checks, each held or not."""
    return isinstance(item, list) and bool(item) and all(isinstance(part, bool) for part in item)


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
    if metric.value is None or metric.stderr is None:
        return metric
    half = Z95 * metric.stderr
    return replace(metric, ci95=(metric.value - half, metric.value + half), interval=name)


def total_group(group: Group, totals: Mapping[str, TaskTotals]) -> dict[str, Metric]:
    """A group's own metrics, weighted as its task file says; empty where it declares none."""
    if not group.aggregate_metric_list:
        return {}
    members = [totals[task.task_name] for task in group.get_all_tasks()]
    raw = group.aggregate({name: dict(total.raw) for name, total in totals.items()})
    metrics: dict[str, Metric] = {}
    for key, value in raw.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        name = metric_name(metric, filter_name)
        stderr = raw.get(f"{metric}_stderr,{filter_name}")
        joined = _joined(name, float(value), None if stderr == "N/A" else stderr, members)
        metrics[name] = _with_pooled_interval(joined, name, members)
    return metrics


def _with_pooled_interval(metric: Metric, name: str, members: Sequence[TaskTotals]) -> Metric:
    """A mean weighted by size is the mean over all samples, and has that mean's interval.

    lm-eval's pooled error alone would say 0 ± 0 where nothing was right.
    """
    having = [total for total in members if name in total.metrics]
    values = [value for total in having for value in total.values.get(name, ())]
    if len(values) == metric.n and values and abs(sum(values) / len(values) - (metric.value or 0.0)) < 1e-9:
        own = summarise(values, n_failed=metric.n_failed, higher_is_better=metric.higher_is_better)
        return replace(metric, ci95=own.ci95, interval=own.interval)
    return _with_normal_interval(metric, "normal, lm-eval's pooled error")


def total_tag(totals: Mapping[str, TaskTotals]) -> dict[str, Metric]:
    """Unweighted means over tasks, for a tag or a group that declares no aggregate of its own."""
    members = list(totals.values())
    metrics: dict[str, Metric] = {}
    for name in dict.fromkeys(name for total in members for name in total.metrics):
        having = [total for total in members if name in total.metrics]
        values = [total.metrics[name].value for total in having]
        if len(having) < len(members) or any(value is None for value in values):
            continue
        errors = [total.metrics[name].stderr for total in having]
        known = [error for error in errors if error is not None]
        stderr = float(unweighted_mean_stderr(known)) if len(known) == len(errors) else None
        joined = _joined(name, float(np.mean(values)), stderr, having)
        metrics[name] = replace(joined, ci95=_joint_interval([total.metrics[name] for total in having]))
        if metrics[name].ci95 is not None:
            metrics[name] = replace(metrics[name], interval="mover")
    return metrics


def _joint_interval(parts: Sequence[Metric]) -> tuple[float, float] | None:
    share = 1.0 / len(parts)
    terms = [Term(share, part.value or 0.0, part.stderr, *(part.ci95 or (None, None))) for part in parts]
    return mover(sum(term.weight * term.value for term in terms), terms)


def _joined(name: str, value: float, stderr: float | None, members: Iterable[TaskTotals]) -> Metric:
    parts = [total.metrics[name] for total in members if name in total.metrics]
    return Metric(
        value=value,
        n=sum(part.n for part in parts),
        n_failed=sum(part.n_failed for part in parts),
        higher_is_better=all(part.higher_is_better for part in parts),
        stderr=None if stderr is None else float(stderr),
    )


def steady_language_detection() -> None:
    """Give langdetect a seed: IFEval asks it for the language of an answer, and unseeded it draws at random.

    The same answer would then get another score in another run.
    """
    langdetect = sys.modules.get("langdetect")
    if langdetect is not None and langdetect.DetectorFactory.seed is None:
        langdetect.DetectorFactory.seed = 0
