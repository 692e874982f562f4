"""A number over samples with its standard error and 95 % interval. numpy and scipy are imported when needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from harness.errors import BadInput
from harness.records import Metric

Z95 = 1.959963984540054
"""97.5 % point of the normal distribution."""
NOISE = 1e-12
"""A standard error this small beside the largest value is what rounding leaves of none."""
Bounds = tuple[float, float]
"""Lowest and highest value that a score can have."""
UNIT: Bounds = (0.0, 1.0)


class Estimate(NamedTuple):
    """A mean (or another statistic) with what is known of its error."""

    value: float
    stderr: float | None
    ci95: tuple[float, float] | None
    interval: str | None
    """Name of the method behind ci95; None: too few samples for any."""


def summarise(  # noqa: PLR0913  keyword-only after the values; a record would say no more
    values: Sequence[float],
    *,
    n_failed: int,
    higher_is_better: bool,
    clusters: Sequence[Hashable] | None = None,
    unit: str | None = None,
    chance: float | None = None,
    bounds: Bounds | None = None,
    name: str = "metric",
) -> Metric:
    """Mean of the values as a Metric: Wilson for shares (all values 0 or 1, no unit), t otherwise.

    Args:
        values: (n,) finite scores of the samples that could be scored.
        n_failed: samples that could not; they are counted, never averaged.
        clusters: (n,) values that belong together share a cluster (k samples of one prompt); the interval
            then rests on the number of clusters.
        bounds: of a score; needed only where all values are the same (see without_variance). None: 0 and 1 for
            scores, none for what has a unit.
        name: for the error message.
    Returns: value None where n is 0.
    Raises: BadInput: NaN or infinity among the values, or clusters of another length.
    """
    _check(values, clusters, name)
    if bounds is None and unit is None:
        bounds = UNIT
    estimate = _estimate(values, clusters, bounds, is_score=unit is None)
    if estimate is None:
        return Metric(None, 0, n_failed, higher_is_better, unit=unit, chance=chance)
    return Metric(
        estimate.value,
        len(values),
        n_failed,
        higher_is_better,
        stderr=estimate.stderr,
        ci95=estimate.ci95,
        interval=estimate.interval,
        unit=unit,
        chance=chance,
    )


def proportion(values: Sequence[float], *, n_failed: int = 0, higher_is_better: bool = True) -> Metric:
    """Share of ones among zeros and ones, with the Wilson interval.

    Raises: BadInput: a value is neither 0 nor 1.
    """
    odd = next((value for value in values if value not in (0, 1)), None)
    if odd is not None:
        raise BadInput(f"{odd!r} among the values of a share; give zeros and ones, or use mean()")
    return summarise(values, n_failed=n_failed, higher_is_better=higher_is_better)


def mean(
    values: Sequence[float], *, n_failed: int = 0, higher_is_better: bool = True, unit: str | None = None
) -> Metric:
    """Mean with the t interval, also where all values happen to be 0 or 1.

    Raises: BadInput: NaN or infinity among the values.
    """
    _check(values, None, "mean")
    if not values:
        return Metric(None, 0, n_failed, higher_is_better, unit=unit)
    value, error, ci95, interval = t_mean(values)
    return Metric(value, len(values), n_failed, higher_is_better, error, ci95, interval, unit)


def _estimate(
    values: Sequence[float], clusters: Sequence[Hashable] | None, bounds: Bounds | None, *, is_score: bool
) -> Estimate | None:
    if not values:
        return None
    is_share = is_score and bounds == UNIT and all(value in (0, 1) for value in values)
    if clusters is not None and len(set(clusters)) < len(values):
        return clustered_mean(values, clusters, is_share=is_share, bounds=bounds)
    return wilson(values) if is_share else t_mean(values, bounds)


def _check(values: Sequence[float], clusters: Sequence[Hashable] | None, name: str) -> None:
    bad = next((i for i, value in enumerate(values) if not math.isfinite(value)), None)
    if bad is not None:
        raise BadInput(
            f"{name}: value {bad} of {len(values)} is {values[bad]}, and a mean over it means nothing; "
            "let the scorer fail that sample (Score(None, error=...))"
        )
    if clusters is not None and len(clusters) != len(values):
        raise BadInput(f"{name}: {len(clusters)} clusters for {len(values)} values; give one per value")


def wilson(values: Sequence[float]) -> Estimate:
    """Share of ones with the Wilson score interval.

    Source: Wilson 1927, JASA 22:209; Brown, Cai & DasGupta 2001, Statistical Science 16:101, eq. 4.
    """
    share = math.fsum(values) / len(values)
    return Estimate(share, _stderr(values, share), wilson_interval(share, len(values)), "wilson")


def wilson_interval(share: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Score interval of a share seen on n (possibly effective, so fractional) trials."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends rounding would leave 1e-17 beside the exact 0 or 1.
    return (0.0 if share == 0 else middle - half), (1.0 if share == 1 else middle + half)


def t_mean(values: Sequence[float], bounds: Bounds | None = None) -> Estimate:
    """Mean with Student's interval; one value has none. Args: bounds: see without_variance."""
    average = math.fsum(values) / len(values)
    error = _stderr(values, average)
    if error is None:
        return Estimate(average, None, None, None)
    if error == 0:
        return without_variance(average, len(values), bounds)
    half = t_975(len(values) - 1) * error
    return Estimate(average, error, (average - half, average + half), "t")


def without_variance(value: float, n: float, bounds: Bounds | None = UNIT) -> Estimate:
    """What can be said where all n values (or all n clusters) are the same: not that the error is 0.

    Args: bounds: lowest and highest score there is; None: not known, or none.
    Returns: Wilson's interval at n, stretched over the bounds, which no score inside them can need wider; none without
        bounds, or for a value outside them.
    """
    if bounds is None or not bounds[0] <= value <= bounds[1]:
        return Estimate(value, 0.0, None, None)
    start, width = bounds[0], bounds[1] - bounds[0]
    low, high = wilson_interval((value - start) / width, n)
    return Estimate(value, 0.0, (start + width * low, start + width * high), "wilson")


def clustered_mean(
    values: Sequence[float], clusters: Sequence[Hashable], *, is_share: bool, bounds: Bounds | None = None
) -> Estimate:
    """Mean whose error rests on clusters of dependent values.

    The standard error is the bias-reduced cluster-robust one (CR2), with Satterthwaite's degrees of freedom at the
    correlation that the clusters show: exact where clusters are of one size, fewer degrees where one of them weighs
    much. Shares get the Wilson interval at the effective sample size (G where every value is the same), others t.
    One cluster has no interval.

    Source: Bell & McCaffrey 2002, Survey Methodology 28:169 (CR2, degrees); Miller 2024, arXiv:2411.00640, sec. 2.2;
        Korn & Graubard 1998, Survey Methodology 24:193 (effective sample size, its t factor included).
        benchmarks/statistics/ holds how often these intervals hold the truth.
    """
    n = len(values)
    average = math.fsum(values) / n
    held = _cluster_sums(values, clusters, average)
    groups = len(held)
    if groups < 2:
        return Estimate(average, None, None, None)
    variance = math.fsum(total**2 / (1 - size / n) for total, size in held) / n**2
    error, degrees = _heard(math.sqrt(variance), values), _degrees(values, held, average)
    spread = average * (1 - average)
    if not is_share:
        if error == 0:
            return without_variance(average, groups, bounds)
        half = t_975(degrees) * error
        return Estimate(average, error, (average - half, average + half), "cluster-t")
    # No error seen: all values equal (count each cluster once), or clusters that are all alike (nothing lost).
    effective = spread / variance if error > 0 else float(groups if spread == 0 else n)
    # By chance it is more than n at times: a cap there would make the interval too wide.
    effective *= (Z95 / t_975(degrees)) ** 2
    return Estimate(average, error, wilson_interval(average, effective), "cluster-wilson")


def _cluster_sums(
    values: Sequence[float], clusters: Sequence[Hashable], average: float
) -> list[tuple[float, int]]:
    """(sum of residuals, size) of each cluster."""
    sums: dict[Hashable, tuple[float, int]] = {}
    for cluster, value in zip(clusters, values, strict=True):
        total, size = sums.get(cluster, (0.0, 0))
        sums[cluster] = (total + value - average, size + 1)
    return list(sums.values())


def _degrees(values: Sequence[float], held: Sequence[tuple[float, int]], average: float) -> float:
    """Satterthwaite's degrees of freedom of the CR2 variance of a mean, at least 1.

    With shares h of the clusters in n, variances t of their sums and C = diag(t) - t h' - h t' + sum(t) h h' the
    covariance of the residuals' sums, the variance is sum(w S^2), w = 1 / (1 - h), and its degrees are
    (sum w C_gg)^2 / sum(w_g w_k C_gk^2), written out below so that it takes time of G, not of G^2.
    """
    n, correlation = len(values), _intraclass(values, held, average)
    shares = [size / n for _, size in held]
    spreads = [size * (1 + (size - 1) * correlation) for _, size in held]
    rows = [(h, t, 1 / (1 - h)) for h, t in zip(shares, spreads, strict=True)]
    total = math.fsum(spreads)
    mean_square = math.fsum(w * (t - 2 * h * t + total * h * h) for h, t, w in rows)
    on_diagonal = math.fsum(w * w * (t * t + 2 * t * (total * h * h - 2 * h * t)) for h, t, w in rows)
    hh = math.fsum(w * h * h for h, _, w in rows)
    tt = math.fsum(w * t * t for _, t, w in rows)
    ht = math.fsum(w * h * t for h, t, w in rows)
    everywhere = 2 * hh * tt + 2 * ht * ht + (total * hh) ** 2 - 4 * total * hh * ht
    return max(1.0, mean_square**2 / (on_diagonal + everywhere))


def _intraclass(values: Sequence[float], held: Sequence[tuple[float, int]], average: float) -> float:
    """Correlation of two values of one cluster by the analysis of variance, in [0, 1]."""
    n, groups = len(values), len(held)
    if n == groups:
        return 0.0
    whole = math.fsum((value - average) ** 2 for value in values)
    between = math.fsum(total**2 / size for total, size in held)
    usual_size = (n - math.fsum(size**2 for _, size in held) / n) / (groups - 1)
    within = (whole - between) / (n - groups)
    excess = between / (groups - 1) - within
    scale = excess + usual_size * within
    return min(1.0, max(0.0, excess / scale)) if scale > 0 else 0.0


def bootstrap(
    values: Sequence[float],
    statistic: Callable[..., Any],
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Any statistic (a median, a 99th percentile) with the percentile bootstrap interval.

    Args:
        values: (n,) finite numbers, n at least 1.
        statistic: maps an array (..., n) and `axis=-1` to (...), e.g. numpy.median.
    Returns: stderr is the standard deviation over the replicates; no interval for fewer than 2 values, nor where all
        replicates are the same.
    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13.
    """
    import numpy as np

    _check(values, None, "bootstrap")
    if not values:
        raise BadInput("bootstrap: no values; give at least one")
    data = np.asarray(values, dtype=float)
    value = float(statistic(data, axis=-1))
    if len(data) < 2:
        return Estimate(value, None, None, None)
    rng = np.random.default_rng(seed)
    draws = np.concatenate(
        [
            np.atleast_1d(statistic(data[rng.integers(len(data), size=(rows, len(data)))], axis=-1))
            for rows in _chunks(replicates, len(data))
        ]
    )
    if np.ptp(draws) <= NOISE * max(1.0, abs(value)):
        return Estimate(value, 0.0, None, None)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(value, float(draws.std(ddof=1)), (float(low), float(high)), "bootstrap")


def _chunks(replicates: int, n: int, cells: int = 4_000_000) -> list[int]:
    """Replicates per block, so that no index array grows past a few million cells."""
    size = max(1, min(replicates, cells // max(n, 1)))
    return [min(size, replicates - start) for start in range(0, replicates, size)]


def t_975(degrees: float) -> float:
    """97.5 % point of Student's t distribution."""
    from scipy.special import stdtrit  # a fifth of the import time of scipy.stats

    return float(stdtrit(degrees, 0.975))


def _stderr(values: Sequence[float], average: float) -> float | None:
    """Standard error of the mean, with n - 1."""
    n = len(values)
    if n < 2:
        return None
    return _heard(math.sqrt(math.fsum((value - average) ** 2 for value in values) / (n - 1) / n), values)


def _heard(error: float, values: Sequence[float]) -> float:
    """The error, 0 where it is rounding: three times 0.1 has a mean of 0.10000000000000002."""
    return 0.0 if error <= NOISE * max(map(abs, values)) else error
