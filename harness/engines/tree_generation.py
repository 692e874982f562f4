"""Decoding over a tree of prefixes: a prompt's shared part is prefilled once, rows come and go as they finish."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from harness.engines.generation import Decoding, Row, advance, seen_tokens
from harness.engines.packed import PackedModel
from harness.engines.passes import Kept, TreePass
from harness.engines.slots import DecodeStep, Slots, capacity_of
from harness.engines.trie import Tree, build_tree

MIN_SHARED = 32
"""Prompt tokens that a branching must save: every piece above a row is looked at again at every token."""
MOST_ABOVE = 8
"""Shared pieces that a row looks at; what lies below them is copied to the row, or a long chain would cost its length
in blocks of attention at every token."""
REFILL_SHARE = 4
"""New rows come in when at least this part (1/n) of the places is free, so that prompts are computed together."""
JOIN_SHARE = 8
"""Requests that arrive while others are answered join them when they are at least this part (1/n) of those."""


@dataclass
class Limits:
    """How much is computed and kept at one time; halved when memory runs out."""

    pass_tokens: int
    """Prompt tokens of one forward pass."""
    cache_tokens: int
    """Tokens of the KV cache, all rows together."""
    rows: int

    def halve(self) -> None:
        self.pass_tokens = max(1, self.pass_tokens // 2)
        self.cache_tokens = max(1, self.cache_tokens // 2)
        self.rows = max(1, self.rows // 2)


@dataclass
class Seat:
    """A row with its place in the tree."""

    row: Row
    above: list[int]
    """Pieces that other rows look at too."""
    tail: list[int]
    """Pieces whose keys and values lie in its slot."""
    tail_start: int
    """Position of the first token that is its own."""
    penalised: torch.Tensor | None = None
    """(1, V) tokens that a repetition penalty applies to."""

    @property
    def last(self) -> int:
        return (self.tail or self.above)[-1]

    @property
    def cells(self) -> int:
        """Tokens of its own that the cache may have to hold: the slot that its last token but one fits into."""
        return capacity_of(len(self.row.window.ids) - self.tail_start + self.row.window.max_tokens - 1)


@dataclass
class _State:
    """What is in memory: forgotten as a whole when memory runs out."""

    kept: dict[int, Kept] = field(default_factory=dict)
    first_logits: dict[int, torch.Tensor] = field(default_factory=dict)
    """Logits behind a prompt, for rows that are still to come."""
    slots: Slots[Seat] = field(default_factory=Slots)
    arriving: list[Seat] = field(default_factory=list)
    """Rows whose prompts are being computed."""

    @property
    def live(self) -> list[Seat]:
        """Rows in flight."""
        return [*self.slots.owners, *self.arriving]


class TreeGeneration:
    """Decodes a set of rows.

    Args:
        done: told every row that is finished, in the order in which they finish.
        stopped: asked between steps; True ends the work.
    """

    def __init__(
        self,
        decoding: Decoding,
        packed: PackedModel,
        limits: Limits,
        done: Callable[[Row], None],
        stopped: Callable[[], bool],
    ) -> None:
        self.decoding = decoding
        self.packed = packed
        self.limits = limits
        self.done = done
        self.stopped = stopped
        self.more: Callable[[int], list[Row]] = lambda least: []
        """Asked for rows that came in meanwhile, at least so many, when none is pending."""
        self.state = _State()
        self.tree = Tree([], [], [])
        """Its pieces alone: rows that join bring trees of their own."""
        self.users: Counter[int] = Counter()
        """Per piece: rows that look at it, or will."""
        self.pending: list[Seat] = []

    def seat(self, rows: Sequence[Row]) -> None:
        """Take rows in, ordered by what they share: the plan depends on the prompts alone."""
        self.tree = Tree([], [], [])
        self.users = Counter()
        self.pending = []
        self.join(rows)

    def join(self, rows: Sequence[Row]) -> None:
        """Take rows in beside those in flight; what these keep is looked at, not computed again."""
        tree = build_tree([row.window.ids for row in rows], self.limits.pass_tokens, MIN_SHARED)
        at = self._placed(tree)
        paths = [[at[piece] for piece in tree.path(last)] for last in tree.last]
        for path in paths:
            self.users.update(path)
        order = sorted(range(len(rows)), key=lambda i: (tree.last[i], rows[i].request, rows[i].draw))
        for i in order:
            path = paths[i]
            above = [piece for piece in path if self.users[piece] > 1][:MOST_ABOVE]
            tail = path[len(above) :]
            start = self.tree.pieces[tail[0]].start if tail else len(rows[i].window.ids)
            self.pending.append(Seat(rows[i], above, tail, start))

    def _placed(self, tree: Tree) -> list[int]:
        """Where the pieces of a new tree stand in the common one: a kept piece with the same tokens, or a new place."""
        pieces = self.tree.pieces
        known = {(pieces[index].parent, pieces[index].ids): index for index in self.state.kept}
        ends = set(tree.last)  # computed anew: the logits behind them are needed
        at: list[int] = []
        for index, piece in enumerate(tree.pieces):
            parent = at[piece.parent] if piece.parent >= 0 else -1
            found = None if index in ends else known.get((parent, piece.ids))
            if found is None:
                found = len(pieces)
                pieces.append(piece._replace(parent=parent))
            at.append(found)
        return at

    def run(self) -> None:
        """Decode every row that was seated. Raises what the model raises; rows keep what they have."""
        while (self.pending or self.state.live) and not self.stopped():
            self._welcome()
            self.state.arriving = self._admit()
            if self.state.arriving:
                self._prefill(self.state.arriving)
            if len(self.state.slots):
                self._step()

    def restart(self) -> list[Row]:
        """Give all memory back and seat the unfinished rows again; returns those that were in flight."""
        flying = [seat for seat in self.state.live if seat.row.finish is None]
        for seat in self.state.live:
            if seat.row.finish is not None:  # drawn to its end before memory ran out
                self.done(seat.row)
        self.state = _State()
        rows = [seat.row for seat in [*flying, *self.pending]]
        for row in rows:
            row.restart()
        self.seat(rows)
        return [seat.row for seat in flying]

    # Arrivals

    def _welcome(self) -> None:
        """Rows that came in meanwhile, when all that were seated are in flight and places are free."""
        live = len(self.state.live)
        if not self.pending and (self.limits.rows - live) * REFILL_SHARE >= self.limits.rows:
            self.join(self.more(live // JOIN_SHARE))

    def _admit(self) -> list[Seat]:
        """The next rows that fit; they come in together, or when nothing else is left to do."""
        live = self.state.live
        free = self.limits.rows - len(live)
        if not self.pending or (live and free * REFILL_SHARE < self.limits.rows):
            return []
        dearest = max((seat.cells for seat in live), default=0)
        held = set(self.state.kept)
        shared = sum(len(self.tree.pieces[piece].ids) for piece in held)
        count = 0
        for seat in self.pending[:free]:
            dearest = max(dearest, seat.cells)
            shared += sum(len(self.tree.pieces[piece].ids) for piece in seat.above if piece not in held)
            held.update(seat.above)
            if (len(live) + count + 1) * dearest + shared > self.limits.cache_tokens and (live or count):
                break
            count += 1
        if live and count * REFILL_SHARE < len(live) and count < len(self.pending):
            return []
        arriving = self.pending[:count]
        del self.pending[:count]
        return arriving

    def _prefill(self, arriving: list[Seat]) -> None:
        now = time.perf_counter()
        computed = set(self.state.kept)
        for seat in arriving:
            path = [*seat.above, *seat.tail]
            seat.row.started_s = now
            seat.row.cached_tokens = sum(len(self.tree.pieces[p].ids) for p in path if p in computed)
            computed.update(path)
        ends = {seat.last for seat in arriving}
        for chosen in self._passes(arriving):
            step = TreePass(self.tree, chosen, self.state.kept, chosen, self.packed.dtype)
            wanted = [piece for piece in chosen if piece in ends]
            ends_at = [
                step.at[piece] + len(self.tree.pieces[piece].ids) - 1 for piece in wanted or chosen[:1]
            ]
            at = torch.tensor(ends_at)
            logits = self.packed.logits(step, step.ids, step.positions, at)
            self.state.kept |= step.stored
            if wanted:
                self.state.first_logits |= dict(zip(wanted, logits, strict=True))
        logits = torch.stack([self.state.first_logits[seat.last] for seat in arriving])
        self._draw(arriving, logits)
        self._sit(arriving)

    def _passes(self, arriving: Sequence[Seat]) -> Iterator[list[int]]:
        """Pieces that the arriving rows need and that are not there, in tree order."""
        needed = sorted({p for seat in arriving for p in (*seat.above, *seat.tail)} - self.state.kept.keys())
        chosen: list[int] = []
        tokens = 0
        for piece in needed:
            size = len(self.tree.pieces[piece].ids)
            if chosen and tokens + size > self.limits.pass_tokens:
                yield chosen
                chosen, tokens = [], 0
            chosen.append(piece)
            tokens += size
        if chosen:
            yield chosen

    def _sit(self, arriving: list[Seat]) -> None:
        """Give the arrived rows their slots; those that are finished already leave."""
        tails = [self._tail_tokens(seat) for seat in arriving if seat.row.finish is None]
        if tails:
            self.state.slots.reserve(tails, self.state.kept[arriving[0].last].layers)
        while arriving:
            seat = arriving[0]
            if seat.row.finish is None:
                parts = [self.state.kept[piece].layers for piece in seat.tail]
                self.state.slots.add(seat, seat.tail_start, parts, self.state.kept[seat.last].layers)
            del arriving[0]  # in flight in one place only, should memory run out on the next
            self._release(seat.tail)
            if seat.row.finish is not None:
                self._leave(seat)
        waiting = {seat.last for seat in self.pending}
        self.state.first_logits = {
            piece: logits for piece, logits in self.state.first_logits.items() if piece in waiting
        }

    def _tail_tokens(self, seat: Seat) -> int:
        return sum(self.state.kept[piece].length for piece in seat.tail)

    # Steps

    def _step(self) -> None:
        slots = self.state.slots
        slots.make_room()
        seats = slots.owners
        like = torch.empty(0, dtype=self.packed.dtype, device=self.packed.device)
        step = DecodeStep(slots, [seat.above for seat in seats], self.state.kept, like)
        ids = torch.tensor([[seat.row.ids[-1] for seat in seats]])
        logits = self.packed.logits(step, ids, step.positions.unsqueeze(0), torch.arange(len(seats)))
        slots.grow()
        self._draw(seats, logits)
        for seat in slots.remove(lambda seat: seat.row.finish is not None):
            self._leave(seat)

    def _draw(self, seats: Sequence[Seat], logits: torch.Tensor) -> None:
        rows = [seat.row for seat in seats]
        seen = None
        if self.decoding.repetition_penalty != 1.0:
            for seat in seats:
                if seat.penalised is None or len(seat.row.ids) == 0:
                    seat.penalised = seen_tokens(self.decoding, [seat.row], logits.shape[-1])
            seen = torch.cat([seat.penalised for seat in seats if seat.penalised is not None])
        advance(self.decoding, rows, logits, seen)
        if seen is not None:
            for seat, row in zip(seats, torch.split(seen, 1), strict=True):
                seat.penalised = row

    def _leave(self, seat: Seat) -> None:
        self._release(seat.above)
        self.done(seat.row)

    def _release(self, pieces: Sequence[int]) -> None:
        """A row no longer looks at these pieces; those that nobody will look at are forgotten."""
        for piece in pieces:
            self.users[piece] -= 1
            if self.users[piece] == 0:
                del self.users[piece]
                self.state.kept.pop(piece, None)
                self.tree.pieces[piece] = self.tree.pieces[piece]._replace(ids=())
