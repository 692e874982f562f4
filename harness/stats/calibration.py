"""Does a stated confidence mean what it says? Calibration error, Brier score, AUROC, and the reliability diagram.

All from pairs of (confidence in [0, 1], right or wrong). numpy is imported when needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import BadInput
from harness.records import Metric
from harness.stats.auroc import auroc
from harness.stats.intervals import Estimate, wilson_interval
from harness.stats.resampling import bootstrap_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 10
REPLICATES = 2000
CELLS = 2_000_000
"""Random numbers held at once while resampling."""
EDGE = 1e-9
"""A confidence this little above a bin's upper edge is on it: 0.7 * 10 is 7.000000000000001."""


class Bin(NamedTuple):
    """One bar of a reliability diagram: the answers with low < confidence <= high (the first bin holds 0 as well)."""

    low: float
    high: float
    n: int
    confidence: float | None
    """Mean confidence in the bin; None where it is empty."""
    accuracy: float | None
    """Share of right answers in the bin."""
    ci95: tuple[float, float] | None
    """Wilson interval of the accuracy."""


def calibration(
    confidence: Sequence[float], correct: Sequence[float], *, n_failed: int = 0, seed: int = 0
) -> dict[str, Metric]:
    """What the confidence in some answers to different questions is worth, whatever their order.

    Args:
        confidence: (n,) in [0, 1]. correct: (n,) 0 or 1.
        n_failed: answers without a confidence or without a score.
    Returns: `ece` (its detail: the bars of the reliability diagram, see Bin), `brier`, `auroc`; values None where n
        is 0, auroc also where all answers are right, or all wrong.
    Raises: BadInput: lengths that differ, a confidence outside [0, 1], a rightness that is not 0 or 1.
    """
    check(confidence, correct)
    pairs = sorted(zip(confidence, correct, strict=True))  # resampling goes by place
    confidence, correct = [value for value, _ in pairs], [right for _, right in pairs]
    squares = [(value - right) ** 2 for value, right in pairs]
    error = Metric(None, 0, n_failed, higher_is_better=False)
    if correct:
        found = ece_estimate(confidence, correct, seed=seed)
        bars = [bar._asdict() for bar in reliability(confidence, correct)]
        error = replace(
            error,
            value=found.value,
            n=len(correct),
            stderr=found.stderr,
            ci95=found.ci95,
            interval=found.interval,
            detail={"reliability": bars},
        )
    return {
        "ece": error,
        "brier": _brier(squares, n_failed, seed),
        "auroc": auroc(confidence, [right == 1 for right in correct], n_failed=n_failed),
    }


def _brier(squares: Sequence[float], n_failed: int, seed: int) -> Metric:
    """Mean of the squared differences; the bootstrap's interval cannot leave [0, 1]."""
    if not squares:
        return Metric(None, 0, n_failed, higher_is_better=False)
    found = bootstrap_rows(squares, lambda rows: float(rows.mean()), seed=seed)
    return Metric(
        found.value,
        len(squares),
        n_failed,
        higher_is_better=False,
        stderr=found.stderr,
        ci95=found.ci95,
        interval=found.interval,
    )


def ece(confidence: Sequence[float], correct: Sequence[float], bins: int = BINS) -> float:
    """Expected calibration error, in [0, 1]: sum over bins of n_bin / n * |accuracy - mean confidence|.

    Args: confidence: (n,) in [0, 1], n at least 1. correct: (n,) 0 or 1. bins: of equal width.
    Raises: BadInput, as calibration().
    Source: Naeini, Cooper & Hauskrecht 2015, AAAI; Guo et al. 2017, arXiv:1706.04599, eq. 3.
    """
    check(confidence, correct)
    gaps = [0.0] * bins
    for value, right in zip(confidence, correct, strict=True):
        gaps[bin_of(value, bins)] += (
            right - value
        )  # n_bin * (accuracy - confidence) is the sum of the bin's gaps
    return math.fsum(map(abs, gaps)) / len(correct)


def ece_estimate(
    confidence: Sequence[float], correct: Sequence[float], *, bins: int = BINS, seed: int = 0
) -> Estimate:
    """The calibration error with an interval that allows for its bias.

    Noise alone makes it larger: a perfectly calibrated model shows about 0.1 on 100 answers. Resampling adds as much
    again, so the percentile interval lies above the truth (coverage of 95 % intervals near 0 in the worst cases).
    Here the lower end is the basic bootstrap's, which turns that bias round; it is 0 where the error seen is no
    larger than 97.5 % of those that perfectly calibrated answers of the same confidences show. The upper end is the
    larger of the basic and the percentile one. Coverage: benchmarks/statistics/calibration_coverage.py, 91 to 98 % at
    n of 100 to 1,000.

    Source: Davison & Hinkley 1997, Bootstrap Methods and their Application, sec. 5.2; Broecker & Smith 2007, Weather
        and Forecasting 22:651 (consistency resampling).
    """
    import numpy as np

    value, n = ece(confidence, correct, bins), len(correct)
    if n < 2:
        return Estimate(value, None, None, None)
    stated, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    in_bin = np.zeros((n, bins))
    in_bin[np.arange(n), [bin_of(one, bins) for one in confidence]] = 1.0
    rng = np.random.default_rng(seed)
    even = np.full(n, 1.0 / n)
    drawn = _errors(rng.multinomial(n, even, size=rows) * (right - stated) @ in_bin for rows in _blocks(n))
    chance = _errors(((rng.random((rows, n)) < stated) - stated) @ in_bin for rows in _blocks(n))
    low, high = np.quantile(drawn / n, [0.025, 0.975])
    consistent = value <= np.quantile(chance / n, 0.975)
    ci95 = (
        0.0 if consistent else max(0.0, float(2 * value - high)),
        min(1.0, float(max(2 * value - low, high))),
    )
    return Estimate(value, float((drawn / n).std(ddof=1)), ci95, "bias-aware bootstrap")


def reliability(confidence: Sequence[float], correct: Sequence[float], bins: int = BINS) -> tuple[Bin, ...]:
    """The reliability diagram's bars, empty ones included.

    Args: as ece().
    Raises: BadInput, as calibration().
    """
    check(confidence, correct)
    members: list[list[int]] = [[] for _ in range(bins)]
    for i, value in enumerate(confidence):
        members[bin_of(value, bins)].append(i)
    found = []
    for place, mine in enumerate(members):
        n = len(mine)
        average = math.fsum(confidence[i] for i in mine) / n if n else None
        share = math.fsum(correct[i] for i in mine) / n if n else None
        ci95 = wilson_interval(share, n) if share is not None else None
        found.append(Bin(place / bins, (place + 1) / bins, n, average, share, ci95))
    return tuple(found)


def bin_of(confidence: float, bins: int = BINS) -> int:
    """Place of the bin (place / bins, (place + 1) / bins] that holds a confidence; 0 is in the first."""
    return min(max(math.ceil(confidence * bins - EDGE) - 1, 0), bins - 1)


def check(confidence: Sequence[float], correct: Sequence[float]) -> None:
    """Raises: BadInput: lengths that differ, a confidence outside [0, 1] or NaN, a rightness that is not 0 or 1."""
    if len(confidence) != len(correct):
        raise BadInput(f"{len(confidence)} confidences for {len(correct)} answers; give one each")
    odd = next((i for i, value in enumerate(confidence) if not 0.0 <= value <= 1.0), None)
    if odd is not None:
        raise BadInput(f"confidence {odd} is {confidence[odd]}; leave out answers without one in [0, 1]")
    wrong = next((i for i, value in enumerate(correct) if value not in (0, 1)), None)
    if wrong is not None:
        raise BadInput(f"rightness {wrong} is {correct[wrong]}; give 0 or 1")


def _errors(gaps: Iterator[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(REPLICATES,) sums over bins of the absolute gaps. Args: gaps: blocks of (rows, bins)."""
    import numpy as np

    return np.concatenate([np.abs(block).sum(axis=1) for block in gaps])


def _blocks(n: int) -> list[int]:
    """Replicates per block of n random numbers each."""
    size = max(1, min(REPLICATES, CELLS // n))
    return [min(size, REPLICATES - start) for start in range(0, REPLICATES, size)]
