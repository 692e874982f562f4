"""Reliability diagrams: how often answers are right, by the confidence in them. From what calibration metrics carry."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from harness.records import Json, Metric, RunRecord

SIZE = 100.0
"""Side of the square that a diagram is drawn in; y grows downwards."""
MOST_BARS = 100


class Bar(NamedTuple):
    """One bin, in the diagram's units but for the last four."""

    x: float
    width: float
    top: float
    whisker_top: float
    whisker_bottom: float
    n: int
    confidence: float
    """Mean in the bin."""
    accuracy: float
    ci95: tuple[float, float]

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


class Diagram(NamedTuple):
    """The bins of one metric that hold answers."""

    task: str
    name: str
    metric: Metric
    bars: tuple[Bar, ...]


def diagrams(run: RunRecord) -> list[Diagram]:
    """Of every metric that carries bins; what is not in their form is left out: a run may come from elsewhere."""
    found = []
    for task, metrics in run.metrics.items():
        for name, metric in metrics.items():
            bars = read_bars(metric.detail)
            if bars:
                found.append(Diagram(task, name, metric, bars))
    return found


def read_bars(detail: Json) -> tuple[Bar, ...]:
    """Bars of the bins that hold answers, from {"reliability": [{low, high, n, confidence, accuracy, ci95}, ...]}."""
    rows = detail.get("reliability") if isinstance(detail, dict) else None
    if not isinstance(rows, list):
        return ()
    return tuple(bar for row in rows[:MOST_BARS] if (bar := _bar(row)) is not None)


def _bar(row: Any) -> Bar | None:
    """None: an empty bin, or no bin."""
    try:
        n = int(row["n"])
        low, high, confidence, accuracy = (
            _share(row[name]) for name in ("low", "high", "confidence", "accuracy")
        )
        least, most = (_share(end) for end in row["ci95"])
    except (KeyError, TypeError, ValueError):
        return None
    if n < 1 or high < low:
        return None
    return Bar(
        x=low * SIZE,
        width=(high - low) * SIZE,
        top=_down(accuracy),
        whisker_top=_down(most),
        whisker_bottom=_down(least),
        n=n,
        confidence=confidence,
        accuracy=accuracy,
        ci95=(least, most),
    )


def _share(value: Any) -> float:
    """Raises: TypeError, ValueError: no number of [0, 1]."""
    number = float(value)
    if not (math.isfinite(number) and 0.0 <= number <= 1.0):
        raise ValueError(f"{value!r} is no share")
    return number


def _down(share: float) -> float:
    return (1.0 - share) * SIZE
