"""Averages of averages, by hand and against what they must be equal to."""

from __future__ import annotations

import math

import pytest

from harness.records import Metric
from harness.stats.averages import Term, macro_average, weighted_mean, without_spread
from harness.stats.intervals import summarise, wilson_interval


def share(ones: int, n: int, **fields: object) -> Metric:
    return summarise([1.0] * ones + [0.0] * (n - ones), n_failed=0, higher_is_better=True, **fields)  # type: ignore[arg-type]


def test_every_group_counts_the_same() -> None:
    metric = macro_average([share(1, 2), share(90, 100)])
    assert metric.value == pytest.approx(0.7)
    assert metric.n == 102
    # variances 0.5 * 0.5 / 1 and 0.9 * 0.1 / 99; the mean of two has a quarter of their sum
    assert metric.stderr == pytest.approx(math.sqrt((0.25 + 0.09 / 99) / 4))
    assert metric.interval == "mover"


def test_metrics_that_no_sample_moves_are_named() -> None:
    flat = Metric(128.0, 5, 0, True, stderr=0.0, unit="tokens")
    found = {"a": {"tokens": flat, "right": share(5, 5)}, "b": {"one": Metric(3.0, 1, 0, True)}}
    assert without_spread(found) == [
        "a: the same value in every sample, so that nothing tells an interval: tokens"
    ]


def test_one_group_keeps_its_interval() -> None:
    alone = share(3, 10)
    assert macro_average([alone]).ci95 == pytest.approx(alone.ci95)


def test_many_groups_of_one_size_are_a_stratified_sample() -> None:
    """Six groups of two, one right in each: variance of the mean 6 * (1/4) / 36, t with 6 degrees of freedom."""
    metric = macro_average([share(1, 2)] * 6)
    effective = 0.25 / (0.25 / 6)
    degrees_factor = (1.959964 / 2.446912) ** 2  # t(0.975, 6) from a table
    assert metric.stderr == pytest.approx(math.sqrt(0.25 / 6))
    assert metric.ci95 == pytest.approx(wilson_interval(0.5, effective * degrees_factor), abs=1e-5)
    assert metric.interval == "strata-wilson"


def test_groups_that_are_all_wrong_keep_a_width() -> None:
    low, high = macro_average([share(0, 4)] * 10).ci95 or (1, 0)
    assert (low, high) == pytest.approx(wilson_interval(0.0, 40))


def test_a_mean_that_is_no_share_has_the_t_interval() -> None:
    """Five means of 10 with a standard error of 1 from 3 values each: error sqrt(5)/5, 10 degrees, t = 2.228139."""
    found = weighted_mean([Term(1.0, 10.0, 1.0, None, None, 3)] * 5, is_share=False)
    assert found.stderr == pytest.approx(1 / math.sqrt(5))
    assert found.ci95 == pytest.approx((10 - 2.228139 / math.sqrt(5), 10 + 2.228139 / math.sqrt(5)), abs=1e-6)
    assert found.interval == "strata-t"


def test_a_group_without_a_value_leaves_no_mean() -> None:
    empty = Metric(None, 0, 3, True)
    found = macro_average([share(1, 2), empty])
    assert (found.value, found.n, found.n_failed) == (None, 2, 3)
    assert macro_average([]).value is None


def test_chance_is_known_where_every_group_knows_it() -> None:
    assert macro_average([share(1, 2, chance=0.2), share(1, 2, chance=0.4)]).chance == pytest.approx(0.3)
    assert macro_average([share(1, 2, chance=0.2), share(1, 2)]).chance is None
