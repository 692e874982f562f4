"""Paired differences of clustered samples: tests by hand and by trying all signs, intervals against scipy's."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from harness.errors import BadInput
from harness.stats.intervals import Z95
from harness.stats.paired import mcnemar_exact, newcombe_interval, paired_difference
from harness.stats.paired_clusters import sign_flip, sums_of


def all_signs(sums: list[float]) -> float:
    """Share of all ways to sign the sums whose total is as far from 0."""
    ways = [
        abs(sum(s * x for s, x in zip(signs, sums, strict=True)))
        for signs in product((1, -1), repeat=len(sums))
    ]
    return sum(way >= abs(sum(sums)) - 1e-9 for way in ways) / len(ways)


def test_the_sign_flip_by_hand() -> None:
    """2, 1, -1 make totals of 4, 2, 2, 0 and their opposites: 6 of 8 are as far from 0 as 2."""
    assert sign_flip([2, 1, -1]) == pytest.approx(0.75)
    assert sign_flip([0.5, 0.25]) == pytest.approx(0.5)
    assert sign_flip([0, 0]) == 1.0
    assert sign_flip([]) == 1.0
    assert sign_flip([3, 0, 0]) == 1.0  # one cluster alone tells nothing


@pytest.mark.parametrize(("b", "c"), [(0, 5), (1, 7), (12, 30), (8, 8), (40, 35)])
def test_clusters_of_one_make_it_mcnemars_test(b: int, c: int) -> None:
    assert sign_flip([1.0] * b + [-1.0] * c) == pytest.approx(mcnemar_exact(b, c), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_counting_equals_trying_all_signs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = [float(x) for x in rng.integers(-5, 6, size=11)]
    assert sign_flip(whole) == pytest.approx(all_signs(whole))
    broken = [x / 8 for x in whole]  # exact in binary, so that ties are ties in both
    assert sign_flip(broken) == pytest.approx(all_signs(whole))


def test_whole_numbers_too_large_to_count_are_drawn() -> None:
    """Twenty differences of a million each, all on one side: counting would take an array of 40 million totals."""
    assert sign_flip([1e6] * 20) == pytest.approx(1 / 10_001, rel=1e-9)


def test_many_clusters_are_drawn_with_a_seed() -> None:
    rng = np.random.default_rng(5)
    whole = [float(x) for x in rng.integers(-3, 6, size=30)]
    drawn = sign_flip([x / 7 for x in whole])
    assert drawn == pytest.approx(sign_flip(whole), abs=0.015)  # 10,000 draws: 3 standard errors at most
    assert drawn == sign_flip([x / 7 for x in whole])
    assert sign_flip([0.1] * 40) == pytest.approx(1 / 10_001)  # never 0 from draws


def test_differences_add_up_by_cluster() -> None:
    assert sums_of([1.0, -1.0, 1.0, 1.0], ["a", "b", "a", "c"]) == [2.0, -1.0, 1.0]


def test_copies_of_a_pair_add_no_evidence() -> None:
    """Each of 20 pairs four times: the test of the 20, and Newcombe at (G - 1) (z / t)^2 pairs, by the CR2 formula."""
    from scipy.stats import t

    a = [1] * 10 + [0] * 10
    b = [1] * 9 + [0] + [1] * 7 + [0] * 3
    copies = 4
    clusters = [i for i in range(20) for _ in range(copies)]
    found = paired_difference(np.repeat(a, copies).tolist(), np.repeat(b, copies).tolist(), clusters=clusters)
    assert (found.n, found.n_clusters, found.test, found.interval) == (
        80,
        20,
        "cluster sign-flip",
        "cluster-newcombe",
    )
    assert (found.n_only_a, found.n_only_b) == (4, 28)
    assert found.p_value == pytest.approx(mcnemar_exact(1, 7))
    scale = 19 * (Z95 / t.ppf(0.975, 19)) ** 2 / 20
    assert found.ci95 == pytest.approx(newcombe_interval(9 * scale, scale, 7 * scale, 3 * scale))
    alone = paired_difference(np.repeat(a, copies).tolist(), np.repeat(b, copies).tolist())
    assert (alone.p_value or 1) < (found.p_value or 0) / 100


def test_clusters_of_one_size_give_the_t_interval_of_their_means() -> None:
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(3)
    a, b = rng.random((12, 5)), rng.random((12, 5)) + rng.normal(0.2, 0.3, (12, 1))
    clusters = np.repeat(np.arange(12), 5).tolist()
    found = paired_difference(a.ravel().tolist(), b.ravel().tolist(), clusters=clusters)
    expected = ttest_1samp((b - a).mean(axis=1), 0).confidence_interval(0.95)
    assert (found.interval, found.test, found.n_clusters) == ("cluster-t", "cluster sign-flip", 12)
    assert found.ci95 == pytest.approx((expected.low, expected.high))
    assert found.value_b - found.value_a == pytest.approx(found.difference) == pytest.approx((b - a).mean())


def test_clusters_of_one_pair_each_change_nothing() -> None:
    a, b = [1, 1, 0, 0, 1], [1, 0, 1, 1, 1]
    assert paired_difference(a, b, clusters=list("abcde")) == paired_difference(a, b)


@pytest.mark.parametrize("b", [[1, 0, 1, 1], [0.5, 0.1, 0.2, 0.9]])
def test_one_cluster_has_neither_interval_nor_test(b: list[float]) -> None:
    found = paired_difference([1, 0, 0, 1], b, clusters=["a"] * 4)
    assert (found.ci95, found.interval, found.p_value, found.test) == (None, None, None, None)


def test_without_variance_between_clusters_each_counts_once() -> None:
    """Two clusters of 50 where everything is won: not more than two pairs tell."""
    found = paired_difference([0] * 100, [1] * 100, clusters=[i // 50 for i in range(100)])
    assert found.ci95 == pytest.approx(newcombe_interval(0, 0, 2, 0))
    assert found.p_value == pytest.approx(0.5)  # both up or both down: 2 of 4 ways
    same = paired_difference([0.5] * 6, [0.7] * 6, clusters=[0, 0, 1, 1, 2, 2])
    assert (same.ci95, same.interval) == (None, None)


def test_one_cluster_per_pair_is_needed() -> None:
    with pytest.raises(BadInput, match="1 clusters for 2 pairs"):
        paired_difference([1, 0], [0, 1], clusters=["a"])
