"""Where more load stops paying: throughput over time, level by level."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records import Metric
from suites.serving.load import Point
from suites.serving.metrics import Measured
from suites.serving.steady import knee, passed, power


class Powers:
    """What the closed loops that were measured reached."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}
        self._by_lengths: dict[str, list[float]] = {}

    def add(self, point: Point, measured: Measured) -> None:
        rate, value = measured.rate(len(measured.logs)), power_of(measured)
        if point.concurrency is None or rate is None or value is None:
            return
        self._rates[point.lengths] = max(rate, self._rates.get(point.lengths, 0.0))
        self._by_lengths.setdefault(point.lengths, []).append(value)

    def best_rate(self, point: Point) -> float | None:
        """Most requests per second at the point's lengths; None: no closed loop was answered."""
        return self._rates.get(point.lengths)

    def passed(self, point: Point) -> bool:
        """Whether the concurrencies so far, at the point's lengths, have left the knee behind."""
        return passed(self._by_lengths.get(point.lengths, []))


def power_of(measured: Measured) -> float | None:
    """Requests per second over the mean end-to-end time; None where nothing was answered."""
    rate = measured.rate(len(measured.logs))
    if rate is None:
        return None
    mean_s = sum(log.ended_s - log.sent_s for log in measured.logs) / len(measured.logs)
    return power(rate, mean_s) if mean_s > 0 else None


def knee_metric(levels: Sequence[Measured]) -> tuple[Metric, str]:
    """The knee over all measured levels, and what to say of it."""
    powers = {m.point.concurrency or 0: power_of(m) for m in levels}
    best, said = knee(powers)
    n = sum(len(m.logs) for m in levels)
    failed = sum(m.n_failed for m in levels)
    return Metric(None if best is None else float(best), n, failed, True, unit="requests in flight"), said
