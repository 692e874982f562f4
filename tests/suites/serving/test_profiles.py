"""Profiles by hand: one small log of events, and what each tool makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.records import Chunk, Completion, Output
from suites.serving.load import Point
from suites.serving.log import RequestLog, log_of
from suites.serving.metrics import Measured, load_metrics
from suites.serving.profiles import (
    AIPERF,
    GUIDELLM,
    Slo,
    Value,
    aiperf_figures,
    guidellm_figures,
    vllm_figures,
)

CHAT = RequestLog(
    scheduled_s=0.9,
    sent_s=1.0,
    ended_s=2.1,
    chunks=(
        Chunk(1.10, "role"),
        Chunk(1.20, "reasoning", 2),
        Chunk(1.40, "text", 1),
        Chunk(1.50, "empty", 1),
        Chunk(1.70, "text", 2),
        Chunk(1.80, "end"),
        Chunk(2.00, "usage", None, 6),
    ),
    prompt_tokens=10,
    output_tokens=6,
    remote=True,
)
"""A chat: a role, thoughts of two tokens, four tokens of an answer, the end, the count."""


def only(values: list[Value]) -> Value:
    (value,) = values
    return value


def test_vllm_counts_every_piece_with_a_choice():
    found = vllm_figures(CHAT)
    assert only(found["ttft"]).seconds == pytest.approx(0.10)  # the role
    assert only(found["e2e"]).seconds == pytest.approx(0.80)  # the end, not the count
    assert only(found["tpot"]).seconds == pytest.approx(0.70 / 5)
    assert [v.seconds for v in found["itl"]] == pytest.approx([0.1, 0.2, 0.1, 0.2, 0.1])


def test_guidellm_counts_text_and_thoughts_and_weighs_by_tokens():
    found = guidellm_figures(CHAT)
    assert only(found["ttft"]).seconds == pytest.approx(0.20)
    assert only(found["ttfo"]).seconds == pytest.approx(0.40)
    assert only(found["e2e"]).seconds == pytest.approx(1.10)  # the end of the exchange
    assert only(found["tpot"]) == pytest.approx((0.70 / 6, 6))  # the first token's time included
    assert only(found["itl"]) == pytest.approx((0.50 / 5, 5))


def test_aiperf_takes_the_first_piece_out_of_both_sides():
    found = aiperf_figures(CHAT)
    assert only(found["ttft"]).seconds == pytest.approx(0.20)
    assert only(found["ttfo"]).seconds == pytest.approx(0.40)
    assert only(found["e2e"]).seconds == pytest.approx(0.70)  # the last piece with content
    assert only(found["itl"]).seconds == pytest.approx(0.50 / 4)  # six tokens, two of them in the first piece


@pytest.mark.parametrize(
    ("tokens", "usage", "divisor"),
    [(None, None, 5), (2, None, 4), (2, 3, 3), (0, None, 5), (6, None, 5), (9, None, 5)],
)
def test_aiperf_takes_one_where_the_first_piece_is_not_known_or_cannot_be(tokens, usage, divisor):
    chunks = [Chunk(1.2, "text", tokens, usage), Chunk(1.7, "text")]
    found = aiperf_figures(replace(CHAT, chunks=tuple(chunks)))
    assert only(found["itl"]).seconds == pytest.approx(0.5 / divisor)


def test_one_token_has_no_time_per_token_in_any_profile():
    log = replace(CHAT, chunks=(Chunk(1.5, "text", 1), Chunk(1.6, "usage", None, 1)), output_tokens=1)
    assert [list(vllm_figures(log)[name]) for name in ("tpot", "itl")] == [[], []]
    assert list(guidellm_figures(log)["itl"]) == []
    assert only(guidellm_figures(log)["tpot"]) == pytest.approx((0.5, 1))
    assert list(aiperf_figures(log)["itl"]) == []


def test_vllm_counts_the_text_where_the_count_rides_on_a_piece():
    """`transformers serve` does that, and vLLM's client does not look there."""
    chunks = (Chunk(1.2, "text"), Chunk(1.4, "text", None, 6))
    log = replace(CHAT, chunks=chunks, text_tokens=3)
    assert only(vllm_figures(log)["tpot"]).seconds == pytest.approx(0.2 / 2)
    assert only(guidellm_figures(log)["itl"]).seconds == pytest.approx(0.2 / 5)
    bare = replace(log, text_tokens=None, output_tokens=None)
    assert list(vllm_figures(bare)["tpot"]) == []  # taken for one token
    assert only(guidellm_figures(bare)["itl"]) == pytest.approx((0.2, 1))  # a piece is taken for a token


def test_an_answer_without_text_has_no_first_token_but_for_vllm():
    log = replace(CHAT, chunks=(Chunk(1.3, "empty"), Chunk(1.4, "end")), output_tokens=2)
    assert only(vllm_figures(log)["ttft"]).seconds == pytest.approx(0.3)
    assert (list(guidellm_figures(log)["ttft"]), list(aiperf_figures(log)["ttft"])) == ([], [])
    assert only(guidellm_figures(log)["tpot"]) == pytest.approx(
        (1.1 / 2, 2)
    )  # the end of the exchange instead


# A load of three requests


def made(sent: float, times: list[float], tokens: int | None = None, scheduled: float | None = None):
    chunks = [Chunk(sent + t, "text", 1) for t in times]
    return RequestLog(
        sent if scheduled is None else scheduled, sent, sent + times[-1] + 0.05,
        (*chunks, Chunk(sent + times[-1], "usage", None, tokens or len(times))), 10, tokens or len(times), remote=True,
    )  # fmt: skip


A = made(0.0, [0.1, 0.2, 0.4])  # TPOT .15, gaps .1 .2
B = made(0.0, [0.3, 0.4, 0.5])  # TPOT .10, gaps .1 .1
C = made(1.5, [0.2], scheduled=1.0)  # one token; ends at 1.7
CLOSED = Measured(Point(10, 3, concurrency=2), [A, B, C], n_failed=1, duration_s=2.0)
OPEN = replace(CLOSED, point=Point(10, 3, rate=2.0))
ALL = ("vllm", "guidellm", "aiperf")


def value(metrics, name):
    return metrics[name].value


def test_the_vllm_profile_of_a_load_by_hand():
    found = load_metrics(CLOSED, ALL, None)
    assert next(iter(found)) == "vllm_e2e_p50_ms"
    assert value(found, "vllm_e2e_p50_ms") == pytest.approx(400)  # 200 400 500
    assert value(found, "vllm_e2e_p90_ms") == pytest.approx(480)  # linear: 400 + 0.8 x 100
    assert value(found, "vllm_e2e_mean_ms") == pytest.approx(1100 / 3)
    # population: ((200/3 * 2.5)^2 ...) by hand: mean 366.67, squares 27778 + 1111 + 17778, over 3
    assert value(found, "vllm_e2e_std_ms") == pytest.approx((46666.667 / 3) ** 0.5)
    assert value(found, "vllm_tpot_p50_ms") == pytest.approx(125)  # the single token is left out
    assert value(found, "vllm_itl_p99_ms") == pytest.approx(100 + 0.97 * 100)  # of 100 100 100 200
    assert [found[f"vllm_{n}_p50_ms"].n for n in ("e2e", "ttft", "tpot", "itl")] == [3, 3, 2, 4]
    assert {m.n_failed for m in found.values()} == {1}
    assert value(found, "vllm_requests_per_s") == pytest.approx(3 / 2)
    assert value(found, "vllm_output_tokens_per_s") == pytest.approx(7 / 2)
    assert value(found, "vllm_total_tokens_per_s") == pytest.approx(37 / 2)
    assert value(found, "vllm_peak_output_tokens_per_s") == 6  # in the first second
    assert value(found, "vllm_peak_concurrency") == 2


def test_guidellms_percentiles_are_values_that_were_seen_and_weigh_by_tokens():
    found = load_metrics(CLOSED, ALL, None)
    # ITL: A .15 with weight 2, B .10 with weight 2, C has none
    assert value(found, "guidellm_itl_mean_ms") == pytest.approx(125)
    assert value(found, "guidellm_itl_p50_ms") == pytest.approx(100)  # the smallest that reaches one half
    # TPOT: A .4 / 3 (3), B .5 / 3 (3), C .2 (1)
    assert value(found, "guidellm_tpot_mean_ms") == pytest.approx(1000 * (0.4 + 0.5 + 0.2) / 7)
    assert value(found, "guidellm_tpot_p50_ms") == pytest.approx(1000 * 0.5 / 3)
    assert value(found, "guidellm_e2e_p50_ms") == pytest.approx(450)
    assert value(found, "guidellm_e2e_p99_ms") == pytest.approx(550)


def test_aiperfs_rates_end_with_the_last_content():
    found = load_metrics(CLOSED, ALL, None)
    assert value(found, "aiperf_output_tokens_per_s") == pytest.approx(7 / 1.7)
    assert value(found, "aiperf_requests_per_s") == pytest.approx(3 / 1.7)
    assert value(found, "aiperf_itl_mean_ms") == pytest.approx(125)
    assert value(found, "aiperf_e2e_p99_ms") == pytest.approx(498)


def test_what_was_due_earlier_was_waited_for_longer():
    found = load_metrics(OPEN, ALL, None)
    assert value(found, "scheduled_e2e_p50_ms") == pytest.approx(500)  # 400 500 700
    assert value(found, "scheduled_ttft_mean_ms") == pytest.approx(1000 * (0.1 + 0.3 + 0.7) / 3)
    assert value(found, "send_lag_p50_ms") == 0
    assert value(found, "send_lag_p99_ms") == pytest.approx(490)
    assert "scheduled_e2e_p50_ms" not in load_metrics(CLOSED, ALL, None)


def test_goodput_by_each_tools_rules():
    slo = Slo(ttft=0.25, tpot=0.12, e2e=None)  # A misses TPOT, B misses TTFT, C has one token
    found = load_metrics(OPEN, ALL, slo)
    assert value(found, "vllm_goodput_per_s") == pytest.approx(1 / 2)  # C: its TPOT is taken for 0
    assert (value(found, "vllm_slo_share"), found["vllm_slo_share"].n) == (pytest.approx(1 / 4), 4)
    assert value(found, "guidellm_goodput_per_s") == 0  # C cannot be decided
    assert (value(found, "guidellm_slo_share"), found["guidellm_slo_share"].n) == (0, 3)
    assert value(found, "aiperf_goodput_per_s") == 0  # C lacks a figure, so it does not meet it
    assert value(found, "scheduled_goodput_per_s") == 0  # C was due half a second before it left
    assert found["vllm_slo_share"].interval == "wilson"
    met = load_metrics(OPEN, ALL, Slo(e2e=0.4))
    assert value(met, "vllm_slo_share") == pytest.approx(2 / 4)  # A to the millisecond
    assert value(met, "guidellm_slo_share") == pytest.approx(1 / 4)  # the exchange of A ends 50 ms later
    assert GUIDELLM.meets(CHAT, Slo(tpot=0.1)) is True
    assert AIPERF.meets(CHAT, Slo(tpot=0.1)) is False


def test_joules_say_where_they_come_from_or_are_not_known():
    basis = "measured: cpu rapl_package"
    found = load_metrics(replace(CLOSED, energy={"ranked_j": 14.0, "basis": basis}), ALL, None)
    assert value(found, "j_per_output_token") == pytest.approx(2.0)
    assert value(found, "output_tokens_per_j") == pytest.approx(0.5)
    assert value(found, "j_per_token") == pytest.approx(14 / 37)
    assert found["j_per_output_token"].unit == f"J/token ({basis})"
    unknown = load_metrics(CLOSED, ALL, None)
    assert [value(unknown, n) for n in ("j_per_output_token", "output_tokens_per_j", "energy_j")] == [
        None
    ] * 3


def test_names_do_not_hang_on_what_came():
    for measured in (CLOSED, OPEN):
        none = load_metrics(Measured(measured.point, []), ALL, Slo(ttft=1.0))
        assert list(none) == list(load_metrics(measured, ALL, Slo(ttft=1.0)))
        assert {metric.value for metric in none.values()} == {None}
    assert not any(name.startswith("aiperf") for name in load_metrics(CLOSED, ("vllm",), None))


# The log itself


def test_a_log_is_journalled_and_read_back():
    assert RequestLog.from_json(CHAT.to_json()) == CHAT


def test_tokens_of_an_engine_here_that_were_ready_at_once_are_one_piece():
    output = Output("abc", (1, 2, 3), "stop", (0.5, 0.75, 0.75))
    done = Completion(
        (output,), prompt_tokens=4, output_tokens=3, queued_s=100.25, started_s=100.4, done_s=101.0
    )
    log = log_of(done, scheduled_s=100.0, sent_s=100.25, start_s=100.0)
    assert log.chunks == (Chunk(0.75, "text", 1), Chunk(1.0, "text", 2))
    assert (log.scheduled_s, log.sent_s, log.ended_s, log.remote) == (0.0, 0.25, 1.0, False)
    assert only(vllm_figures(log)["tpot"]).seconds == pytest.approx(0.125)
    assert log_of(replace(done, outputs=(Output("abc", (1,), "stop"),)), 0.0, 0.0, 0.0) is None


def test_a_servers_log_begins_with_the_try_that_was_answered():
    chunks = (Chunk(2.0, "text"), Chunk(2.5, "usage", None, 1))
    output = Output("a", (), "stop", (), chunks)
    done = Completion((output,), output_tokens=1, queued_s=10.0, sent_s=11.5, done_s=13.0)
    log = log_of(done, scheduled_s=9.5, sent_s=10.0, start_s=9.0)
    assert (log.scheduled_s, log.sent_s, log.ended_s) == (0.5, 2.5, 4.0)
    assert only(vllm_figures(log)["ttft"]).seconds == pytest.approx(0.5)
    assert only(vllm_figures(log.due())["ttft"]).seconds == pytest.approx(2.5)
