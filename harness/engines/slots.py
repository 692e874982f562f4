"""Keys and values of the rows that are being answered: one slot a row, written in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from harness.engines.attention import How, Mask, Sight, Sums, attend, make_mask
from harness.engines.passes import Kept

GROWTH = 1.5
FIRST_CAPACITY = 64
"""Tokens a slot is made for at least; slots grow as answers do."""


class Slots:
    """Tails of rows: what follows the prefix that a row shares with others. Live rows are slots 0..n - 1.

    A slot holds (G, C, D) keys and values per layer. The last row moves into the place of one that is done, so no
    other row is ever copied.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lengths: list[int] = []
        """Tokens in each live slot."""
        self.starts: list[int] = []
        """Position of each slot's first token in its sequence."""
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __len__(self) -> int:
        return len(self.lengths)

    def reserve(self, rows: int, tokens: int, like: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Room for so many rows of so many tokens; like: (G, L, D) keys and values of every layer."""
        if not self._layers:
            size = max(tokens, FIRST_CAPACITY)
            self._layers = [(_room(rows, size, k), _room(rows, size, v)) for k, v in like]
            return
        had_rows, had = self._layers[0][0].shape[0], self._layers[0][0].shape[2]
        if rows <= had_rows and tokens <= had:
            return
        rows = max(rows, had_rows)
        size = had if tokens <= had else max(tokens, int(had * GROWTH))
        self._layers = [(self._grown(k, rows, size), self._grown(v, rows, size)) for k, v in self._layers]

    def _grown(self, old: torch.Tensor, rows: int, size: int) -> torch.Tensor:
        new = old.new_empty((rows, old.shape[1], size, old.shape[3]))
        live, used = len(self), max(self.lengths, default=0)
        new[:live, :, :used] = old[:live, :, :used]
        new[:live, :, used:] = 0
        new[live:] = 0
        return new

    def add(self, start: int, parts: Sequence[Kept]) -> None:
        """A new live row that begins with the given pieces, which follow each other."""
        slot, at = len(self.lengths), 0
        for part in parts:
            for (keys, values), (k, v) in zip(self._layers, part.layers, strict=True):
                keys[slot, :, at : at + part.length] = k
                values[slot, :, at : at + part.length] = v
            at += part.length
        self.lengths.append(at)
        self.starts.append(start)

    def remove(self, slot: int) -> None:
        """Free a slot; the last live row moves into it."""
        last = len(self.lengths) - 1
        if slot != last:
            used = self.lengths[last]
            for keys, values in self._layers:
                keys[slot, :, :used] = keys[last, :, :used]
                values[slot, :, :used] = values[last, :, :used]
            self.lengths[slot], self.starts[slot] = self.lengths[last], self.starts[last]
        self.lengths.pop()
        self.starts.pop()

    def clear(self) -> None:
        """Forget all rows and give their memory back."""
        self.lengths.clear()
        self.starts.clear()
        self._layers.clear()

    def write(self, layer: int, at: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Put one token of every live row, (G, N, D), at (N,) places of its slot."""
        keys, values = self._layers[layer]
        rows = torch.arange(len(at), device=at.device)
        keys[rows, :, at] = key.transpose(0, 1)
        values[rows, :, at] = value.transpose(0, 1)

    def read(self, layer: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, G, tokens, D) views of the live slots."""
        keys, values = self._layers[layer]
        return keys[: len(self), :, :tokens], values[: len(self), :, :tokens]


def _room(rows: int, size: int, like: torch.Tensor) -> torch.Tensor:
    # attention over a padded slot multiplies its filling by zero, and zero times garbage may be NaN
    return like.new_zeros((rows, like.shape[0], size, like.shape[2]))


class Prefix(NamedTuple):
    """Rows that look at one kept piece."""

    rows: slice | torch.Tensor
    kept: Kept


class DecodeStep:
    """One token for every live row. Implements harness.engines.attention.Step.

    Args:
        above: per live row, the kept pieces that it looks at.
    """

    def __init__(
        self, slots: Slots, above: Sequence[Sequence[int]], kept: Mapping[int, Kept], dtype: torch.dtype
    ) -> None:
        self.slots = slots
        self.dtype = dtype
        self.at = torch.tensor(slots.lengths, device=slots.device)
        self.positions = self.at + torch.tensor(slots.starts, device=slots.device)
        self.width = max(slots.lengths) + 1
        self.prefixes = _prefixes(above, kept, slots.device)
        self._tail: dict[int | None, Mask | None] = {}

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How
    ) -> torch.Tensor:
        self.slots.write(layer, self.at, key, value)
        keys, values = self.slots.read(layer, self.width)
        tail = attend(query.transpose(0, 1).unsqueeze(2), keys, values, how, Sight(mask=self._tail_mask(how)))
        sums = Sums.of(tail)
        for rows, kept in self.prefixes:
            k, v = kept.layers[layer]
            q = query[:, rows]
            part = attend(q[None], k[None], v[None], how, Sight(mask=self._prefix_mask(rows, kept, how)))
            sums.add_rows(rows, part)
        return sums.finish(how)

    def _tail_mask(self, how: How) -> Mask | None:
        window = how.window if how.window is not None and how.window < self.width else None
        if window not in self._tail:
            behind = self.at.unsqueeze(1) - torch.arange(self.width, device=self.at.device).unsqueeze(0)
            seen = behind >= 0 if window is None else (behind >= 0) & (behind < window)
            whole = bool(seen.all())
            self._tail[window] = None if whole else make_mask(seen[:, None, None], self.dtype, hollow=False)
        return self._tail[window]

    def _prefix_mask(self, rows: slice | torch.Tensor, kept: Kept, how: How) -> Mask | None:
        if how.window is None:
            return None
        keys = kept.start + torch.arange(kept.length, device=self.at.device)
        near = (self.positions[rows].unsqueeze(1) - keys.unsqueeze(0)) < how.window
        return None if bool(near.all()) else make_mask(near[None, None], self.dtype, hollow=True)


def _prefixes(above: Sequence[Sequence[int]], kept: Mapping[int, Kept], device: torch.device) -> list[Prefix]:
    rows: dict[int, list[int]] = {}
    for row, pieces in enumerate(above):
        for piece in pieces:
            rows.setdefault(piece, []).append(row)
    found = []
    for piece in sorted(rows):
        first, last = rows[piece][0], rows[piece][-1]
        run = last - first + 1 == len(rows[piece])
        where = slice(first, last + 1) if run else torch.tensor(rows[piece], device=device)
        found.append(Prefix(where, kept[piece]))
    return found
