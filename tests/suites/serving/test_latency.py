"""The latency task on a real engine: loads, logs, energy per load, what is measured again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from harness import registry
from harness.errors import BadPlan
from harness.evaluate import evaluate
from harness.meters.windows import SegmentedMeter
from harness.plan import EnergySpec, EvalPlan
from harness.records import ComponentEnergy, Sample
from suites.serving.log import RequestLog
from tests.suites.conftest import ref, run_whole

SMALL = {"concurrencies": [2, 1], "requests": 3, "warmup": 1, "prompt_tokens": 12, "output_tokens": 4}


@pytest.fixture
def latency(context):
    """Bind the task to the tiny engine: latency(requests=..., ...)."""

    def build(*, limit: int | None = None, seed: int = 0, **options):
        return registry.load("task", "latency")(
            ref("latency", **{**SMALL, **options}), context(None, limit=limit, seed=seed)
        )

    return build


def logs(samples: Sequence[Sample], load: str) -> list[RequestLog]:
    return [
        RequestLog.from_json(s.metadata["log"])
        for s in samples
        if s.metadata["load"] == load and not s.metadata["warmup"]
    ]


def test_a_real_closed_loop(latency):
    task = latency()
    assert task.n_requests == 2 * (1 + 3)
    samples = run_whole(task)
    assert len(samples) == 8
    for sample in samples:
        log = RequestLog.from_json(sample.metadata["log"])
        assert sum(chunk.tokens for chunk in log.chunks) == 4  # ignore_eos: exactly as many as asked
        assert log.scheduled_s <= log.sent_s < log.chunks[0].at_s <= log.ended_s
        assert (sample.prompt_tokens, sample.output_tokens, log.remote) == (12, 4, False)
        assert set(sample.scores) == {"vllm_ttft_ms", "vllm_tpot_ms", "vllm_e2e_ms"}
    metrics = task.aggregate(samples)
    assert list(metrics) == task.metric_names
    assert next(iter(metrics)) == "vllm_e2e_p50_ms@1"
    assert metrics["vllm_e2e_p50_ms@1"].n == 3  # the warm-up request is journalled and left out
    assert metrics["vllm_itl_p50_ms@2"].n == 3 * 3
    assert metrics["vllm_ttft_p50_ms@1"].value < metrics["vllm_e2e_p50_ms@1"].value
    assert metrics["peak_memory_bytes@1"].value > 1_000_000
    assert metrics["j_per_output_token@1"].value is None  # nobody weighed it
    alone = sorted(logs(samples, "1"), key=lambda log: log.sent_s)
    assert all(later.sent_s >= earlier.ended_s for earlier, later in pairwise(alone))


def test_never_more_in_flight_than_asked_for(latency):
    samples = run_whole(latency(concurrencies=[3], requests=9))
    moments = [(log.sent_s, 1) for log in logs(samples, "3")] + [
        (log.ended_s, -1) for log in logs(samples, "3")
    ]
    level = peak = 0
    for _, step in sorted(moments):
        level += step
        peak = max(peak, level)
    assert peak == 3


def test_an_open_loop_leaves_on_schedule_and_a_share_follows_the_closed_loop(latency):
    task = latency(concurrencies=[2], rates=[100], utilisations=[0.5], requests=6, warmup=0)
    samples = run_whole(task)
    metrics = task.aggregate(samples)
    due = [log.scheduled_s for log in logs(samples, "100rps")]
    assert due == sorted(due)
    assert due[-1] == pytest.approx(6 / 100, abs=0.01)
    (facts,) = [
        s.metadata["facts"] for s in samples if s.metadata["load"] == "0.5load" and "facts" in s.metadata
    ]
    assert facts["rate"] == pytest.approx(metrics["vllm_requests_per_s@2"].value / 2, rel=0.1)
    assert metrics["scheduled_e2e_p50_ms@0.5load"].value >= metrics["vllm_e2e_p50_ms@0.5load"].value
    assert any("Poisson" in note for note in task.notes)


def test_lengths_are_swept_and_what_exceeds_the_context_is_left_out(latency):
    task = latency(concurrencies=1, prompt_tokens=[8, 16, 9000], output_tokens=[2, 4], requests=1, warmup=0)
    samples = run_whole(task)
    assert [s.sample_id for s in samples if "not_sent" not in s.metadata] == [
        "c1-in8-out2/0", "c1-in8-out4/0", "c1-in16-out2/0", "c1-in16-out4/0",
    ]  # fmt: skip
    assert [s.prompt_tokens for s in samples] == [8, 8, 16, 16, 0, 0]
    metrics = task.aggregate(samples)
    assert metrics["vllm_e2e_p50_ms@1-in16-out4"].n == 1
    assert metrics["vllm_e2e_p50_ms@1-in9000-out4"].n == 0
    assert any("exceed the context: 1-in9000-out2, 1-in9000-out4" in n or "9000 + 2" in n for n in task.notes)


def test_prompts_longer_than_the_context_are_refused(latency):
    task = latency(prompt_tokens=5000)
    with pytest.raises(BadPlan, match=r"5000 \+ 4 tokens exceed"):
        task.run(task.sample_ids, lambda sample: None)


def test_a_sweep_says_where_its_knee_is_or_why_not(latency):
    task = latency(concurrencies=[1, 2, 4, 8], requests=8, stop_at_knee=True)
    samples = run_whole(task)
    assert len(samples) == len(task.sample_ids)
    knee = task.aggregate(samples)["knee_concurrency"]
    said = [note for note in task.notes if "knee" in note]
    assert knee.value in (None, 1, 2, 4)
    assert said
    skipped = {s.metadata["load"] for s in samples if "not_sent" in s.metadata}
    assert skipped in (set(), {"8"})


def test_prompts_are_seeded_distinct_and_without_special_tokens(latency, tiny_engine):
    def prompts(seed):
        task = latency(seed=seed)
        return [task.requests(item).requests[0].prompt_ids for item in task.items()]

    assert prompts(0) == prompts(0)
    assert prompts(0) != prompts(1)
    assert len(set(prompts(0))) == 8
    assert not {i for ids in prompts(0) for i in ids} & set(tiny_engine.tokenizer.all_special_ids)


def test_a_load_of_which_anything_is_missing_is_measured_as_a_whole(latency):
    journal: dict[str, Sample] = {}
    task = latency()
    task.run(["c2/2"], lambda sample: journal.update({sample.sample_id: sample}))
    assert list(journal) == ["c2/warmup0", *sorted(set(journal) - {"c2/warmup0"}, key=list(journal).index)]
    assert set(journal) == {"c2/warmup0", "c2/0", "c2/1", "c2/2"}


def test_the_limit_counts_requests_per_load(latency):
    assert list(latency(limit=1).sample_ids) == ["c1/warmup0", "c1/0", "c2/warmup0", "c2/0"]


# Energy


class FiveWattsAndTen:
    """A source that gives 10 J for every stretch it weighs."""

    def begin(self) -> None: ...

    def end(self) -> Sequence[ComponentEnergy]:
        return (ComponentEnergy("cpu", "measured:rapl_package", 10.0),)

    def describe(self) -> dict:
        return {}


def test_every_load_has_its_own_joules_with_their_provenance(tiny_llama, tmp_path):
    suite = tmp_path / "speed.yaml"
    options = "requests: 2, concurrencies: [1, 2], warmup: 1, prompt_tokens: 8, output_tokens: 4"
    suite.write_text(
        f"name: speed\nheadline: {{name: a, higher_is_better: false}}\ntasks:\n"
        f"  latency: {{task: latency, options: {{{options}}}}}\n"
    )
    spec = EnergySpec(idle_s=0)
    plan = EvalPlan(
        checkpoints=[str(tiny_llama)],
        suites=[str(suite)],
        runs=tmp_path / "runs",
        engine={"threads": 1},
        energy=spec,
    )
    (run,) = evaluate(plan, meter=SegmentedMeter(spec, FiveWattsAndTen))
    metrics = run.metrics["latency"]
    for load in ("1", "2"):
        assert metrics[f"energy_j@{load}"].value == 10.0
        assert metrics[f"j_per_output_token@{load}"].value == pytest.approx(10 / 8)
        assert metrics[f"output_tokens_per_j@{load}"].value == pytest.approx(0.8)
        assert metrics[f"j_per_token@{load}"].value == pytest.approx(10 / 24)
        assert metrics[f"j_per_output_token@{load}"].unit == "J/token (measured: cpu rapl_package)"
    assert run.headline_metrics == {"latency": "vllm_e2e_p50_ms@1"}
    # before the first load, the load, between, the load, after: five stretches, two of them parts
    assert run.energy["inference"].measured_j == 50.0
    assert run.energy["inference"].queries == 6
    lines = (Path(run.path) / "energy.jsonl").read_text()
    assert lines.count('"part":"latency@1"') == lines.count('"part":"latency@2"') == 2  # opened and closed
