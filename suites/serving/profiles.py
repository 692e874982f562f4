"""Three tools' definitions of latency, computed from one log: `vllm`, `guidellm`, `aiperf`.

They give the same names to different things. With t_0 the sending, c_1 .. c_k the times of the pieces that a tool
counts, and n the tokens of the answer:

              vllm                          guidellm                     aiperf
    pieces    every one with a choice       those with text or thoughts  those with text or thoughts
    TTFT      c_1 - t_0                     c_1 - t_0                    c_1 - t_0
    TTFO      -                             first text - t_0             first text - t_0
    TPOT      (c_k - c_1) / (n - 1)         (c_k - t_0) / n              -
    ITL       gaps between pieces, pooled   (c_k - c_1) / (n - 1)        (c_k - c_1) / (n - tokens of the first piece)
    E2E       c_k - t_0                     end of the exchange - t_0    c_k - t_0
    weights   1                             TPOT n, ITL n - 1            1
    percentile  linear                      first value that reaches it  linear
    std       population                    population                   population

Sources: https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/benchmarks/serve.py (calculate_metrics) and
lib/endpoint_request_func.py beside it; GuideLLM 0.8.1, schemas/base/request_stats.py and statistics.py
(https://github.com/vllm-project/guidellm); AIPerf 0.13, metrics/types (https://github.com/ai-dynamo/aiperf).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from harness.records import Chunk
from suites.serving.log import RequestLog

Rule = Literal["linear", "reaching"]


class Value(NamedTuple):
    """One number of one request."""

    seconds: float
    weight: float = 1.0


Figures = Mapping[str, Sequence[Value]]
"""Figure -> its values in one request: one, none where it is not defined, many where they are pooled."""


class Slo(NamedTuple):
    """Service level objectives: the longest that a request may take, seconds; None: no matter."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None


@dataclass(frozen=True)
class Profile:
    """A tool's way to count."""

    name: str
    figures: Callable[[RequestLog], Figures]
    names: tuple[str, ...]
    """Its figures."""
    statistics: tuple[str, ...]
    meets: Callable[[RequestLog, Slo], bool | None]
    """Whether a request meets the objectives; None: it cannot be said."""
    rule: Rule = "linear"
    """linear: percentiles interpolate; reaching: the smallest value at which the share is reached."""


def one(seconds: float | None, weight: float = 1.0) -> list[Value]:
    return [] if seconds is None else [Value(seconds, weight)]


# vLLM


def vllm_pieces(log: RequestLog) -> list[Chunk]:
    """Pieces with a choice: an empty one counts, and so does the one that opens a chat."""
    return [chunk for chunk in log.chunks if chunk.kind != "usage"]


def vllm_tokens(log: RequestLog) -> int | None:
    """The server's count where it came apart, else that of the tokenizer here.

    None: nobody counted. vLLM's client takes such an answer for one token; a rate made of that would measure nothing.
    """
    if log.counted_apart and log.output_tokens:
        return log.output_tokens
    return log.text_tokens or log.output_tokens


def vllm_figures(log: RequestLog) -> Figures:
    times = [chunk.at_s for chunk in vllm_pieces(log)]
    n = vllm_tokens(log)
    return {
        "ttft": one(times[0] - log.sent_s),
        "tpot": one((times[-1] - times[0]) / (n - 1) if n is not None and n > 1 else None),
        "itl": [Value(later - earlier) for earlier, later in pairwise(times)],
        "e2e": one(times[-1] - log.sent_s),
    }


def vllm_meets(log: RequestLog, slo: Slo) -> bool | None:
    """All objectives, ends included; a request of one token has a TPOT of 0, one of uncounted tokens is undecided."""
    if slo.tpot is not None and vllm_tokens(log) is None:
        return None
    found = vllm_figures(log)
    return all(
        limit is None or (found[name][0].seconds if found[name] else 0.0) <= limit
        for name, limit in slo._asdict().items()
    )


# GuideLLM


def content(log: RequestLog) -> list[Chunk]:
    """Pieces with text or thoughts."""
    return [chunk for chunk in log.chunks if chunk.kind in ("text", "reasoning")]


def first_text(log: RequestLog) -> float | None:
    """Seconds from the sending to the first piece of the answer itself, thoughts not counted."""
    return next((chunk.at_s - log.sent_s for chunk in log.chunks if chunk.kind == "text"), None)


def counted(log: RequestLog) -> int:
    """Tokens; where the server tells none, GuideLLM takes a piece for a token."""
    return log.output_tokens or len(content(log))


def guidellm_figures(log: RequestLog) -> Figures:
    times = [chunk.at_s for chunk in content(log)]
    n = counted(log)
    last = times[-1] if times else log.ended_s
    return {
        "ttft": one(times[0] - log.sent_s if times else None),
        "ttfo": one(first_text(log)),
        "tpot": one((last - log.sent_s) / n if n else None, n),
        "itl": one((times[-1] - times[0]) / (n - 1) if times and n > 1 else None, n - 1),
        "e2e": one(log.ended_s - log.sent_s),
    }


def guidellm_meets(log: RequestLog, slo: Slo) -> bool | None:
    """TPOT is held against ITL; a request that lacks a figure is undecided, whatever the others say."""
    found = guidellm_figures(log)
    limits = [("ttft", slo.ttft), ("itl", slo.tpot), ("e2e", slo.e2e)]
    asked = [(found[name], limit) for name, limit in limits if limit is not None]
    if any(not values for values, _ in asked):
        return None
    return all(values[0].seconds <= limit for values, limit in asked)


# AIPerf


def first_tokens(log: RequestLog, n: int) -> int:
    """Tokens of the first piece, where they are known and leave some; else 1."""
    first = content(log)[0]
    known = first.usage if first.usage is not None else first.tokens
    return known if known is not None and 0 < known < n else 1


def aiperf_figures(log: RequestLog) -> Figures:
    times = [chunk.at_s for chunk in content(log)]
    n = log.tokens or 0
    return {
        "ttft": one(times[0] - log.sent_s if times else None),
        "ttfo": one(first_text(log)),
        "itl": one((times[-1] - times[0]) / (n - first_tokens(log, n)) if times and n > 1 else None),
        "e2e": one(times[-1] - log.sent_s if times else None),
    }


def aiperf_meets(log: RequestLog, slo: Slo) -> bool | None:
    """TPOT is held against ITL; a request that lacks a figure does not meet it, uncounted tokens leave it open."""
    if slo.tpot is not None and log.tokens is None:
        return None
    found = aiperf_figures(log)
    limits = [("ttft", slo.ttft), ("itl", slo.tpot), ("e2e", slo.e2e)]
    return all(
        limit is None or (bool(found[name]) and found[name][0].seconds <= limit) for name, limit in limits
    )


BRIEF = ("mean", "p50", "p99")
VLLM = Profile(
    "vllm", vllm_figures, ("e2e", "ttft", "tpot", "itl"), ("p50", "p90", "p99", "mean", "std"), vllm_meets
)
GUIDELLM = Profile(
    "guidellm", guidellm_figures, ("e2e", "ttft", "ttfo", "tpot", "itl"), BRIEF, guidellm_meets, "reaching"
)
AIPERF = Profile("aiperf", aiperf_figures, ("e2e", "ttft", "ttfo", "itl"), BRIEF, aiperf_meets)
PROFILES = {profile.name: profile for profile in (VLLM, GUIDELLM, AIPERF)}
"""By name."""
SCHEDULED = Profile(
    "scheduled",
    lambda log: vllm_figures(log.due()),
    ("e2e", "ttft"),
    ("p50", "p90", "p99", "mean"),
    lambda log, slo: vllm_meets(log.due(), slo),
)
"""vLLM's rules from the time when a request was due: a sender that waits for a slow server hides nothing."""
STEADY = Profile("steady", vllm_figures, ("e2e", "ttft", "tpot", "itl"), BRIEF, vllm_meets)
"""vLLM's rules on the requests of the steady state alone."""
