"""Choices of a question as a suite file gives them: a column with a list, or templates; and which one is right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import ascii_uppercase

from harness.errors import BadColumns
from harness.protocols import Row
from harness.records import Json
from harness.templates import shown, template


def read_choices(choices: str | Sequence[str], row: Row) -> list[str]:
    """The choices of one row, at least two.

    Raises: BadColumns: the column holds no list, or too few or too many for letters.
    """
    if isinstance(choices, str):
        cell = row.get(choices)
        if not isinstance(cell, list):
            raise BadColumns(
                f"column {choices!r} holds {type(cell).__name__} where a list of choices is wanted; "
                "name columns one by one: choices: ['{a}', '{b}']"
            )
        found = [shown(item, choices) for item in cell]
    else:
        found = [template(text).fill(row) for text in choices]
    if not 2 <= len(found) <= len(ascii_uppercase):
        raise BadColumns(f"{len(found)} choices; give 2 to {len(ascii_uppercase)}")
    return found


def right_choice(target: Json, choices: Sequence[str]) -> int:
    """Place of the right choice: the target is its text, its letter, or its number from 0.

    Raises: BadColumns: it is none of them.
    """
    text = str(target).strip()
    if not isinstance(target, int):
        same = [i for i, choice in enumerate(choices) if choice.strip() == text]
        if same:
            return same[0]
        if len(text) == 1 and text.upper() in ascii_uppercase[: len(choices)]:
            return ascii_uppercase.index(text.upper())
    if text.isdecimal() and int(text) < len(choices):
        return int(text)
    raise BadColumns(
        f"the target {text[:40]!r} is none of the {len(choices)} choices; give a choice's text, its letter, or its "
        "number from 0"
    )


def lettered(choices: Sequence[str]) -> str:
    """The choices under one another, each with its letter."""
    return "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, choices, strict=False))


def mean_chance(numbers: Iterable[int]) -> float | None:
    """Score of guessing. Args: numbers: choices of each question."""
    shares = [1 / number for number in numbers]
    return sum(shares) / len(shares) if shares else None
