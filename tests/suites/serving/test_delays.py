"""The latency task against a real server whose delays are known: figures within 5 %."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness import registry
from harness.datasets import Datasets
from harness.endpoints import checkpoint_of
from harness.engines.endpoint import EndpointEngine
from harness.errors import BadPlan
from harness.protocols import TaskContext
from harness.strategies.direct import Direct
from tests.engines.endpoint_server import Act, Server, is_answer, pieces, running
from tests.suites.conftest import ref, run_whole

FIRST_S, GAP_S = 0.25, 0.05
ANSWER = "abcde"
WITHIN = 0.05
ATTEMPTS = 8


@pytest.fixture
def server() -> Iterator[Server]:
    """Its answers begin after FIRST_S; five letters, the end, the count and [DONE] follow, GAP_S apart."""
    with running() as server:
        yield server


def slow(path: str, body: dict, number: int) -> Act | None:
    if not is_answer(path) or not body.get("stream"):
        return None
    return Act(stream=pieces(path, body, ANSWER), hang_s=FIRST_S, gap_s=GAP_S)


@pytest.fixture
def task(server, tmp_path):
    """Bind the latency task to the server: task(requests=..., ...); its prompts come from a file."""
    engines = []

    def build(act=slow, engine=(), chat="auto", **options):
        loaded = EndpointEngine.load(checkpoint_of(server.spec), dict(engine))
        engines.append(loaded)
        server.arm(act)
        file = tmp_path / "prompts.jsonl"
        file.write_text("".join(json.dumps({"prompt": f"What is {i} + 1?"}) + "\n" for i in range(5)))
        context = TaskContext(loaded, Direct(), Datasets(None), checkpoint_of(server.spec), chat=chat)
        given = {"prompts": str(file), "output_tokens": 5, "warmup": 1, **options}
        return registry.load("task", "latency")(ref("latency", **given), context)

    yield build
    for engine in engines:
        engine.close()


def measured(task) -> dict[str, float]:
    samples = run_whole(task)
    assert [s.error for s in samples if s.error] == []
    return {name: metric.value for name, metric in task.aggregate(samples).items()}


def measured_within(build: Callable[[], Any], expected: dict[str, float]) -> dict[str, float]:
    """What is measured, every expected figure within 5 %.

    A machine that is busy with other things delays both sides now and then, so a measurement that is off is taken
    again. A figure with a wrong definition is off by at least a gap (12 % and more) every time.
    """
    for _ in range(ATTEMPTS - 1):
        found = measured(build())
        if all(found[name] == pytest.approx(value, rel=WITHIN) for name, value in expected.items()):
            return found
    found = measured(build())
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=WITHIN)
    return found


@pytest.mark.parametrize("chat", ["off", "on"])
def test_every_profile_is_within_5_percent_of_the_injected_delays(task, server, chat):
    first, gap = FIRST_S * 1000, GAP_S * 1000
    of_each = {
        "vllm_ttft": first,
        "vllm_e2e": first + 5 * gap,  # to the piece that ends the answer
        "vllm_tpot": 5 * gap / 4,
        "vllm_itl": gap,
        "guidellm_ttft": first,
        "guidellm_e2e": first + 7 * gap,  # to [DONE], behind the count
        "guidellm_tpot": (first + 4 * gap) / 5,
        "guidellm_itl": gap,
        "aiperf_ttft": first,
        "aiperf_e2e": first + 4 * gap,  # to the last letter
        "aiperf_itl": gap,
    }
    exchange_s = FIRST_S + 7 * GAP_S
    expected = {
        **{f"{name}_{which}_ms@2": ms for name, ms in of_each.items() for which in ("mean", "p50")},
        "vllm_requests_per_s@2": 2 / exchange_s,
        "vllm_output_tokens_per_s@2": 10 / exchange_s,
    }
    found = measured_within(lambda: task(concurrencies=[2], requests=6, chat=chat), expected)
    assert found["peak_memory_bytes@2"] is None  # the server's
    assert found["energy_j@2"] is None
    assert server.most_at_once == 2
    assert {one.path for one in server.asked} == {"chat/completions" if chat == "on" else "completions"}


def at_once(path: str, body: dict, number: int) -> Act | None:
    """A whole answer after 0.8 s."""
    if not is_answer(path) or not body.get("stream"):
        return None
    return Act(stream=pieces(path, body, "ab"), hang_s=0.8, gap_s=0.0)


def test_a_sender_that_falls_behind_hides_nothing(task):
    """Five requests, 2.5 a second, one at a time, 0.8 s each: the i-th is due at 0.4 i, answered at 0.4 + 0.8 i."""
    waits = [400 + 400 * i for i in range(1, 6)]  # milliseconds from when it was due
    expected = {
        "vllm_e2e_mean_ms@2.5rps": 800,
        "scheduled_e2e_mean_ms@2.5rps": sum(waits) / 5,
        "scheduled_e2e_p50_ms@2.5rps": 1600,
        "send_lag_p50_ms@2.5rps": 800,
        "vllm_requests_per_s@2.5rps": 5 / 4.4,
    }
    loop = {"rates": [2.5], "burstiness": float("inf"), "max_concurrency": 1, "requests": 5, "warmup": 1}
    found = measured_within(lambda: task(at_once, **loop, slo_e2e_ms=1800), expected)
    assert found["vllm_slo_share@2.5rps"] == 1.0
    assert found["scheduled_slo_share@2.5rps"] == 0.6  # 800, 1200, 1600 of 2400


def test_an_open_loop_does_not_wait_for_answers(task, server):
    expected = {f"{whose}_ttft_mean_ms@20rps": FIRST_S * 1000 for whose in ("vllm", "scheduled")}
    measured_within(lambda: task(rates=[20], burstiness=float("inf"), requests=20, warmup=0), expected)
    assert server.most_at_once >= 20 * (FIRST_S + 7 * GAP_S) - 1  # Little's law; more on a busy machine


def test_more_in_flight_than_the_engine_is_used_to_or_was_told(task, server):
    found = measured(task(at_once, concurrencies=[40], requests=40, warmup=0))
    assert server.most_at_once == 40  # the engine's own number is 32
    assert found["vllm_e2e_mean_ms@40"] is not None
    narrow = task(at_once, engine={"concurrency": 2}, concurrencies=[4], requests=8)
    with pytest.raises(BadPlan, match="4 requests in flight, and the engine was told to take 2"):
        narrow.run(narrow.sample_ids, lambda sample: None)


def test_a_request_that_fails_is_counted_and_a_server_that_does_not_stream_is_named(task):
    def some(path: str, body: dict, number: int) -> Act | None:
        refused = Act({"error": {"message": "no"}}, 400)
        return refused if body.get("stream") and number == 2 else slow(path, body, number)

    bound = task(some, concurrencies=[1], requests=3, warmup=0, slo_e2e_ms=1000)
    samples = run_whole(bound)
    assert [bool(s.error) for s in samples] == [False, True, False]
    metrics = bound.aggregate(samples)
    assert (metrics["vllm_e2e_p50_ms@1"].n, metrics["vllm_e2e_p50_ms@1"].n_failed) == (2, 1)
    assert metrics["vllm_slo_share@1"].value == pytest.approx(2 / 3)
    whole = run_whole(task(None, engine={"stream": False}, concurrencies=[1], requests=1, warmup=0))
    assert "did not stream" in whole[0].error


def test_a_server_that_answers_nothing_fails_every_sample(task):
    def none(path: str, body: dict, number: int) -> Act | None:
        return Act({"error": {"message": "no"}}, 400) if body.get("stream") else None

    bound = task(none, concurrencies=[1], utilisations=[0.5], requests=2, warmup=0)
    samples = run_whole(bound)
    assert [bool(s.error) for s in samples] == [True] * 4
    assert "no closed loop was answered" in samples[-1].error
    metrics = bound.aggregate(samples)
    assert {metrics[f"vllm_e2e_p50_ms@{load}"].n_failed for load in ("1", "0.5load")} == {2}
    assert metrics["vllm_e2e_p50_ms@1"].value is None
