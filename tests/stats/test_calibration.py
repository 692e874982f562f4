"""Calibration: bars and errors by hand, against scikit-learn, and an interval that holds the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.errors import BadInput
from harness.stats.calibration import bin_of, calibration, ece, ece_estimate, reliability

STATED = [0.95, 0.95, 0.85, 0.65, 0.65, 0.05]
RIGHT = [1, 0, 1, 1, 1, 0]
# bars: 0.95 twice, half right; 0.85 once, right; 0.65 twice, both right; 0.05 once, wrong


def test_the_calibration_error_by_hand():
    expected = (2 * 0.45 + 1 * 0.15 + 2 * 0.35 + 1 * 0.05) / 6
    assert ece(STATED, RIGHT) == pytest.approx(expected)
    assert ece([1.0, 1.0], [1, 1]) == 0.0
    assert ece([1.0, 0.0], [0, 1]) == 1.0


def test_gaps_of_one_bin_cancel_and_those_of_two_do_not():
    assert ece([0.45, 0.45], [1, 0]) == pytest.approx(0.05)
    assert ece([0.45, 0.55], [1, 0]) == pytest.approx(0.55)
    assert ece([0.45, 0.55], [1, 0], bins=1) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("confidence", "place"),
    [
        (0.0, 0),
        (0.1, 0),
        (0.1000001, 1),
        (0.3, 2),
        (0.5, 4),
        (0.6, 5),
        (0.7, 6),
        (0.9, 8),
        (1.0, 9),
        (1e-12, 0),
    ],
)
def test_a_bin_holds_its_upper_edge_whatever_the_rounding(confidence, place):
    assert bin_of(confidence) == place


def test_every_tenth_is_the_upper_edge_of_its_bin():
    assert [bin_of(i / 10) for i in range(1, 11)] == list(range(10))
    assert [bin_of(i * 0.1) for i in range(1, 11)] == list(range(10))  # 3 * 0.1 is 0.30000000000000004


def test_bars_of_the_reliability_diagram():
    bars = reliability(STATED, RIGHT)
    assert [bar.n for bar in bars] == [1, 0, 0, 0, 0, 0, 2, 0, 1, 2]
    assert (bars[9].low, bars[9].high, bars[9].accuracy) == (0.9, 1.0, 0.5)
    assert bars[9].confidence == pytest.approx(0.95)
    assert bars[9].ci95 == pytest.approx((0.0945, 0.9055), abs=1e-4)  # Wilson, 1 of 2
    assert (bars[1].confidence, bars[1].accuracy, bars[1].ci95) == (None, None, None)


def test_brier_and_auroc_equal_scikit_learn():
    from sklearn.metrics import brier_score_loss, roc_auc_score

    rng = np.random.default_rng(3)
    stated = np.round(rng.random(300), 1)
    right = (rng.random(300) < stated).astype(int)
    found = calibration(stated.tolist(), right.tolist())
    assert found["brier"].value == pytest.approx(brier_score_loss(right, stated))
    assert found["auroc"].value == pytest.approx(roc_auc_score(right, stated))


def test_bars_equal_scikit_learns_calibration_curve():
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(4)
    stated = rng.random(500)  # no value on an edge, where the two put it into different bins
    right = (rng.random(500) < stated**2).astype(int)
    bars = [bar for bar in reliability(stated.tolist(), right.tolist()) if bar.n]
    accuracy, confidence = calibration_curve(right, stated, n_bins=10)
    assert [bar.accuracy for bar in bars] == pytest.approx(accuracy.tolist())
    assert [bar.confidence for bar in bars] == pytest.approx(confidence.tolist())
    weighted = sum(bar.n * abs(bar.accuracy - bar.confidence) for bar in bars) / 500
    assert ece(stated.tolist(), right.tolist()) == pytest.approx(weighted)


def test_metrics_have_directions_intervals_and_bars():
    found = calibration([0.9, 0.8, 0.7, 0.2] * 30, [1, 1, 0, 0] * 30, n_failed=2)
    assert {name: metric.higher_is_better for name, metric in found.items()} == {
        "ece": False,
        "brier": False,
        "auroc": True,
    }
    assert {metric.n for metric in found.values()} == {120}
    assert {metric.n_failed for metric in found.values()} == {2}
    assert found["ece"].interval == "bias-aware inversion"
    assert found["brier"].value == pytest.approx((0.01 + 0.04 + 0.49 + 0.04) / 4)
    assert found["auroc"].value == 1.0
    for metric in found.values():
        low, high = metric.ci95
        assert 0 <= low <= metric.value <= high <= 1
    bars = found["ece"].detail["reliability"]
    assert [bar["n"] for bar in bars] == [0, 30, 0, 0, 0, 0, 30, 30, 30, 0]
    assert bars[1]["accuracy"] == 0.0
    assert bars[1]["confidence"] == pytest.approx(0.2)


def test_the_order_of_answers_does_not_matter():
    stated = [0.9, 0.6, 0.3, 0.8, 0.65, 0.15] * 10
    right = [1, 0, 1, 0, 1, 0, 1, 1, 0, 0] * 6
    assert calibration(stated[::-1], right[::-1]) == calibration(stated, right)


def test_the_same_seed_gives_the_same_interval():
    stated, right = [0.9, 0.6, 0.3, 0.8] * 10, [1, 0, 1, 0] * 10
    assert ece_estimate(stated, right, seed=1) == ece_estimate(stated, right, seed=1)
    assert ece_estimate(stated, right, seed=1) != ece_estimate(stated, right, seed=2)


@pytest.mark.parametrize(
    ("stated", "right"), [([], []), ([0.5], [1]), ([0.5, 0.5], [1, 1]), ([0.0, 1.0], [0, 1])]
)
def test_few_answers_or_one_kind_alone(stated, right):
    found = calibration(stated, right)
    assert found["ece"].n == len(stated)
    assert (found["ece"].value is None) is (not stated)
    assert (found["ece"].ci95 is None) is (len(stated) < 2)
    assert (found["auroc"].value is None) is (len(set(right)) < 2)


@pytest.mark.parametrize("bad", [-0.01, 1.01, 90.0, math.nan, math.inf, -math.inf])
def test_a_confidence_outside_0_and_1_is_refused_never_clipped(bad):
    for compute in (ece, reliability, calibration):
        with pytest.raises(BadInput, match="confidence 1 is"):
            compute([0.5, bad], [1, 0])


def test_answers_that_are_all_alike_leave_the_brier_score_a_width():
    """Ten times 1.0 and right: no square differs from 0, which is Wilson's 0 of 10."""
    found = calibration([1.0] * 10, [1] * 10)["brier"]
    assert (found.value, found.interval) == (0.0, "wilson")
    assert found.ci95 == pytest.approx((0.0, 0.277533), abs=1e-6)  # z^2 / (10 + z^2)


def test_what_is_not_right_or_wrong_is_refused():
    with pytest.raises(BadInput, match=r"rightness 0 is 0\.5"):
        ece([0.5], [0.5])
    with pytest.raises(BadInput, match="1 confidences for 2 answers"):
        ece([0.5], [1, 0])


def test_the_interval_holds_the_truth_where_noise_is_most_of_the_error():
    """One bin of ten is off by 0.35 on average, the others by nothing: 0.035 in truth, 0.1 on a hundred answers."""
    rng = np.random.default_rng(0)
    hits, seen = 0, 0.0
    for seed in range(300):
        stated = rng.random(100)
        right = (rng.random(100) < np.where(stated > 0.9, 0.6, stated)).astype(int)
        found = ece_estimate(stated.tolist(), right.tolist(), seed=seed, replicates=200)
        low, high = found.ci95
        assert 0.0 <= low <= found.value <= high <= 1.0
        hits += low <= 0.035 <= high
        seen += found.value / 300
    assert seen > 0.08
    assert hits / 300 > 0.91  # 95 % less three standard errors


def test_answers_that_are_all_alike_leave_the_error_a_width():
    """Twenty times 0.8 and right: the gap is 0.2 throughout, give or take Wilson's z^2 / (20 + z^2) = 0.161125."""
    found = ece_estimate([0.8] * 20, [1] * 20)
    assert (found.value, found.interval) == (pytest.approx(0.2), "wilson")
    assert found.ci95 == pytest.approx((0.2 - 0.161125, 0.2 + 0.161125), abs=1e-5)


@pytest.mark.parametrize(("last", "outcome"), [(0.9, 1), (0.99, 1), (0.9, 0)])
def test_one_odd_answer_among_alike_ones_makes_no_certainty(last, outcome):
    """Nineteen of nineteen right are 0.832 to 1 by Wilson: 19 / 20 of the 0.168 stay open."""
    low, high = ece_estimate([1.0] * 19 + [last], [1] * 19 + [outcome]).ci95
    assert low == 0.0
    assert high >= 0.95 * 0.168


def test_a_calibrated_models_interval_reaches_zero_and_a_boasters_does_not():
    rng = np.random.default_rng(0)
    reached = 0
    for seed in range(40):
        stated = rng.random(200)
        right = (rng.random(200) < stated).astype(int)
        reached += ece_estimate(stated.tolist(), right.tolist(), seed=seed).ci95[0] == 0.0
    assert reached >= 36  # 39 are expected; 97.5 % each
    stated = rng.uniform(0.8, 1.0, 200)
    right = (rng.random(200) < stated - 0.3).astype(int)
    low, high = ece_estimate(stated.tolist(), right.tolist()).ci95
    assert 0.15 < low < 0.3 < high < 0.45
