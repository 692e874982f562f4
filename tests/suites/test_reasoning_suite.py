"""The whole reasoning suite on real data, one sample of each part, on a tiny model."""

from __future__ import annotations

import pytest

from harness.evaluate import evaluate
from harness.plan import EnergySpec, EvalPlan

LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
IN_THE_HEADLINE = ("gsm8k", "math_500", "bbh", "arc_challenge", "mmlu")
BESIDE = ("arc_easy", "mgsm", "hellaswag", "winogrande", "piqa", "nq_open", "memorisation", "multi_attempt")


@pytest.fixture(scope="module")
def run(tiny_llama, mirror, tmp_path_factory):
    plan = EvalPlan(
        checkpoints=[str(tiny_llama)],
        suites=["reasoning"],
        data_dir=mirror,
        runs=tmp_path_factory.mktemp("runs"),
        limit=1,
        sampling={"max_tokens": 4},
        energy=EnergySpec(idle_s=0),
    )
    (record,) = evaluate(plan)
    return record


@pytest.mark.mirror
def test_every_task_is_run_and_five_make_the_headline(run):
    assert tuple(run.headline_metrics) == IN_THE_HEADLINE
    assert tuple(run.other_metrics) == BESIDE
    assert run.n_failed == 0
    # one of every subtask: 27 of BBH, 57 of MMLU, 11 of MGSM, and 10 tasks without any
    assert run.n_samples == 27 + 57 + 11 + 10
    main = {
        task: run.metrics[task][name] for task, name in (run.headline_metrics | run.other_metrics).items()
    }
    assert all(metric.value is not None for name, metric in main.items() if name != "memorisation")
    assert run.headline.value == pytest.approx(sum(main[task].value for task in IN_THE_HEADLINE) / 5)
    assert {main[task].chance for task in ("hellaswag", "arc_challenge", "mmlu")} == {0.25}
    assert {main[task].chance for task in ("winogrande", "piqa")} == {0.5}


@pytest.mark.mirror
def test_languages_extractors_and_tries_are_reported_one_by_one(run):
    mgsm = run.metrics["mgsm"]
    for how in ("strict-match", "flexible-extract"):
        assert all(f"exact_match,{how}/mgsm_native_cot_{language}" in mgsm for language in LANGUAGES)
        parts = [mgsm[f"exact_match,{how}/mgsm_native_cot_{language}"].value for language in LANGUAGES]
        assert mgsm[f"exact_match,{how}"].value == pytest.approx(sum(parts) / 11)
    assert "extractors_disagree" in mgsm
    assert {
        "exact_match,strict-match",
        "exact_match,flexible-extract",
        "math_verify",
        "extractors_disagree",
    } <= set(run.metrics["gsm8k"])
    assert {"exact_match", "math_verify", "extractors_disagree"} <= set(run.metrics["math_500"])
    assert {"accuracy@1", "accuracy@2", "accuracy@3", "gain"} <= set(run.metrics["multi_attempt"])
    assert {"numbers_drop", "names_drop", "paraphrase_drop", "numbers_recalled"} <= set(
        run.metrics["memorisation"]
    )
    assert any(note.startswith("memorisation: numbers: ") for note in run.notes)
