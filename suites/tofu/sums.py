"""TOFU's two sums: model utility over the sets to keep, and forget quality against a retain model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.records import Metric
from harness.stats.intervals import wilson_interval
from harness.stats.resampling import bca_limits

REPLICATES = 2000
Ratios = Mapping[str, float]
"""Sample id -> logarithm of its truth ratio."""


def model_utility(kept: Mapping[str, Sequence[tuple[float, ...]]], n_failed: int) -> Metric:
    """Harmonic mean of every set's mean recall, probability and truth score, with a BCa bootstrap interval.

    Args: kept: set -> (n, 3) values of its scored samples. Sets are drawn anew one by one.
    Returns: value None where a set has no scored sample.
    """
    n = sum(map(len, kept.values()))
    if not kept or not all(kept.values()):
        return Metric(None, n, n_failed, higher_is_better=True)
    import numpy as np

    tables = [np.asarray(rows, dtype=float) for rows in kept.values()]
    value = float(_harmonic(np.concatenate([table.mean(axis=0) for table in tables])))
    if min(map(len, tables)) < 2:
        return Metric(value, n, n_failed, higher_is_better=True)
    rng = np.random.default_rng(0)
    drawn = [
        table[rng.integers(len(table), size=(REPLICATES, len(table)))].mean(axis=1)  # (replicates, 3)
        for table in tables
    ]
    draws = _harmonic(np.concatenate(drawn, axis=1))
    if float(np.ptp(draws)) < 1e-12:
        return Metric(value, n, n_failed, True, None, _by_parts(tables), "wilson of the parts")
    low, high = bca_limits(draws, value, _without_each(tables), min(map(len, tables)))
    interval = (min(low, value), max(high, value))
    return Metric(value, n, n_failed, True, float(draws.std(ddof=1)), interval, "stratified bootstrap")


def _without_each(tables: Sequence[Any]) -> Any:
    """(n,) utilities without one sample each."""
    import numpy as np

    means = [table.mean(axis=0) for table in tables]
    found = []
    for place, table in enumerate(tables):
        left = (table.sum(axis=0) - table) / (len(table) - 1)  # (m, 3)
        parts = [left if i == place else np.broadcast_to(mean, left.shape) for i, mean in enumerate(means)]
        found.append(_harmonic(np.concatenate(parts, axis=1)))
    return np.concatenate(found)


def _by_parts(tables: Sequence[Any]) -> tuple[float, float]:
    """Interval of the utility where no draw differs (a part is 0 throughout): from Wilson's of every part.

    Parts are means of numbers in [0, 1], which vary no more than shares do, and the utility rises with each.
    """
    import numpy as np

    limits = [wilson_interval(float(mean), len(table)) for table in tables for mean in table.mean(axis=0)]
    low, high = _harmonic(np.array(limits).T)
    return float(low), float(high)


def _harmonic(parts: Any) -> Any:
    """Harmonic mean over the last axis; 0 where any part is 0."""
    import numpy as np

    with np.errstate(divide="ignore"):
        return parts.shape[-1] / (1.0 / parts).sum(axis=-1)


def forget_quality(own: Ratios, retain: Ratios | None, n_failed: int) -> dict[str, Metric]:
    """p-value and statistic of the two-sample Kolmogorov-Smirnov test on truth ratios, on the questions both have.

    Returns: values None without a retain model, or without a question in common. A p-value has no interval; the
        statistic's allows each of the two distribution functions its own band (Dvoretzky, Kiefer & Wolfowitz 1956,
        with the constant of Massart 1990, at 97.5 % each), so that it holds the truth in at least 95 %.
    Source: https://github.com/locuslab/tofu/blob/8c49eee/utils.py (get_forget_quality).
    """
    both = sorted(set(own) & set(retain or {}))
    if not retain or not both:
        blank = {"n": len(own), "n_failed": n_failed}
        return {
            "forget_quality": Metric(None, higher_is_better=True, **blank),
            "forget_ks_distance": Metric(None, higher_is_better=False, **blank),
        }
    from scipy.stats import ks_2samp

    found = ks_2samp([own[name] for name in both], [retain[name] for name in both])
    return {
        "forget_quality": Metric(float(found.pvalue), len(both), n_failed, higher_is_better=True),
        "forget_ks_distance": _distance(float(found.statistic), len(both), n_failed),
    }


def _distance(value: float, n: int, n_failed: int) -> Metric:
    """Args: n: questions behind either distribution."""
    reach = 2 * math.sqrt(math.log(2 / 0.025) / (2 * n))
    ci95 = (max(0.0, value - reach), min(1.0, value + reach))
    return Metric(value, n, n_failed, higher_is_better=False, ci95=ci95, interval="dkw")
