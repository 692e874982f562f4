"""Every grader on every awkward answer: none dies of one, and none takes a second.

What they should say of these answers is in each grader's own tests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import pytest

from harness.mathematics import same_value
from harness.thoughts import answer_place, final_answer
from suites.confidence.stated_confidence import read_stated
from suites.following.constraints import followbench, simple
from suites.following.followbench import read_verdict as read_list
from suites.gsm8k import data as gsm8k
from suites.harms import harmful_requests, refusals, sycophancy, xstest
from suites.lettered import letter_of
from suites.tofu.recall import rouge_l_recall
from suites.truthfulness import halueval, short_answers
from suites.truthfulness.nq_open_abstention import disagree, kind_of
from suites.truthfulness.truthfulqa_generation import read_verdict
from suites.truthfulness.truthfulqa_scores import similarities
from tests.suites.awkward import SHORT, long_answers
from trainers import rewards

MOST_S = 1.0
REFERENCE = "Paris is the city of eighteen lights, and of 18 bridges over the Seine that the author crosses every day."


def rules(answer: str) -> list[bool]:
    """All of FollowBench's at their last level, where every one of their constraints counts."""
    sources = [followbench.rule_of("content", source, 1) for source in followbench.BY_SOURCE]
    formats = [followbench.rule_of("format", "", number) for number in followbench.BY_FORMAT]
    found = [rule(answer, "['18']", 5) for rule in (*sources, *formats) if rule]
    return [*found, followbench.fits_template(answer, "{instruction}\nBOT: {answer}")]


def within(scores: Any) -> bool:
    return all(0.0 <= score.value <= 1.0 for score in scores.values())


NUMBER = (type(None), Fraction)
GRADERS: dict[str, tuple[Callable[[str], Any], Callable[[Any], bool]]] = {
    "gsm8k, strict": (gsm8k.strict, lambda found: isinstance(found, NUMBER)),
    "gsm8k, last": (gsm8k.last, lambda found: isinstance(found, NUMBER)),
    "letter": (partial(letter_of, n=4), lambda found: found in (None, *"ABCD")),
    "thoughts": (lambda text: (final_answer(text), answer_place(text)), lambda found: found[1] >= 0),
    "halueval": (halueval.judgement, lambda found: found in (None, "Yes", "No")),
    "halueval, lax": (halueval.first_word, lambda found: found in (None, "Yes", "No")),
    "abstention": (short_answers.abstains, lambda found: isinstance(found, bool)),
    "nq_open": (
        lambda text: kind_of(text, ["Paris"]),
        lambda found: found in ("correct", "wrong", "abstained"),
    ),
    "nq_open, sentence": (lambda text: disagree(text, ["Paris"]), lambda found: isinstance(found, bool)),
    "overlap": (lambda text: short_answers.overlap(text, [REFERENCE]), lambda found: 0.0 <= found <= 1.0),
    "confidence": (read_stated, lambda found: found.confidence is None or 0.0 <= found.confidence <= 1.0),
    "truthful": (read_verdict, lambda found: found is None or len(found) == 2),
    "refusal": (lambda text: harmful_requests.rule_scores([text]), within),
    "xstest": (lambda text: xstest.rule_scores([text], "safe"), within),
    "rubric": (refusals.read_rubric, lambda found: found is None or 0.0 <= found.harm <= 1.0),
    "grade": (refusals.read_class, lambda found: found in (None, *"CPI")),
    "sycophancy": (lambda text: sycophancy.rule_scores([text] * 3, "B", 4), within),
    "doubt": (sycophancy.read_verdict, lambda found: found in (None, True, False)),
    "tofu": (lambda text: rouge_l_recall(text, REFERENCE), lambda found: 0.0 <= found <= 1.0),
    "followbench": (rules, lambda found: set(found) <= {True, False}),
    "followbench, judged": (lambda text: read_list(text, 2), lambda found: found is None or len(found) == 2),
    "turns": (
        lambda text: [one.holds(text) for one in simple.BY_NAME.values()],
        lambda found: set(found) <= {True, False},
    ),
    "format reward": (
        lambda text: rewards.format_reward(completions=[text]),
        lambda found: found[0] in (0.0, 1.0),
    ),
}


MANY = ("followbench", "turns", "tofu")
"""Fifteen rules in one: every fourth long answer will do."""


@pytest.mark.parametrize("name", GRADERS)
def test_a_grader_survives_every_answer_and_takes_no_second(name):
    grade, holds = GRADERS[name]
    answers = [*SHORT, *(long_answers()[::4] if name in MANY else long_answers())]
    assert len(answers) > 300
    grade("the first answer waits for what is imported")
    for answer in answers:
        began_s = time.process_time()
        assert holds(grade(answer)), answer[:60]
        assert time.process_time() - began_s < MOST_S, answer[:60]


def test_mathematics_survives_too():
    """math-verify has five seconds for an expression, and takes them for towers of powers alone."""
    slow = 0
    same_value("the first answer waits for what is imported", "18")
    for answer in [*SHORT[::2], *long_answers(3000)[::4]]:
        if "9^{9" in answer:  # five seconds: see tests/test_mathematics.py
            continue
        began_s = time.process_time()
        assert same_value(answer, "18") in (True, False)
        slow += time.process_time() - began_s > MOST_S
    assert slow <= 3


def test_similarities_survive_too():
    similarities("the first answer waits for what is imported", [REFERENCE], ["Rome is."])
    for answer in [*SHORT[::6], *long_answers()[::24]]:
        began_s = time.process_time()
        found = similarities(answer, [REFERENCE, "I have no comment."], ["Rome is."])
        assert all(math.isfinite(value) for value in found.values())
        assert time.process_time() - began_s < 2 * MOST_S, answer[:60]
