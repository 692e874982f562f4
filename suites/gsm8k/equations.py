"""Equations of a solution as programs: what each number of them is, and what comes out when the numbers change.

GSM8K's solutions carry their arithmetic in marks, <<48/2=24>>, which a calculator of its authors filled in: Cobbe et
al. 2021, arXiv:2110.14168, appendix C. A solution whose every number can be traced - to a number of the question, to
the result of an earlier equation, or to a word of the question (half, dozen, week) - can be computed again for
other numbers. Everything here is exact: numbers are fractions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from harness.errors import HarnessError

MARK = re.compile(r"<<([^<>=]{1,200})=([^<>=]{1,60})>>")
ANY_MARK = re.compile(r"<<[^<>]{0,300}>>")
TOKEN = re.compile(r"\s*(?:(\d[\d,]*\.?\d*|\.\d+)(%?)|([-+*/()]))")
MOST_DEPTH = 20


class Untraceable(HarnessError):
    """The solution cannot be computed again; the message is the reason, a few words that stand for many problems."""


@dataclass(frozen=True)
class Number:
    """A number as it is written in an equation."""

    value: Fraction


@dataclass(frozen=True)
class Operation:
    """Two parts and what is done with them."""

    sign: str
    left: Expression
    right: Expression


Expression = Number | Operation


class Equation(NamedTuple):
    """One mark of a solution."""

    expression: Expression
    result: Fraction


def number(text: str) -> Fraction:
    """'1,080.50' -> Fraction. Raises: Untraceable: it is no number."""
    try:
        return Fraction(text.replace(",", "").strip().removeprefix("$"))
    except (ValueError, ZeroDivisionError) as exc:
        raise Untraceable("an equation is not plain arithmetic") from exc


def read_equations(solution: str) -> list[Equation]:
    """The equations of a solution, in order, each of them checked.

    Raises: Untraceable: there are none; one is not plain arithmetic, does not hold exactly, or stands outside a mark.
    """
    found = MARK.findall(solution)
    if "<<" not in solution:
        raise Untraceable("the solution has no equations")
    if len(found) != solution.count("<<"):
        raise Untraceable("an equation is not plain arithmetic")
    if ANY_MARK.sub("", solution).count("=") > len(found):
        raise Untraceable("an equation stands outside a mark")
    equations = [Equation(parse(left), number(right)) for left, right in found]
    for expression, result in equations:
        if value_of(expression, lambda leaf: leaf.value) != result:
            raise Untraceable("an equation is rounded or wrong")
    return equations


def parse(text: str) -> Expression:
    """Sums, differences, products and quotients with brackets; '40%' is 40/100.

    Raises: Untraceable: anything else.
    """
    tokens = _tokens(text)
    expression, rest = _sum(tokens, 0)
    if rest:
        raise Untraceable("an equation is not plain arithmetic")
    return expression


def _tokens(text: str) -> list[str | Fraction]:
    tokens: list[str | Fraction] = []
    place = 0
    while place < len(text.rstrip()):
        match = TOKEN.match(text, place)
        if match is None:
            raise Untraceable("an equation is not plain arithmetic")
        digits, percent, sign = match.groups()
        tokens.append(sign if sign else number(digits) / (100 if percent else 1))
        place = match.end()
    return tokens


def _sum(tokens: list[str | Fraction], depth: int) -> tuple[Expression, list[str | Fraction]]:
    return _chain(tokens, "+-", lambda rest: _chain(rest, "*/", lambda deeper: _atom(deeper, depth)))


def _chain(
    tokens: list[str | Fraction],
    signs: str,
    part: Callable[[list[str | Fraction]], tuple[Expression, list[str | Fraction]]],
) -> tuple[Expression, list[str | Fraction]]:
    """Parts joined by signs of one rank, from the left."""
    left, rest = part(tokens)
    while rest and isinstance(rest[0], str) and rest[0] in signs:
        right, after = part(rest[1:])
        left, rest = Operation(rest[0], left, right), after
    return left, rest


def _atom(tokens: list[str | Fraction], depth: int) -> tuple[Expression, list[str | Fraction]]:
    if not tokens or depth > MOST_DEPTH:
        raise Untraceable("an equation is not plain arithmetic")
    first, *rest = tokens
    if isinstance(first, Fraction):
        return Number(first), rest
    if first != "(":
        raise Untraceable("an equation is not plain arithmetic")
    inner, after = _sum(rest, depth + 1)
    if not after or after[0] != ")":
        raise Untraceable("an equation is not plain arithmetic")
    return inner, after[1:]


def value_of(expression: Expression, of: Callable[[Number], Fraction]) -> Fraction:
    """Args: of: the value of a leaf. Raises: Untraceable: a division by zero."""
    if isinstance(expression, Number):
        return of(expression)
    left, right = value_of(expression.left, of), value_of(expression.right, of)
    if expression.sign == "/":
        if right == 0:
            raise Untraceable("an equation divides by zero")
        return left / right
    return {"+": left + right, "-": left - right, "*": left * right}[expression.sign]


def leaves(expression: Expression) -> list[Number]:
    if isinstance(expression, Number):
        return [expression]
    return [*leaves(expression.left), *leaves(expression.right)]


class Source(NamedTuple):
    """What a number of an equation may be."""

    kind: str
    """number (of the question), percent (the same over 100), step (an earlier result), word (stays as it is)."""
    place: int


@dataclass(frozen=True)
class Program:
    """A solution that can be computed again."""

    equations: Sequence[Equation]
    sources: Sequence[Mapping[Fraction, Source]]
    """Per equation: what each number of it is, where it may change; a number that is not there stays."""
    free: frozenset[int]
    """Numbers of the question that may change: the result follows."""

    def run(self, numbers: Sequence[Fraction]) -> list[Fraction]:
        """Results of all equations for these numbers of the question; the last is the answer."""
        results: list[Fraction] = []
        for equation, sources in zip(self.equations, self.sources, strict=True):

            def of(leaf: Number, sources: Mapping[Fraction, Source] = sources) -> Fraction:
                kind, place = sources.get(leaf.value, ("word", 0))
                if kind == "step":
                    return results[place]
                if kind == "word":
                    return leaf.value
                return numbers[place] / (100 if kind == "percent" else 1)

            results.append(value_of(equation.expression, of))
        return results


def trace(
    equations: Sequence[Equation],
    numbers: Sequence[Fraction],
    percents: frozenset[int],
    words: frozenset[Fraction],
) -> Program:
    """Find what every number of the equations is.

    A number that could be two things (a 3 of the question and an earlier result of 3) is none of them that may
    change: whatever feeds either of them stays as it is.

    Args:
        numbers: of the question, in its order.
        percents: places of those that have a percent sign.
        words: values that words of the question stand for.
    Raises: Untraceable: a number that comes from nowhere, or nothing that may change.
    """
    found: list[dict[Fraction, list[Source]]] = []
    for place, equation in enumerate(equations):
        found.append(
            {
                leaf.value: _candidates(leaf.value, equations[:place], numbers, percents, words)
                for leaf in leaves(equation.expression)
            }
        )
    if not all(candidates for step in found for candidates in step.values()):
        raise Untraceable("a number of the solution comes from nowhere")
    feeding = _feeds(found)
    fixed: set[int] = set()
    for step in found:
        for candidates in step.values():
            if len(candidates) > 1:
                fixed |= _numbers_behind(candidates, feeding)
    free = frozenset(feeding[-1] - fixed)
    if not free:
        raise Untraceable("no number of the question can be told from the others")
    sources = [{value: one[0] for value, one in step.items() if len(one) == 1} for step in found]
    return Program(equations, sources, free)


def _candidates(
    value: Fraction,
    before: Sequence[Equation],
    numbers: Sequence[Fraction],
    percents: frozenset[int],
    words: frozenset[Fraction],
) -> list[Source]:
    found = [Source("step", place) for place, equation in enumerate(before) if equation.result == value]
    found += [Source("number", place) for place, one in enumerate(numbers) if one == value]
    found += [Source("percent", place) for place in sorted(percents) if numbers[place] / 100 == value]
    return found + ([Source("word", 0)] if value in words else [])


def _feeds(found: Sequence[Mapping[Fraction, Sequence[Source]]]) -> list[set[int]]:
    """Per equation, the numbers of the question that its result may hang on."""
    feeding: list[set[int]] = []
    for step in found:
        feeding.append(set().union(*(_numbers_behind(candidates, feeding) for candidates in step.values())))
    return feeding


def _numbers_behind(candidates: Sequence[Source], feeding: Sequence[set[int]]) -> set[int]:
    behind: set[int] = set()
    for kind, place in candidates:
        if kind == "step":
            behind |= feeding[place]
        elif kind != "word":
            behind.add(place)
    return behind
