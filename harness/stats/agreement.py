"""Agreement of two raters beyond chance: Cohen's kappa, plain and weighted. numpy is imported when needed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import BadInput
from harness.records import Metric
from harness.stats.intervals import summarise, wilson_interval
from harness.stats.resampling import bootstrap_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

Weights = Literal["none", "quadratic"]


def cohen_kappa(
    first: Sequence[Any], second: Sequence[Any], *, categories: Sequence[Any], weights: Weights = "none"
) -> float:
    """Agreement beyond what the raters' own rates would give by chance.

    Args:
        first, second: (n,) ratings of the same items, n at least 1.
        categories: all ratings that there are; for quadratic weights in their order, a step being one of distance.
    Returns: 1 for full agreement, 0 for chance; NaN where both raters use one and the same category throughout.
    Source: Cohen 1960, Educational and Psychological Measurement 20:37; weighted: Cohen 1968, Psychological
        Bulletin 70:213.
    """
    return _kappa(_coded(first, second, categories), len(categories), weights)


def kappa_metric(
    first: Sequence[Any],
    second: Sequence[Any],
    *,
    categories: Sequence[Any],
    weights: Weights = "none",
    clusters: Sequence[Hashable] | None = None,
) -> Metric:
    """Cohen's kappa with its 95 % interval (BCa bootstrap over items, or clusters of them).

    Where no resample differs (full agreement), the interval is the Wilson interval of the observed agreement with
    the agreement by chance held, so that ten items in full agreement are not taken for certainty.

    Args: see cohen_kappa. clusters: (n,) items of one cluster are drawn together.
    Returns: value None where kappa is not defined, with n.
    """
    import numpy as np

    rows = _coded(first, second, categories)
    if not len(rows):
        return Metric(None, 0, 0, higher_is_better=True, chance=0.0)
    k = len(categories)
    value = _kappa(rows, k, weights)
    blank = Metric(None, len(rows), 0, higher_is_better=True, chance=0.0)
    if not math.isfinite(value):
        return blank
    found = bootstrap_rows(rows, partial(_kappa, n_categories=k, weights=weights), clusters=clusters)
    low_high, method = found.ci95, found.interval
    if low_high is None and weights == "none":
        agreed = float(np.mean(rows[:, 0] == rows[:, 1]))
        chance = (agreed - value) / (1 - value) if value < 1 else _chance(rows, k)
        low, high = wilson_interval(agreed, len(rows))
        low_high, method = (
            ((low - chance) / (1 - chance), (high - chance) / (1 - chance)),
            "wilson of agreement",
        )
    return Metric(value, len(rows), 0, True, found.stderr, low_high, method, chance=0.0)


def agreement_metric(
    first: Sequence[Any], second: Sequence[Any], clusters: Sequence[Hashable] | None = None
) -> Metric:
    """Share of items with the same rating."""
    same = [float(a == b) for a, b in zip(first, second, strict=True)]
    return summarise(same, n_failed=0, higher_is_better=True, clusters=clusters)


def _coded(first: Sequence[Any], second: Sequence[Any], categories: Sequence[Any]) -> NDArray[Any]:
    """(n, 2) places of the ratings among the categories. Raises: BadInput: lengths differ, or another rating."""
    import numpy as np

    if len(first) != len(second):
        raise BadInput(f"{len(first)} and {len(second)} ratings make no pairs; give one of each per item")
    place = {category: index for index, category in enumerate(categories)}
    other = next((rating for rating in [*first, *second] if rating not in place), None)
    if other is not None:
        raise BadInput(f"rating {other!r} is none of {', '.join(map(str, categories))}")
    return np.array([[place[a], place[b]] for a, b in zip(first, second, strict=True)], dtype=float).reshape(
        -1, 2
    )


def _kappa(rows: NDArray[Any], n_categories: int, weights: Weights) -> float:
    """1 - observed over expected disagreement."""
    import numpy as np

    a, b = rows[:, 0].astype(int), rows[:, 1].astype(int)
    table = np.bincount(a * n_categories + b, minlength=n_categories**2).reshape(n_categories, n_categories)
    shares = table / len(rows)
    expected = np.outer(shares.sum(axis=1), shares.sum(axis=0))
    steps = np.subtract.outer(np.arange(n_categories), np.arange(n_categories))
    cost = steps.astype(float) ** 2 if weights == "quadratic" else (steps != 0).astype(float)
    by_chance = float((cost * expected).sum())
    return math.nan if by_chance <= 0 else 1.0 - float((cost * shares).sum()) / by_chance


def _chance(rows: NDArray[Any], n_categories: int) -> float:
    """Agreement that the raters' own rates give by chance."""
    import numpy as np

    rates = [np.bincount(rows[:, side].astype(int), minlength=n_categories) / len(rows) for side in (0, 1)]
    return float(rates[0] @ rates[1])
