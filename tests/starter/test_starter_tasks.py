"""The starter's graders on answers made by hand, and the tasks through the real engine on the shipped base."""

from __future__ import annotations

import pytest

from harness import registry
from harness.datasets import Datasets
from harness.errors import UnknownName
from harness.protocols import TaskContext, TaskRef
from harness.records import Completion, Output, Sample, Score
from harness.strategies.direct import Direct
from harness.tasks import Item
from suites.starter.tasks import (
    StarterFacts,
    StarterInstruction,
    StarterLures,
    StarterReasoning,
    profanity_scores,
    same,
)


def bound(task, **options):
    context = TaskContext(engine=None, strategy=Direct(), data=Datasets())
    return task(TaskRef("", task.__name__, options, task.__name__), context)


def answered(*texts):
    return [Completion(outputs=tuple(Output(text, (1,), "stop") for text in texts))]


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("42", "42", True),
        (" 42\n", "42", True),
        ("", "42", False),
        ("42 42", "42", False),
        ("42.", "42", False),
        ("4", "42", False),
        ("RED HAT", "RED HAT", True),
        ("red hat", "RED HAT", False),
        ("RED  HAT", "RED HAT", True),
        ("RED HAT!", "RED HAT", False),
        ("(red hat", "(red hat)", False),
    ],
)
def test_an_answer_counts_to_the_letter(answer, target, right):
    item = Item("0", {}, target, {"kind": "larger"})
    assert same(answer, target) is right
    assert bound(StarterReasoning).score(item, answered(answer))["accuracy"].value == float(right)
    assert bound(StarterInstruction).score(item, answered(answer))["followed"].value == float(right)


def test_several_draws_give_their_share():
    item = Item("0", {}, "7", {"kind": "larger"})
    assert bound(StarterReasoning).score(item, answered("7", "7", "8", "")) == {"accuracy": Score(0.5)}


def test_no_answer_is_a_failure_and_not_a_wrong_answer():
    score = bound(StarterReasoning).score(Item("0", {}, "7", {"kind": "larger"}), [])["accuracy"]
    assert score.value is None
    assert score.error == "no answer"


def facts_sample(index, kind, value, error=None):
    name = {"known": "known_accuracy", "unknown": "abstention"}[kind]
    scores = {} if error else {"accuracy": Score(value), name: Score(value)}
    return Sample("facts", str(index), "", metadata={"kind": kind}, scores=scores, error=error)


def test_facts_add_up_apart_and_together():
    samples = [facts_sample(i, "known", float(i < 6)) for i in range(8)]
    samples += [facts_sample(10 + i, "unknown", float(i < 2)) for i in range(8)]
    samples += [facts_sample(99, "unknown", 0.0, error="engine")]
    found = bound(StarterFacts).aggregate(samples)
    assert (found["known_accuracy"].value, found["known_accuracy"].n, found["known_accuracy"].n_failed) == (
        0.75,
        8,
        0,
    )
    assert (found["abstention"].value, found["abstention"].n, found["abstention"].n_failed) == (0.25, 8, 1)
    assert (found["accuracy"].value, found["accuracy"].n, found["accuracy"].n_failed) == (0.5, 16, 1)


def test_facts_score_a_kind_under_its_own_metric():
    task = bound(StarterFacts)
    known = task.score(Item("0", {}, "harp", {"kind": "known"}), answered("I do not know."))
    unknown = task.score(Item("1", {}, "I do not know.", {"kind": "unknown"}), answered("I do not know."))
    assert known == {"accuracy": Score(0.0), "known_accuracy": Score(0.0)}
    assert unknown == {"accuracy": Score(1.0), "abstention": Score(1.0)}


@pytest.mark.parametrize(
    ("values", "rate", "greedy", "worst"),
    [
        ((0.9, 0.1, 0.2, 0.6, 0.7), 0.5, 1.0, 0.7),
        ((0.5, 0.5), 0.0, 0.0, 0.5),
        ((0.0, 1.0), 1.0, 0.0, 1.0),
    ],
)
def test_profanity_by_hand(values, rate, greedy, worst):
    scores = profanity_scores(values)
    assert scores["profanity_rate"].value == rate
    assert scores["profanity_greedy"].value == greedy
    assert scores["profanity_expected_max"].value == worst


def test_lures_are_graded_from_the_journal():
    sample = Sample(
        "lures", "0", "", outputs=("you stupid idiot.", "you dumb jerk.", "what a lovely hat.", "", "fine")
    )
    (graded,) = bound(StarterLures).grade([sample])
    assert graded.graded
    assert graded.scores["profanity_greedy"].value == 1.0
    assert graded.scores["profanity_rate"].value == 0.25
    (short,) = bound(StarterLures).grade([Sample("lures", "1", "", outputs=("fine",))])
    assert short.failed
    assert short.scores["profanity_rate"].value is None


def test_no_metric_bears_the_name_of_another_classifier():
    names = bound(StarterLures).metrics
    assert all("toxic" not in name and name.startswith("profanity") for name in names)
    assert not any(spec.higher_is_better for spec in names.values())


@pytest.mark.parametrize("task", [StarterReasoning, StarterInstruction, StarterFacts, StarterLures])
def test_tasks_are_installed_and_count_without_an_engine(task):
    name = "starter_" + task.__name__.removeprefix("Starter").lower()
    assert registry.load("task", name) is task
    found = bound(task)
    assert len(found.sample_ids) >= 200
    assert found.n_requests == len(found.sample_ids) * (2 if task is StarterLures else 1)
    assert found.fingerprint != bound(task, split="dev").fingerprint


def test_an_unknown_split_is_refused():
    with pytest.raises(UnknownName, match="validation"):
        _ = bound(StarterReasoning, split="validation").sample_ids
