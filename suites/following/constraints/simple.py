"""Constraints that one line states and one line checks, in the manner of IFEval (Zhou et al. 2023, arXiv:2311.07911).

They come in pairs that no answer can follow both of, so that one can take the other's place in a dialogue.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from suites.following.constraints.sentences import words

BULLET = re.compile(r"^[ \t]*[*-][ \t]", re.MULTILINE)


class Constraint(NamedTuple):
    """Something that an answer does or does not do."""

    name: str
    text: str
    """How the user says it, ending in a full stop."""
    holds: Callable[[str], bool]
    """Of a non-blank answer."""


def _ends_with(phrase: str) -> Callable[[str], bool]:
    return lambda answer: answer.strip().rstrip('."!*').lower().endswith(phrase.lower())


def _begins_with(word: str) -> Callable[[str], bool]:
    return lambda answer: words(answer)[:1] == [word]


def _bullets(count: int) -> Callable[[str], bool]:
    return lambda answer: len(BULLET.findall(answer)) == count


def _lower(answer: str) -> bool:
    return not any(character.isupper() for character in answer)


def _upper(answer: str) -> bool:
    return not any(character.islower() for character in answer)


def _quoted(answer: str) -> bool:
    text = answer.strip()
    return len(text) > 1 and text.startswith('"') and text.endswith('"')


def _titled(answer: str) -> bool:
    return re.match(r"<<[^<>\n]+>>", answer.strip()) is not None


PAIRS: tuple[tuple[Constraint, Constraint], ...] = (
    (
        Constraint("lowercase", "Write only in lowercase letters, no capital letters at all.", _lower),
        Constraint("uppercase", "Write only in CAPITAL LETTERS, no lowercase letters at all.", _upper),
    ),
    (
        Constraint("no_commas", "Do not use any commas.", lambda answer: "," not in answer),
        Constraint("three_commas", "Use at least three commas.", lambda answer: answer.count(",") >= 3),
    ),
    (
        Constraint("short", "Use at most 40 words.", lambda answer: len(words(answer)) <= 40),
        Constraint("long", "Use at least 60 words.", lambda answer: len(words(answer)) >= 60),
    ),
    (
        Constraint("end_more", 'End with the exact words "Is there more".', _ends_with("Is there more")),
        Constraint("end_all", 'End with the exact words "That is all".', _ends_with("That is all")),
    ),
    (
        Constraint("begin_well", 'Begin with the word "Well".', _begins_with("Well")),
        Constraint("begin_so", 'Begin with the word "So".', _begins_with("So")),
    ),
    (
        Constraint("three_bullets", "Give exactly 3 bullet points, each on a line that begins with *.", _bullets(3)),
        Constraint("two_bullets", "Give exactly 2 bullet points, each on a line that begins with *.", _bullets(2)),
    ),
    (
        Constraint("quoted", "Wrap the whole answer in double quotation marks.", _quoted),
        Constraint("titled", "Begin with a title in double angle brackets, such as <<my title>>.", _titled),
    ),
    (
        Constraint("no_the", 'Do not use the word "the".', lambda a: "the" not in words(a.lower())),
        Constraint("two_the", 'Use the word "the" at least twice.', lambda a: words(a.lower()).count("the") >= 2),
    ),
)  # fmt: skip
BY_NAME = {constraint.name: constraint for pair in PAIRS for constraint in pair}
TOGETHER: tuple[tuple[str, str], ...] = (
    ("lowercase", "no_commas"),
    ("lowercase", "short"),
    ("uppercase", "three_commas"),
    ("no_commas", "end_all"),
    ("short", "end_more"),
    ("three_bullets", "no_the"),
    ("short", "begin_well"),
    ("long", "end_all"),
    ("quoted", "no_commas"),
    ("begin_so", "long"),
    ("uppercase", "titled"),
    ("two_bullets", "two_the"),
)
"""Pairs that one answer can follow both of."""
