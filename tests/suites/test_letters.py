"""Letters of choices: ours against inspect_ai's reader, through which inspect_evals' MMLU and ARC go."""

from __future__ import annotations

import time

import pytest

from suites.lettered import letter_of
from tests.suites.awkward import SHORT

STATED = [
    *(f"ANSWER: {letter}" for letter in "ABCD"), *(f"answer: {letter}" for letter in "abcd"),
    *(f"Answer: {letter}." for letter in "ABCD"), *(f"Because so.\n\nANSWER: {letter}\n" for letter in "ABCD"),
    *(f"Answer: ({letter})" for letter in "ABCD"), *(f"Answer: **{letter}**" for letter in "ABCD"),
    *(f"ANSWER: {wrong}\nNo, wait.\nANSWER: {right}" for wrong, right in ("AB", "BA", "CD", "DC")),
    *(f"ANSWER : {letter}" for letter in "ABCD"), "ANSWER:\nC", "ANSWER: E", "ANSWER: 1", "ANSWER:", "ANSWER",
    "", " ", "\n", "I do not know.", "ANSWER: Ｂ", "ANSWER: Β", "ANSWER: ?",
    "The right one is the second.", "ANSWER: none of these",
]  # fmt: skip


def by_inspect(completion: str, choices: int) -> str | None:
    from types import SimpleNamespace

    from inspect_ai.solver._multiple_choice import parse_answers

    state = SimpleNamespace(output=SimpleNamespace(completion=completion), choices=range(choices))
    return next(iter(parse_answers(state, multiple_correct=False)), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", STATED)
def test_a_stated_answer_is_read_as_inspect_reads_it(answer):
    assert letter_of(answer, 4) == by_inspect(answer, 4)


def test_enough_are_compared():
    assert len(STATED) >= 30


@pytest.mark.parametrize(
    ("answer", "ours"),
    [
        ("B", "B"),  # the instruction asks for the letter alone; inspect's for a line with ANSWER
        ("(B)", "B"),
        ("**B**", "B"),
        ("B) because", "B"),
        ("B.\n", "B"),
        ("The answer is (B).", "B"),
        ("Option B", "B"),
        ("the correct choice is c.", "C"),
        ("<think>ANSWER: A</think>B", "B"),
        ("<think>ANSWER: A", None),  # thinking that never ended is no answer
        ("The answer is a cat.", None),
        ("The answer is a matter of taste; option b", "B"),
        ("A cat.", None),
        ("A person cannot be determined", None),
        ("The answer is A cat.", None),
        ("A\nThe first of them.", "A"),
        ("A", "A"),
        ("A: a cat", "A"),
        ("A because it is first", "A"),
        ("A is right", "A"),
        ("B it is", "B"),
        ("I think B", "B"),
        ("I would say (C)", "C"),
        ("I\u2019d say it's D.", "D"),
        ("I think a cat", None),
        ("Because of this", None),
        ("A's are common", None),
        ("The answer isn't B", None),
        ("E", None),
        ("b", None),
        ("I", None),
        ("Ｂ", None),
    ],
)
def test_other_forms(answer, ours):
    assert letter_of(answer, 4) == ours


def test_any_answer_gives_a_letter_that_was_shown_or_none():
    assert {letter_of(answer, 4) for answer in SHORT} == {None, "A", "B"}
    assert sum(letter_of(answer, 4) is not None for answer in SHORT) > 10


@pytest.mark.parametrize(
    "text", ["x answer" + " " * 50_000 + "!!!!", "answer " * 20_000, "A " * 50_000, "(" * 50_000]
)
def test_long_answers_are_read_at_once(text):
    began = time.perf_counter()
    letter_of(text, 4)
    assert time.perf_counter() - began < 1.0
