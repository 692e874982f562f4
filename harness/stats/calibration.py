"""Does a stated confidence mean what it says? Calibration error, Brier score, AUROC, and the reliability diagram.

All from pairs of (confidence in [0, 1], right or wrong). numpy is imported when needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import BadInput
from harness.records import Metric
from harness.stats.auroc import auroc
from harness.stats.intervals import NOISE, Z95, Estimate, t_975, wilson_interval, without_variance
from harness.stats.resampling import bootstrap_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 10
REPLICATES = 2000
CELLS = 2_000_000
"""Random numbers held at once while resampling."""
HALVINGS = 20
"""Of the range in which a limit is looked for: to a millionth."""
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
    n = len(correct)
    error = _metric(ece_estimate(confidence, correct, seed=seed) if correct else None, n, n_failed)
    if correct:
        bars = [bar._asdict() for bar in reliability(confidence, correct)]
        error = replace(error, detail={"reliability": bars})
    return {
        "ece": error,
        "brier": _metric(brier(squares, seed=seed) if correct else None, n, n_failed),
        "auroc": auroc(confidence, [right == 1 for right in correct], n_failed=n_failed),
    }


def brier(squares: Sequence[float], *, seed: int = 0, replicates: int = REPLICATES) -> Estimate:
    """Mean of the squared differences with an interval that cannot leave [0, 1]: BCa bootstrap, or Wilson's where all
    squares are the same.

    Args: squares: (n,) in [0, 1], n at least 1.
    """
    found = bootstrap_rows(squares, lambda rows: float(rows.mean()), seed=seed, replicates=replicates)
    if found.ci95 is None and len(squares) > 1:
        return without_variance(found.value, len(squares))
    return found


def _metric(found: Estimate | None, n: int, n_failed: int) -> Metric:
    """An error, of which less is better."""
    if found is None:
        return Metric(None, 0, n_failed, higher_is_better=False)
    return Metric(found.value, n, n_failed, False, found.stderr, found.ci95, found.interval)


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
    confidence: Sequence[float],
    correct: Sequence[float],
    *,
    bins: int = BINS,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Estimate:
    """The calibration error with an interval that allows for its bias.

    Noise alone makes it larger: a perfectly calibrated model shows about 0.1 on 100 answers, so that no interval
    round the value that was seen is right. The limits are the errors in truth under which a value as large, or as
    small, is seen in 2.5 % of all cases each. The gaps of the bins cannot all be told from one number: they are taken
    to share the error out as the answers are for the upper limit, where noise adds least, and as those that stand out
    of the noise for the lower one. That is 0 where the value is no larger than 97.5 % of those that perfectly
    calibrated answers of the same confidences show. The interval is stretched to hold the value, and by what bins hide
    whose answers are all right or all wrong: no variance is seen there, which is not an error of 0 (Wilson).

    Coverage: benchmarks/statistics/README.md. No interval of an error that cannot be negative is exact for all
    models: it has no derivative where a bin has no gap (Hirano & Porter 2012, Econometrica 80:1769).
    Source: DiCiccio & Romano 1990, International Statistical Review 58:59 (a family of one parameter through the
        data, its test inverted); Broecker & Smith 2007, Weather and Forecasting 22:651 (consistency resampling).
    """
    import numpy as np

    value, n = ece(confidence, correct, bins), len(correct)
    if n < 2:
        return Estimate(value, None, None, None)
    stated, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    in_bin = np.zeros((n, bins))
    in_bin[np.arange(n), [bin_of(one, bins) for one in confidence]] = 1.0
    rng = np.random.default_rng(seed)
    seen = (right - stated) @ in_bin / n
    noise = _noise((right - stated)[:, None] * in_bin, rng.standard_normal((replicates, bins)))
    if float(np.abs(noise).max()) <= NOISE:  # every gap is the same: that is not an error of 0
        reach = wilson_interval(0.0, n)[1]
        return Estimate(value, 0.0, (max(0.0, value - reach), min(1.0, value + reach)), "wilson")
    error = float(np.abs(seen + noise).sum(axis=1).std(ddof=1))
    chance = _by_chance(stated, in_bin, rng, replicates)
    low = (
        0.0
        if value <= np.quantile(chance, 0.975)
        else _truth_behind(value, _surely(seen, noise), noise, 0.975)
    )
    evenly = np.where(seen < 0, -1.0, 1.0) * in_bin.mean(axis=0)
    high = _truth_behind(value, evenly, noise, 0.025)
    hidden = _hidden(right, in_bin)
    limits = max(0.0, min(low, value - hidden)), min(1.0, max(high, value + hidden))
    return Estimate(value, error, limits, "bias-aware inversion")


def _hidden(right: NDArray[np.float64], in_bin: NDArray[np.float64]) -> float:
    """How far the error may be off by the bins whose answers are all right, or all wrong: Wilson's reach of each, by
    its share of the answers, joined as independent ones are."""
    n, ones = in_bin.sum(axis=0), right @ in_bin
    alike = [float(size) for size, held in zip(n, ones, strict=True) if size and held in (0, size)]
    return math.hypot(*(size * wilson_interval(0.0, size)[1] for size in alike)) / len(right)


def _noise(gaps: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """(replicates, bins) errors of the bins' mean gaps, with their covariance. Args: gaps: (n, bins)."""
    import numpy as np

    n = len(gaps)
    spreads, axes = np.linalg.eigh(gaps.T @ gaps / n - np.outer(gaps.mean(axis=0), gaps.mean(axis=0)))
    root = axes * np.sqrt(np.maximum(spreads, 0.0) / (n - 1))
    found: NDArray[np.float64] = normal @ root.T * (t_975(n - 1) / Z95)
    return found


def _surely(seen: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """The gaps, each shrunk by what noise makes of it (positive-part James-Stein); as they are if none is left."""
    import numpy as np

    square = np.maximum(seen**2, 1e-300)
    shrunk: NDArray[np.float64] = seen * np.maximum(0.0, 1.0 - noise.var(axis=0) / square)
    return shrunk if shrunk.any() else seen


def _by_chance(
    stated: NDArray[np.float64], in_bin: NDArray[np.float64], rng: np.random.Generator, replicates: int
) -> NDArray[np.float64]:
    """(replicates,) errors that perfectly calibrated answers show."""
    import numpy as np

    n = len(stated)
    rows = max(1, min(replicates, CELLS // n))
    blocks = [
        np.abs(((rng.random((min(rows, replicates - start), n)) < stated) - stated) @ in_bin).sum(axis=1)
        for start in range(0, replicates, rows)
    ]
    found: NDArray[np.float64] = np.concatenate(blocks) / n
    return found


def _truth_behind(value: float, gaps: NDArray[np.float64], noise: NDArray[np.float64], share: float) -> float:
    """The error in truth, its gaps in proportion to these, of which a share of the errors seen lie below the value.

    Returns: 0 where no error is as small; errors seen rise with the truth (Anderson's inequality).
    """
    import numpy as np

    size = float(np.abs(gaps).sum())
    unit = gaps / size if size > 0 else gaps
    low, high = 0.0, value + float(np.abs(noise).sum(axis=1).max())
    place = round(share * (len(noise) - 1))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        errors = np.abs(middle * unit + noise).sum(axis=1)
        low, high = (middle, high) if np.partition(errors, place)[place] < value else (low, middle)
    return low


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
