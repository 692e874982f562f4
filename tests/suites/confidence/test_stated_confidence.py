"""Stated confidence: read strictly; outside 0..1 is unreadable and never clipped."""

from __future__ import annotations

import time

import pytest

from suites.confidence.stated_confidence import read_stated


@pytest.mark.parametrize(
    ("output", "answer", "confidence"),
    [
        ("Answer: Paris\nConfidence: 0.8", "Paris", 0.8),
        ("Answer: Paris, Confidence: 1", "Paris", 1.0),  # the paper's form
        ("answer: Paris\nconfidence: 0", "Paris", 0.0),
        ("**Answer:** Paris\n**Confidence:** 0.75", "Paris", 0.75),
        ("Answer : New York City .\nConfidence : .5.", "New York City .", 0.5),
        ("Sure.\n\nAnswer: 1869\n\nConfidence: 1.0\n", "1869", 1.0),
        ("Answer: `x`\nConfidence: `0.25`", "x", 0.25),
        ("Answer: a\nConfidence: 0.9\nConfidence: 0.90", "a", 0.9),  # said twice, the same
        ("Answer: İstanbul\nConfidence: 0.3", "İstanbul", 0.3),  # a letter that grows in lower case
    ],
)
def test_what_is_in_form_is_read(output, answer, confidence):
    stated = read_stated(output)
    assert (stated.answer, stated.confidence, stated.problem) == (answer, confidence, None)
    assert output[stated.begin : stated.end].strip(" *_`") == answer


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("Confidence: 1.01", "outside 0..1"),
        ("Confidence: -0.1", "outside 0..1"),
        ("Confidence: 8", "outside 0..1"),
        ("Confidence: 85", "outside 0..1"),
        ("Confidence: 100000000000", "outside 0..1"),
        ("Confidence: 85%", "no number"),
        ("Confidence: 0.8/1", "no number"),
        ("Confidence: 0.8" + " " * 100 + "or more", "no number"),
        ("Confidence: 0.8 (high)", "no number"),
        ("Confidence: high", "no number"),
        ("Confidence:", "no number"),
        ("Confidence: nan", "no number"),
        ("Confidence: inf", "no number"),
        ("Confidence: 1e-1", "no number"),
        ("Confidence: ０.８", "no number"),  # digits of another script
        ("Confidence: 0,8", "no number"),
        ("Confidence: 0.5\nConfidence: 0.6", "several"),
        ("Confidence: 0.5\nConfidence: ?", "several"),
        ("I am quite sure", "none"),
        ("", "none"),
    ],
)
def test_what_is_not_is_unreadable(said, problem):
    stated = read_stated(f"Answer: Paris\n{said}")
    assert (stated.answer, stated.confidence, stated.problem) == ("Paris", None, problem)


@pytest.mark.parametrize(
    "output",
    ["", "Paris", "Answer:", "Answer: ** \nConfidence: 0.5", "Answer:\nParis", "Answer: Confidence: 1"],
)
def test_no_answer(output):
    stated = read_stated(output)
    assert (stated.answer, stated.begin, stated.end) == (None, 0, 0)


@pytest.mark.parametrize(
    "unit", ["answer ", "answer: ", "confidence: 1 ", "confidence: 1\n", "* ", "1", "answer:\n"]
)
def test_long_outputs_are_read_at_once(unit):
    began = time.perf_counter()
    read_stated("Answer: x\nConfidence: " + unit * 50_000)
    assert time.perf_counter() - began < 2.0
