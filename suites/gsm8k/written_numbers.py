"""Numbers of a word problem: where they stand, which of them may be another one, and what its words stand for."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

NUMERAL = re.compile(r"(?<![\w.,])(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?![\d])")
TIME_OF_DAY = re.compile(r"^\s?(?:a\.?m\b|p\.?m\b|o'?clock)", re.IGNORECASE)
STUCK_BEFORE = re.compile(r"[/:\-–—^#]$")
STUCK_AFTER = re.compile(r"[/:^A-Za-z]|[-–—]\s?\d")
"""A numeral beside one of these is part of something else: a fraction, a time, a range, an ordinal."""
MOST = {"day": (7, 31), "hour": (24,), "minute": (60,), "second": (60,), "month": (12,), "week": (52,)}
"""Units with a natural limit: a number up to it stays up to it."""
YEARS = range(1500, 2101)
WORDS: dict[str, tuple[str, ...]] = {
    "half|halves|halved": ("2", "1/2"),
    "twice|double|doubles|doubled|pair|pairs|both|couple|two": ("2",),
    "thrice|triple|triples|tripled|three": ("3",),
    "quarter|quarters": ("4", "1/4", "25", ".25"),
    "quadruple|four": ("4",),
    "one|a|an|each|every|per|single": ("1",),
    "five": ("5",), "six": ("6",), "seven": ("7",), "eight": ("8",), "nine": ("9",), "ten": ("10",),
    "eleven": ("11",), "twelve": ("12",), "fifteen": ("15",), "twenty": ("20",), "thirty": ("30",),
    "forty": ("40",), "fifty": ("50",), "hundred": ("100",), "thousand": ("1000",),
    "dozen|dozens": ("12",),
    "week|weeks|weekly|weekday|weekdays|weekend|weekends|daily": ("7", "5", "2", "52", "4"),
    "day|days": ("24", "7", "365", "30"),
    "hour|hours|hourly|minute|minutes|second|seconds": ("60", "24", "3600"),
    "month|months|monthly": ("12", "30", "4"),
    "year|years|yearly|annual|annually|annum": ("12", "52", "365", "10", "1"),
    "decade|decades": ("10",),
    "century|centuries|percent|percentage|cent|cents|dollar|dollars|meter|meters|centimeters|cm": ("100", "1"),
    "foot|feet|inch|inches": ("12",),
    "yard|yards": ("3", "36"),
    "pound|pounds|ounce|ounces": ("16",),
    "gallon|gallons|quart|quarts|pint|pints|cup|cups": ("4", "2", "16", "8"),
    "kilometer|kilometers|km|kilogram|kilograms|kg|gram|grams|liter|liters|ml|ton|tons": ("1000", "2000"),
    "nickel|nickels": ("5", ".05"), "dime|dimes": ("10", ".1"), "penny|pennies": ("1", ".01"),
    "square|rectangle|rectangular|perimeter|sides": ("2", "4"), "triangle": ("3", "2"),
    "twins": ("2",), "triplets": ("3",),
}  # fmt: skip
"""Words of a question -> numbers that a solution may bring in with them."""
PARTS = {"third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
PART = re.compile(rf"\b(?:an?|one|two|three|four|five|seven|\d+)[ -]({'|'.join(PARTS)})s?\b")
"""'A third' is a number that may be taken, 'the third day' is none."""
LEAST = 4
"""Smaller numbers stay: a 2 of the solution is too often another 2 than that of the question."""
BY_WORD = {word: tuple(map(Fraction, values)) for key, values in WORDS.items() for word in key.split("|")}


class Written(NamedTuple):
    """A numeral of a question."""

    start: int
    end: int
    value: Fraction
    decimals: int
    grouped: bool
    """Thousands are set off with commas."""
    percent: bool
    may_vary: bool
    most: Fraction | None
    """Its natural limit; None: it has none."""


def numerals(question: str) -> list[Written]:
    """All numerals of a question, in order."""
    return [_written(question, match) for match in NUMERAL.finditer(question)]


def _written(question: str, match: re.Match[str]) -> Written:
    whole, decimals = match.group(1), match.group(2) or ""
    before = question[: match.start()].removesuffix("$")
    after = question[match.end() : match.end() + 24]
    value = Fraction(whole.replace(",", "") + decimals)
    percent = after.lstrip().startswith(("%", "percent"))
    joined = bool(STUCK_BEFORE.search(before) or STUCK_AFTER.match(after) or TIME_OF_DAY.match(after))
    year = not decimals and "," not in whole and value in YEARS
    extreme = value < LEAST or (percent and value >= 100)
    return Written(
        start=match.start(),
        end=match.end(),
        value=value,
        decimals=max(len(decimals) - 1, 0),
        grouped="," in whole,
        percent=percent,
        may_vary=not (joined or year or extreme or len(decimals) > 3),
        most=Fraction(99) if percent else _most(value, after),
    )


def _most(value: Fraction, after: str) -> Fraction | None:
    unit = re.match(r"[\s-]?(?:more |full |straight )?([a-z]+?)s?\b", after)
    limits = MOST.get(unit.group(1), ()) if unit else ()
    return next((Fraction(limit) for limit in limits if value <= limit), None)


def written_as(value: Fraction, like: Written) -> str:
    """A value in the form of the numeral whose place it takes."""
    return f"{float(value):{',' if like.grouped else ''}.{like.decimals}f}"


def word_values(question: str) -> frozenset[Fraction]:
    """Numbers that words of the question stand for; with a percent sign also 1 and 100."""
    words = re.findall(r"[a-z]+", question.lower())
    found = {value for word in words for value in BY_WORD.get(word, ())}
    for part in PART.findall(question.lower()):
        found |= {Fraction(PARTS[part]), Fraction(1, PARTS[part])}
    if "%" in question:
        found |= {Fraction(1), Fraction(100)}
    if "$" in question:
        found.add(Fraction(100))
    return frozenset(found)
