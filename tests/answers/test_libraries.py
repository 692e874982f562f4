"""Benchmarks of lm-eval and inspect over the cache: another metric, another extractor, the same answers."""

from __future__ import annotations

import pytest

from harness.errors import BadCheckpoint
from harness.evaluate import evaluate
from harness.plan import EnergySpec, EvalPlan
from harness.store import Store

pytestmark = [pytest.mark.mirror, pytest.mark.timeout(300)]


@pytest.fixture
def score(mirror, tiny_llama, tmp_path):
    def run(cache: str, **fields):
        given = {"limit": 3, "energy": EnergySpec(idle_s=0), "sampling": {"max_tokens": 12}, **fields}
        runs = tmp_path / ("fresh" if cache == "off" else "runs")
        plan = EvalPlan(checkpoints=[str(tiny_llama)], data_dir=mirror, runs=runs, cache=cache, **given)
        (record,) = evaluate(plan)
        samples = list(Store(runs).samples(record))
        return record, [
            (s.task, s.sample_id, s.outputs, s.scores, s.metadata.get("extracted")) for s in samples
        ]

    return run


def suite(folder, name: str, metric: dict[str, str], shots: str = "num_fewshot=2") -> str:
    file = folder / f"{name}.yaml"
    tasks = {"maths": f"lm_eval:gsm8k,{shots}", "science": "lm_eval:arc_challenge"}
    lines = [f"  {label}: {{task: '{task}', metric: '{metric[label]}'}}" for label, task in tasks.items()]
    file.write_text("\n".join([f"name: {name}", "headline: {name: a}", "tasks:", *lines]) + "\n")
    return str(file)


def test_another_metric_and_another_extractor_compute_nothing(score, tmp_path, monkeypatch):
    strict = suite(tmp_path, "strict", {"maths": "exact_match,strict-match", "science": "acc"})
    loose = suite(tmp_path, "loose", {"maths": "exact_match,flexible-extract", "science": "acc_norm"})
    first, _ = score("write", suites=[strict])
    fresh, expected = score("off", suites=[loose])
    monkeypatch.setattr(
        "harness.engines.loading.load_model", lambda *a, **k: pytest.fail("weights were loaded")
    )
    again, got = score("read", suites=[loose])
    assert (again.engine["requests"], again.engine["output_tokens"]) == (0, 0)
    assert again.engine["cache"]["misses"] == 0
    assert got == expected
    assert again.metrics == fresh.metrics
    assert again.headline == fresh.headline
    assert again.headline_metrics != first.headline_metrics
    assert "inference" not in again.energy


def test_a_prompt_with_another_shot_is_asked(score, tmp_path):
    metric = {"maths": "exact_match,strict-match", "science": "acc"}
    score("write", suites=[suite(tmp_path, "two", metric)])
    run, _ = score("read", suites=[suite(tmp_path, "three", metric, "num_fewshot=3")])
    assert run.engine["requests"] == 3, "the questions of gsm8k, and none of arc_challenge"


def test_inspect_asks_nothing_twice_and_counts_no_queries(score, monkeypatch):
    import suites.from_inspect.task

    monkeypatch.setattr(suites.from_inspect.task, "JUDGE_TOKENS", 8)
    first, expected = score("write", tasks=["inspect:xstest"])
    assert first.energy["inference"].queries == 3
    monkeypatch.setattr(
        "harness.engines.loading.load_model", lambda *a, **k: pytest.fail("weights were loaded")
    )
    again, got = score("read", tasks=["inspect:xstest"], seed=1)  # another run; greedy answers have no seed
    assert got == expected
    assert again.metrics == first.metrics
    assert again.engine["requests"] == again.engine["cache"]["misses"] == 0
    assert again.engine["cache"]["hits"] == first.engine["requests"] > 3, "the judge's answers are cached too"
    assert "inference" not in again.energy
    asked = again.engine["cache"]["hits"]
    assert any(note.startswith(f"{asked} of {asked} answers came from the") for note in again.notes)


def test_inspect_stops_at_once_where_the_model_does_not_load(score, monkeypatch):
    def refuse(*args, **kwargs):
        raise BadCheckpoint("these weights do not load")

    monkeypatch.setattr("harness.engines.loading.load_model", refuse)
    with pytest.raises(BadCheckpoint, match="do not load"):
        score("read", tasks=["inspect:xstest"])
