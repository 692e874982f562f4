"""Every suite as it is shipped, on real data and one load of vLLM, beside the transformers engine.

Both engines answer the same samples of the same random Llama. What is not drawn by chance must come out the same:
texts, counts, scores and the suites' figures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.binding import Binder
from harness.datasets import Datasets
from harness.evaluate import Evaluation
from harness.plan import EnergySpec, EngineSpec, EvalPlan
from harness.protocols import SilentProgress
from harness.records import RunRecord, Sample
from harness.store import Store
from tests.vllm_here import build_wide_llama, require_vllm

pytestmark = [pytest.mark.mirror, pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(500)]

N_REASONING = 27 + 57 + 11 + 10
"""One sample of every subtask of BBH, MMLU and MGSM, and of ten tasks without any."""
N_OTHERS = {
    "instruction": 2 * 4, "hallucination": 2 * 9, "toxicity": 2 * 3, "safety": 2 * 18, "refusal": 4 * 3,
    "unlearning": 4,
}  # fmt: skip
"""Suite -> samples: two of each task, four where every kind of a task must be there for a headline."""
DRAWN = ("real_toxicity_prompts", "bold")
"""Continued at a temperature: each engine draws by its own numbers."""
WITHIN = 1e-3


class Scored(NamedTuple):
    """What an engine made of all suites."""

    records: Mapping[str, RunRecord]
    samples: Mapping[tuple[str, str, str], Sample]
    """By suite, task and id."""
    loads: int


def plans(model: Path, data: Path, runs: Path, engine: EngineSpec) -> list[EvalPlan]:
    """A few samples of each part of each suite, and loads that a tiny model carries."""
    common = {
        "checkpoints": [str(model)], "data_dir": data, "runs": runs, "engine": engine,
        "sampling": {"max_tokens": 8}, "energy": EnergySpec(idle_s=0),
    }  # fmt: skip
    asked = model.parent / "questions.jsonl"
    rows = islice(Datasets(data).rows("openai/gsm8k", "main", "test"), 8)
    asked.write_text("".join(json.dumps({"prompt": row["question"]}) + "\n" for row in rows))
    speed = f"latency,prompts={asked},concurrencies=1 2,utilisations=0.5,requests=4,warmup=1,output_tokens=8"
    return [
        EvalPlan(suites=["reasoning"], limit=1, **common),
        EvalPlan(suites=["instruction", "hallucination", "toxicity", "safety"], limit=2, **common),
        EvalPlan(suites=["refusal", "unlearning"], limit=4, **common),
        EvalPlan(suites=["latency"], profile="starter", tasks=[speed], **common),
    ]


def score(several: list[EvalPlan]) -> Scored:
    """The plans in turn on one load: each has a limit of its own, and a load of vLLM takes half a minute."""
    binders = [Binder(plan, SilentProgress()) for plan in several]
    shared = binders[0].shared_engine()
    records: dict[str, RunRecord] = {}
    try:
        for binder in binders:
            evaluation = Evaluation(binder, None)
            try:
                for suite in binder.suites:
                    records[suite.name] = evaluation.run_one(binder.checkpoints[0], suite, shared)
            finally:
                evaluation.close_meter()
        loads = shared.loaded.describe().get("loads", 1)
    finally:
        shared.close()
    store = Store(several[0].runs)
    samples = {
        (suite, sample.task, sample.sample_id): sample
        for suite, record in records.items()
        for sample in store.samples(record)
    }
    return Scored(records, samples, loads)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    require_vllm()
    # flatter than the other tests' models, under which no TruthfulQA answer has a probability above 0 in a float
    return build_wide_llama(tmp_path_factory.mktemp("suites") / "llama", spread=0.1)


@pytest.fixture(scope="module")
def on_vllm(model, mirror, tmp_path_factory):
    engine = EngineSpec(name="vllm", threads=1, options={"max_model_len": 4096})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("empty")))  # the classifier in the wheel
        return score(plans(model, mirror, tmp_path_factory.mktemp("vllm"), engine))


@pytest.fixture(scope="module")
def on_transformers(model, mirror, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("empty")))
        runs = tmp_path_factory.mktemp("transformers")
        return score(plans(model, mirror, runs, EngineSpec(name="transformers", threads=1)))


def test_every_suite_is_answered_and_scored_on_one_load(on_vllm):
    assert on_vllm.loads == 1
    assert {suite: on_vllm.records[suite].n_samples for suite in N_OTHERS} == N_OTHERS
    assert on_vllm.records["reasoning"].n_samples == N_REASONING
    errors = {key: sample.error for key, sample in on_vllm.samples.items() if sample.failed}
    assert not errors
    for suite, record in on_vllm.records.items():
        assert (record.n_failed, record.engine["name"]) == (0, "vllm"), suite
        assert record.headline.value is not None, suite


def test_both_kinds_of_requests_are_answered_in_full(on_vllm):
    """Generated text, and likelihoods of given answers."""
    for suite in ("reasoning", "hallucination", "safety"):
        own = [sample for key, sample in on_vllm.samples.items() if key[0] == suite]
        assert sum(bool(sample.output_tokens) for sample in own) > 5, suite
        assert sum(not sample.output_tokens and sample.prompt_tokens > 0 for sample in own) >= 2, suite
    for sample in on_vllm.samples.values():
        assert sample.task == "classifier" or sample.prompt_tokens > 0


def test_samples_come_out_as_on_the_transformers_engine(on_vllm, on_transformers):
    asked = {key for key in on_vllm.samples if key[0] not in ("latency", "tasks")}
    assert asked == {key for key in on_transformers.samples if key[0] not in ("latency", "tasks")}
    for key in asked:
        ours, theirs = on_vllm.samples[key], on_transformers.samples[key]
        assert (ours.prompt, ours.prompt_tokens) == (theirs.prompt, theirs.prompt_tokens), key
        if key[1] in DRAWN:
            assert len(ours.outputs) == len(theirs.outputs), key
            continue
        assert (ours.outputs, ours.finish_reasons) == (theirs.outputs, theirs.finish_reasons), key
        assert ours.output_tokens == theirs.output_tokens, key
        assert values(ours) == pytest.approx(values(theirs), abs=WITHIN), key


def values(sample: Sample) -> dict[str, float | None]:
    return {name: score.value for name, score in sample.scores.items()}


def test_figures_come_out_as_on_the_transformers_engine(on_vllm, on_transformers):
    for suite in ("reasoning", *N_OTHERS):
        ours, theirs = on_vllm.records[suite], on_transformers.records[suite]
        assert ours.metrics.keys() == theirs.metrics.keys()
        for task in ours.metrics.keys() - set(DRAWN):
            found = {name: metric.value for name, metric in ours.metrics[task].items()}
            expected = {name: metric.value for name, metric in theirs.metrics[task].items()}
            assert found == pytest.approx(expected, abs=WITHIN), (suite, task)
        if not set(DRAWN) & set(ours.headline_metrics):
            assert ours.headline.value == pytest.approx(theirs.headline.value, abs=WITHIN), suite


@pytest.mark.parametrize("engine", ["on_vllm", "on_transformers"])
def test_latency_has_every_token_of_real_questions_and_of_the_shipped_loads(engine, request):
    scored = request.getfixturevalue(engine)
    for suite in ("latency", "tasks"):
        sent = [s for key, s in scored.samples.items() if key[0] == suite and "not_sent" not in s.metadata]
        assert sent
        for sample in sent:
            assert sum(tokens for _, _, tokens, _ in sample.metadata["log"]["chunks"]) == sample.output_tokens
    metrics = scored.records["tasks"].metrics["latency"]
    for load in ("1", "2", "0.5load"):
        assert metrics[f"vllm_e2e_p50_ms@{load}"].n == 4
        assert 0 < metrics[f"vllm_ttft_p50_ms@{load}"].value < metrics[f"vllm_e2e_p50_ms@{load}"].value
        assert metrics[f"vllm_output_tokens_per_s@{load}"].value > 0
