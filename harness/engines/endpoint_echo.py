"""What a server says of a prompt's own tokens when it is asked to echo them with their log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.engines.endpoint_client import Garbage, Reply, usage_of


class Echo(NamedTuple):
    """The prompt's tokens as echo gives them."""

    values: Sequence[float | None]
    """log p of each token, nats; None for the first."""
    tops: Sequence[float | None]
    """log p of the likeliest token at each place; None where it is not told."""
    offsets: Sequence[int] | None
    """First character of each token."""
    sent_s: float

    def start(self, split: int) -> int | None:
        """The token that begins at this character; None where none does."""
        if self.offsets is None or split not in self.offsets:
            return None
        return list(self.offsets).index(split)

    def told_tops(self, first: int) -> list[float]:
        """The likeliest tokens' log p from a place on. Raises: Garbage: one is not told, nor what is greedy."""
        told = [top for top in self.tops[first:] if top is not None]
        if len(told) < len(self.tops) - first:
            raise Garbage(
                "an echo without top_logprobs for what is scored: whether it is greedy is not known"
            )
        return told


def read_echo(reply: Reply, generated: int) -> Echo:
    """Raises: Garbage: lists that are missing or of different lengths."""
    found = first_choice(reply).get("logprobs")
    if not isinstance(found, dict):
        raise Garbage("an echo without logprobs")
    values, tops, offsets = (found.get(name) for name in ("token_logprobs", "top_logprobs", "text_offset"))
    if not isinstance(values, list) or not isinstance(tops, list) or len(values) != len(tops):
        raise Garbage("an echo whose token_logprobs and top_logprobs are not of one length")
    counted = usage_of(reply.events).prompt
    n = counted if counted is not None and counted <= len(values) else len(values) - generated
    told = isinstance(offsets, list) and len(offsets) == len(values)
    best = [max(map(number, top.values())) if isinstance(top, dict) and top else None for top in tops[:n]]
    return Echo(values[:n], best, offsets[:n] if offsets and told else None, reply.sent_s)


def first_choice(reply: Reply) -> Mapping[str, Any]:
    choices = reply.events[0].data.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise Garbage(
            f"{len(choices) if isinstance(choices, list) else 'no'} choices came where one was asked for"
        )
    return choices[0]


def number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise Garbage(f"a logprob that is {value!r}")
    return float(value)
