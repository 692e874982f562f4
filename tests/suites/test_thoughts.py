"""What a model thinks aloud is no answer: not to any native task that reads answers."""

from __future__ import annotations

import pytest

from harness import registry
from harness.records import Completion, Output
from harness.thoughts import TAGS, answer_place
from suites.confidence.stated_confidence import NONE, read_stated
from suites.lettered import letter_of
from suites.truthfulness.truthfulqa_generation import answer_of
from tests.suites.conftest import ref


@pytest.mark.parametrize("tags", TAGS)
def test_where_an_answer_begins(tags):
    assert answer_place("plain") == 0
    assert answer_place(f"{tags.open}a{tags.close} b") == len(f"{tags.open}a{tags.close}")
    assert answer_place(f" {tags.open}a") == len(f" {tags.open}a")
    assert answer_place(f"he wrote {tags.open} once") == 0


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("name", "metric"), [("nq_open_abstention", "correct"), ("invented_entities", "accuracy_on_real")]
)
def test_thoughts_of_short_answers_are_not_read(mirror, context, name, metric):
    task = registry.load("task", name)(ref(name), context(mirror, engine=None))
    item = next(item for item in task._items.values() if item.metadata.get("real", True))

    def value(text):
        return task.score(item, [Completion(outputs=(Output(text, (1,), "stop"),))])[metric].value

    assert value(f"<think>I don't know. Or do I?</think>\n{item.target}") == 1.0
    assert value(f"<think>I think it is {item.target}") == 0.0


def test_thoughts_of_other_answers_are_not_read():
    assert answer_of("<think>A: Rome</think>A: Paris") == "Paris"
    assert letter_of("<think>The answer is A</think>The answer is B", 4) == "B"
    stated = read_stated("<think>Answer: Rome\nConfidence: 0.1</think>Answer: Paris\nConfidence: 0.9")
    assert (stated.answer, stated.confidence, stated.begin) == ("Paris", 0.9, 50)
    unfinished = read_stated("<think>Answer: Rome\nConfidence: 0.1")
    assert (unfinished.answer, unfinished.problem) == (None, NONE)
