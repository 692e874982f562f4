"""Two systems on the same samples: the difference, its 95 % interval, a test. scipy loads when needed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

from harness.errors import BadInput
from harness.stats.intervals import NOISE, t_mean, wilson_interval
from harness.stats.paired_clusters import clustered_difference, effective_pairs, sign_flip, sums_of


class PairedDifference(NamedTuple):
    """b minus a over the same samples."""

    n: int
    value_a: float
    value_b: float
    difference: float
    """value_b - value_a."""
    ci95: tuple[float, float] | None
    """None for fewer than two pairs of scores that are not 0/1, where all of these differ by the same, and for a
    single cluster."""
    interval: Literal["newcombe", "paired t", "cluster-newcombe", "cluster-t"] | None
    p_value: float | None
    """Two-sided."""
    test: Literal["mcnemar exact", "sign-flip", "cluster sign-flip"] | None
    n_only_a: int | None = None
    """0/1 scores: pairs where a alone has the 1; None otherwise."""
    n_only_b: int | None = None
    n_clusters: int | None = None
    """Clusters that interval and test rest on; None: every pair stands alone."""


def paired_difference(
    a: Sequence[float], b: Sequence[float], *, clusters: Sequence[Hashable] | None = None, seed: int = 0
) -> PairedDifference:
    """Difference of the means of paired scores.

    Args:
        a, b: (n,) finite scores of the same samples in the same order, n at least 1.
        clusters: (n,) samples that belong together (questions on one passage) share one.
        seed: of the sign-flip test where there are too many pairs to try all signs.
    Returns: 0/1 scores: exact McNemar test and Newcombe's interval; others: sign-flip test and Student's interval of
        the differences, which hold from few pairs on (benchmarks/statistics/): none where all differ by the same.
        Clusters of several samples: sign-flip test by whole clusters; 0/1 scores have Newcombe's interval at the
        effective number of pairs, others the cluster-robust t interval.
    Raises: BadInput: no pairs, lengths that differ, NaN or infinity.
    """
    if not a or len(a) != len(b):
        raise BadInput(f"{len(a)} and {len(b)} scores make no pairs; give one of each per sample")
    bad = next((i for i in range(len(a)) if not (math.isfinite(a[i]) and math.isfinite(b[i]))), None)
    if bad is not None:
        raise BadInput(f"pair {bad} is ({a[bad]}, {b[bad]}); leave out samples that were not scored")
    if clusters is not None and len(clusters) != len(a):
        raise BadInput(f"{len(clusters)} clusters for {len(a)} pairs; give one per pair")
    are_shares = all(value in (0, 1) for value in a) and all(value in (0, 1) for value in b)
    found = _shares(a, b) if are_shares else None
    if clusters is not None and len(set(clusters)) < len(a):
        return _clustered(a, b, clusters, found, seed)
    return found or _numbers(a, b, seed)


def _clustered(
    a: Sequence[float],
    b: Sequence[float],
    clusters: Sequence[Hashable],
    shares: PairedDifference | None,
    seed: int,
) -> PairedDifference:
    """Args: shares: what the pairs would say if they stood alone; None where scores are not 0/1."""
    differences, groups = _apart(a, b), len(set(clusters))
    mean = clustered_difference(differences, clusters)
    n = len(a)
    test: Literal["cluster sign-flip"] | None = "cluster sign-flip" if groups > 1 else None
    p_value = sign_flip(sums_of(differences, clusters), seed) if test else None
    if shares is None:
        means = math.fsum(a) / n, math.fsum(b) / n
        interval: Literal["cluster-t"] | None = "cluster-t" if mean.ci95 else None
        return PairedDifference(n, *means, mean.value, mean.ci95, interval, p_value, test, n_clusters=groups)
    effective = effective_pairs(differences, clusters, mean)
    only_a, only_b = shares.n_only_a or 0, shares.n_only_b or 0
    ci95 = None
    if effective is not None:
        both = round(shares.value_a * n) - only_a
        table = (both, only_a, only_b, n - both - only_a - only_b)
        ci95 = newcombe_interval(*(effective / n * cell for cell in table))
    return shares._replace(
        ci95=ci95,
        interval="cluster-newcombe" if ci95 else None,
        p_value=p_value,
        test=test,
        n_clusters=groups,
    )


def _shares(a: Sequence[float], b: Sequence[float]) -> PairedDifference:
    n = len(a)
    both = sum(1 for x, y in zip(a, b, strict=True) if x == 1 and y == 1)
    only_a = int(sum(a)) - both
    only_b = int(sum(b)) - both
    return PairedDifference(
        n,
        (both + only_a) / n,
        (both + only_b) / n,
        (only_b - only_a) / n,
        newcombe_interval(both, only_a, only_b, n - both - only_a - only_b),
        "newcombe",
        mcnemar_exact(only_a, only_b),
        "mcnemar exact",
        only_a,
        only_b,
    )


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value of as uneven a split of the discordant pairs; 1 where there are none.

    Source: McNemar 1947, Psychometrika 12:153; the binomial form is exact.
    """
    discordant = only_a + only_b
    if discordant == 0:
        return 1.0
    from scipy.special import bdtr

    return min(1.0, 2.0 * float(bdtr(min(only_a, only_b), discordant, 0.5)))


def newcombe_interval(both: float, only_a: float, only_b: float, neither: float) -> tuple[float, float]:
    """95 % interval of share b minus share a from a 2x2 table of pairs, which sum to at least 1 (or to an
    effective number of them, so fractional).

    Source: Newcombe 1998, Statistics in Medicine 17:2635, method 10 (score intervals, square and add, with
    the correlation corrected for continuity).
    """
    n = both + only_a + only_b + neither
    share_a, share_b = (both + only_a) / n, (both + only_b) / n
    low_a, high_a = wilson_interval(share_a, n)
    low_b, high_b = wilson_interval(share_b, n)
    phi = _phi(both, only_a, only_b, neither)

    def half(first: float, second: float) -> float:
        return math.sqrt(max(0.0, first * first - 2 * phi * first * second + second * second))

    difference = share_b - share_a
    return (
        difference - half(share_b - low_b, high_a - share_a),
        difference + half(high_b - share_b, share_a - low_a),
    )


def _phi(both: float, only_a: float, only_b: float, neither: float) -> float:
    """Correlation of the pairs; 0 where a margin is empty. Positive ones shrink by n/2 in the numerator."""
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    product = both * neither - only_a * only_b
    if product > 0:
        product = max(product - (both + only_a + only_b + neither) / 2, 0.0)
    return product / math.sqrt(margins)


def _numbers(a: Sequence[float], b: Sequence[float], seed: int) -> PairedDifference:
    n, differences = len(a), _apart(a, b)
    mean = t_mean(differences)
    several = n > 1
    return PairedDifference(
        n,
        math.fsum(a) / n,
        math.fsum(b) / n,
        mean.value,
        mean.ci95,
        "paired t" if mean.ci95 else None,
        sign_flip(differences, seed) if several else None,
        "sign-flip" if several else None,
    )


def _apart(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """(n,) b - a, where what rounding leaves of two equal scores is 0."""
    pairs = zip(a, b, strict=True)
    return [y - x if abs(y - x) > NOISE * max(abs(x), abs(y)) else 0.0 for x, y in pairs]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for being several, in their own order: the family-wise error stays at the level.

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for rank, i in enumerate(order):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = reached
    return adjusted
