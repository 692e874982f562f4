"""From pairs of answers to figures. Pure functions, but for the question how near a tie was."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.parity.records import Answers, Divergence, Loglikelihoods, Pair, Worst
from harness.parity.sides import wait_for
from harness.protocols import Engine, Tokenizer
from harness.records import Completion, GenerateRequest, LoglikelihoodRequest

CONTEXT_SHOWN = 12
"""Last tokens of a context that are shown."""


def loglikelihoods_of(pairs: Sequence[Pair], tokenizer: Tokenizer) -> Loglikelihoods | None:
    """Figures over the scoring requests among the pairs; None where there are none."""
    scoring = [(i, pair) for i, pair in enumerate(pairs) if isinstance(pair.request, LoglikelihoodRequest)]
    if not scoring:
        return None
    both = [(i, pair.a, pair.b) for i, pair in scoring if pair.a is not None and pair.b is not None]
    differences = {i: difference(a, b) for i, a, b in both}
    equal = sum(a.is_greedy == b.is_greedy for _, a, b in both)
    worst = max(differences, key=lambda i: differences[i], default=None)
    return Loglikelihoods(
        n=len(scoring),
        n_failed=len(scoring) - len(both),
        max_difference=max(differences.values(), default=None),
        mean_difference=math.fsum(differences.values()) / len(both) if both else None,
        share_greedy_equal=equal / len(scoring),
        worst=None if worst is None else _worst(worst, pairs[worst], tokenizer),
    )


def difference(a: Completion, b: Completion) -> float:
    """Absolute difference in nats; two engines that both say 'impossible' agree."""
    first, second = a.loglikelihood, b.loglikelihood
    if first is None or second is None:
        return math.inf
    return 0.0 if first == second else abs(first - second)


def _worst(index: int, pair: Pair, tokenizer: Tokenizer) -> Worst:
    request = pair.request
    context, tail = (
        (request.context_ids, request.continuation_ids)
        if isinstance(request, LoglikelihoodRequest)
        else ((), ())
    )
    return Worst(
        index,
        tokenizer.decode(context[-CONTEXT_SHOWN:]),
        tokenizer.decode(tail),
        _value(pair.a),
        _value(pair.b),
    )


def _value(completion: Completion | None) -> float:
    value = None if completion is None else completion.loglikelihood
    return math.nan if value is None else value


def answers_of(pairs: Sequence[Pair], tokenizer: Tokenizer) -> Answers | None:
    """Figures over the generation requests among the pairs; None where there are none."""
    asked = [(i, p, p.request) for i, p in enumerate(pairs) if isinstance(p.request, GenerateRequest)]
    if not asked:
        return None
    greedy = [(i, pair) for i, pair, request in asked if request.sampling.temperature == 0]
    both = [(i, pair.a, pair.b) for i, pair in greedy if pair.a is not None and pair.b is not None]
    found = [(i, divergence(i, a, b, tokenizer)) for i, a, b in both]
    parted = tuple(one for _, one in found if one is not None)
    return Answers(
        n=len(greedy),
        n_failed=len(greedy) - len(both),
        share_equal=(len(both) - len(parted)) / len(greedy) if greedy else 1.0,
        divergences=parted,
        n_sampled=len(asked) - len(greedy),
    )


def divergence(index: int, a: Completion, b: Completion, tokenizer: Tokenizer) -> Divergence | None:
    """Where two answers part; None where their texts are equal.

    Equal texts are equal answers: one engine counts the end token among its tokens, another does not.
    """
    first, second = a.outputs[0], b.outputs[0]
    if first.text == second.text:
        return None
    ours, theirs = first.token_ids, second.token_ids
    place = next(
        (k for k, (x, y) in enumerate(zip(ours, theirs, strict=False)) if x != y),
        min(len(ours), len(theirs)),
    )
    tokens = [ids[place] if place < len(ids) else None for ids in (ours, theirs)]
    texts = ["" if token is None else tokenizer.decode([token]) for token in tokens]
    return Divergence(index, place, tokens[0], tokens[1], texts[0], texts[1])


def with_gaps(
    divergences: Iterable[Divergence], pairs: Sequence[Pair], engine: Engine, side: str
) -> tuple[Divergence, ...]:
    """Ask an engine how much likelier it holds its own token than the other's, where each has one.

    Args: side: 'a' or 'b': whose token is its own.
    """
    listed = list(divergences)
    asked = [_probes(one, pairs[one.request]) for one in listed]
    futures = iter(engine.submit([request for probe in asked for request in probe]))
    result = []
    for one, probe in zip(listed, asked, strict=True):
        values = [wait_for(next(futures)).completion for _ in probe]
        known = [value.loglikelihood for value in values if value is not None]
        if len(known) == 2 and known[0] is not None and known[1] is not None:
            gap = known[0] - known[1]
            one = replace(one, gap_a=gap) if side == "a" else replace(one, gap_b=-gap)
        result.append(one)
    return tuple(result)


def _probes(one: Divergence, pair: Pair) -> list[LoglikelihoodRequest]:
    """Both tokens behind what the answers have in common."""
    if one.token_a is None or one.token_b is None or pair.a is None:
        return []
    if not isinstance(pair.request, GenerateRequest):
        return []
    prompt = pair.request.prompt_ids[pair.a.dropped_prompt_tokens :]
    context = prompt + pair.a.outputs[0].token_ids[: one.position]
    return [LoglikelihoodRequest(context, (token,)) for token in (one.token_a, one.token_b)]
