"""Reading an answer and the confidence that it states. Strict: what is not in the form asked for is not guessed."""

from __future__ import annotations

import re
from typing import NamedTuple

from harness.thoughts import answer_place

ANSWER = re.compile(r"\banswer[ \t*_`]{0,4}:[*_`]{0,4}", re.IGNORECASE)
CONFIDENCE = re.compile(r"\bconfidence[ \t*_`]{0,4}:", re.IGNORECASE)
NUMBER = re.compile(r"[+-]?(?:[0-9]{1,12}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})")
"""ASCII digits: float() would take those of other scripts as well."""
LINE_CHARS = 80
"""Read behind "Confidence:"; a longer line holds more than a number."""
MARKS = " \t\r*_`"
"""Emphasis that models put around what they say."""
NONE, SEVERAL, NO_NUMBER, OUTSIDE = "none", "several", "no number", "outside 0..1"


class Stated(NamedTuple):
    """What an output says."""

    answer: str | None
    """None: there is none."""
    begin: int
    """Where the answer stands in the output; 0 and 0 where there is none."""
    end: int
    confidence: float | None
    """In [0, 1]; None: unreadable."""
    problem: str | None
    """Why the confidence is unreadable: none, several, no number, outside 0..1."""


def read_stated(output: str) -> Stated:
    """Read "Answer: ..." up to the end of its line or to "Confidence:", and the number behind that.

    A confidence outside 0..1, a percentage, or two that differ are unreadable: nothing is clipped or converted.
    Thoughts before the answer are not read.
    """
    begin = answer_place(output)
    confidence, problem = _confidence(output, begin)
    opening = ANSWER.search(output, begin)
    if opening is None:
        return Stated(None, 0, 0, confidence, problem)
    line = output.find("\n", opening.end())
    end = len(output) if line < 0 else line
    stated = CONFIDENCE.search(output, opening.end(), end)
    if stated:
        end = stated.start()
    answer = output[opening.end() : end].rstrip(MARKS + ",;")
    if not answer.strip(MARKS):
        return Stated(None, 0, 0, confidence, problem)
    return Stated(answer.strip(MARKS), opening.end(), opening.end() + len(answer), confidence, problem)


def _confidence(output: str, begin: int) -> tuple[float | None, str | None]:
    stated = CONFIDENCE.finditer(output, begin)
    found = [_number(output[match.end() : match.end() + LINE_CHARS]) for match in stated]
    if not found:
        return None, NONE
    if len(set(found)) > 1:
        return None, SEVERAL
    if found[0] is None:
        return None, NO_NUMBER
    return (found[0], None) if 0.0 <= found[0] <= 1.0 else (None, OUTSIDE)


def _number(rest: str) -> float | None:
    """The number that is all that stands in the line, but for a full stop."""
    line = rest.partition("\n")[0]
    said = line.strip(MARKS).removesuffix(".").strip(MARKS)
    return float(said) if len(line) < LINE_CHARS and NUMBER.fullmatch(said) else None
