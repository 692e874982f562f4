"""A mean of values between -1 and 1 with its interval: differences of shares, bias scores."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from harness.errors import BadInput
from harness.records import Metric
from harness.stats.intervals import clustered_mean, summarise, t_mean, wilson_interval


def signed_mean(
    values: Sequence[float],
    *,
    n_failed: int,
    higher_is_better: bool,
    clusters: Sequence[Hashable] | None = None,
) -> Metric:
    """Mean with Student's interval, cut to [-1, 1], on the clusters where there are some; never taken for a share.

    Where all values are the same there is no variance to be seen: then the interval is Wilson's at as many trials as
    there are clusters, on the scale that takes -1..1 to 0..1; no mean of that range can need it wider.

    Args:
        values: (n,) numbers in [-1, 1].
        clusters: (n,) values that belong together share one.
    Returns: value None where n is 0; no interval for a single value or cluster.
    Raises: BadInput: a value outside [-1, 1], or NaN.
    """
    odd = next((value for value in values if not -1.0 <= value <= 1.0), None)
    if odd is not None:
        raise BadInput(f"{odd!r} among values of -1 to 1; give differences of shares, or use mean()")
    if not values:
        return summarise([], n_failed=n_failed, higher_is_better=higher_is_better)
    several = clusters is not None and len(set(clusters)) < len(values)
    found = clustered_mean(values, clusters, is_share=False) if several and clusters else t_mean(values)
    ci95 = None if found.ci95 is None else (max(-1.0, found.ci95[0]), min(1.0, found.ci95[1]))
    interval = found.interval
    trials = len(set(clusters)) if clusters else len(values)
    if len(set(values)) == 1 and trials > 1:
        low, high = wilson_interval((found.value + 1) / 2, trials)
        ci95, interval = (2 * low - 1, 2 * high - 1), "wilson"
    return Metric(found.value, len(values), n_failed, higher_is_better, found.stderr, ci95, interval)
