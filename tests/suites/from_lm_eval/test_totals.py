"""Errors and intervals of lm-eval's sums: questions on one text, tasks of a group, sums without an error."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from lm_eval.api.metrics import mean

from harness.records import Sample, Score
from suites.from_lm_eval.samples import passage_of
from suites.from_lm_eval.totals import total_tag, total_task


def task(**functions: object) -> SimpleNamespace:
    """What of a task of lm-eval is asked when its metrics are added up."""
    return SimpleNamespace(aggregation=lambda: functions, higher_is_better=dict)


def samples(values: list[float], metric: str = "acc", passages: list[str] | None = None) -> list[Sample]:
    about = passages or [""] * len(values)
    return [
        Sample("t", str(i), "p", scores={metric: Score(value)}, metadata={"passage": text} if text else {})
        for i, (value, text) in enumerate(zip(values, about, strict=True))
    ]


def test_questions_on_one_text_are_a_cluster() -> None:
    """Two texts of two questions, one all right and one all wrong: the error is that of two values, 1 and 0."""
    alone = total_task(task(acc=mean), samples([1.0, 1.0, 0.0, 0.0]), 0).metrics["acc"]
    together = total_task(task(acc=mean), samples([1.0, 1.0, 0.0, 0.0], passages=list("aabb")), 0).metrics[
        "acc"
    ]
    assert (alone.interval, alone.stderr) == ("wilson", pytest.approx((1 / 12) ** 0.5))
    assert (together.interval, together.stderr) == ("cluster-wilson", pytest.approx(0.5))
    assert (together.cluster, alone.cluster) == ("passage", None)


@pytest.mark.parametrize(
    ("doc", "has_text"),
    [
        ({"passage": "A text.", "question": "?"}, True),
        ({"question": "?"}, False),
        ({"context": ["a"]}, False),
        ("x", False),
    ],
)
def test_what_a_question_is_about(doc: object, has_text: bool) -> None:
    assert bool(passage_of(doc)) is has_text


def test_a_sum_without_an_error_gets_one_by_the_bootstrap() -> None:
    """Twice the median of 60 numbers: the error is twice the median's."""
    values = np.random.default_rng(2).normal(size=60)
    twice = task(odd=lambda items: 2 * float(np.median(items)))
    metric = total_task(twice, samples(values.tolist(), "odd"), 0).metrics["odd"]
    draws = np.median(np.random.default_rng(3).choice(values, size=(4000, 60)), axis=1)
    assert metric.value == pytest.approx(2 * np.median(values))
    assert metric.stderr == pytest.approx(2 * draws.std(), rel=0.15)
    assert metric.interval == "bootstrap"
    assert metric.ci95[0] < metric.value < metric.ci95[1]


def test_a_tag_has_the_mean_over_tasks_and_over_samples() -> None:
    totals = {
        "small": total_task(task(acc=mean), samples([1.0, 0.0]), 0),
        "large": total_task(task(acc=mean), samples([1.0] * 6), 0),
    }
    found = total_tag(totals)
    assert list(found) == ["acc", "acc/micro"]
    assert (found["acc"].value, found["acc"].n) == (0.75, 8)
    assert found["acc/micro"].value == pytest.approx(7 / 8)
    # tasks of 2 and 6: sums -3/4 and 3/4 about 7/8; CR2 divides their squares by 3/4 and 1/4
    assert found["acc/micro"].stderr == pytest.approx((0.75**2 / 0.75 + 0.75**2 / 0.25) ** 0.5 / 8)


def test_a_tag_declares_its_metrics_before_anything_is_answered() -> None:
    totals = {name: total_task(task(acc=mean), [], 0, ["acc"]) for name in ("a", "b")}
    assert total_tag(totals)["acc"].value is None
