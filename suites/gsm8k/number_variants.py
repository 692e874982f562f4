"""The same word problem with other numbers, and its answer computed again.

A variant keeps what the story hangs on: every number stays on its side of every other one and of every intermediate
result (nobody gives away more than there is, the cheaper shop stays the cheaper one), what was whole stays whole,
hours stay within the day, percentages within the hundred. What cannot be varied so is left out, with the reason.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

from suites.gsm8k.equations import Program, Untraceable, number, read_equations, trace
from suites.gsm8k.written_numbers import Written, numerals, word_values, written_as

TRIES = 600
HUNDREDTHS = 100
"""Results have two decimals at most."""
ANSWER = "####"
"""Stands before the result in a solution of GSM8K."""


@dataclass(frozen=True)
class Variant:
    """A question in other words or numbers, and its answer."""

    question: str
    answer: Fraction


def answer_of(solution: str) -> Fraction:
    """The result of a solution. Raises: Untraceable: it has none."""
    _, mark, tail = solution.rpartition(ANSWER)
    if not mark:
        raise Untraceable("the solution has no result")
    return number(tail.strip())


def with_other_numbers(question: str, solution: str, rng: random.Random) -> Variant:
    """A variant with other numbers; the story, and what is asked, stay.

    Raises: Untraceable: there is none that is safe.
    """
    equations = read_equations(solution)
    if equations[-1].result != answer_of(solution):
        raise Untraceable("the answer is not the result of the last equation")
    written = numerals(question)
    values = [one.value for one in written]
    percents = frozenset(place for place, one in enumerate(written) if one.percent)
    program = trace(equations, values, percents, word_values(question))
    chosen = sorted(place for place in program.free if written[place].may_vary)
    if not chosen:
        raise Untraceable("no number of the question may be another one")
    before = _Shape.of(values, program.run(values))
    for _ in range(TRIES):
        drawn = list(values)
        for place in chosen:
            drawn[place] = _draw(written[place], rng)
        found = _answer(program, drawn, before)
        if found is not None and drawn != values:
            return Variant(_rewritten(question, written, drawn), found)
    raise Untraceable("no other numbers keep the story as it is")


def _draw(like: Written, rng: random.Random) -> Fraction:
    """Another number of about the size, as round as the one whose place it takes."""
    step = _step(like)
    low, high = like.value * Fraction(1, 2), like.value * Fraction(17, 10) + 2 * step
    if like.most is not None:
        high = min(high, like.most)
    first = max(-(-low // step), -(-2 // step), 1)
    return step * rng.randint(int(first), max(int(first), int(high // step)))


def _step(like: Written) -> Fraction:
    if like.decimals:
        tail = Fraction(5, 100) if like.decimals == 2 and (like.value * 20).denominator == 1 else None
        return tail or Fraction(1, 10**like.decimals)
    rounds = [(1000, 100), (100, 10), (40, 5)]
    return next(
        (Fraction(step) for size, step in rounds if like.value >= size and not like.value % step), Fraction(1)
    )


class _Shape(NamedTuple):
    """What must not change about the numbers of a problem."""

    order: tuple[int, ...]
    """Of every two of them, and of each and zero: which is larger."""
    whole: tuple[bool, ...]
    answer: Fraction

    @classmethod
    def of(cls, numbers: Sequence[Fraction], results: Sequence[Fraction]) -> _Shape:
        whole = tuple(value.denominator == 1 for value in results)
        return cls(_order(numbers, results), whole, results[-1])


def _order(numbers: Sequence[Fraction], results: Sequence[Fraction]) -> tuple[int, ...]:
    return tuple((a > b) - (a < b) for a, b in combinations([Fraction(0), *numbers, *results], 2))


def _answer(program: Program, numbers: Sequence[Fraction], before: _Shape) -> Fraction | None:
    """The answer for these numbers; None where the problem would be another one, or the answer the same."""
    try:
        results = program.run(numbers)
    except Untraceable:
        return None
    odd = any(HUNDREDTHS % value.denominator for value in results)
    parted = any(then and now.denominator != 1 for now, then in zip(results, before.whole, strict=True))
    if odd or parted or results[-1] == before.answer:
        return None
    return results[-1] if _order(numbers, results) == before.order else None


def _rewritten(question: str, written: Sequence[Written], numbers: Sequence[Fraction]) -> str:
    parts, place = [], 0
    for one, value in zip(written, numbers, strict=True):
        parts += [question[place : one.start], question[one.start : one.end]]
        if value != one.value:
            parts[-1] = written_as(value, one)
        place = one.end
    return "".join([*parts, question[place:]])
