"""The length-controlled win rate: against scikit-learn's fit, on data whose truth is known, at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from harness.errors import BadInput
from harness.stats.intervals import wilson_interval
from harness.stats.length_control import RIDGE, fit, length_controlled


def drawn(theta: float, phi: float, n: int, seed: int = 0):
    """Wins and differences of lengths from the model itself."""
    rng = np.random.default_rng(seed)
    delta = rng.normal(80, 200, n).round()
    share = 1 / (1 + np.exp(-(theta + phi * np.tanh(delta / delta.std(ddof=1)))))
    return (rng.random(n) < share).astype(float).tolist(), delta.tolist()


def test_the_fit_is_scikit_learns_on_soft_labels():
    """AlpacaEval's way to soft labels: every row twice, weighted by the preference and by its complement."""
    wins, delta = drawn(0.4, 1.5, 120)
    wins[:30] = [0.5] * 30
    x = np.column_stack([np.ones(120), np.tanh(np.array(delta) / np.std(delta, ddof=1))])
    model = LogisticRegression(C=1 / RIDGE, fit_intercept=False, tol=1e-10, max_iter=1000)
    model.fit(
        np.vstack([x, x]),
        np.repeat([1, 0], 120),
        sample_weight=np.concatenate([wins, 1 - np.array(wins)]),
    )
    ours = fit(wins, delta)
    assert [ours.theta, ours.phi] == pytest.approx(model.coef_[0].tolist(), abs=1e-5)


def test_a_win_rate_that_is_all_length_goes_back_to_one_half():
    wins, delta = drawn(0.0, 2.0, 4000)
    metric = length_controlled(wins, delta)
    assert np.mean(wins) > 0.58
    assert metric.value == pytest.approx(0.5, abs=0.03)
    assert metric.ci95[0] < 0.5 < metric.ci95[1]
    assert metric.detail["phi"] == pytest.approx(2.0, abs=0.25)


def test_the_other_way_round_is_the_complement():
    wins, delta = drawn(0.7, -1.0, 100)
    one, other = length_controlled(wins, delta), length_controlled([1 - w for w in wins], [-d for d in delta])
    assert one.value + other.value == pytest.approx(1.0)


def test_without_differences_of_length_it_is_the_win_rate():
    metric = length_controlled([1.0] * 30 + [0.0] * 10, [0.0] * 40)
    assert metric.value == pytest.approx(0.75, abs=1e-3)
    assert metric.ci95 is not None


def test_all_won_is_finite_and_below_one():
    metric = length_controlled([1.0] * 20, list(range(20)))
    assert 0.9 < metric.value < 1.0


def test_all_won_is_no_more_certain_than_a_share_of_as_many():
    """Twelve of twelve: Wilson's limits of a win rate of 0.995 on 12 comparisons reach down to about 0.75."""
    lengths = [12, -40, 55, 80, -3, 7, 150, -90, 33, 61, -20, 5]
    won = length_controlled([1.0] * 12, lengths)
    assert won.value > 0.99
    assert won.ci95[0] == pytest.approx(wilson_interval(won.value, 12)[0])
    assert 0.7 < won.ci95[0] < 0.8
    lost = length_controlled([0.0] * 12, lengths)
    assert lost.ci95 == pytest.approx((1 - won.ci95[1], 1 - won.ci95[0]), abs=1e-3)
    by_cluster = length_controlled([1.0] * 12, lengths, clusters=[i // 3 for i in range(12)])
    assert by_cluster.ci95[0] == pytest.approx(wilson_interval(by_cluster.value, 4)[0])
    same = length_controlled([1.0] * 12, [0.0] * 12)
    assert (same.interval, same.ci95[0]) == ("wilson", pytest.approx(wilson_interval(same.value, 12)[0]))


def test_few_losses_are_no_certainty_either():
    """One of twelve lost: a third of the replicates hold no loss and would show the penalty."""
    metric = length_controlled([1.0] * 11 + [0.0], [12, -40, 55, 80, -3, 7, 150, -90, 33, 61, -20, 5])
    assert metric.ci95[0] <= wilson_interval(metric.value, 12)[0]


def test_wins_of_whatever_is_longer_tell_little_of_the_model():
    longer = [-70, -50, -20, -10, 5, 15, 30, 45, 60, 90]
    metric = length_controlled([float(delta > 10) for delta in longer], longer)
    assert metric.ci95[1] - metric.ci95[0] > 0.4


def test_length_and_model_that_cannot_be_told_apart_have_no_figure():
    assert length_controlled([1.0, 0.0, 1.0], [7.0, 7.0, 7.0]).value is None
    assert length_controlled([], []).n == 0
    assert length_controlled([1.0], [5.0]).value is None


def test_what_is_no_win_is_refused():
    with pytest.raises(BadInput, match="one win in"):
        length_controlled([1.5], [3.0])
