"""One continuation in the making: how its tokens are drawn, when it ends, and what its text is."""

from __future__ import annotations

import hashlib
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from harness.engines.batching import Window
from harness.protocols import Tokenizer
from harness.records import FinishReason, GenerateRequest, Output, Sampling

STOP_TAIL_TOKENS = 8
"""Tokens decoded beyond the longest stop string when looking for it."""


@dataclass
class Row:
    """One continuation in the making."""

    request: int
    draw: int
    window: Window
    sampling: Sampling
    queued_s: float
    uniforms: np.ndarray[Any, np.dtype[np.float64]] | None
    stop_tail: int
    started_s: float = 0.0
    """time.perf_counter() when its prompt began to be computed."""
    cached_tokens: int = 0
    """Prompt tokens that were computed for another row already."""
    ids: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    finish: FinishReason | None = None
    broken: bool = False
    """The model gave NaN, or no finite logit at all: there is no answer to score."""

    def restart(self) -> None:
        """Forget what was drawn: the batch did not fit into memory."""
        self.ids.clear()
        self.times_s.clear()
        self.finish = None
        self.broken = False


@dataclass(frozen=True)
class Decoding:
    """What decoding needs of the loaded model."""

    model: Any
    tokenizer: Tokenizer
    eos_ids: frozenset[int]
    pad_id: int
    repetition_penalty: float
    takes_positions: bool
    device: torch.device
    prefill_tokens: int
    """Padded prompt tokens of one forward pass; longer prefills are cut into several."""
    endings: dict[tuple[str, ...], dict[int, bool]] = field(default_factory=dict)
    """Per set of stop strings: which tokens can bring one to its end, as far as they were asked for."""


def make_rows(
    index: int, window: Window, request: GenerateRequest, queued_s: float, stop_tail: int
) -> list[Row]:
    """The n rows of a request. A row's random numbers depend on seed, draw and prompt alone."""
    rows, sampling = [], request.sampling
    for draw in range(request.first_draw, request.first_draw + sampling.n):
        uniforms = None
        if sampling.temperature > 0:
            key = f"{sampling.seed}:{draw}:{window.ids}".encode()
            seed = int.from_bytes(hashlib.sha256(key).digest()[:16], "big")
            uniforms = np.random.Generator(np.random.PCG64(seed)).random(window.max_tokens)
        rows.append(Row(index, draw, window, sampling, queued_s, uniforms, stop_tail))
    return rows


def advance(
    decoding: Decoding, rows: Sequence[Row], logits: torch.Tensor, seen: torch.Tensor | None
) -> torch.Tensor:
    """Draw one token for every row and append it; a row may be finished afterwards.

    Args:
        logits: (B, V) fp32.
        seen: (B, V) tokens that a repetition penalty applies to, updated in place; None: there is no penalty.
    Returns: (B,) tokens.
    """
    highest = logits.amax(dim=-1)  # NaN where there is one
    broken = highest.isnan() | (highest == float("-inf"))
    if bool(broken.any()):
        for row, is_broken in zip(rows, broken.tolist(), strict=True):
            row.broken = row.broken or is_broken
        logits = logits.masked_fill(broken.unsqueeze(1), 0.0)
    tokens = _draw(logits, rows, seen, decoding.repetition_penalty)
    now = time.perf_counter()
    for row, token in zip(rows, tokens.tolist(), strict=True):
        _append(decoding, row, token, now)
    return tokens


def finish_output(decoding: Decoding, row: Row) -> Output:
    """Decode a finished row and cut it before its first stop string."""
    ended = row.ids[-1] in decoding.eos_ids and row.finish == "stop"
    ids = (
        row.ids[:-1] if ended else row.ids
    )  # an end token that the tokenizer does not call special is no text
    return Output(
        _text(decoding.tokenizer, ids, row), tuple(row.ids), row.finish or "length", tuple(row.times_s)
    )


def _text(tokenizer: Tokenizer, ids: Sequence[int], row: Row) -> str:
    """What stands before the first stop string, without special tokens; a stop string may be a special token."""
    plain = tokenizer.decode(ids, skip_special_tokens=True)
    cut = _cut(plain, row.sampling.stop)
    if cut != plain or row.finish != "stop" or not row.sampling.stop:
        return cut

    def stops(size: int) -> bool:
        return _has_stop(tokenizer.decode(ids[:size], skip_special_tokens=False), row.sampling.stop)

    if not stops(len(ids)):
        return cut
    shortest = bisect_left(range(1, len(ids) + 1), True, key=stops)
    return tokenizer.decode(ids[:shortest], skip_special_tokens=True)


def seen_tokens(decoding: Decoding, rows: Sequence[Row], vocab: int) -> torch.Tensor | None:
    """(B, V) tokens a repetition penalty applies to, or None where there is no penalty."""
    if decoding.repetition_penalty == 1.0:
        return None
    seen = torch.zeros((len(rows), vocab), dtype=torch.bool, device=decoding.device)
    for i, row in enumerate(rows):
        seen[i, list(row.window.ids)] = True
    return seen


def _draw(
    logits: torch.Tensor, rows: Sequence[Row], seen: torch.Tensor | None, penalty: float
) -> torch.Tensor:
    """(B, V) logits -> (B,) tokens, greedy or by inverse transform of each row's own random number."""
    if seen is not None:
        # Keskar et al. 2019, as transformers' RepetitionPenaltyLogitsProcessor has it
        logits = torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)
    tokens = logits.argmax(dim=-1)
    drawn = [i for i, row in enumerate(rows) if row.uniforms is not None]
    for group in _by_sampling(rows, drawn):
        first = rows[group[0]].sampling
        u = torch.tensor(
            [rows[i].uniforms[len(rows[i].ids)] for i in group],  # type: ignore[index]
            dtype=torch.float64,
            device=logits.device,
        )
        tokens[group] = sample(logits[group], first, u)
    if seen is not None:
        seen[torch.arange(len(rows), device=seen.device), tokens] = True
    return tokens


def _by_sampling(rows: Sequence[Row], drawn: Sequence[int]) -> list[list[int]]:
    groups: dict[tuple[float, float, int], list[int]] = {}
    for i in drawn:
        s = rows[i].sampling
        groups.setdefault((s.temperature, s.top_p, s.top_k), []).append(i)
    return list(groups.values())


def sample(logits: torch.Tensor, sampling: Sampling, u: torch.Tensor) -> torch.Tensor:
    """Draw tokens by inverse transform.

    Args:
        logits: (B, V), fp32.
        sampling: temperature > 0; then top_k; then top_p (the smallest set whose mass reaches top_p).
        u: (B,) uniform numbers in [0, 1), fp64.
    Returns: (B,) token ids.
    """
    probs = torch.softmax(logits.double() / sampling.temperature, dim=-1)
    if sampling.top_k > 0 or sampling.top_p < 1:
        probs = _truncate(probs, sampling)
    # in the order of the vocabulary: in the order of the probabilities, float noise would swap near-ties, and a
    # draw would depend on its batch
    mass = probs.cumsum(dim=-1)
    place = torch.searchsorted(mass, (u * mass[:, -1]).unsqueeze(1), right=True).squeeze(1)
    possible = torch.arange(probs.shape[1], device=probs.device).expand_as(probs)
    last = torch.where(probs > 0, possible, 0).amax(dim=-1)
    return torch.minimum(place, last)


def _truncate(probs: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """(B, V) probabilities with what top_k and then top_p leave out set to 0."""
    ordered, index = probs.sort(dim=-1, descending=True, stable=True)
    if sampling.top_k > 0:
        ordered[:, sampling.top_k :] = 0
    total = ordered.sum(dim=-1, keepdim=True)
    before = ordered.cumsum(dim=-1) - ordered
    # the most probable token always stays
    ordered = torch.where((before >= sampling.top_p * total) & (before > 0), 0.0, ordered)
    return torch.zeros_like(probs).scatter(1, index, ordered)


def _append(decoding: Decoding, row: Row, token: int, now: float) -> None:
    row.ids.append(token)
    row.times_s.append(now - row.queued_s)
    if row.broken:
        row.finish = "length"
    elif (token in decoding.eos_ids and not row.sampling.ignore_eos) or _hit_stop(decoding, row):
        row.finish = "stop"
    elif len(row.ids) >= row.window.max_tokens:
        row.finish = "length"


def _hit_stop(decoding: Decoding, row: Row) -> bool:
    """Whether a stop string has appeared; looks at the tail first, then makes sure on the whole text.

    Special tokens are shown here: tasks name end-of-turn tokens among their stop strings.
    """
    if not row.sampling.stop or not _may_end(decoding, row.ids[-1], row.sampling.stop):
        return False
    tokenizer = decoding.tokenizer
    tail = tokenizer.decode(row.ids[-row.stop_tail :], skip_special_tokens=False)
    if not _has_stop(tail, row.sampling.stop):
        return False
    return _has_stop(tokenizer.decode(row.ids, skip_special_tokens=False), row.sampling.stop)


def _may_end(decoding: Decoding, token: int, stops: tuple[str, ...]) -> bool:
    """Whether a stop string can end in this token: decoding the answer at every token would cost more than drawing.

    A token that is part of a character shows as the replacement character; a space may be lost when a token is
    decoded alone.
    """
    known = decoding.endings.setdefault(stops, {})
    if token not in known:
        text = decoding.tokenizer.decode([token], skip_special_tokens=False)
        last = {stop[-1] for stop in stops if stop}
        known[token] = " " in last or "\ufffd" in text or any(char in text for char in last)
    return known[token]


def _has_stop(text: str, stops: Sequence[str]) -> bool:
    return any(stop in text for stop in stops)


def _cut(text: str, stops: Sequence[str]) -> str:
    ends = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
