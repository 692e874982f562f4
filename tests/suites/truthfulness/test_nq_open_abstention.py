"""NQ-open with abstention: kinds of answers, and scores under penalties by hand."""

from __future__ import annotations

import pytest

from harness.records import Completion, Output, Sample
from suites.truthfulness.nq_open_abstention import disagree, kind_of, load
from tests.suites.conftest import ref, run_whole


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("Paris", ["Paris"], "correct"),
        ("The paris.", ["Rome", "Paris"], "correct"),
        ("Rome", ["Paris"], "wrong"),
        ("It is Paris", ["Paris"], "wrong"),
        ("I don't know", ["Paris"], "abstained"),
        ("I'm not sure, but I think it is Paris", ["Paris"], "wrong"),
        ("unknown", ["unknown"], "correct"),
        ("unknown", ["Paris"], "abstained"),
        ("", ["Paris"], "wrong"),
    ],
)
def test_kinds_of_answers(answer, references, expected):
    assert kind_of(answer, references) == expected


def test_extractors_disagree_on_a_sentence_that_holds_the_answer():
    assert disagree("It is Paris", ["Paris"])
    assert not disagree("Paris", ["Paris"])
    assert not disagree("Rome", ["Paris"])
    assert not disagree("I don't know about Paris", ["Paris"])


def test_scores_at_penalties_by_hand(mirror, context):
    task = load(ref("nq"), context(mirror, engine=None, limit=4))
    items = list(task._items.values())
    answers = [str(items[0].target), "surely wrong", "also wrong", "I don't know"]
    samples = []
    for item, answer in zip(items, answers, strict=True):
        scores = task.score(item, [Completion(outputs=(Output(answer, (1,), "stop"),))])
        samples.append(Sample("nq", item.id, "?", scores=scores))
    metrics = task.aggregate([*samples, Sample("nq", "x", "?", error="gone")])
    assert {name: metric.value for name, metric in metrics.items()} == {
        "score_penalty_2": pytest.approx((1 - 2 - 2) / 4),
        "score_penalty_1": pytest.approx((1 - 1 - 1) / 4),
        "score_penalty_0.5": pytest.approx((1 - 0.5 - 0.5) / 4),
        "score_penalty_0": 0.25,
        "correct": 0.25,
        "wrong": 0.5,
        "abstained": 0.25,
        "accuracy_when_answering": pytest.approx(1 / 3),
        "extractors_disagree": 0.0,
    }
    assert metrics["accuracy_when_answering"].n == 3
    assert {metric.n_failed for metric in metrics.values()} == {1}
    assert metrics["score_penalty_1"].interval == "t"
    assert list(metrics) == list(task.metric_names)


def test_always_abstaining_gives_nothing_at_any_penalty(mirror, context):
    task = load(ref("nq"), context(mirror, engine=None, limit=30))
    silent = [Completion(outputs=(Output("I don't know.", (1,), "stop"),))]
    samples = [Sample("nq", i.id, "?", scores=task.score(i, silent)) for i in task._items.values()]
    metrics = task.aggregate(samples)
    assert {metrics[f"score_penalty_{p}"].value for p in ("0", "0.5", "1", "2")} == {0.0}
    assert metrics["abstained"].value == 1.0
    assert metrics["accuracy_when_answering"].value is None


def test_no_example_is_a_question_of_the_data(mirror, context):
    from suites.confidence import calibration
    from suites.truthfulness import nq_open_abstention

    asked = {item.doc["question"] for item in load(ref("nq"), context(mirror, engine=None))._items.values()}
    shown = [example[0] for example in (*nq_open_abstention.EXAMPLES, *calibration.EXAMPLES)]
    assert not asked & set(shown)


@pytest.mark.parametrize("chat", ["auto", "off"])
def test_a_run_on_the_mirror(mirror, context, chat):
    task = load(ref("nq"), context(mirror, limit=3, chat=chat))
    samples = run_whole(task)
    assert [s.error for s in samples] == [None] * 3
    assert samples[0].prompt.endswith("\nAnswer:") is (chat == "off")
    assert "I don't know" in samples[0].prompt
    assert task.aggregate(samples)["correct"].n == 3
