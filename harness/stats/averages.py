"""Averages of averages: a macro mean over groups, a headline over tasks. Each part brings its own error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.records import Metric
from harness.stats.intervals import Z95, Estimate, t_975, wilson_interval

FEW = 4
"""Up to so many parts their own intervals are joined; with more, each one's skewness adds up to a bias."""


@dataclass(frozen=True)
class Term:
    """One of several independent estimates that make a weighted mean."""

    weight: float
    value: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int = 0
    """Samples behind it; 0: not known."""


def macro_average(parts: Sequence[Metric]) -> Metric:
    """Plain mean of groups, each counting the same however many samples it has; the groups are a fixed set.

    Returns: value None where there is no group, or where one has no value: no group is dropped in silence.
    """
    blank = Metric(
        None,
        sum(part.n for part in parts),
        sum(part.n_failed for part in parts),
        all(part.higher_is_better for part in parts),
        unit=parts[0].unit if parts else None,
    )
    values = [part.value for part in parts if part.value is not None]
    if not parts or len(values) < len(parts):
        return blank
    terms = []
    for value, part in zip(values, parts, strict=True):
        low, high = part.ci95 or (None, None)
        terms.append(Term(1.0, value, part.stderr, low, high, part.n))
    value, stderr, ci95, interval = weighted_mean(terms, is_share=blank.unit is None)
    chances = [part.chance for part in parts if part.chance is not None]
    chance = math.fsum(chances) / len(chances) if len(chances) == len(parts) else None
    return Metric(
        value, blank.n, blank.n_failed, blank.higher_is_better, stderr, ci95, interval, blank.unit, chance
    )


def without_spread(metrics: Mapping[str, Mapping[str, Metric]]) -> list[str]:
    """A line per task whose metrics have no interval because every sample has the same value.

    Args: metrics: task -> metric -> value.
    """
    lines = []
    for task, found in metrics.items():
        names = [name for name, one in found.items() if one.n > 1 and one.stderr == 0 and one.ci95 is None]
        if names:
            lines.append(
                f"{task}: the same value in every sample, so that nothing tells an interval: {', '.join(names)}"
            )
    return lines


def weighted_mean(terms: Sequence[Term], *, is_share: bool = True) -> Estimate:
    """Weighted mean of independent estimates, with the interval that fits their number.

    One term keeps its own interval. A few (FEW) are joined by MOVER. More are a stratified sample: Wilson's interval
    at the effective sample size v (1 - v) / V, V the variance of the mean, with Satterthwaite's degrees of freedom;
    t with those where the mean is no share of [0, 1].

    Args: terms: at least one; the weights need not add up to 1.
    Source: Zou & Donner 2008, Stat. Med. 27:1693 (MOVER); Korn & Graubard 1998, Survey Methodology 24:193;
        Satterthwaite 1946, Biometrics Bulletin 2:110. benchmarks/statistics/ holds their coverage.
    """
    total = math.fsum(term.weight for term in terms)
    shares = [(term.weight / total, term) for term in terms]
    value = math.fsum(weight * term.value for weight, term in shares)
    errors = [weight * term.stderr for weight, term in shares if term.stderr is not None]
    stderr = math.hypot(*errors) if len(errors) == len(terms) else None
    if len(terms) <= FEW or stderr is None or any(term.n < 2 for term in terms):
        limits = mover(value, [_reweighted(term, weight) for weight, term in shares])
        return Estimate(value, stderr, limits, None if limits is None else "mover")
    degrees = _satterthwaite([(weight * (term.stderr or 0.0), term.n) for weight, term in shares])
    if is_share and 0.0 <= value <= 1.0:
        return Estimate(value, stderr, _effective_wilson(value, stderr, degrees, terms), "strata-wilson")
    half = t_975_at(degrees) * stderr
    return Estimate(value, stderr, (value - half, value + half), "strata-t")


def mover(value: float, terms: Sequence[Term]) -> tuple[float, float] | None:
    """Interval of a weighted mean from its terms' own intervals; None where a term has none.

    Args: value: the mean. terms: weights add up to 1.
    Source: Zou & Donner 2008, Statistics in Medicine 27:1693, eq. 3.
    """
    downs = [term.weight * (term.value - term.low) for term in terms if term.low is not None]
    ups = [term.weight * (term.high - term.value) for term in terms if term.high is not None]
    if len(downs) != len(terms) or len(ups) != len(terms):
        return None
    return value - math.hypot(*downs), value + math.hypot(*ups)


def _reweighted(term: Term, weight: float) -> Term:
    return Term(weight, term.value, term.stderr, term.low, term.high, term.n)


def _satterthwaite(parts: Sequence[tuple[float, int]]) -> float:
    """Degrees of freedom of a sum of variances. Args: parts: (weighted standard error, n) of each, n at least 2."""
    variance = math.fsum(error**2 for error, _ in parts)
    if variance == 0:
        return math.inf
    return variance**2 / math.fsum(error**4 / (n - 1) for error, n in parts)


def _effective_wilson(
    value: float, stderr: float, degrees: float, terms: Sequence[Term]
) -> tuple[float, float]:
    """Wilson's interval at the sample size that would give this standard error; all samples where it is 0."""
    spread = value * (1 - value)
    effective = spread / stderr**2 if stderr > 0 else float(sum(term.n for term in terms))
    return wilson_interval(value, max(1.0, effective * (Z95 / t_975_at(degrees)) ** 2))


def t_975_at(degrees: float) -> float:
    """97.5 % point of Student's t, the normal one for infinitely many degrees of freedom."""
    return Z95 if math.isinf(degrees) else t_975(max(degrees, 1.0))
