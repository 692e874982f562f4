"""Suites instruction and unlearning as they are shipped, on real data and a tiny model."""

from __future__ import annotations

import pytest

from harness.evaluate import evaluate
from harness.plan import EnergySpec, EvalPlan
from harness.store import Store

FOUR = {f"{level}_level_{how}_acc" for level in ("prompt", "inst") for how in ("strict", "loose")}


@pytest.fixture(scope="module")
def runs(mirror, tiny_llama, tmp_path_factory):
    plan = EvalPlan(
        checkpoints=[str(tiny_llama)], suites=["instruction", "unlearning"], limit=5, data_dir=mirror,
        runs=tmp_path_factory.mktemp("runs"), sampling={"max_tokens": 12}, energy=EnergySpec(idle_s=0), cache="off",
    )  # fmt: skip
    return {run.suite: run for run in evaluate(plan)}


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


def test_the_headline_is_the_mean_of_the_two_and_the_others_stand_beside(runs):
    run = runs["instruction"]
    assert set(run.headline_metrics) == {"ifeval", "ifbench"}
    assert run.other_metrics == {"followbench": "hard_satisfaction", "turn_constraints": "dialogue_accuracy"}
    both = [run.metrics[task]["prompt_level_strict_acc"].value for task in ("ifeval", "ifbench")]
    assert run.headline.value == pytest.approx(sum(both) / 2)
    assert run.n_samples == 20
    assert run.metrics["turn_constraints"]["turn_accuracy"].n == 20


def test_only_checks_that_lack_data_fail(runs):
    """Whatever this machine has of nltk's data."""
    run = runs["instruction"]
    samples = list(Store(run.path.parent).samples(run))
    failed = [sample for sample in samples if sample.failed]
    assert len(failed) == run.n_failed
    assert all("nltk.downloader" in sample.error for sample in failed)


def test_unlearning_reports_utility_and_leaves_forget_quality_open(runs):
    run = runs["unlearning"]
    assert run.headline.name == "model utility"
    assert run.headline.value == run.metrics["tofu"]["model_utility"].value is not None
    assert run.metrics["tofu"]["forget_quality"].value is None
    assert run.n_failed == 0
