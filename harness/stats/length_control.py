"""Win rate of one model over another as if their answers were equally long. numpy is imported when needed.

After Dubois et al. 2024, arXiv:2404.04475 (AlpacaEval 2). Their model of one comparison has three terms: the
difference of the two models, the difference of their answers' lengths, and how hard the instruction is for either.
Two of them are used here:

    logit P(B wins) = theta + phi * tanh((len_B - len_A) / sd(len_B - len_A))

theta is the difference of the models and phi the judge's taste for length; the length-controlled win rate is
P(B wins) with the length term at 0, i.e. logistic(theta). Lengths are characters, sd is that of the differences, and a
tie is half a win, all as in https://github.com/tatsu-lab/alpaca_eval/blob/main/src/alpaca_eval/metrics/glm_winrate.py .
Left out is the third term, which takes the difficulty of every instruction from the comparisons of many other models,
and with it the two length-gamed baselines towards which AlpacaEval draws its fit; its penalty (l1, by cross-validation)
is a weak ridge here. So figures of this function and of AlpacaEval's leaderboard are not the same quantity.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import BadInput
from harness.records import Metric
from harness.stats.intervals import Estimate, wilson_interval
from harness.stats.resampling import TAIL, bootstrap_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

RIDGE = 0.01
"""Penalty RIDGE / 2 (theta^2 + phi^2) beside the log-likelihood: finite where one side wins everything."""
STEPS = 50


class Fit(NamedTuple):
    """The fitted terms, in logits."""

    theta: float
    """Of the models."""
    phi: float
    """Of length: above 0 where the judge prefers what is longer."""

    @property
    def win_rate(self) -> float:
        return 1.0 / (1.0 + math.exp(-self.theta))


def length_controlled(
    wins: Sequence[float], longer_by: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> Metric:
    """Length-controlled win rate of B over A with its 95 % interval (BCa bootstrap; every replicate is fitted anew).

    Args:
        wins: (n,) 1 where B won, 0 where A did, 0.5 for a tie.
        longer_by: (n,) len_B - len_A, characters.
        clusters: (n,) comparisons of one cluster are drawn together.
    Returns: value None without comparisons, or where all lengths differ by the same amount other than 0: length and
        model cannot then be told apart. detail: theta and phi. Where one side wins everything, or everything that is
        longer, in the data or in more than TAIL of the replicates, these show the penalty and not the data: then the
        interval is stretched to hold Wilson's at the win rate and as many comparisons (or clusters).
    Raises: BadInput: a win outside 0..1, or lengths that do not fit.
    """
    import numpy as np

    blank = Metric(None, len(wins), 0, higher_is_better=True, chance=0.5)
    if len(wins) != len(longer_by) or any(not 0 <= win <= 1 for win in wins):
        raise BadInput("length control: give one win in 0..1 and one difference of lengths per comparison")
    rows = np.column_stack([np.asarray(wins, dtype=float), np.asarray(longer_by, dtype=float)])
    if not len(rows):
        return blank
    fit = _fit(rows)
    if fit is None:
        return blank
    found = _estimate(rows, clusters)
    detail = {"theta": round(fit.theta, 6), "phi": round(fit.phi, 6)}
    return Metric(
        fit.win_rate, len(wins), 0, True, found.stderr, found.ci95, found.interval, chance=0.5, detail=detail
    )


def _estimate(rows: NDArray[Any], clusters: Sequence[Hashable] | None) -> Estimate:
    separated: list[bool] = []

    def win_rate(some: NDArray[Any]) -> float:
        separated.append(_is_separated(some))
        return _win_rate(_fit(some))

    found = bootstrap_rows(rows, win_rate, clusters=clusters)
    units = len(rows) if clusters is None else len(set(clusters))
    if units < 2 or (found.ci95 is not None and sum(separated) <= TAIL * len(separated)):
        return found
    low, high = wilson_interval(found.value, units)
    if found.ci95 is None:
        return found._replace(ci95=(low, high), interval="wilson")
    return found._replace(ci95=(min(low, found.ci95[0]), max(high, found.ci95[1])))


def _is_separated(rows: NDArray[Any]) -> bool:
    """Whether no loss is longer than a win, or no win than a loss: without a penalty no fit would be finite."""
    wins, delta = rows[:, 0], rows[:, 1]
    won, lost = delta[wins == 1], delta[wins == 0]
    if len(won) + len(lost) < len(rows):
        return False
    if not len(won) or not len(lost):
        return True
    apart = won.min() >= lost.max() or won.max() <= lost.min()
    return bool(apart and delta.min() < delta.max())


def fit(wins: Sequence[float], longer_by: Sequence[float]) -> Fit | None:
    """The two terms. None: all lengths differ by the same amount other than 0."""
    import numpy as np

    return _fit(np.column_stack([np.asarray(wins, dtype=float), np.asarray(longer_by, dtype=float)]))


def _win_rate(found: Fit | None) -> float:
    return math.nan if found is None else found.win_rate


def _fit(rows: NDArray[Any]) -> Fit | None:
    """Newton's method on the penalised log-likelihood, which is concave."""
    import numpy as np

    wins, delta = rows[:, 0], rows[:, 1]
    spread = float(delta.std(ddof=1)) if len(delta) > 1 else 0.0
    if spread == 0.0 and np.any(delta != 0):
        return None
    design = np.column_stack(
        [np.ones_like(delta), np.tanh(delta / spread) if spread else np.zeros_like(delta)]
    )
    weights = np.zeros(2)
    for _ in range(STEPS):
        share = 1.0 / (1.0 + np.exp(-design @ weights))
        gradient = design.T @ (wins - share) - RIDGE * weights
        curvature = (design * (share * (1 - share))[:, None]).T @ design + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-10:
            break
    return Fit(float(weights[0]), float(weights[1]))
