"""Paired differences against scipy, published examples, and their own coverage."""

from __future__ import annotations

import numpy as np
import pytest

from harness.errors import BadInput
from harness.stats.paired import holm, mcnemar_exact, newcombe_interval, paired_difference


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 5), (1, 7), (12, 30), (8, 8), (400, 350)])
def test_mcnemar_is_the_exact_binomial_test_of_scipy(b: int, c: int) -> None:
    from scipy.stats import binomtest

    expected = binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_hand() -> None:
    """0 against 5 discordant pairs: 2 / 2^5."""
    assert mcnemar_exact(0, 5) == pytest.approx(1 / 16)


def test_the_interval_is_the_published_one() -> None:
    """Airway hyper-responsiveness, 1, 1, 7, 12 pairs: Fagerland, Lydersen & Laake 2014, Statistics in Medicine
    33:2850, Newcombe square-and-add: -0.507 to -0.026 for first minus second."""
    assert newcombe_interval(1, 7, 1, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)


def test_swapping_the_runs_mirrors_the_interval() -> None:
    low, high = newcombe_interval(20, 12, 2, 16)
    assert newcombe_interval(20, 2, 12, 16) == pytest.approx((-high, -low))


def test_a_difference_of_shares_by_hand() -> None:
    a = [1, 1, 1, 0, 0, 0, 0, 1]
    b = [1, 1, 1, 1, 1, 0, 1, 0]
    found = paired_difference(a, b)
    assert (found.n, found.value_a, found.value_b, found.difference) == (8, 0.5, 0.75, 0.25)
    assert (found.n_only_a, found.n_only_b) == (1, 3)
    assert found.p_value == pytest.approx(2 * (1 + 4) / 16)  # P(X <= 1), X ~ Bin(4, 1/2), twice
    assert (found.interval, found.test) == ("newcombe", "mcnemar exact")


def test_equal_runs_differ_by_nothing_and_keep_a_width() -> None:
    found = paired_difference([1, 0, 1], [1, 0, 1])
    assert (found.difference, found.p_value) == (0, 1.0)
    low, high = found.ci95 or (0, 0)
    assert low < 0 < high


def test_other_scores_have_the_paired_t_interval_and_a_permutation_test() -> None:
    from scipy.stats import permutation_test, t

    rng = np.random.default_rng(0)
    a = rng.random(12)
    b = a + rng.normal(0.1, 0.5, 12)
    found = paired_difference(a.tolist(), b.tolist())
    apart = b - a
    expected = t.interval(0.95, 11, apart.mean(), apart.std(ddof=1) / np.sqrt(12))
    assert (found.interval, found.test) == ("paired t", "sign-flip")
    assert found.difference == pytest.approx(apart.mean())
    assert found.ci95 == pytest.approx(expected, rel=1e-9)
    exact = permutation_test((apart,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert found.p_value == pytest.approx(exact)


def test_two_pairs_prove_nothing() -> None:
    """-0.1 and -0.2: both on one side in two of four ways; t(1) = 12.7062 times 0.05 about -0.15."""
    found = paired_difference([0.5, 0.4], [0.4, 0.2])
    assert found.p_value == 0.5
    assert found.ci95 == pytest.approx((-0.15 - 0.05 * 12.7062, -0.15 + 0.05 * 12.7062), abs=1e-4)


def test_the_drawn_p_value_is_near_that_of_the_t_test_and_goes_by_the_seed() -> None:
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(4)
    a, noise = rng.random(500), rng.normal(0.03, 0.3, 500)
    found = paired_difference(a.tolist(), (a + noise).tolist(), seed=1)
    assert found.p_value == pytest.approx(ttest_rel(a + noise, a).pvalue, abs=0.01)
    assert found == paired_difference(a.tolist(), (a + noise).tolist(), seed=1)


def test_what_rounding_leaves_of_equal_scores_is_no_difference() -> None:
    found = paired_difference([0.1 + 0.2, 0.5, 0.7], [0.3, 0.5, 0.7])
    assert (found.difference, found.ci95, found.p_value) == (0, None, 1.0)


@pytest.mark.parametrize("n", [3, 5, 10, 20])
def test_few_pairs_raise_no_false_alarm(n: int) -> None:
    """400 draws without a difference: intervals that leave it out, and p below 0.05, in about 5 % or less."""
    rng = np.random.default_rng(n)
    alarms = missed = 0
    for seed in range(400):
        a = rng.random(n)
        found = paired_difference(a.tolist(), (a + rng.normal(0, 0.2, n)).tolist(), seed=seed)
        low, high = found.ci95 or (0, 0)
        missed += not low <= 0 <= high
        alarms += (found.p_value or 0) < 0.05
    assert missed / 400 < 0.085  # 5 % and three standard errors
    assert alarms / 400 < 0.085
    assert n > 5 or alarms == 0  # 2 / 2^5 is above 0.05


def test_pairs_that_all_differ_by_the_same_have_a_test_and_no_interval() -> None:
    """Six times 0.2: no width of 0; all six on one side is 2 of 64 ways."""
    found = paired_difference([0.5] * 6, [0.7] * 6)
    assert (found.ci95, found.interval) == (None, None)
    assert (found.test, found.p_value) == ("sign-flip", pytest.approx(1 / 32))
    same = paired_difference([0.5, 0.25], [0.5, 0.25])
    assert (same.difference, same.ci95, same.p_value) == (0, None, 1.0)


def test_one_pair_of_numbers_has_no_interval() -> None:
    found = paired_difference([0.2], [0.5])
    assert (found.difference, found.ci95, found.p_value) == (pytest.approx(0.3), None, None)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [], "make no pairs"),
        ([1], [1, 0], "make no pairs"),
        ([1.0], [float("nan")], "pair 0"),
        ([float("inf")], [1], "pair 0"),
    ],
)
def test_what_makes_no_pairs_is_refused(a: list[float], b: list[float], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        paired_difference(a, b)


def test_newcombe_covers_correlated_shares() -> None:
    """3,000 runs of 60 pairs, shares 0.7 and 0.8 with much in common."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(60, [0.65, 0.05, 0.15, 0.15], size=3000)  # both, a alone, b alone, neither
    inside = [low <= 0.10 <= high for low, high in (newcombe_interval(*map(int, row)) for row in counts)]
    assert 0.93 < np.mean(inside) < 0.98


def test_holm_by_hand() -> None:
    """0.01 x 3, then 0.03 x 2, then max(0.06, 0.04 x 1)."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
