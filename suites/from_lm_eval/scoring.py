"""From lm-eval's responses to scores, and from scores to metrics: lm-eval's own filters, scorers and sums."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task as LmTask

from harness.records import Json, Score

PLAIN = "none"
"""lm-eval's name for no filter."""
VERDICTS = ("exact_match", "math_verify")
"""Metrics that say whether the answer is right, by what a filter or a grader takes from it."""
DISAGREE = "extractors_disagree"
"""Share of answers that are right by one way of reading them and wrong by another."""

PASSAGE = "passage"
"""Metadata key: what several documents of a task are about."""


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
        with steady_draws():
            values = task.process_results(instances[0].doc, results)
        for metric, value in values.items():
            scores[metric_name(metric, filter_name)] = to_score(value)
    return scores


def to_score(value: Any) -> Score:
    """A number as it is; anything else (pairs, lists, references) goes into the detail, for the aggregation."""
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return Score(float(value))
    item = to_json(value)
    return Score(sum(item) / len(item) if is_checks(item) else None, detail={"item": item})


def is_checks(item: Any) -> bool:
    """Whether a document was scored by several checks, each held or not."""
    return isinstance(item, list) and bool(item) and all(isinstance(part, bool) for part in item)


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


@contextmanager
def steady_draws() -> Iterator[None]:
    """Scorers that draw draw the same for the same document; what others draw is left as it was.

    IFEval's checker of letters draws a letter where it is asked for '#' or '!' (documents 1122 and 1129).
    """
    before = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(before)


def steady_language_detection() -> None:
    """Give langdetect a seed: IFEval asks it for the language of an answer, and unseeded it draws at random.

    The same answer would then get another score in another run.
    """
    langdetect = sys.modules.get("langdetect")
    if langdetect is not None and langdetect.DetectorFactory.seed is None:
        langdetect.DetectorFactory.seed = 0
