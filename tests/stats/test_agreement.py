"""Cohen's kappa: by hand, against scikit-learn, and at the edges."""

from __future__ import annotations

import random

import pytest
from sklearn.metrics import cohen_kappa_score

from harness.errors import BadInput
from harness.stats.agreement import agreement_metric, cohen_kappa, kappa_metric


def ratings(table: dict[tuple[str, str], int]) -> tuple[list[str], list[str]]:
    pairs = [pair for pair, n in table.items() for _ in range(n)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def test_by_hand():
    """Of 50: 35 agree (0.7); the rates 0.5/0.6 give 0.5 by chance: kappa (0.7 - 0.5) / (1 - 0.5)."""
    first, second = ratings({("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15})
    assert cohen_kappa(first, second, categories=["yes", "no"]) == pytest.approx(0.4)
    assert agreement_metric(first, second).value == pytest.approx(0.7)
    metric = kappa_metric(first, second, categories=["yes", "no"])
    assert (metric.n, metric.interval, metric.chance) == (50, "bootstrap", 0.0)
    # Fleiss, Cohen & Everitt's standard error of this table is 0.1272
    assert metric.stderr == pytest.approx(0.127, abs=0.01)
    assert metric.ci95[0] < 0.4 < metric.ci95[1]


@pytest.mark.parametrize("weights", ["none", "quadratic"])
def test_as_scikit_learn_has_it(weights):
    rng = random.Random(5)
    for _ in range(20):
        n, k = rng.randint(5, 60), rng.randint(2, 5)
        first = [rng.randrange(k) for _ in range(n)]
        second = [a if rng.random() < 0.5 else rng.randrange(k) for a in first]
        theirs = cohen_kappa_score(
            first, second, labels=list(range(k)), weights=None if weights == "none" else weights
        )
        assert cohen_kappa(first, second, categories=list(range(k)), weights=weights) == pytest.approx(theirs)


def test_full_agreement_of_ten_is_no_certainty():
    """Wilson's lower limit of 10 of 10 is 0.7225; with 0.5 by chance kappa's is (0.7225 - 0.5) / 0.5."""
    labels = ["A", "B"] * 5
    metric = kappa_metric(labels, labels, categories=["A", "B", "tie"])
    assert metric.value == 1.0
    assert metric.interval == "wilson of agreement"
    assert metric.ci95 == (pytest.approx(0.4449, abs=1e-3), 1.0)


def test_no_kappa_where_both_say_one_thing_throughout():
    assert kappa_metric(["A"] * 5, ["A"] * 5, categories=["A", "B"]).value is None
    assert kappa_metric([], [], categories=["A", "B"]).n == 0


def test_ratings_that_make_no_pairs_are_refused():
    with pytest.raises(BadInput, match="2 and 1 ratings"):
        cohen_kappa(["A", "B"], ["A"], categories=["A", "B"])
    with pytest.raises(BadInput, match="'C' is none of A, B"):
        cohen_kappa(["A"], ["C"], categories=["A", "B"])
