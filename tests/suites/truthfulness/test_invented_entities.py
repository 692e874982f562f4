"""Invented entities: names by the seed alone, as many real ones, and that always abstaining is no virtue."""

from __future__ import annotations

from collections import Counter

import pytest

from harness.errors import BadPlan
from harness.records import Completion, Output, Sample
from suites.truthfulness.invented_entities import EXAMPLES, QUESTIONS, invented, known_entities, load
from suites.truthfulness.short_answers import abstains, holds
from tests.suites.conftest import ref, run_whole


def test_names_hang_on_seed_and_number_alone():
    assert invented(300, 0)[:50] == invented(50, 0)
    assert invented(50, 0) != invented(50, 1)
    names = [entity.name for entity in invented(1000, 0)]
    assert len(set(names)) == 1000
    assert not set(names) & {entity.name for entity in known_entities()}


def test_real_ones_are_as_many_of_each_kind_and_answerable():
    real = known_entities()
    assert Counter(entity.kind for entity in real) == {"person": 36, "place": 36, "work": 36}
    assert Counter(e.kind for e in invented(len(real), 0)) == Counter(e.kind for e in real)
    assert len({entity.name for entity in real}) == len(real)
    for entity in real:
        assert entity.kind in QUESTIONS
        for answer in entity.answers:
            assert holds(f"It is {answer}, I believe.", entity.answers)
            assert not abstains(answer)
        assert not holds(entity.question, entity.answers), entity  # the question must not give it away
    assert not {name for _, _, name, _ in EXAMPLES} & {entity.name for entity in real}


def test_the_first_items_are_of_every_kind(context):
    task = load(ref("invented_entities"), context(None, engine=None, limit=6))
    kinds = [(item.metadata["kind"], item.metadata["real"]) for item in task._items.values()]
    assert kinds == [(kind, real) for real in (False, True) for kind in QUESTIONS]


def grade(task, answer):
    samples = []
    for item in task._items.values():
        scores = task.score(item, [Completion(outputs=(Output(answer(item), (1,), "stop"),))])
        samples.append(Sample(task.name, item.id, "?", scores=scores, metadata=item.metadata))
    return {name: metric.value for name, metric in task.aggregate(samples).items()}


def test_four_characters_by_hand(context):
    task = load(ref("invented_entities"), context(None, engine=None))
    honest = grade(task, lambda item: item.target)
    silent = grade(task, lambda item: "I don't know.")
    boaster = grade(task, lambda item: "It is in Atlantis, of course.")
    assert honest == {
        "balanced": 1.0,
        "abstention_on_invented": 1.0,
        "answered_on_real": 1.0,
        "accuracy_on_real": 1.0,
    }
    assert silent == {
        "balanced": 0.5,
        "abstention_on_invented": 1.0,
        "answered_on_real": 0.0,
        "accuracy_on_real": 0.0,
    }
    assert boaster == {
        "balanced": 0.5,
        "abstention_on_invented": 0.0,
        "answered_on_real": 1.0,
        "accuracy_on_real": 0.0,
    }


@pytest.mark.parametrize("n", [0, -1, 2.5, "ten", True, 10**9])
def test_a_number_of_entities_that_cannot_be_made_is_refused(context, n):
    task = load(ref("invented_entities", n_invented=n), context(None, engine=None))
    with pytest.raises(BadPlan, match="n_invented"):
        _ = task.sample_ids


def test_a_seed_is_part_of_the_fingerprint(context):
    one, other = (load(ref("x"), context(None, engine=None, seed=seed)).fingerprint for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize("chat", ["auto", "off"])
def test_a_run(context, chat):
    task = load(ref("invented_entities", n_invented=3), context(None, limit=8, chat=chat))
    samples = run_whole(task)
    assert [s.error for s in samples] == [None] * 8
    assert samples[0].prompt.endswith("\nAnswer:") is (chat == "off")
    metrics = task.aggregate(samples)
    assert (metrics["abstention_on_invented"].n, metrics["answered_on_real"].n) == (3, 5)
    assert metrics["balanced"].chance == 0.5
