"""An order of items in which every prefix is balanced, for data sets that come sorted by kind; and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TypeVar

T = TypeVar("T")


def deal(piles: Sequence[Sequence[T]]) -> list[T]:
    """First of every pile, then the second of every pile, and so on until all are used up."""
    gone = object()
    return [thing for hand in zip_longest(*piles, fillvalue=gone) for thing in hand if thing is not gone]  # type: ignore[misc]


def batches(things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Runs of `size` things, the last one shorter."""
    return (things[start : start + size] for start in range(0, len(things), size))
