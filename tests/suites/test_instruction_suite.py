"""Suites instruction and unlearning as shipped, on real data and a tiny model; on vLLM: test_suites_on_vllm.py."""

from __future__ import annotations

import pytest

from harness.evaluate import evaluate
from harness.plan import EnergySpec, EvalPlan
from harness.store import Store

FOUR = {f"{level}_level_{how}_acc" for level in ("prompt", "inst") for how in ("strict", "loose")}


def plan(model, data_dir, runs, **settings):
    given = {"suites": ["instruction", "unlearning"], "limit": 5, **settings}
    return EvalPlan(
        checkpoints=[str(model)], data_dir=data_dir, runs=runs, sampling={"max_tokens": 12},
        energy=EnergySpec(idle_s=0), **given,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(mirror, tiny_llama, tmp_path_factory):
    records = evaluate(plan(tiny_llama, mirror, tmp_path_factory.mktemp("runs")))
    return {run.suite: run for run in records}


@pytest.mark.mirror
def test_ifeval_and_ifbench_have_all_four_figures_with_intervals(runs):
    run = runs["instruction"]
    for task in ("ifeval", "ifbench"):
        metrics = run.metrics[task]
        assert set(metrics) == FOUR
        scored = {name: metric for name, metric in metrics.items() if metric.value is not None}
        assert scored
        for name, metric in scored.items():
            assert metric.ci95[0] <= metric.value <= metric.ci95[1]
            if name.startswith("prompt_"):
                assert metric.interval == "wilson"


@pytest.mark.mirror
def test_the_headline_is_the_mean_of_the_two_and_the_others_stand_beside(runs):
    run = runs["instruction"]
    assert set(run.headline_metrics) == {"ifeval", "ifbench"}
    assert run.other_metrics == {"followbench": "hard_satisfaction", "turn_constraints": "dialogue_accuracy"}
    both = [run.metrics[task]["prompt_level_strict_acc"].value for task in ("ifeval", "ifbench")]
    assert run.headline.value == pytest.approx(sum(both) / 2)
    assert run.n_samples == 20
    assert run.metrics["turn_constraints"]["turn_accuracy"].n == 20


@pytest.mark.mirror
def test_only_checks_that_lack_data_fail(runs):
    """Whatever this machine has of nltk's data."""
    run = runs["instruction"]
    samples = list(Store(run.path.parent).samples(run))
    failed = [sample for sample in samples if sample.failed]
    assert len(failed) == run.n_failed
    assert all("nltk.downloader" in sample.error for sample in failed)


@pytest.mark.mirror
def test_unlearning_reports_utility_and_leaves_forget_quality_open(runs):
    run = runs["unlearning"]
    assert run.headline.name == "model utility"
    assert run.headline.value == run.metrics["tofu"]["model_utility"].value is not None
    assert run.metrics["tofu"]["forget_quality"].value is None
    assert run.n_failed == 0


@pytest.mark.mirror
def test_a_judge_without_form_is_counted_and_the_rules_stand(mirror, tiny_llama, tmp_path):
    """Three groups, one of which a rule checks; random weights judge themselves, and some questions are too long."""
    asked = {"suites": [], "tasks": ["followbench"], "limit": 15, "judge": str(tiny_llama)}
    (run,) = evaluate(plan(tiny_llama, mirror, tmp_path, **asked))
    metrics = run.metrics["followbench"]
    unreadable = metrics["judge_unreadable (self-judged)"]
    assert unreadable.value == 1.0
    assert metrics["hard_satisfaction"].n == 5
    assert unreadable.n + run.n_failed == 10
    ruled = metrics["judge_hard_satisfaction_level_1 (self-judged)"]
    assert ruled.n == metrics["hard_satisfaction_level_1"].n
