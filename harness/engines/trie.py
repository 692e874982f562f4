"""Token sequences as a tree of shared prefixes: what many requests begin with is computed once. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

Ids = tuple[int, ...]

MIN_SAVED = 16
"""Tokens that a branching must save: below that, one more block of attention costs more than it saves."""


class Piece(NamedTuple):
    """A run of tokens that some sequences share; it sees the pieces above it and itself."""

    parent: int
    """Index of the piece above, -1 for none."""
    start: int
    """Position of its first token in every sequence that holds it."""
    ids: Ids

    @property
    def end(self) -> int:
        return self.start + len(self.ids)


class Tree(NamedTuple):
    """Pieces in depth-first order: parents come first, and what hangs below a piece follows it without a gap."""

    pieces: list[Piece]
    after: list[int]
    """Per piece: index of the first piece behind everything below it."""
    last: list[int]
    """Per sequence, in the order they were given: the piece that holds its last token."""

    def path(self, piece: int) -> list[int]:
        """From the root down to a piece."""
        found = []
        while piece >= 0:
            found.append(piece)
            piece = self.pieces[piece].parent
        return found[::-1]


class _Span(NamedTuple):
    """Sorted sequences first..stop that agree up to depth, of which a piece holds the first `held` tokens."""

    first: int
    stop: int
    held: int
    parent: int


def build_tree(sequences: Sequence[Ids], longest: int, min_saved: int = MIN_SAVED) -> Tree:
    """The tree of a set of sequences; it depends on the set alone, not on its order.

    Args:
        sequences: none of them empty; equal ones end in the same piece.
        longest: tokens of the longest piece; longer runs become chains of pieces.
    """
    unique = sorted({ids: None for ids in sequences}, key=_sort_key)
    builder = _Builder(unique, longest, min_saved)
    builder.run()
    place = dict(zip(unique, builder.last, strict=True))
    pieces = builder.pieces
    after = list(range(1, len(pieces) + 1))
    for index in reversed(range(len(pieces))):
        parent = pieces[index].parent
        if parent >= 0:
            after[parent] = max(after[parent], after[index])
    return Tree(pieces, after, [place[ids] for ids in sequences])


def _sort_key(ids: Ids) -> bytes:
    # big-endian bytes compare like the numbers, and a thousand times faster than tuples do
    return np.asarray(ids, dtype=">u4").tobytes()


def shared_lengths(ordered: Sequence[Ids]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(n - 1,) tokens that neighbours begin with in common."""
    arrays = [np.asarray(ids, dtype=np.int64) for ids in ordered]
    return np.array([_common(a, b) for a, b in pairwise(arrays)], dtype=np.int64)


def _common(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> int:
    size = min(len(a), len(b))
    differs = a[:size] != b[:size]
    first = int(differs.argmax()) if size else 0
    return first if size and differs[first] else size


class _Builder:
    """Walks the sorted sequences depth first, with a stack of its own: trees may be deeper than Python's."""

    def __init__(self, ordered: list[Ids], longest: int, min_saved: int) -> None:
        self.ordered = ordered
        self.longest = longest
        self.min_saved = min_saved
        self.shared = shared_lengths(ordered)
        self.pieces: list[Piece] = []
        self.last = [-1] * len(ordered)

    def run(self) -> None:
        stack = [_Span(0, len(self.ordered), 0, -1)] if self.ordered else []
        while stack:
            span = stack.pop()
            if span.stop - span.first == 1:
                end = len(self.ordered[span.first])
                self.last[span.first] = self._add(span.first, span.held, end, span.parent)
                continue
            stack.extend(reversed(self._split(span)))

    def _split(self, span: _Span) -> list[_Span]:
        """A piece for what all of a span share, if it is worth one, and the spans below."""
        inner = self.shared[span.first : span.stop - 1]
        depth = int(inner.min())
        cuts = np.nonzero(inner == depth)[0] + span.first + 1
        ends_here = len(self.ordered[span.first]) == depth
        held, parent = span.held, span.parent
        if ends_here or (depth - held) * len(cuts) >= self.min_saved:
            parent = self._add(span.first, held, depth, parent)
            held = depth
        edges = [span.first, *cuts.tolist(), span.stop]
        if ends_here:  # the shortest of them ends where the others branch
            self.last[span.first] = parent
            edges = edges[1:]
        return [_Span(a, b, held, parent) for a, b in pairwise(edges)]

    def _add(self, sequence: int, start: int, end: int, parent: int) -> int:
        """Pieces for tokens start..end of a sequence; returns the lowest."""
        ids = self.ordered[sequence]
        for at in range(start, end, self.longest):
            self.pieces.append(Piece(parent, at, ids[at : min(at + self.longest, end)]))
            parent = len(self.pieces) - 1
        return parent
