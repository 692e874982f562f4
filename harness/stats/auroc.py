"""Area under the ROC curve with its interval: how well a score tells two kinds of things apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.errors import BadInput
from harness.records import Metric
from harness.stats.intervals import NOISE, Z95, wilson_interval


def auroc(scores: Sequence[float], positive: Sequence[bool], *, n_failed: int = 0) -> Metric:
    """Chance that a random positive has a higher score than a random negative; ties count one half.

    The variance is DeLong's; the interval is normal on the logit scale, so that it stays inside (0, 1). Where every
    positive stands above every negative (or below), or a kind has one member, there is no variance to be seen: then it
    is Wilson's, at as many trials as the smaller kind has members, since no AUROC A varies by more than A (1 - A) over
    that number.

    Args:
        scores: (n,) finite numbers; higher means more likely positive.
        positive: (n,) whether each is.
        n_failed: things that have no score; counted, never averaged.
    Returns: value None where one of the kinds is absent; no standard error where one has a single member.
    Raises: BadInput: NaN or infinity among the scores, or lists of different lengths.
    Source: DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837; Sun & Xu 2014, IEEE Signal Processing Letters
        21:1389 (by ranks); Pepe 2003, section 5.2.5 (logit scale); Birnbaum & Klose 1957, Annals of Mathematical
        Statistics 28:933 (most variance).
    """
    import numpy as np

    if len(scores) != len(positive):
        raise BadInput(f"auroc: {len(positive)} labels for {len(scores)} scores; give one per score")
    values, is_positive = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    if not np.isfinite(values).all():
        raise BadInput("auroc: a score is no finite number; let the scorer fail that sample")
    high, low = values[is_positive], values[~is_positive]
    blank = Metric(None, len(values), n_failed, higher_is_better=True, chance=0.5)
    if not len(high) or not len(low):
        return blank
    above, below = _placements(high, low)
    area = float(above.mean())
    if min(len(high), len(low)) < 2:
        ci95 = wilson_interval(area, 1)
        return Metric(area, len(values), n_failed, True, None, ci95, "wilson", chance=0.5)
    error = math.sqrt(above.var(ddof=1) / len(high) + below.var(ddof=1) / len(low))
    ci95, name = _interval(area, error, min(len(high), len(low)))
    return Metric(area, len(values), n_failed, True, error, ci95, name, chance=0.5)


def _placements(high: Any, low: Any) -> tuple[Any, Any]:
    """Of each positive the share of negatives below it, of each negative the share of positives above it."""
    import numpy as np
    from scipy.stats import rankdata

    together = rankdata(np.concatenate([high, low]))
    above = (together[: len(high)] - rankdata(high)) / len(low)
    below = 1.0 - (together[len(high) :] - rankdata(low)) / len(high)
    return above, below


def _interval(area: float, error: float, smaller: int) -> tuple[tuple[float, float], str]:
    if error <= NOISE or not 0.0 < area < 1.0:
        return wilson_interval(area, smaller), "wilson"
    middle, half = math.log(area / (1 - area)), Z95 * error / (area * (1 - area))
    return (1 / (1 + math.exp(half - middle)), 1 / (1 + math.exp(-half - middle))), "delong-logit"
