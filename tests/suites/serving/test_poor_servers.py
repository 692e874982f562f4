"""Servers that count nothing, do not stream, or hang up: what is not known is None, never 0, and is said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from harness import registry
from harness.datasets import Datasets
from harness.endpoints import checkpoint_of
from harness.engines.endpoint import EndpointEngine
from harness.protocols import TaskContext
from harness.records import Metric, Sample
from harness.strategies.direct import Direct
from tests.engines.endpoint_server import Act, Server, answer, is_answer, pieces, running
from tests.suites.conftest import ref, run_whole

N = 12
COUNTED = (
    "vllm_output_tokens_per_s", "vllm_total_tokens_per_s", "vllm_tpot_p50_ms", "steady_output_tokens_per_s",
    "aiperf_output_tokens_per_s", "aiperf_itl_p50_ms", "vllm_goodput_per_s", "aiperf_goodput_per_s", "vllm_slo_share",
)  # fmt: skip
"""Figures that nobody can know who does not know how many tokens came."""


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def measure(server, tmp_path):
    """measure(act, option=...): the latency task's samples, metrics and notes, two requests in flight."""
    engines = []

    def run(act, **options):
        engine = EndpointEngine.load(checkpoint_of(server.spec), {"backoff_s": 0.01, "retries": 3})
        engines.append(engine)
        server.arm(act)
        file = tmp_path / "prompts.jsonl"
        file.write_text("".join(json.dumps({"prompt": f"What is {i} + 1?"}) + "\n" for i in range(5)))
        given = {
            "prompts": str(file), "output_tokens": 3, "warmup": 0, "requests": N, "concurrencies": 2,
            "slo_tpot_ms": 1e4, **options,
        }  # fmt: skip
        context = TaskContext(engine, Direct(), Datasets(None), checkpoint_of(server.spec))
        task = registry.load("task", "latency")(ref("latency", **given), context)
        samples = run_whole(task)
        metrics = {name.partition("@")[0]: metric for name, metric in task.aggregate(samples).items()}
        return samples, metrics, [*task.notes, *engine.describe()["notes"]]

    yield run
    for engine in engines:
        engine.close()


def streamed(path: str, body: Mapping, *, usage: object) -> Act | None:
    """Three letters; usage: what the last piece counts, None: it is not sent."""
    if not is_answer(path) or not body.get("stream"):
        return None
    *letters, count = pieces(path, body, "abc")
    return Act(stream=letters if usage is None else [*letters, {**count, "usage": usage}])


def values(metrics: Mapping[str, Metric]) -> dict[str, float | None]:
    return {name: metric.value for name, metric in metrics.items()}


def facts(samples: Sequence[Sample]) -> Mapping[str, Any]:
    """What is known of the load as a whole; the sample that was answered last has it."""
    (found,) = [sample.metadata["facts"] for sample in samples if "facts" in sample.metadata]
    return found


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": None, "completion_tokens": None}, {"completion_tokens": "3"}],
    ids=["none", "empty", "null", "text"],
)
def test_without_counts_times_stand_and_what_needs_tokens_is_open(measure, usage):
    samples, metrics, notes = measure(lambda path, body, number: streamed(path, body, usage=usage))
    found = values(metrics)
    assert not [sample.error for sample in samples if sample.error]
    assert {name: found[name] for name in COUNTED} == dict.fromkeys(COUNTED)
    assert 0 < found["vllm_ttft_mean_ms"] < found["vllm_e2e_mean_ms"] <= found["guidellm_e2e_mean_ms"]
    assert found["vllm_requests_per_s"] > 0
    assert found["guidellm_itl_p50_ms"] > 0  # GuideLLM takes a piece for a token
    assert any("does not count tokens" in note for note in notes)


def test_counted_answers_without_counted_prompts_leave_the_sum_of_both_open(measure):
    samples, metrics, _ = measure(
        lambda path, body, number: streamed(path, body, usage={"completion_tokens": 3})
    )
    found = values(metrics)
    seconds = facts(samples)["duration_s"]
    assert found["vllm_output_tokens_per_s"] == pytest.approx(3 * N / seconds)
    assert found["vllm_total_tokens_per_s"] is None
    assert found["vllm_slo_share"] == 1.0


def test_an_answer_of_no_tokens_is_counted_as_that(measure):
    def empty(path: str, body: dict, number: int) -> Act | None:
        if not body.get("stream"):
            return None
        _, end, count = pieces(path, body, "a")
        return Act(stream=[end, {**count, "usage": {"prompt_tokens": 4, "completion_tokens": 0}}])

    _, metrics, _ = measure(empty)
    found = values(metrics)
    assert (found["vllm_output_tokens_per_s"], found["vllm_tpot_p50_ms"]) == (0, None)
    assert found["vllm_total_tokens_per_s"] > 0


def test_a_server_that_answers_in_one_piece_has_no_figures(measure):
    """It is asked for a stream and gives none."""
    samples, metrics, _ = measure(
        lambda path, body, number: Act(answer(path, body)) if body.get("stream") else None
    )
    assert all("did not stream" in sample.error for sample in samples)
    known = {name: value for name, value in values(metrics).items() if value is not None}
    assert known == {
        f"{profile}_slo_share": 0.0 for profile in ("vllm", "guidellm", "aiperf")
    }  # none was met
    assert {metric.n_failed for name, metric in metrics.items() if not name.endswith("_share")} == {N}


def test_a_connection_that_breaks_is_tried_again_and_that_is_said(measure):
    """Every fourth stream ends after one letter."""

    def broken(path: str, body: dict, number: int) -> Act | None:
        whole = streamed(path, body, usage={"prompt_tokens": 4, "completion_tokens": 3})
        if whole is None or number % 4:
            return whole
        return Act(stream=whole.stream[:1], cut=True)

    samples, metrics, notes = measure(broken)
    assert not [sample.error for sample in samples if sample.error]
    assert metrics["vllm_e2e_p50_ms"].n == N
    assert metrics["vllm_output_tokens_per_s"].value > 0
    retries = facts(samples)["retries"]
    assert retries >= N // 4
    assert any(f"made again: {retries} at 2;" in note for note in notes)


def test_connections_that_always_break_leave_nothing_to_show(measure):
    def broken(path: str, body: dict, number: int) -> Act | None:
        whole = streamed(path, body, usage={"prompt_tokens": 4, "completion_tokens": 3})
        return None if whole is None else Act(stream=whole.stream[:2], cut=True)

    samples, metrics, _ = measure(broken, slo_tpot_ms=None)
    assert all(sample.failed for sample in samples)
    assert set(values(metrics).values()) == {None}
    assert {metric.n_failed for metric in metrics.values()} == {N}
