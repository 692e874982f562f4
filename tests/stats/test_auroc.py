"""AUROC: pairs counted by hand, ties, edges, and an interval that holds the truth as often as it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.errors import BadInput
from harness.stats.auroc import auroc


def by_pairs(scores, positive):
    """Definition: all pairs of a positive and a negative, ties one half."""
    pairs = [
        (a > b) + (a == b) / 2
        for a, yes in zip(scores, positive, strict=True)
        for b, no in zip(scores, positive, strict=True)
        if yes and not no
    ]
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 1.0),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 0.0),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0], 0.5),
        ([0.9, 0.3, 0.5, 0.1], [1, 1, 0, 0], 0.75),
        ([0.5, 0.3, 0.5, 0.1], [1, 1, 0, 0], (0.5 + 1 + 0 + 1) / 4),
    ],
)
def test_pairs_by_hand(scores, positive, expected):
    assert auroc(scores, positive).value == pytest.approx(expected)


def test_many_with_ties_equal_the_count_of_pairs_and_sklearn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    positive = rng.random(200) < 0.3
    scores = np.round(rng.normal(positive, 1.0), 1)
    metric = auroc(scores, positive)
    assert metric.value == pytest.approx(by_pairs(scores, positive))
    assert metric.value == pytest.approx(roc_auc_score(positive, scores))
    assert (metric.interval, metric.chance, metric.higher_is_better) == ("delong-logit", 0.5, True)
    assert metric.ci95[0] < metric.value < metric.ci95[1]


def test_the_standard_error_by_hand():
    # positives 4, 2; negatives 3, 1: shares of negatives below (1, 1/2), of positives above (1/2, 1)
    metric = auroc([4, 2, 3, 1], [True, True, False, False])
    assert metric.value == 0.75
    assert metric.stderr == pytest.approx(math.sqrt(0.125 / 2 + 0.125 / 2))


def test_one_kind_alone_has_no_value_and_a_single_member_counts_once():
    assert auroc([0.1, 0.2], [True, True]).value is None
    assert auroc([], []).value is None
    single = auroc([0.9, 0.1, 0.2], [True, False, False], n_failed=2)
    assert (single.value, single.stderr, single.n, single.n_failed) == (1.0, None, 3, 2)
    assert single.ci95 == pytest.approx((0.206549, 1.0), abs=1e-6)  # one trial of one: 1 / (1 + 1.96^2)


def test_perfect_separation_is_not_certain():
    metric = auroc([3, 4, 5, 0, 1, 2], [1, 1, 1, 0, 0, 0])
    assert metric.value == 1.0
    assert metric.ci95[0] == pytest.approx(0.4385, abs=1e-4)  # Wilson for 3 of 3: 1 / (1 + 1.96^2 / 3)
    assert metric.ci95[1] == 1.0


def test_bad_numbers_are_refused():
    with pytest.raises(BadInput, match="finite"):
        auroc([math.nan, 1.0], [True, False])
    with pytest.raises(BadInput, match="1 labels for 2"):
        auroc([0.0, 1.0], [True])


def test_the_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    truth = 0.7602  # of two unit normals one apart: Phi(1 / sqrt 2)
    hits = 0
    for _ in range(1000):
        scores = np.concatenate([rng.normal(1, 1, 60), rng.normal(0, 1, 60)])
        low, high = auroc(scores, [True] * 60 + [False] * 60).ci95
        hits += low <= truth <= high
    assert 0.93 <= hits / 1000 <= 0.97  # three standard errors round 95 %
