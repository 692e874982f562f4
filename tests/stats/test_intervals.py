"""Intervals against scipy, published values, hand calculation, and their own coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.errors import BadInput
from harness.stats import intervals
from harness.stats.intervals import bootstrap, clustered_mean, mean, proportion, summarise, wilson_interval


def of(values: list[float], **options: object):
    return summarise(values, n_failed=0, higher_is_better=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("ones", "n"), [(0, 10), (1, 10), (7, 20), (81, 263), (20, 20)])
def test_wilson_is_that_of_scipy(ones: int, n: int) -> None:
    from scipy.stats import binomtest

    theirs = binomtest(ones, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(ones / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_gives_the_published_example() -> None:
    """81 of 263, Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 0.2553 to 0.3662."""
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_a_share_is_told_from_a_mean_by_its_values() -> None:
    share = of([1, 1, 1, 0])
    assert (share.value, share.n, share.interval) == (0.75, 4, "wilson")
    assert share.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    assert of([0.5, 1, 0]).interval == "t"
    assert of([0, 1, 1], unit="ms").interval == "t"


def test_the_mean_of_three_numbers_by_hand() -> None:
    """2, 4, 9: mean 5, variance 13, standard error sqrt(13/3); t(0.975, 2) = 4.302653 from a table."""
    metric = of([2.0, 4.0, 9.0])
    assert metric.value == 5
    assert metric.stderr == pytest.approx(2.081666, abs=1e-6)
    assert metric.ci95 == pytest.approx((5 - 8.956686, 5 + 8.956686), abs=1e-5)


def test_the_edges() -> None:
    assert of([]) == summarise([], n_failed=0, higher_is_better=True)
    assert (of([]).value, of([]).n, of([]).ci95) == (None, 0, None)
    one = of([0.3])
    assert (one.value, one.stderr, one.ci95, one.interval) == (0.3, None, None, None)
    sure = of([1.0])
    assert sure.ci95 == pytest.approx((0.206549, 1.0), abs=1e-6)  # 1 / (1 + 1.96^2)
    assert summarise([1, 0], n_failed=3, higher_is_better=False, chance=0.25).n_failed == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_is_refused_with_the_metrics_name(bad: float) -> None:
    with pytest.raises(BadInput, match=r"accuracy: value 1 of 2 is (nan|inf|-inf)"):
        of([1.0, bad], name="accuracy")
    with pytest.raises(BadInput):
        mean([bad])
    with pytest.raises(BadInput):
        bootstrap([bad], np.median)


def test_a_share_takes_zeros_and_ones_alone() -> None:
    assert proportion([1, 0, 1, 1]).value == 0.75
    with pytest.raises(BadInput, match=r"0\.5"):
        proportion([1, 0.5])


def test_a_mean_of_zeros_and_ones_can_be_asked_for() -> None:
    assert mean([0, 1]).interval == "t"
    assert mean([]).value is None


def test_clusters_of_copies_count_once() -> None:
    """Five prompts scored four times each with equal results: the error is that of five values."""
    five = [0.1, 0.4, 0.2, 0.9, 0.6]
    values = [v for v in five for _ in range(4)]
    metric = of(values, clusters=[i // 4 for i in range(20)])
    alone = of(five)
    assert metric.n == 20
    assert metric.interval == "cluster-t"
    assert metric.stderr == pytest.approx(alone.stderr)
    assert metric.ci95 == pytest.approx(alone.ci95)


def test_the_cluster_error_by_hand() -> None:
    """Clusters {1, 0} and {1, 1}: mean 3/4, residual sums -1/2 and 1/2, error sqrt(2/1 * (1/4 + 1/4)) / 4 = 1/4."""
    assert clustered_mean([1, 0, 1, 1], ["a", "a", "b", "b"], is_share=False).stderr == pytest.approx(0.25)


def test_uneven_clusters_by_hand() -> None:
    """Clusters of 1 and 3 about the mean 1/2: sums 1/2 and -1/2; CR2 divides their squares by 3/4 and 1/4."""
    found = clustered_mean([1, 0, 0, 1], ["a", "b", "b", "b"], is_share=False)
    assert found.stderr == pytest.approx(math.sqrt(0.25 / 0.75 + 0.25 / 0.25) / 4)


def test_degrees_of_freedom_are_those_of_the_covariance_matrix() -> None:
    """The closed form against Bell & McCaffrey's ratio, computed from the G x G matrix."""
    sizes = np.array([1, 2, 2, 7, 12])
    rng = np.random.default_rng(8)
    values = (np.repeat(rng.normal(size=5), sizes) + rng.normal(size=24)).tolist()
    clusters = np.repeat(np.arange(5), sizes).tolist()
    average = sum(values) / 24
    held = intervals._cluster_sums(values, clusters, average)
    rho = intervals._intraclass(values, held, average)
    assert 0 < rho < 1
    h, t = sizes / 24, sizes * (1 + (sizes - 1) * rho)
    covariance = np.diag(t) - np.outer(t, h) - np.outer(h, t) + t.sum() * np.outer(h, h)
    weights = 1 / (1 - h)
    ratio = (weights @ np.diag(covariance)) ** 2 / (np.outer(weights, weights) * covariance**2).sum()
    assert intervals._degrees(values, held, average) == pytest.approx(ratio)


def test_equal_clusters_have_one_degree_less_than_there_are() -> None:
    values = [float(i * 7 % 5) for i in range(12)]
    clusters = [i // 3 for i in range(12)]
    held = intervals._cluster_sums(values, clusters, sum(values) / 12)
    assert intervals._degrees(values, held, sum(values) / 12) == pytest.approx(3)


@pytest.mark.parametrize("clusters", [None, [0, 0, 1, 1]])
def test_values_without_variance_are_not_certain(clusters) -> None:
    """Four times 0.5 in [0, 1]: Wilson at four values (two clusters); four times 7: a value without an interval."""
    half = of([0.5] * 4, clusters=clusters)
    trials = 4 if clusters is None else 2
    assert (half.value, half.stderr, half.interval) == (0.5, 0.0, "wilson")
    assert half.ci95 == pytest.approx(wilson_interval(0.5, trials))
    seven = of([7.0] * 4, clusters=clusters)
    assert (seven.value, seven.stderr, seven.ci95, seven.interval) == (7.0, 0.0, None, None)


def test_bounds_of_a_score_carry_its_interval_without_variance() -> None:
    """Five times -1 in [-1, 1] is no success in five: Wilson's 0 to z^2 / (5 + z^2) = 0.434482, doubled, less 1."""
    metric = of([-1.0] * 5, bounds=(-1.0, 1.0))
    assert (metric.value, metric.interval) == (-1.0, "wilson")
    assert metric.ci95 == pytest.approx((-1.0, -0.131035), abs=1e-6)
    assert of([0.0, 1.0, 1.0], bounds=(-1.0, 1.0)).interval == "t"  # 0 and 1 are no share where -1 can be had
    assert of([2.0] * 5, bounds=(-1.0, 1.0)).ci95 is None


def test_a_time_without_variance_is_no_share() -> None:
    """Half a second four times is no half of four."""
    assert (of([0.5] * 4, unit="s").ci95, of([0.5] * 4, unit="s").interval) == (None, None)
    assert of([0.5] * 4, unit="s", clusters=[0, 0, 1, 1]).ci95 is None


def test_what_rounding_leaves_of_no_variance_is_none() -> None:
    """The mean of three times 0.1 is 0.10000000000000002, that of [1, 0, 0] a third: neither makes a width of 1e-17."""
    third = of([0.1] * 3)
    assert (third.stderr, third.interval) == (0.0, "wilson")
    assert third.ci95 == pytest.approx(wilson_interval(0.1, 3))
    alike = of([1, 0, 0] * 4, clusters=[i // 3 for i in range(12)])
    assert (alike.stderr, alike.interval) == (0.0, "cluster-wilson")
    # nothing is lost by such clusters: 12 values, at the t of 3 degrees, 3.182446
    assert alike.ci95 == pytest.approx(wilson_interval(1 / 3, 12 * (1.959964 / 3.182446) ** 2), abs=1e-4)
    assert of([1e-9, 2e-9, 3e-9], unit="s").interval == "t"


def test_clusters_of_one_are_no_clusters() -> None:
    assert of([1, 0, 1], clusters=["a", "b", "c"]) == of([1, 0, 1])


def test_one_cluster_has_no_interval() -> None:
    metric = of([1, 0, 1], clusters=["a", "a", "a"])
    assert (metric.value, metric.stderr, metric.ci95) == (pytest.approx(2 / 3), None, None)


def test_equal_shares_in_clusters_keep_a_width() -> None:
    """All 40 right in 4 clusters: no error is seen, so each cluster counts once, and less for its few degrees."""
    low, high = of([1] * 40, clusters=[i // 10 for i in range(40)]).ci95 or (0, 0)
    assert high == 1.0
    assert low < wilson_interval(1.0, 4)[0]


def test_clusters_of_another_length_are_refused() -> None:
    with pytest.raises(BadInput, match="2 clusters for 3 values"):
        of([1, 0, 1], clusters=["a", "b"])


def test_the_bootstrap_of_a_mean_is_near_its_formula() -> None:
    rng = np.random.default_rng(3)
    values = rng.exponential(size=400).tolist()
    found, formula = bootstrap(values, np.mean, seed=1), of(values)
    assert found.value == pytest.approx(formula.value)
    assert found.stderr == pytest.approx(formula.stderr, rel=0.06)
    assert found.ci95 == pytest.approx(formula.ci95, abs=0.02)
    assert found == bootstrap(values, np.mean, seed=1)
    assert found != bootstrap(values, np.mean, seed=2)


def test_the_bootstrap_of_a_percentile_brackets_it() -> None:
    def p99(data: np.ndarray, axis: int) -> np.ndarray:
        return np.quantile(data, 0.99, axis=axis)

    found = bootstrap([float(i) for i in range(1000)], p99)
    assert found.value == pytest.approx(989.01)
    low, high = found.ci95 or (0, 0)
    assert 975 < low < 989.01 < high <= 999
    assert bootstrap([5.0], np.median).ci95 is None
    assert bootstrap([0.3] * 5, np.mean)[1:] == (0.0, None, None)  # no interval of width 0
    with pytest.raises(BadInput):
        bootstrap([], np.median)


def coverage(draw, truth: float, repeats: int, **options: object) -> float:
    hits = 0
    for _ in range(repeats):
        values, clusters = draw()
        low, high = of(values, clusters=clusters, **options).ci95 or (0.0, 0.0)
        hits += low <= truth <= high
    return hits / repeats


@pytest.mark.parametrize("share", [0.03, 0.2, 0.5, 0.9])
def test_wilson_covers(share: float) -> None:
    """Exact coverage over all outcomes of n = 50, weighted by their probability: no simulation error."""
    from scipy.stats import binom

    covered = sum(
        binom.pmf(k, 50, share)
        for k in range(51)
        if wilson_interval(k / 50, 50)[0] <= share <= wilson_interval(k / 50, 50)[1]
    )
    assert 0.92 < covered < 0.99


def test_t_covers() -> None:
    """4,000 samples of 8 uniform numbers: 95 % within the simulation error (4 x 0.0034) and t's own."""
    rng = np.random.default_rng(0)
    found = coverage(lambda: (rng.random(8).tolist(), None), 0.5, 4000)
    assert 0.93 < found < 0.965


def test_cluster_intervals_cover_where_naive_ones_do_not() -> None:
    """30 prompts x 8 samples whose chance of a 1 differs by prompt (Beta(1, 3), mean 1/4)."""
    rng = np.random.default_rng(1)

    def draw() -> tuple[list[float], list[int]]:
        chances = rng.beta(1, 3, size=30)
        return (rng.random((30, 8)) < chances[:, None]).astype(float).ravel().tolist(), [
            i // 8 for i in range(240)
        ]

    robust = coverage(draw, 0.25, 1500)
    naive = coverage(lambda: (draw()[0], None), 0.25, 1500)
    assert 0.925 < robust < 0.975
    assert naive < 0.85
