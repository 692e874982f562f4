"""The steady state of a load, and the knee of a sweep. Pure functions of logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.stats.intervals import Estimate, t_mean
from suites.serving.log import RequestLog

LEAST = 5
"""Requests that a steady state must hold."""
BATCH = 5
RISING = 4.0
"""Standard deviations; queues make neighbours alike, so that fewer mean nothing."""
SLICES = 10


class Steady(NamedTuple):
    """The requests between the load's rise and its fall."""

    logs: Sequence[RequestLog]
    start_s: float
    end_s: float


def steady_state(logs: Sequence[RequestLog], concurrency: int | None) -> Steady | None:
    """The part of a load in which it was what it was to be; None where it is too short, or never settled.

    It begins, in a closed loop, with the first request that took an answered one's place; in an open loop where MSER-5
    cuts off the transient of the end-to-end times. It ends with the last sending; the requests that were in flight
    then are left out, whenever they were sent, since the load fell while they were answered.

    Args: logs: answered requests. concurrency: None: an open loop.
    """
    ordered = sorted(logs, key=lambda log: log.sent_s)
    if not ordered:
        return None
    last_s = ordered[-1].sent_s
    times = [log.ended_s - log.scheduled_s for log in ordered]
    begun = concurrency if concurrency is not None else mser5(times)
    if begun is None:
        return None
    kept = [log for log in ordered[begun:] if log.ended_s <= last_s]
    return Steady(kept, ordered[begun].sent_s, last_s) if len(kept) >= LEAST else None


def mser5(values: Sequence[float]) -> int | None:
    """Values to leave out at the beginning of a series, so that the rest is as near to its mean as can be.

    Batches of five are averaged; the cut, at most half, minimises the variance of what is left over its number. None:
    what is left still rises (Mann-Kendall, z above 4), so that the series has not settled.

    Source: White, Cobb & Spratt 2000, Proc. Winter Simulation Conference, 755 (MSER-5); Mann 1945, Econometrica 13:245.
    """
    batches = [sum(values[at : at + BATCH]) / BATCH for at in range(0, len(values) // BATCH * BATCH, BATCH)]
    spreads = [_spread(batches[cut:]) for cut in range(len(batches) // 2 + 1) if cut < len(batches)]
    cut = spreads.index(min(spreads)) * BATCH if spreads else 0
    return None if trend(values[cut:]) > RISING else cut


def trend(values: Sequence[float]) -> float:
    """Mann and Kendall's z: how much later values exceed earlier ones, in standard deviations of no order at all."""
    import numpy as np

    n = len(values)
    if n < 3:
        return 0.0
    data = np.asarray(values, dtype=float)
    total = sum(float(np.sign(data[place + 1 :] - data[place]).sum()) for place in range(n - 1))
    return total / (n * (n - 1) * (2 * n + 5) / 18) ** 0.5


def _spread(values: Sequence[float]) -> float:
    middle = sum(values) / len(values)
    return float(sum((value - middle) ** 2 for value in values) / len(values) ** 2)


def steady_rate(steady: Steady, logs: Sequence[RequestLog]) -> Estimate | None:
    """Answer tokens per second, and its interval from ten equal slices of the steady state (batch means).

    Args: logs: all of the load; requests that are not of the steady state may have got tokens during it.

    """
    seconds = (steady.end_s - steady.start_s) / SLICES
    if seconds <= 0:
        return None
    counts = [0.0] * SLICES
    for log in logs:
        arrived = arrivals_of(log)
        if arrived is None:
            return None
        for at_s, tokens in arrived:
            place = int((at_s - steady.start_s) / seconds)
            if 0 <= place < SLICES:
                counts[place] += tokens
    found = t_mean([count / seconds for count in counts])
    return found._replace(interval=found.interval and "batch-means")


def arrivals_of(log: RequestLog) -> list[tuple[float, float]] | None:
    """When tokens came, and how many: pieces whose tokens are not known share those of their request evenly.

    None: nobody counted them.
    """
    pieces = [chunk for chunk in log.chunks if chunk.kind in ("text", "reasoning", "empty")]
    if not pieces:
        return []
    if all(chunk.tokens is not None for chunk in pieces):
        return [(chunk.at_s, float(chunk.tokens or 0)) for chunk in pieces]
    if log.tokens is None:
        return None
    return [(chunk.at_s, log.tokens / len(pieces)) for chunk in pieces]


def power(requests_per_s: float, mean_e2e_s: float) -> float:
    """Throughput over time: what Kleinrock calls power."""
    return requests_per_s / mean_e2e_s


def knee(powers: Mapping[int, float | None]) -> tuple[int | None, str]:
    """The concurrency of the greatest power, and in words how sure that is.

    Below the knee throughput grows faster than time, above it slower; at the greatest throughput per second of waiting
    the pipe is full and nobody waits for long. None where the highest concurrency is the best: the knee lies beyond.

    Source: Kleinrock 1979, Power and deterministic rules of thumb, ICC'79, 43.1.
    """
    known = {c: value for c, value in powers.items() if value is not None}
    if len(known) < 3:
        return None, "the knee needs three concurrencies at least"
    best = max(known, key=lambda c: known[c])
    if best == max(known):
        return None, f"throughput still grew faster than time at {best} in flight: the knee lies beyond"
    return best, f"the knee is at {best} in flight: the greatest throughput over end-to-end time"


def passed(powers: Sequence[float]) -> bool:
    """Whether the last two of ascending levels lie below the best before them."""
    return len(powers) > 2 and max(powers[-2:]) < max(powers[:-2])
