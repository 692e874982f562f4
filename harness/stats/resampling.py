"""Intervals where no formula is right: BCa bootstrap over rows or clusters, order statistics for quantiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.stats.intervals import Z95, Estimate, t_975

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

REPLICATES = 2000
JACKKNIFE_GROUPS = 200
"""Most leave-outs behind the acceleration: more cost time and change nothing."""
TAIL = 0.025


def bootstrap_rows(
    rows: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], float],
    *,
    clusters: Sequence[Hashable] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """A statistic of rows of numbers (AUROC, ECE, corpus F1, a macro average) with its BCa bootstrap interval.

    Args:
        rows: (n,) or (n, k) finite numbers, n at least 1; a row is what belongs to one sample, e.g. (score, label).
        statistic: maps an array of some rows, of the same form, to a number; NaN where it is not defined (AUROC of
            one class alone): such replicates are left out.
        clusters: (n,) rows of one cluster are drawn together (k samples of a prompt).
    Returns: stderr is the standard deviation over the replicates. No interval for fewer than two clusters, where
        more than half of the replicates are not defined, or where all are the same.
    Raises: BadInput: no rows, NaN or infinity among them, or clusters of another length.
    Source: Efron 1987, JASA 82:171 (BCa); the acceleration from leave-outs of whole clusters; Hesterberg 2015,
        The American Statistician 69:371 (widened as Student's t is).
    """
    import numpy as np

    data = np.asarray(rows, dtype=float)
    if not len(data) or not np.isfinite(data).all():
        raise BadInput(
            "bootstrap: rows must be finite and at least one; fail the samples that have no number"
        )
    units = _units(len(data), clusters)
    value = float(statistic(data))
    if len(units) < 2 or not math.isfinite(value):
        return Estimate(value, None, None, None)
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(units), size=len(units)) for _ in range(replicates))
    found = np.array([statistic(data[_rows_of(units, chosen)]) for chosen in drawn], dtype=float)
    found = found[np.isfinite(found)]
    if len(found) < max(2, replicates / 2):
        return Estimate(value, None, None, None)
    error = float(found.std(ddof=1))
    if np.ptp(found) <= 1e-12 * max(1.0, abs(value)):  # no variance is seen; that is not an error of 0
        return Estimate(value, error, None, None)
    limits = bca_limits(found, value, _leave_outs(data, units, statistic), len(units))
    return Estimate(value, error, limits, "cluster-bootstrap" if len(units) < len(data) else "bootstrap")


def bca_limits(
    replicates: NDArray[np.float64], value: float, leave_outs: NDArray[np.float64], n: int
) -> tuple[float, float]:
    """2.5 % and 97.5 % points of the replicates, corrected for bias and for an error that changes with the value.

    Replicates spread by (n - 1) / n too little, and by a normal's law where Student's is right: the points are moved
    out by sqrt(n / (n - 1)) t / z.

    Args:
        replicates: (B,) finite. value: of the data themselves. leave_outs: (J,) without one part each; NaN is left out.
        n: units that are drawn, at least 2.
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    below = float(np.mean(replicates < value) + np.mean(replicates == value) / 2)
    edge = 0.5 / len(replicates)
    bias = float(ndtri(min(max(below, edge), 1 - edge)))
    pull = leave_outs[np.isfinite(leave_outs)]
    pull = pull.mean() - pull if len(pull) else pull
    spread = float((pull**2).sum()) ** 1.5
    acceleration = float((pull**3).sum()) / (6 * spread) if spread > 0 else 0.0
    reach = math.sqrt(n / (n - 1)) * t_975(n - 1)
    z = bias + np.array([-reach, reach])
    points = ndtr(bias + z / np.maximum(1 - acceleration * z, 0.1))
    low, high = np.quantile(replicates, points)
    return float(low), float(high)


def quantile(values: Sequence[float], share: float) -> Estimate:
    """A quantile with an interval from order statistics, which holds for any continuous distribution.

    The limits lie between two neighbouring order statistics each, so that the error in each tail is 2.5 %. Where
    even the smallest or the largest value is exceeded more often than that (p99 of fewer than 368 values), the data
    do not bound the quantile and there is no interval.

    Args: values: (n,) finite, n at least 1. share: in (0, 1), e.g. 0.99.
    Returns: linear quantile (numpy's default); stderr is the interval's width over 2 x 1.96, None without one.
    Source: Nyblom 1992, J. Statist. Planning and Inference 33:287 (interpolation by the Beta form of the tails).
    """
    import numpy as np

    data = np.sort(np.asarray(values, dtype=float))
    if not len(data) or not np.isfinite(data).all():
        raise BadInput("quantile: values must be finite and at least one; leave out what was not measured")
    value = float(np.quantile(data, share))
    low, high = limits_of(data, share)
    if low is None or high is None:
        return Estimate(value, None, None, None)
    return Estimate(value, float(high - low) / (2 * Z95), (float(low), float(high)), "order-statistics")


def limits_of(data: NDArray[np.float64], share: float) -> tuple[Any, Any]:
    """Limits of a quantile of sorted values, in one set (n,) or many (m, n); None where the data give none."""
    low, mirrored = _lower(data, share), _lower(-data[..., ::-1], 1 - share)
    return low, None if mirrored is None else -mirrored


def _lower(data: NDArray[np.float64], share: float) -> Any:
    """Lower limit of a quantile of sorted values; None where the smallest value is none."""
    from scipy.special import bdtr

    n = data.shape[-1]
    rank = 0  # values below the quantile number at most `rank - 1` with a chance of at most TAIL
    while rank < n and float(bdtr(rank, n, share)) <= TAIL:
        rank += 1
    if rank == 0 or rank >= n:
        return None
    here, there = float(bdtr(rank - 1, n, share)), float(bdtr(rank, n, share))
    weight = 1 / (1 + rank * (1 - share) * (there - TAIL) / ((n - rank) * share * max(TAIL - here, 1e-300)))
    return (1 - weight) * data[..., rank - 1] + weight * data[..., rank]


def _units(n: int, clusters: Sequence[Hashable] | None) -> Sequence[Any]:
    """Row numbers that are drawn together; a range where each row stands alone."""
    import numpy as np

    if clusters is None:
        return range(n)
    if len(clusters) != n:
        raise BadInput(f"bootstrap: {len(clusters)} clusters for {n} rows; give one per row")
    held: dict[Hashable, list[int]] = {}
    for index, cluster in enumerate(clusters):
        held.setdefault(cluster, []).append(index)
    return [np.array(indices) for indices in held.values()]


def _rows_of(units: Sequence[Any], chosen: Any) -> Any:
    import numpy as np

    return chosen if isinstance(units, range) else np.concatenate([units[i] for i in chosen])


def _leave_outs(data: Any, units: Sequence[Any], statistic: Callable[[Any], float]) -> Any:
    """The statistic without each unit, or without each of JACKKNIFE_GROUPS groups of them."""
    import numpy as np

    groups = np.array_split(np.arange(len(units)), min(len(units), JACKKNIFE_GROUPS))
    keep = np.ones(len(data), dtype=bool)
    found = []
    for group in groups:
        left_out = _rows_of(units, group)
        keep[left_out] = False
        found.append(statistic(data[keep]) if keep.any() else math.nan)
        keep[left_out] = True
    return np.array(found, dtype=float)
