"""Steady state, knee, and intervals that resample requests: made-up loads, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from harness.records import Chunk
from suites.serving.estimates import estimates
from suites.serving.log import RequestLog
from suites.serving.profiles import Value
from suites.serving.steady import knee, mser5, passed, power, steady_rate, steady_state


def log(sent: float, e2e: float, tokens: int = 2) -> RequestLog:
    chunks = tuple(Chunk(sent + e2e * (i + 1) / tokens, "text", 1) for i in range(tokens))
    return RequestLog(sent, sent, sent + e2e, chunks, 10, tokens)


def test_a_closed_loop_is_steady_between_its_first_round_and_its_last():
    """Two slots, one second each, ten requests: sent at 0 0 1 1 2 2 3 3 4 4."""
    logs = [log(float(i // 2), 1.0) for i in range(10)]
    steady = steady_state(logs, concurrency=2)
    assert [one.sent_s for one in steady.logs] == [1, 1, 2, 2, 3, 3]  # without the last two, too
    assert (steady.start_s, steady.end_s) == (1.0, 4.0)
    rate = steady_rate(steady, logs)
    # tokens at 1 (of the first round), 1.5, 2, .., 4 (at the end: outside): 2 each, 12 in 3 s
    assert rate.value == pytest.approx(4.0)
    assert rate.interval == "batch-means"
    assert steady_state(logs[:6], 2) is None  # two left: too few
    assert steady_state([], 2) is None


def test_mser_cuts_a_transient_off_and_refuses_a_load_that_never_settles():
    rng = np.random.default_rng(1)
    noise = rng.normal(1.0, 0.05, 100)
    assert mser5([5.0] * 10 + [1.0, 1.1, 0.9, 1.0, 1.0] * 8) == 10
    assert mser5(list(noise + 5 * np.exp(-np.arange(100) / 5))) in range(15, 45, 5)
    assert (
        mser5(list(np.arange(100) + noise)) is None
    )  # overload: every request waits longer than the one before
    assert mser5([1.0] * 7) == 0


def test_an_open_loop_over_capacity_has_no_steady_state():
    growing = [log(i / 10, 1.0 + i) for i in range(100)]
    assert steady_state(growing, None) is None
    level = [log(i / 10, 0.3 + 0.001 * (i % 7)) for i in range(100)]
    steady = steady_state(level, None)
    assert steady.end_s == pytest.approx(9.9)
    assert level[-1] not in steady.logs  # in flight at the last sending
    assert len(steady.logs) >= 90


def test_what_was_in_flight_at_the_last_sending_is_left_out_whenever_it_was_sent():
    """A closed loop of 2: one slot holds a long answer to the end, the other ends one a second."""
    short = [log(float(i), 1.0) for i in range(25)]
    long = log(2.001, 28.0)
    steady = steady_state([log(0.0, 2.0), *short, long], concurrency=2)
    assert long not in steady.logs
    assert short[24] not in steady.logs
    assert short[23] in steady.logs  # answered when the last was sent
    assert (steady.start_s, steady.end_s) == (1.0, 24.0)


def test_the_knee_has_the_greatest_power():
    # throughput doubles up to 8 and stays; time stays up to 8 and doubles
    rates = {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0, 16: 8.0, 32: 8.0}
    powers = {c: power(rate, max(1.0, c / 8)) for c, rate in rates.items()}
    assert powers[16] == pytest.approx(4.0)
    assert knee(powers)[0] == 8
    found, said = knee({c: powers[c] for c in (1, 2, 4, 8)})
    assert found is None
    assert "beyond" in said
    assert knee({1: 1.0, 2: None, 4: 2.0})[0] is None
    assert [passed([powers[c] for c in rates][:n]) for n in range(1, 7)] == [False] * 5 + [True]


def test_intervals_by_what_they_rest_on():
    plain = [[Value(float(i))] for i in range(1, 41)]
    found = estimates(plain, ("mean", "p50", "p99", "std"), "linear")
    assert found["mean"].value == pytest.approx(20.5)
    assert found["mean"].interval == "t"
    assert (found["p50"].value, found["p50"].interval) == (20.5, "order-statistics")
    assert found["p50"].ci95[0] < 20.5 < found["p50"].ci95[1]
    assert found["p99"].value == pytest.approx(np.percentile(range(1, 41), 99))
    assert found["p99"].ci95 is None  # 40 values do not bound it
    assert found["std"].value == pytest.approx(np.std(range(1, 41)))
    assert found["std"].interval == "bootstrap"
    assert estimates([[], []], ("p50",), "linear") == {"p50": None}


def test_draws_that_never_differ_make_no_interval():
    """The largest gap of twenty requests is one and the same in nearly every draw: that is no width of 0."""
    alike = [[Value(0.2), Value(0.1)] for _ in range(20)]
    found = estimates(alike, ("p99", "mean"), "linear")
    assert (found["p99"].ci95, found["p99"].stderr, found["p99"].interval) == (None, None, None)
    assert found["mean"].value == pytest.approx(0.15)


def test_gaps_of_a_request_stay_together():
    """Forty requests of fifty equal gaps each know no more than forty gaps."""
    rng = np.random.default_rng(0)
    means = rng.normal(10, 1, 40)
    pooled = [[Value(float(m))] * 50 for m in means]
    single = [[Value(float(m))] for m in means]
    wide, narrow = (
        estimates(pooled, ("mean",), "linear")["mean"],
        estimates(single, ("mean",), "linear")["mean"],
    )
    assert wide.interval == "cluster-bootstrap"
    assert wide.value == pytest.approx(narrow.value)
    assert wide.stderr == pytest.approx(narrow.stderr, rel=0.15)


def test_weighted_percentiles_of_whole_weights_are_those_of_repeated_values():
    rng = np.random.default_rng(2)
    values, weights = rng.normal(size=30), rng.integers(1, 6, 30)
    repeated = np.repeat(values, weights)
    by_request = [[Value(float(v), float(w))] for v, w in zip(values, weights, strict=True)]
    for share in (50, 90, 99):
        name = f"p{share}"
        assert estimates(by_request, (name,), "linear")[name].value == pytest.approx(
            np.percentile(repeated, share)
        )
        assert estimates(by_request, (name,), "reaching")[name].value == pytest.approx(
            np.percentile(repeated, share, method="inverted_cdf")
        )
    assert estimates(by_request, ("std",), "linear")["std"].value == pytest.approx(repeated.std())
