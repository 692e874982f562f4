"""Statistics of values that belong to requests, with intervals that resample the requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.stats.intervals import Estimate, t_mean
from harness.stats.resampling import quantile
from suites.serving.profiles import Rule, Value

REPLICATES = 400
CELLS = 2_000_000
"""Of the largest array: replicates are drawn in blocks."""


class Series(NamedTuple):
    """Values of one figure over the requests of a load, in ascending order."""

    values: Any
    """(m,)"""
    weights: Any
    """(m,)"""
    owners: Any
    """(m,) place of the request that each value belongs to."""
    n_requests: int

    @property
    def plain(self) -> bool:
        """One value per request, all of one weight."""
        return len(set(self.owners.tolist())) == len(self.values) and bool((self.weights == 1).all())


def series_of(by_request: Sequence[Sequence[Value]]) -> Series:
    import numpy as np

    flat = [(v.seconds, v.weight, place) for place, own in enumerate(by_request) for v in own if v.weight > 0]
    values, weights, owners = np.array(sorted(flat), dtype=float).reshape(-1, 3).T
    return Series(values, weights, owners.astype(int), len(by_request))


def estimates(
    by_request: Sequence[Sequence[Value]], statistics: Sequence[str], rule: Rule
) -> Mapping[str, Estimate | None]:
    """Statistics (mean, std, p50, ...) with their intervals; None for all where there are no values.

    Where a request has one value, a mean has Student's interval and a percentile that of order statistics; all else
    has the percentile bootstrap over requests, whose values stay together (400 draws, fixed seed). Requests of one
    load wait for each other, so that its intervals say less than those of independent runs.
    """
    series = series_of(by_request)
    if not len(series.values):
        return dict.fromkeys(statistics)
    found = _statistics(series, series.weights[None, :], statistics, rule)
    drawn = [name for name in statistics if not series.plain or name == "std"]
    draws = _draws(series, drawn, rule) if drawn else {}
    return {name: _estimate(series, name, float(found[name][0]), draws.get(name)) for name in statistics}


def _estimate(series: Series, name: str, value: float, draws: Any) -> Estimate:
    import numpy as np

    if series.plain and name == "mean":
        return t_mean(series.values.tolist())
    if series.plain and name != "std":
        return quantile(series.values.tolist(), float(name[1:]) / 100)._replace(value=value)
    if draws is None or len(draws) < REPLICATES // 2:
        return Estimate(value, None, None, None)
    low, high = np.quantile(draws, [0.025, 0.975])
    if low == high:  # no variance is seen (all but a few draws are one value); that is not an error of 0
        return Estimate(value, None, None, None)
    method = "bootstrap" if series.plain else "cluster-bootstrap"
    return Estimate(value, float(draws.std(ddof=1)), (float(low), float(high)), method)


def _draws(series: Series, statistics: Sequence[str], rule: Rule) -> Mapping[str, Any]:
    """Each statistic on resampled requests; draws without any value are left out. Empty below two requests."""
    import numpy as np

    n = len(set(series.owners.tolist()))
    if n < 2:
        return {}
    rng = np.random.default_rng(0)
    rows = max(1, min(REPLICATES, CELLS // len(series.values)))
    blocks = []
    for start in range(0, REPLICATES, rows):
        size = min(rows, REPLICATES - start)
        counts = rng.multinomial(series.n_requests, np.full(series.n_requests, 1 / series.n_requests), size)
        weights = counts[:, series.owners] * series.weights
        blocks.append(_statistics(series, weights[weights.sum(axis=1) > 0], statistics, rule))
    return {name: np.concatenate([block[name] for block in blocks]) for name in statistics}


def _statistics(series: Series, weights: Any, names: Sequence[str], rule: Rule) -> dict[str, Any]:
    """(r,) of each statistic under r weightings (r, m) of the values."""
    import numpy as np

    total = weights.sum(axis=1)
    middle = float(series.values.mean())  # the variance of large values with a small spread
    mean = weights @ (series.values - middle) / total
    found = {}
    cumulated = np.cumsum(weights, axis=1) if any(name[0] == "p" for name in names) else None
    for name in names:
        if name == "mean":
            found[name] = mean + middle
        elif name == "std":
            square = weights @ (series.values - middle) ** 2 / total
            found[name] = np.sqrt(np.maximum(square - mean**2, 0.0))
        else:
            found[name] = _percentile(series.values, cumulated, float(name[1:]) / 100, rule)
    return found


def _percentile(values: Any, cumulated: Any, share: float, rule: Rule) -> Any:
    """(r,) percentiles of ascending values (m,) whose weights add up to cumulated (r, m).

    linear: numpy's default on values repeated as often as their weights say, which are whole numbers. reaching: the
    smallest value at which the share is reached.
    """
    import numpy as np

    total = cumulated[:, -1]
    if rule == "reaching":
        reached = cumulated >= (share * total * (1 - 1e-12))[:, None]
        return values[reached.argmax(axis=1)]
    place = share * (total - 1)
    below = np.floor(place)
    above = np.minimum(below + 1, total - 1)
    low = values[(cumulated > below[:, None]).argmax(axis=1)]
    high = values[(cumulated > above[:, None]).argmax(axis=1)]
    return low + (place - below) * (high - low)
