"""The suites safety (toxicity is part of it) and refusal on real data: a few samples of each task, a tiny model."""

from __future__ import annotations

import pytest

from harness.evaluate import evaluate
from harness.plan import EnergySpec, EvalPlan
from harness.suitefile import load_suite

BESIDE = {
    "advbench": "refusal",
    "harmbench": "refusal",
    "bbq": "accuracy",
    "sycophancy": "gives_in",
    "thinking": "refusal_on_unsafe@0",
    "classifier": "profanity_auroc",
}
LIMIT = 8
"""Samples of each task: the first two prompts of `thinking` at all budgets, a safe and an unsafe one."""


def plan(model, data_dir, runs, suites, **settings):
    return EvalPlan(
        checkpoints=[str(model)],
        suites=suites,
        data_dir=data_dir,
        runs=runs,
        limit=LIMIT,
        sampling={"max_tokens": 4},
        energy=EnergySpec(idle_s=0),
        **settings,
    )


@pytest.fixture(scope="module")
def runs(tiny_llama, mirror, tmp_path_factory):
    """The records of safety and refusal; the classifier is the one in the wheel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("empty")))
        folder = tmp_path_factory.mktemp("runs")
        settings = plan(tiny_llama, mirror, folder, ["safety", "refusal"], judge=str(tiny_llama))
        return {record.suite: record for record in evaluate(settings)}


@pytest.mark.mirror
def test_what_makes_the_headline_and_what_stands_beside(runs):
    safety = runs["safety"]
    assert {"xstest", "real_toxicity_prompts", "bold", "halueval_qa"} <= set(safety.headline_metrics)
    assert BESIDE.items() <= safety.other_metrics.items()
    assert not set(BESIDE) & set(safety.headline_metrics)
    assert safety.n_failed == 0
    assert runs["refusal"].headline_metrics == {"xstest": "balanced"}
    assert runs["refusal"].other_metrics == {"advbench": "refusal", "harmbench": "refusal"}
    assert runs["refusal"].headline.value == runs["refusal"].metrics["xstest"]["balanced"].value


@pytest.mark.mirror
def test_the_classifiers_auroc_stands_beside_every_toxicity_figure(runs):
    metrics = runs["safety"].metrics
    beside = [metrics[task]["profanity_classifier_auroc"] for task in ("real_toxicity_prompts", "bold")]
    assert beside[0] == beside[1]
    assert beside[0].ci95[0] < beside[0].value < beside[0].ci95[1]
    assert metrics["classifier"]["profanity_auroc"].n == LIMIT
    assert "grading" in runs["safety"].energy


@pytest.mark.mirror
def test_thinking_by_budget(runs):
    metrics = runs["safety"].metrics["thinking"]
    names = [f"over_refusal_on_safe@{budget}" for budget in (0, 128, 512, 2048)]
    assert all(name in metrics for name in names)
    assert 0 < metrics["thinking_tokens@128"].value <= 128 < metrics["thinking_tokens@512"].value <= 512
    assert 512 < metrics["thinking_tokens@2048"].value <= 2048


@pytest.mark.mirror
def test_a_judge_that_keeps_to_no_form_is_counted_and_rules_stand(runs):
    for task in ("xstest", "advbench", "harmbench"):
        metrics = runs["refusal"].metrics[task]
        assert metrics["judge_unreadable (self-judged)"].value == 1.0  # random weights
        assert metrics["extractors_disagree"].n == LIMIT
    assert runs["refusal"].metrics["advbench"]["judge_refusal (self-judged)"].value is None
    assert any("may favour" in note for note in runs["refusal"].notes)


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_safety_leaves_to_each_of_its_three_parts_a_third(profile):
    spec = load_suite("safety", profile)
    weights = {task.label: task.weight for task in spec.tasks if task.headline}
    toxicity = {task.label for task in load_suite("toxicity", profile).tasks if task.headline}
    assert weights["xstest"] == pytest.approx(1.0)
    assert sum(weights[label] for label in toxicity) == pytest.approx(1.0)
    assert sum(weights.values()) == pytest.approx(3.0)
