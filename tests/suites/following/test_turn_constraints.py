"""Constraints over turns: each check by hand, dialogues that can be followed, the figures, a run on the mirror."""

from __future__ import annotations

import pytest

from harness import registry
from harness.records import Completion, Output, Sample
from suites.following.constraints.simple import BY_NAME, PAIRS, TOGETHER
from suites.following.turn_constraints import checks_of
from tests.suites.conftest import ref, run_whole

HOLDS = {
    "lowercase": ("all small, 1 and é", "One capital"),
    "uppercase": ("ALL LARGE, 1 AND É", "ALL LARGE BUt one"),
    "no_commas": ("none at all", "one, there"),
    "three_commas": ("a, b, c, d", "a, b, c"),
    "short": ("word " * 40, "word " * 41),
    "long": ("word " * 60, "word " * 59),
    "end_more": ('So it goes. Is there more"', "Is there more to say"),
    "end_all": ("It went. That is all.", "That is all I know."),
    "begin_well": ("Well, it is so.", "Wells are deep."),
    "begin_so": ("So it is.", "so it is"),
    "three_bullets": ("* a\n* b\n- c", "* a\n* b\n*c"),
    "two_bullets": ("Here:\n * a\n * b", "* a"),
    "quoted": (' "all of it" ', '"part" of it'),
    "titled": ("<<A title>>\nText", "Text <<A title>>"),
    "no_the": ("other theories", "The one"),
    "two_the": ("the one and The other", "the other theories"),
}
BOTH = {
    ("lowercase", "no_commas"): "all small and plain",
    ("lowercase", "short"): "all small",
    ("uppercase", "three_commas"): "A, B, C, D",
    ("no_commas", "end_all"): "So it went. That is all.",
    ("short", "end_more"): "Is there more",
    ("three_bullets", "no_the"): "* a\n* b\n* c",
    ("short", "begin_well"): "Well done",
    ("long", "end_all"): "word " * 60 + "That is all",
    ("quoted", "no_commas"): '"plain"',
    ("begin_so", "long"): "So " + "word " * 60,
    ("uppercase", "titled"): "<<TITLE>> TEXT",
    ("two_bullets", "two_the"): "* the\n* the",
}


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_check_by_hand(name):
    yes, no = HOLDS[name]
    assert BY_NAME[name].holds(yes)
    assert not BY_NAME[name].holds(no)


def test_pairs_exclude_each_other_and_others_go_together():
    texts = [text for pair in HOLDS.values() for text in pair] + list(BOTH.values())
    for first, second in PAIRS:
        assert not any(first.holds(text) and second.holds(text) for text in texts)
    assert set(BOTH) == set(TOGETHER)
    for names, text in BOTH.items():
        assert all(BY_NAME[name].holds(text) for name in names)


def bind(mirror, context, **fields):
    return registry.load("task", "turn_constraints")(
        ref("turn_constraints", max_tokens=6), context(mirror, **fields)
    )


def answered(texts) -> list[Completion]:
    return [Completion(outputs=(Output(text, (1,), "stop"),)) for text in texts]


def dialogue(task, kind: str, wanted: tuple[str, ...]):
    return next(
        item
        for item in task._items.values()
        if item.metadata["kind"] == kind and tuple(item.metadata["in_force"][-1]) == wanted
    )


def test_an_added_constraint_joins_the_first(mirror, context):
    task = bind(mirror, context)
    item = dialogue(task, "add", ("lowercase", "no_commas"))
    assert item.metadata["in_force"] == [["lowercase"]] * 2 + [["lowercase", "no_commas"]] * 2
    said = item.doc["turns"]
    assert "Write only in lowercase" in said[0]
    assert "lowercase" not in said[1] + said[2] + said[3]
    assert "Do not use any commas." in said[2]
    texts = ["small, 1", "Large", "small, 2", "small"]
    score = task.score(item, answered(texts))["dialogue_accuracy"]
    assert score.value == 0
    assert score.detail == [
        {"lowercase": True},
        {"lowercase": False},
        {"lowercase": True, "no_commas": False},
        {"lowercase": True, "no_commas": True},
    ]
    assert task.score(item, answered(["a", "b", "c", "d"]))["dialogue_accuracy"].value == 1
    assert task.score(item, answered(["a", " ", "c", "d"]))["dialogue_accuracy"].value == 0


def test_the_figures_by_hand(mirror, context):
    task = bind(mirror, context)
    keep = dialogue(task, "keep", ("no_commas",))
    add = dialogue(task, "add", ("lowercase", "no_commas"))
    samples = [
        Sample("t", item.id, "?", scores=task.score(item, answered(texts)), metadata=item.metadata)
        for item, texts in ((keep, ["a", "b", "c, d", "e"]), (add, ["A", "b", "c", "d, e"]))
    ]
    samples.append(Sample("t", "gone", "?", error="died", metadata={"kind": "keep"}))
    metrics = {name: metric for name, metric in task.aggregate(samples).items()}
    values = {name: (metric.value, metric.n) for name, metric in metrics.items()}
    assert values == {
        "dialogue_accuracy": (0.0, 2),
        "turn_accuracy": (pytest.approx(5 / 8), 8),  # keep: 1 1 0 1; add: 0 1 1 0
        "stated": (pytest.approx(2 / 3), 3),  # no_commas yes; lowercase no, no_commas yes
        "kept": (pytest.approx(5 / 7), 7),  # keep: 1 0 1; lowercase: 1 1 1; no_commas: 0
        "kept_if_stated": (0.5, 4),  # keep: 1 0 1; no_commas: 0
        "changed": (0.5, 2),
        "turn_1": (0.5, 2),
        "turn_2": (1.0, 2),
        "turn_3": (0.5, 2),
        "turn_4": (0.5, 2),
    }
    assert {metric.n_failed for metric in metrics.values()} == {1}


def test_a_replaced_constraint_is_said_anew():
    turns = [{"short": True}, {"short": False}, {"long": True}, {"long": True}]
    assert checks_of(turns) == [(True, 1.0, True), (False, 0.0, True), (True, 1.0, True), (False, 1.0, True)]


def test_dialogues_depend_on_the_seed_alone(mirror, context):
    first, again, other = (bind(mirror, context, seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    kinds = [item.metadata["kind"] for item in first._items.values()]
    assert [kinds.count(kind) for kind in ("keep", "add", "replace")] == [40, 40, 40]


def test_a_run_on_the_mirror(mirror, context):
    task = bind(mirror, context, limit=6)
    samples = run_whole(task)
    assert len(samples) == 6
    assert all(s.error is None and len(s.outputs) == 4 for s in samples)
    assert all(len(s.metadata["messages"]) == 8 for s in samples)
    metrics = task.aggregate(samples)
    assert metrics["turn_accuracy"].n == 24
    assert metrics["turn_1"].n == 6
