"""Keys and values of the rows that are being answered: one slot a row, written in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from harness.engines.attention import How, Mask, Sight, Sums, attend, make_mask
from harness.engines.passes import Kept

CAPACITIES = tuple(sorted({64 << i for i in range(20)} | {96 << i for i in range(20)}))
"""Tokens that slots are made for: 64, 96, 128, 192, ... A row moves up a class when it has filled its slot."""
FIRST_ROWS = 8


def capacity_of(tokens: int) -> int:
    """Size of the slot that holds so many tokens and one more."""
    return next(capacity for capacity in CAPACITIES if capacity > tokens)


T = TypeVar("T")
Layers = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values, layer after layer."""


class Pool(Generic[T]):
    """Slots of one size, of (G, C, D) keys and values per layer; live rows are slots 0..n - 1.

    The last row moves into the place of one that leaves, so no other row is ever copied.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.owners: list[T] = []
        self.lengths: list[int] = []
        """Tokens in each live slot."""
        self.starts: list[int] = []
        """Position of each slot's first token in its sequence."""
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __len__(self) -> int:
        return len(self.owners)

    def add(self, owner: T, start: int, parts: Sequence[Layers], like: Layers) -> None:
        """A new live row that begins with (G, L, D) parts, which follow each other; like: any of their kind."""
        self.reserve(1, like)
        slot, at = len(self), 0
        for part in parts:
            size = part[0][0].shape[1]
            for (keys, values), (k, v) in zip(self._layers, part, strict=True):
                keys[slot, :, at : at + size] = k
                values[slot, :, at : at + size] = v
            at += size
        self.owners.append(owner)
        self.lengths.append(at)
        self.starts.append(start)

    def reserve(self, more: int, like: Layers) -> None:
        """Room for so many more rows."""
        had = self._layers[0][0].shape[0] if self._layers else 0
        rows = len(self) + more
        if rows <= had:
            return
        self._resize(max(rows, had + had // 4, FIRST_ROWS), like)

    def shrink(self) -> None:
        """Give back what is not used, where that is more than half."""
        if not self.owners:
            self._layers = []
        elif self._layers and self._layers[0][0].shape[0] > max(2 * len(self), FIRST_ROWS):
            self._resize(max(len(self), FIRST_ROWS), self.content(0))

    def _resize(self, rows: int, like: Layers) -> None:
        for index, (keys, values) in enumerate(like):
            layer = (self._room(rows, keys, index, 0), self._room(rows, values, index, 1))
            # layer by layer, so that the old and the new are there together for one of them alone
            if index < len(self._layers):
                self._layers[index] = layer
            else:
                self._layers.append(layer)

    def _room(self, rows: int, like: torch.Tensor, layer: int, which: int) -> torch.Tensor:
        # attention over a padded slot multiplies its filling by zero, and zero times garbage may be NaN
        room = like.new_zeros((rows, like.shape[0], self.capacity, like.shape[2]))
        if layer < len(self._layers):
            old = self._layers[layer][which]
            kept = min(rows, len(self))
            room[:kept] = old[:kept]
        return room

    def content(self, slot: int) -> Layers:
        """(G, L, D) keys and values of a live row."""
        size = self.lengths[slot]
        return [(keys[slot, :, :size], values[slot, :, :size]) for keys, values in self._layers]

    def remove(self, slot: int) -> None:
        last = len(self) - 1
        if slot != last:
            used = self.lengths[last]
            for keys, values in self._layers:
                keys[slot, :, :used] = keys[last, :, :used]
                values[slot, :, :used] = values[last, :, :used]
            self.owners[slot] = self.owners[last]
            self.lengths[slot], self.starts[slot] = used, self.starts[last]
        del self.owners[last], self.lengths[last], self.starts[last]

    def write(self, layer: int, at: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """Put one token of every live row, (G, n, D), at (n,) places of its slot."""
        keys, values = self._layers[layer]
        rows = torch.arange(len(at), device=at.device)
        keys[rows, :, at] = key.transpose(0, 1)
        values[rows, :, at] = value.transpose(0, 1)

    def read(self, layer: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, G, tokens, D) views of the live slots."""
        keys, values = self._layers[layer]
        return keys[: len(self), :, :tokens], values[: len(self), :, :tokens]


class Slots(Generic[T]):
    """Tails of rows: what follows the prefix that a row shares with others, in pools by size.

    Rows of one pool are attended to together and filled up to its longest, so sizes are kept apart. The order of rows
    is that of the pools, then of their slots.
    """

    def __init__(self) -> None:
        self._pools: dict[int, Pool[T]] = {}

    @property
    def pools(self) -> list[Pool[T]]:
        """Those that hold a row, smallest slots first."""
        return [self._pools[size] for size in sorted(self._pools) if len(self._pools[size])]

    @property
    def owners(self) -> list[T]:
        return [owner for pool in self.pools for owner in pool.owners]

    def __len__(self) -> int:
        return sum(len(pool) for pool in self._pools.values())

    def add(self, owner: T, start: int, parts: Sequence[Layers], like: Layers) -> None:
        """A new live row, with room for one more token."""
        self._pool_for(sum(part[0][0].shape[1] for part in parts)).add(owner, start, parts, like)

    def reserve(self, tails: Sequence[int], like: Layers) -> None:
        """Room for rows of so many tokens each, made at once rather than row by row."""
        for pool, count in Counter(map(self._pool_for, tails)).items():
            pool.reserve(count, like)

    def _pool_for(self, size: int) -> Pool[T]:
        capacity = capacity_of(size)
        return self._pools.setdefault(capacity, Pool(capacity))

    def make_room(self) -> None:
        """Move rows whose slot is full to a larger one."""
        for pool in self.pools:
            full = [slot for slot in reversed(range(len(pool))) if pool.lengths[slot] == pool.capacity]
            if not full:
                continue
            self._pool_for(pool.capacity).reserve(len(full), pool.content(full[0]))
            for slot in full:
                content = pool.content(slot)
                self.add(pool.owners[slot], pool.starts[slot], [content], content)
                pool.remove(slot)
            pool.shrink()

    def grow(self) -> None:
        """Every row has one token more."""
        for pool in self.pools:
            pool.lengths = [length + 1 for length in pool.lengths]

    def remove(self, gone: Callable[[T], bool]) -> list[T]:
        """Free the slots of owners that are gone; returns them."""
        found = []
        for pool in self.pools:
            for slot in reversed(range(len(pool))):
                if gone(pool.owners[slot]):
                    found.append(pool.owners[slot])
                    pool.remove(slot)
            pool.shrink()
        return found

    def clear(self) -> None:
        """Forget all rows and give their memory back."""
        self._pools.clear()


class Prefix(NamedTuple):
    """Rows that look at one kept piece."""

    rows: slice | torch.Tensor
    kept: Kept


class _Tails(NamedTuple):
    """The rows of one pool in a step."""

    pool: Pool[Any]
    rows: slice
    at: torch.Tensor
    """(n,) where the new token of each goes."""
    width: int


class DecodeStep:
    """One token for every live row, in the order of the slots. Implements harness.engines.attention.Step.

    Args:
        above: per live row, the kept pieces that it looks at.
    """

    def __init__(
        self, slots: Slots[Any], above: Sequence[Sequence[int]], kept: Mapping[int, Kept], like: torch.Tensor
    ) -> None:
        self.dtype = like.dtype
        self.device = like.device
        self.tails: list[_Tails] = []
        first = 0
        for pool in slots.pools:
            at = torch.tensor(pool.lengths, device=self.device)
            self.tails.append(_Tails(pool, slice(first, first + len(pool)), at, max(pool.lengths) + 1))
            first += len(pool)
        starts = torch.tensor([start for pool in slots.pools for start in pool.starts], device=self.device)
        self.positions = torch.cat([tails.at for tails in self.tails]) + starts
        self.prefixes = _prefixes(above, kept, self.device)
        self._masks: dict[tuple[int, int | None], Mask | None] = {}

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How
    ) -> torch.Tensor:
        sums = Sums(query, value.shape[-1])
        for tails in self.tails:
            rows = tails.rows
            tails.pool.write(layer, tails.at, key[:, rows], value[:, rows])
            keys, values = tails.pool.read(layer, tails.width)
            sight = Sight(mask=self._tail_mask(tails, how))
            part = attend(query[:, rows].transpose(0, 1).unsqueeze(2), keys, values, how, sight)
            sums.first_rows(rows, part)
        for rows_above, kept in self.prefixes:
            k, v = kept.layers[layer]
            sight = Sight(mask=self._prefix_mask(rows_above, kept, how))
            part = attend(query[None, :, rows_above], k[None], v[None], how, sight)
            sums.add_rows(rows_above, part)
        return sums.finish(how)

    def _tail_mask(self, tails: _Tails, how: How) -> Mask | None:
        window = how.window if how.window is not None and how.window < tails.width else None
        key = (tails.pool.capacity, window)
        if key not in self._masks:
            behind = tails.at.unsqueeze(1) - torch.arange(tails.width, device=self.device).unsqueeze(0)
            seen = behind >= 0 if window is None else (behind >= 0) & (behind < window)
            whole = bool(seen.all())
            self._masks[key] = None if whole else make_mask(seen[:, None, None], self.dtype, hollow=False)
        return self._masks[key]

    def _prefix_mask(self, rows: slice | torch.Tensor, kept: Kept, how: How) -> Mask | None:
        if how.window is None:
            return None
        keys = kept.start + torch.arange(kept.length, device=self.device)
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
