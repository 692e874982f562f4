"""Which requests of vLLM answer loglikelihood requests, and how the answer is read. Pure; imports no vLLM.

The continuation is forced token by token behind its context (vllm_worker.Forcing, or vLLM's own trace replay), so
that the context comes from the prefix cache; prompt logprobs would switch that cache off. Continuations that differ
in their last token alone (A, B, C, D) are one request: the last step forces nothing and reports them all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from harness.engines.batching import fit_pair
from harness.records import LoglikelihoodRequest

Ids = tuple[int, ...]

FORCED = "pareto_harness_forced"
"""Key in SamplingParams.extra_args: tokens that must be drawn, one a step."""
MOST_LAST_TOKENS = 128
"""vllm.sampling_params.MAX_LOGPROB_TOKEN_IDS"""
LONG_TAIL = 16
"""A longer continuation behind a context shorter than itself is one prefill with prompt logprobs: there is little
context to share, and forcing costs one step a token. Texts scored as a whole are such."""


class ScoreAsk(NamedTuple):
    """One request of vLLM."""

    prompt: Ids
    forced: Ids
    """Tokens forced behind the prompt, before the last one."""
    in_prompt: int
    """Last tokens of the prompt that belong to the continuation and are read from prompt logprobs."""
    targets: list[tuple[int, int]]
    """(index of the loglikelihood request, its last token)"""
    dropped: list[int]
    """Tokens cut from the left, per target."""

    @property
    def last_tokens(self) -> list[int]:
        return list(dict.fromkeys(token for _, token in self.targets))


class Scored(NamedTuple):
    """loglikelihood may be NaN: the model's doing."""

    loglikelihood: float
    is_greedy: bool


class How(NamedTuple):
    """What the running vLLM can do."""

    replay: bool = False
    """Its trace replay forces tokens: the last one as well, so that only single tokens share a request."""
    reads_prompts: bool = True
    """It gives prompt logprobs."""


def score_asks(requests: Sequence[LoglikelihoodRequest], max_length: int, how: How) -> list[ScoreAsk]:
    """Cut, group and order: equal prefixes stand side by side, so that each is cached when its siblings come."""
    asks: dict[tuple[Ids, Ids, int, int], ScoreAsk] = {}
    open_group: dict[tuple[Ids, Ids, int], int] = {}
    for index, request in enumerate(requests):
        ids, dropped = fit_pair(request, max_length)
        tail = request.continuation_ids
        context = len(ids) - len(tail) + 1
        whole = how.reads_prompts and len(tail) > max(LONG_TAIL, context)
        key = (ids, (), len(tail) - 1) if whole else (ids[:context], tail[:-1], 0)
        number = open_group.get(key, 0)
        full = (*key, number) in asks and len(asks[*key, number].last_tokens) >= MOST_LAST_TOKENS
        if full or (how.replay and len(tail) > 1 and not whole and (*key, number) in asks):
            number = open_group[key] = number + 1
        ask = asks.setdefault((*key, number), ScoreAsk(*key, [], []))
        ask.targets.append((index, tail[-1]))
        ask.dropped.append(dropped)
    return sorted(asks.values(), key=lambda ask: (ask.prompt, ask.forced))


def read_scores(ask: ScoreAsk, output: Any, prompt_logprobs: Any, *, replay: bool) -> list[Scored]:
    """One score per target.

    Args:
        output: vLLM's CompletionOutput with flat logprobs: per step the sampled token, then ask.last_tokens.
        prompt_logprobs: flat logprobs of the prompt, where ask.in_prompt > 0.
    Raises: ValueError: vLLM did not follow the tokens it was given.
    """
    steps = output.logprobs
    total, greedy = _prompt_part(ask, prompt_logprobs)
    for step, token in enumerate(ask.forced):
        at = steps.start_indices[step]
        if steps.token_ids[at] != token:
            raise ValueError(f"token {steps.token_ids[at]} came where {token} was forced")
        total += steps.logprobs[at]
        greedy = greedy and steps.ranks[at] == 1
    at, end = steps.start_indices[len(ask.forced)], steps.end_indices[len(ask.forced)]
    sampled = steps.token_ids[at]
    values = dict(zip(steps.token_ids[at:end], steps.logprobs[at:end], strict=True))
    # where nothing was forced, the token drawn is the most probable one
    best = sampled if not (replay and ask.forced) or steps.ranks[at] == 1 else None
    return [Scored(total + values[token], greedy and token == best) for _, token in ask.targets]


def _prompt_part(ask: ScoreAsk, prompt_logprobs: Any) -> tuple[float, bool]:
    total, greedy = 0.0, True
    if not ask.in_prompt:
        return total, greedy
    for place in range(len(ask.prompt) - ask.in_prompt, len(ask.prompt)):
        at = prompt_logprobs.start_indices[place]
        if prompt_logprobs.token_ids[at] != ask.prompt[place]:
            raise ValueError(f"prompt token {ask.prompt[place]} came back as {prompt_logprobs.token_ids[at]}")
        total += prompt_logprobs.logprobs[at]
        greedy = greedy and prompt_logprobs.ranks[at] == 1
    return total, greedy


def is_number(score: Scored) -> bool:
    return not math.isnan(score.loglikelihood)
