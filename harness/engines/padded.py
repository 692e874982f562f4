"""Batched decoding with padded rows, for models whose attention cannot be taken over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from harness.engines.generation import Decoding, Row, advance, seen_tokens


def generate_batch(decoding: Decoding, rows: Sequence[Row]) -> None:
    """Decode rows to their end; fills in their ids, times and finish reasons.

    Rows of one request stand side by side and share its prefill.
    """
    prompts, source = _unique_prompts(rows)
    input_ids, mask = _left_pad(prompts, decoding.pad_id)
    input_ids, mask = input_ids.to(decoding.device), mask.to(decoding.device)
    logits, cache = _prefill(decoding, input_ids, mask)
    live = list(rows)
    order = torch.tensor(source, device=decoding.device)
    if len(rows) != len(prompts):
        cache.batch_select_indices(order)
    logits, mask = logits[order], mask[order]
    seen = seen_tokens(decoding, rows, logits.shape[-1])
    while True:
        tokens = advance(decoding, live, logits, seen)
        keep = [i for i, row in enumerate(live) if row.finish is None]
        if not keep:
            return
        if len(keep) < len(live):
            index = torch.tensor(keep, device=decoding.device)
            cache.batch_select_indices(index)
            tokens, mask = tokens[index], mask[index]
            seen = seen[index] if seen is not None else None
            live = [live[i] for i in keep]
        mask = torch.cat([mask, mask.new_ones((len(live), 1))], dim=1)
        logits, cache = _forward(decoding, tokens.unsqueeze(1), mask, cache)


def _unique_prompts(rows: Sequence[Row]) -> tuple[list[tuple[int, ...]], list[int]]:
    """Prompts without repetition, and for every row the index of its prompt."""
    place: dict[tuple[int, ...], int] = {}
    source = [place.setdefault(row.window.ids, len(place)) for row in rows]
    return list(place), source


def _left_pad(prompts: Sequence[tuple[int, ...]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(ids) for ids in prompts)
    input_ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for i, ids in enumerate(prompts):
        input_ids[i, width - len(ids) :] = torch.tensor(ids, dtype=torch.long)
        mask[i, width - len(ids) :] = 1
    return input_ids, mask


def _prefill(decoding: Decoding, input_ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Last logits and cache of (B, T) prompts, a few rows at a time: activations are what fills the memory."""
    rows = max(1, decoding.prefill_tokens // input_ids.shape[1])
    parts = [
        _forward(decoding, input_ids[i : i + rows], mask[i : i + rows], None)
        for i in range(0, len(input_ids), rows)
    ]
    logits, cache = parts[0]
    if len(parts) > 1:
        logits = torch.cat([part for part, _ in parts])
        for index, layer in enumerate(cache.layers):
            layer.keys = torch.cat([part.layers[index].keys for _, part in parts])
            layer.values = torch.cat([part.layers[index].values for _, part in parts])
    return logits, cache


def _forward(
    decoding: Decoding, input_ids: torch.Tensor, mask: torch.Tensor, cache: Any
) -> tuple[torch.Tensor, Any]:
    """One step: (B, T) new tokens under a (B, past + T) mask -> (B, V) logits of the last position."""
    inputs = {"input_ids": input_ids, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
    if decoding.takes_positions:
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        inputs["position_ids"] = positions[:, -input_ids.shape[1] :]
    out = decoding.model(**inputs, logits_to_keep=1)
    return out.logits[:, -1].float(), out.past_key_values
