"""Loglikelihoods over a tree of prefixes: every token that requests share is computed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from harness.engines.batching import fit_pair
from harness.engines.packed import PackedModel
from harness.engines.passes import Kept, TreePass
from harness.engines.trie import Tree, build_tree
from harness.records import LoglikelihoodRequest


class Read(NamedTuple):
    """The probability of one token behind one place."""

    position: int
    """In the sequence of the piece it belongs to."""
    token: int
    request: int


@dataclass
class Tally:
    """What is known of a request so far."""

    left: int
    """Tokens whose probability is still to come."""
    prompt_tokens: int
    dropped: int
    loglikelihood: float = 0.0
    is_greedy: bool = True
    cached_tokens: int = 0


@dataclass
class Plan:
    """A set of requests as a tree, with what is read off every piece."""

    tree: Tree
    reads: dict[int, list[Read]]
    tallies: list[Tally]
    last: list[int] = field(default_factory=list)
    """Per request: its lowest piece."""


def make_plan(requests: Sequence[LoglikelihoodRequest], max_length: int, longest: int) -> Plan:
    """Arrange requests; a piece is computed for the first request that holds it and cached for the others.

    Args: longest: tokens of the longest piece.
    """
    fitted = [fit_pair(request, max_length) for request in requests]
    tree = build_tree([ids for ids, _ in fitted], longest)
    reads: dict[int, list[Read]] = {}
    tallies = []
    charged: set[int] = set()
    for index, (request, (ids, dropped)) in enumerate(zip(requests, fitted, strict=True)):
        tally = Tally(len(request.continuation_ids), len(ids), dropped)
        piece = tree.last[index]
        for offset in reversed(range(len(request.continuation_ids))):
            position = len(ids) - len(request.continuation_ids) + offset
            while tree.pieces[piece].start > position:
                piece = tree.pieces[piece].parent
            reads.setdefault(piece, []).append(Read(position, request.continuation_ids[offset], index))
        for piece in tree.path(tree.last[index]):
            if piece in charged:
                tally.cached_tokens += len(tree.pieces[piece].ids)
            charged.add(piece)
        tallies.append(tally)
    return Plan(tree, reads, tallies, tree.last)


def cut_passes(plan: Plan, budget: int, most_read: int | None) -> Iterator[list[int]]:
    """Pieces in tree order, as many at a time as the budget of tokens (and of places to project) allows."""
    chosen: list[int] = []
    tokens = places = 0
    for index, piece in enumerate(plan.tree.pieces):
        wanted = len({read.position for read in plan.reads.get(index, ())}) if most_read else 0
        full = tokens + len(piece.ids) > budget or (most_read is not None and places + wanted > most_read)
        if chosen and full:
            yield chosen
            chosen, tokens, places = [], 0, 0
        chosen.append(index)
        tokens += len(piece.ids)
        places += wanted
    if chosen:
        yield chosen


def score(
    packed: PackedModel, plan: Plan, budget: int, begin: Callable[[list[int]], bool]
) -> Iterator[list[int]]:
    """Compute a plan pass by pass.

    Args: begin: told the pieces of the pass that starts; False stops.
    Yields: after every pass, the requests that it completed; their tallies are final.
    """
    kept: dict[int, Kept] = {}
    most_read = None if packed.split else packed.rows_per_block
    for chosen in cut_passes(plan, budget, most_read):
        if not begin(chosen):
            return
        following = chosen[-1] + 1
        keep = [index for index in chosen if plan.tree.after[index] > following]
        step = TreePass(plan.tree, chosen, kept, keep, packed.dtype)
        yield _read_pass(packed, plan, chosen, step)
        kept = {index: value for index, value in kept.items() if plan.tree.after[index] > following}
        kept |= step.stored


def _read_pass(packed: PackedModel, plan: Plan, chosen: Sequence[int], step: TreePass) -> list[int]:
    reads: list[tuple[int, Read]] = []
    for index in chosen:
        shift = step.at[index] - plan.tree.pieces[index].start
        reads += [(shift + read.position, read) for read in plan.reads.get(index, ())]
    places = sorted({place for place, _ in reads})
    at = torch.tensor(places, dtype=torch.long)
    row = {place: number for number, place in enumerate(places)}
    rows = torch.tensor([row[place] for place, _ in reads], dtype=torch.long)
    tokens = torch.tensor([read.token for _, read in reads], dtype=torch.long)
    values, greedy = _logprobs(packed, step, at, (rows, tokens))
    done = []
    for (_, read), value, best in zip(reads, values, greedy, strict=True):
        tally = plan.tallies[read.request]
        tally.loglikelihood += value
        tally.is_greedy = tally.is_greedy and best
        tally.left -= 1
        if tally.left == 0:
            done.append(read.request)
    return done


def _logprobs(
    packed: PackedModel, step: TreePass, at: torch.Tensor, wanted: tuple[torch.Tensor, torch.Tensor]
) -> tuple[list[float], list[bool]]:
    """Log probabilities in nats of (row of at, token) pairs, and whether each token is the arg-max of its row."""
    rows, tokens = wanted
    values = torch.empty(len(rows), dtype=torch.float64)
    greedy = torch.empty(len(rows), dtype=torch.bool)
    if len(at) == 0:
        packed.logits(step, step.ids, step.positions, torch.zeros(1, dtype=torch.long))
        return [], []
    if packed.split:
        states = packed.states(step, step.ids, step.positions)[at.to(packed.device)]
        blocks: Iterator[tuple[int, torch.Tensor]] = (
            (first, packed.project(states[first : first + packed.rows_per_block]))
            for first in range(0, len(at), packed.rows_per_block)
        )
    else:
        blocks = iter([(0, packed.logits(step, step.ids, step.positions, at))])
    for first, logits in blocks:
        inside = ((rows >= first) & (rows < first + len(logits))).nonzero().squeeze(1)
        where = (rows[inside] - first).to(logits.device)
        token = tokens[inside].to(logits.device)
        total, best = logits.logsumexp(dim=-1), logits.argmax(dim=-1)
        values[inside] = (logits[where, token].double() - total[where].double()).cpu()
        greedy[inside] = (best[where] == token).cpu()
    return values.tolist(), greedy.tolist()


def is_number(tally: Tally) -> bool:
    return not math.isnan(tally.loglikelihood)
