"""One forward pass over pieces of a tree: every token once, packed without padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch

from harness.engines.attention import ALL, CAUSAL, How, Mask, Sight, Sums, attend, make_mask
from harness.engines.trie import Tree

WIDTHS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Blocks up to the last width are computed many at a time, filled up to the next of these."""


class Kept:
    """Keys and values of a piece that later passes look at: (G, L, D) each, layer after layer."""

    def __init__(self, start: int, length: int) -> None:
        self.start = start
        self.length = length
        self.layers: list[tuple[torch.Tensor, torch.Tensor]] = []


class Block(NamedTuple):
    """Queries that look at the tokens of one piece."""

    first: int
    """Place of the first query in the pass."""
    stop: int
    keys: slice | Kept
    key_start: int
    """Position of the first key in its sequence."""
    causal: bool


class Batch(NamedTuple):
    """Small blocks of one size, computed together."""

    queries: torch.Tensor
    """(n, T) places in the pass"""
    keys: torch.Tensor
    """(n, S)"""
    sight: Sight
    where: torch.Tensor
    """(m,) places of the queries that are not filling"""
    chosen: torch.Tensor
    """(m,) the same, counted in n x T"""


class TreePass:
    """Implements harness.engines.attention.Step.

    Args:
        tree: where the pieces come from.
        chosen: pieces to compute, ascending; what stands above one is chosen too, or kept.
        kept: pieces of earlier passes.
        keep: pieces of this pass that later ones look at; they are added to kept.
    """

    def __init__(
        self,
        tree: Tree,
        chosen: Sequence[int],
        kept: dict[int, Kept],
        keep: Iterable[int],
        dtype: torch.dtype,
    ) -> None:
        self.tree = tree
        self.dtype = dtype
        self.at: dict[int, int] = {}
        """Piece -> place of its first token in the pass."""
        ids: list[int] = []
        positions: list[int] = []
        for index in chosen:
            piece = tree.pieces[index]
            self.at[index] = len(ids)
            ids += piece.ids
            positions += range(piece.start, piece.end)
        self.ids = torch.tensor([ids], dtype=torch.long)
        self.positions = torch.tensor([positions], dtype=torch.long)
        self.blocks = self._own(chosen) + self._above(chosen, kept)
        self.alone, self.batches = _batched(self.blocks, dtype)
        self.deepest = max(positions, default=0) + 1
        self.stored = {index: Kept(tree.pieces[index].start, len(tree.pieces[index].ids)) for index in keep}
        self.windows: set[int | None] = set()
        """Sliding windows that the layers named."""
        self._device: torch.device | None = None

    def _own(self, chosen: Sequence[int]) -> list[Block]:
        found = []
        for index in chosen:
            at, size = self.at[index], len(self.tree.pieces[index].ids)
            found.append(
                Block(at, at + size, slice(at, at + size), self.tree.pieces[index].start, causal=True)
            )
        return found

    def _above(self, chosen: Sequence[int], kept: Mapping[int, Kept]) -> list[Block]:
        """For every piece that something below it looks at: those below stand next to each other."""
        last: dict[int, int] = {}
        first: dict[int, int] = {}
        for index in chosen:
            above = self.tree.pieces[index].parent
            while above >= 0:
                first.setdefault(above, index)
                last[above] = index
                above = self.tree.pieces[above].parent
        found = []
        for above in sorted(first):
            start = self.at[first[above]]
            stop = self.at[last[above]] + len(self.tree.pieces[last[above]].ids)
            piece = self.tree.pieces[above]
            keys: slice | Kept = kept[above] if above in kept else _run(self.at[above], len(piece.ids))
            found.append(Block(start, stop, keys, piece.start, causal=False))
        return found

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How
    ) -> torch.Tensor:
        self._store(key, value)
        self.windows.add(how.window)
        sums = Sums(query, value.shape[-1])
        if how.window is not None and how.window < self.deepest:
            for block in self.blocks:
                self._windowed(sums, block, layer, (query, key, value), how)
            return sums.finish(how)
        for batch in self._batches_on(query.device):
            q, k, v = query[:, batch.queries], key[:, batch.keys], value[:, batch.keys]
            part = attend(q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), how, batch.sight)
            put = sums.first_at if batch.sight.causal else sums.add_at
            put(batch.where, part, batch.chosen)
        for block in self.alone:
            k, v = _keys(block, layer, key, value)
            part = attend(query[None, :, block.first : block.stop], k[None], v[None], how, _sight(block))
            put_run = sums.first if block.causal else sums.add
            put_run(slice(block.first, block.stop), part)
        return sums.finish(how)

    def _store(self, key: torch.Tensor, value: torch.Tensor) -> None:
        for index, kept in self.stored.items():
            run = _run(self.at[index], kept.length)
            kept.layers.append((key[:, run].clone(), value[:, run].clone()))

    def _batches_on(self, device: torch.device) -> list[Batch]:
        if self._device != device:
            self.batches = [_moved(batch, device) for batch in self.batches]
            self._device = device
        return self.batches

    def _windowed(
        self,
        sums: Sums,
        block: Block,
        layer: int,
        tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        how: How,
    ) -> None:
        """A block under a sliding window: left out, whole, or masked."""
        query, key, value = tensors
        k, v = _keys(block, layer, key, value)
        seen_at = self.positions[0, block.first : block.stop].unsqueeze(1)
        distance = seen_at - (block.key_start + torch.arange(k.shape[1])).unsqueeze(0)
        near = (distance < (how.window or 0)) & (distance >= 0)
        if not bool(near.any()):
            return
        mask = make_mask(near[None, None].to(query.device), query.dtype, hollow=True)
        part = attend(query[None, :, block.first : block.stop], k[None], v[None], how, Sight(mask=mask))
        (sums.first if block.causal else sums.add)(slice(block.first, block.stop), part)


def _run(at: int, length: int) -> slice:
    return slice(at, at + length)


def _sight(block: Block) -> Sight:
    return CAUSAL if block.causal else ALL


def _keys(
    block: Block, layer: int, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(block.keys, Kept):
        return block.keys.layers[layer]
    return key[:, block.keys], value[:, block.keys]


def _width(size: int) -> int:
    return next(width for width in WIDTHS if size <= width)


def _batched(blocks: Sequence[Block], dtype: torch.dtype) -> tuple[list[Block], list[Batch]]:
    """Blocks that are computed one by one, own ones first; and small ones in batches, own ones first."""
    alone: list[Block] = []
    small: dict[tuple[bool, int, int], list[Block]] = {}
    for block in blocks:
        size = block.stop - block.first
        if isinstance(block.keys, Kept) or max(size, block.keys.stop - block.keys.start) > WIDTHS[-1]:
            alone.append(block)
        else:
            key = (not block.causal, _width(size), _width(block.keys.stop - block.keys.start))
            small.setdefault(key, []).append(block)
    own = [block for block in alone if block.causal]
    return own + [block for block in alone if not block.causal], [
        _batch(small[key], dtype) for key in sorted(small)
    ]


def _batch(blocks: Sequence[Block], dtype: torch.dtype) -> Batch:
    causal = blocks[0].causal
    sizes = torch.tensor([block.stop - block.first for block in blocks])
    queries = _places([(block.first, block.stop) for block in blocks])
    spans = [(block.keys.start, block.keys.stop) for block in blocks if isinstance(block.keys, slice)]
    keys = queries if causal else _places(spans)
    lengths = torch.tensor([stop - start for start, stop in spans])
    mask = None
    if not causal and bool((lengths < keys.shape[1]).any()):
        seen = torch.arange(keys.shape[1]).unsqueeze(0) < lengths.unsqueeze(1)
        mask = make_mask(seen[:, None, None], dtype, hollow=False)
    real = torch.arange(queries.shape[1]).unsqueeze(0) < sizes.unsqueeze(1)
    return Batch(queries, keys, Sight(causal, mask), queries[real], real.flatten().nonzero().squeeze(1))


def _places(spans: Sequence[tuple[int, int]]) -> torch.Tensor:
    """(n, T) places of runs, short ones filled up with their last place: causal queries never look there."""
    starts = torch.tensor([start for start, _ in spans]).unsqueeze(1)
    stops = torch.tensor([stop for _, stop in spans]).unsqueeze(1)
    width = int((stops - starts).max())
    return torch.minimum(starts + torch.arange(width).unsqueeze(0), stops - 1)


def _moved(batch: Batch, device: torch.device) -> Batch:
    sight = batch.sight
    if sight.mask is not None:
        seen, bias, hollow = sight.mask
        sight = Sight(sight.causal, Mask(seen.to(device), bias.to(device), hollow))
    places = (batch.queries.to(device), batch.keys.to(device))
    return Batch(*places, sight, batch.where.to(device), batch.chosen.to(device))
