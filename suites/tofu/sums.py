"""TOFU's two sums: model utility over the sets to keep, and forget quality against a retain model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.records import Metric

REPLICATES = 2000
Ratios = Mapping[str, float]
"""Sample id -> logarithm of its truth ratio."""


def model_utility(kept: Mapping[str, Sequence[tuple[float, ...]]], n_failed: int) -> Metric:
    """Harmonic mean of every set's mean recall, probability and truth score, with a bootstrap interval.

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
    low, high = (float(edge) for edge in np.quantile(draws, [0.025, 0.975]))
    interval = (min(low, value), max(high, value))
    return Metric(value, n, n_failed, True, float(draws.std(ddof=1)), interval, "stratified bootstrap")


def _harmonic(parts: Any) -> Any:
    """Harmonic mean over the last axis; 0 where any part is 0."""
    import numpy as np

    with np.errstate(divide="ignore"):
        return parts.shape[-1] / (1.0 / parts).sum(axis=-1)


def forget_quality(own: Ratios, retain: Ratios | None, n_failed: int) -> dict[str, Metric]:
    """p-value and statistic of the two-sample Kolmogorov-Smirnov test on truth ratios, on the questions both have.

    Returns: values None without a retain model, or without a question in common. A p-value has no interval.
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
        "forget_ks_distance": Metric(float(found.statistic), len(both), n_failed, higher_is_better=False),
    }
