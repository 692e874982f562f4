"""BCa bootstrap and order statistics against scipy, exact chances and hand calculation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.errors import BadInput
from harness.stats.resampling import bootstrap_rows, quantile


def test_the_interval_is_near_the_bca_interval_of_scipy() -> None:
    from scipy.stats import bootstrap as theirs

    values = np.random.default_rng(5).exponential(size=80)
    found = bootstrap_rows(values, lambda rows: float(rows.std()), replicates=4000, seed=1)
    reference = theirs((values,), np.std, n_resamples=4000, method="BCa", random_state=2)
    assert found.value == pytest.approx(values.std())
    assert found.ci95 == pytest.approx(tuple(reference.confidence_interval), rel=0.05)
    assert found.stderr == pytest.approx(float(reference.standard_error), rel=0.08)


def test_rows_of_two_numbers_stay_together() -> None:
    """The ratio of two columns that are proportional is the same in every replicate: no interval of width 0."""
    rows = [(2.0 * i, float(i)) for i in range(1, 30)]
    found = bootstrap_rows(rows, lambda part: float(part[:, 0].sum() / part[:, 1].sum()))
    assert (found.value, found.stderr, found.ci95) == (pytest.approx(2.0), pytest.approx(0.0), None)


def test_a_cluster_is_drawn_whole() -> None:
    """Five values, four copies of each: the error is about that of five values, not of twenty."""
    five = [0.1, 0.4, 0.2, 0.9, 0.6]
    values = [value for value in five for _ in range(4)]
    apart = bootstrap_rows(values, lambda rows: float(rows.mean()))
    together = bootstrap_rows(values, lambda rows: float(rows.mean()), clusters=[i // 4 for i in range(20)])
    assert together.interval == "cluster-bootstrap"
    assert together.stderr == pytest.approx(float(np.std(five)) / math.sqrt(5), rel=0.06)
    assert apart.stderr == pytest.approx(float(np.std(five)) / math.sqrt(20), rel=0.06)


def test_the_seed_alone_decides() -> None:
    values = [float(i * i % 17) for i in range(40)]
    one, again, other = (bootstrap_rows(values, np.median, replicates=300, seed=s) for s in (3, 3, 4))
    assert one == again
    assert one != other


def test_replicates_without_the_statistic_are_left_out() -> None:
    """One of three rows carries the label: a replicate lacks it with a chance of (2/3)^3 = 0.30."""
    rows = [(1.0, 1.0), (2.0, 0.0), (3.0, 0.0)]

    def mean_of_labelled(part: np.ndarray) -> float:
        return float(part[part[:, 1] == 1, 0].mean()) if (part[:, 1] == 1).any() else math.nan

    assert bootstrap_rows(rows, mean_of_labelled).value == 1.0
    assert bootstrap_rows([(1.0, 0.0)] * 3, mean_of_labelled).ci95 is None


@pytest.mark.parametrize("bad", [[], [math.nan, 1.0], [math.inf]])
def test_rows_must_be_finite_numbers(bad: list[float]) -> None:
    with pytest.raises(BadInput):
        bootstrap_rows(bad, np.mean)
    with pytest.raises(BadInput):
        quantile(bad, 0.5)


def test_clusters_of_another_length_are_refused() -> None:
    with pytest.raises(BadInput, match="2 clusters for 3 rows"):
        bootstrap_rows([1.0, 2.0, 3.0], np.mean, clusters=["a", "b"])


def test_the_median_of_ten_lies_between_the_second_and_the_ninth() -> None:
    """P(Bin(10, 1/2) <= 1) = 11/1024 = 1.1 %, <= 2: 56/1024 = 5.5 %: the limit is between the 2nd and 3rd value."""
    found = quantile([float(i) for i in range(1, 11)], 0.5)
    low, high = found.ci95 or (0, 0)
    assert found.value == 5.5
    assert 2 < low < 3
    assert high == pytest.approx(11 - low)
    assert found.interval == "order-statistics"


@pytest.mark.parametrize(("n", "bounded"), [(367, False), (368, True)])
def test_too_few_values_do_not_bound_a_high_percentile(n: int, bounded: bool) -> None:
    """0.99^n falls to 2.5 % at n = 367.04."""
    assert (quantile([float(i) for i in range(n)], 0.99).ci95 is not None) is bounded
