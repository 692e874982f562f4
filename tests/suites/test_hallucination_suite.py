"""The whole hallucination suite on real data, two samples of each task, on a tiny model that is its own judge."""

from __future__ import annotations

import pytest

from harness.evaluate import evaluate
from harness.plan import EnergySpec, EvalPlan

IN_THE_HEADLINE = {"truthfulqa_mc1": "acc", "truthfulqa_mc2": "acc", "halueval_qa": "accuracy"}
BESIDE = {
    "halueval_general": "balanced_accuracy",
    "truthfulqa_generation": "judge_truthful (self-judged)",
    "nq_open_abstention": "score_penalty_1",
    "invented_entities": "balanced",
    "calibration": "verbal_ece",
    "choice_calibration": "choice_ece",
}


def plan(model, data_dir, runs, **settings):
    return EvalPlan(
        checkpoints=[str(model)],
        suites=["hallucination"],
        data_dir=data_dir,
        runs=runs,
        limit=2,
        sampling={"max_tokens": 8},
        energy=EnergySpec(idle_s=0),
        **settings,
    )


@pytest.fixture(scope="module")
def run(tiny_llama, mirror, tmp_path_factory):
    (record,) = evaluate(plan(tiny_llama, mirror, tmp_path_factory.mktemp("runs"), judge=str(tiny_llama)))
    return record


@pytest.mark.mirror
def test_three_make_the_headline_and_six_stand_beside(run):
    assert run.headline_metrics == IN_THE_HEADLINE
    assert run.other_metrics == BESIDE
    assert (run.n_samples, run.n_failed) == (18, 0)
    three = [run.metrics[task][name].value for task, name in IN_THE_HEADLINE.items()]
    assert run.headline.value == pytest.approx(sum(three) / 3)


@pytest.mark.mirror
def test_what_cannot_be_read_is_counted(run):
    judged = run.metrics["truthfulqa_generation"]
    assert judged["judge_unreadable (self-judged)"].value == 1.0  # random weights keep to no form
    assert judged["judge_truthful (self-judged)"].value is None
    assert judged["bleu_acc"].n == 2
    stated = run.metrics["calibration"]
    assert stated["confidence_unreadable"].value == 1.0
    assert stated["verbal_ece"].value is None
    assert len(run.metrics["choice_calibration"]["choice_ece"].detail["reliability"]) == 10
    assert any("judges" in note for note in run.notes)
