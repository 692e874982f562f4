"""Means of values between -1 and 1: never Wilson for a share, and never certain where nothing varies."""

from __future__ import annotations

import math

import pytest

from harness.errors import BadInput
from harness.stats.signed import signed_mean


def made(values, clusters=None):
    return signed_mean(values, n_failed=1, higher_is_better=False, clusters=clusters)


def test_students_interval_by_hand():
    metric = made([0.1, 0.3, 0.2, 0.4])  # mean 1/4, variance 1/60, t(3) = 3.18245
    assert metric.value == pytest.approx(0.25)
    assert metric.stderr == pytest.approx(math.sqrt(1 / 240))
    assert metric.ci95[1] == pytest.approx(0.25 + 3.182446 * math.sqrt(1 / 240))
    assert (metric.interval, metric.n, metric.n_failed, metric.higher_is_better) == ("t", 4, 1, False)
    assert made([1, 0, -1, 1]).ci95[1] == 1.0  # 0.25 + 1.52 is no bias


def test_zeros_and_ones_are_no_share():
    assert made([0, 1, 1, 0, 1]).interval == "t"
    assert made([0, 1, 1, 0, 1], list("aabbc")).interval == "cluster-t"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, (-0.6999, 0.6999)),  # Wilson at 4 of a half: 0.5 +- 0.35, twice, less 1
        (1.0, (2 * 0.5101 - 1, 1.0)),
        (-1.0, (-1.0, 1 - 2 * 0.5101)),
    ],
)
def test_values_that_are_all_alike_are_not_certain(value, expected):
    metric = made([value] * 4)
    assert metric.ci95 == pytest.approx(expected, abs=1e-4)
    assert metric.interval == "wilson"
    assert made([value] * 8, list("aabbccdd")).ci95 == pytest.approx(expected, abs=1e-4)


def test_one_value_or_one_cluster_has_no_interval():
    assert made([0.5]).ci95 is None
    assert made([0.5, 0.5], ["a", "a"]).ci95 is None
    assert (made([]).value, made([]).n_failed) == (None, 1)


@pytest.mark.parametrize("odd", [1.5, -2.0, math.nan])
def test_values_outside_are_refused(odd):
    with pytest.raises(BadInput, match="-1 to 1"):
        made([0.0, odd])
