"""Runs over the cache: nothing is generated twice, scores are those of a fresh run, energy is never made up."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from harness.answers.cache import FOLDER
from harness.errors import BadCheckpoint
from harness.evaluate import evaluate
from harness.journal import SAMPLES
from harness.plan import EnergySpec, EngineSpec, EvalPlan
from harness.protocols import SilentProgress
from harness.records import RunRecord, Sample
from harness.store import Store
from tests.conftest import build_llama

FORK = multiprocessing.get_context("fork")


class Heard(SilentProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def plan(plugin, tiny_llama, tmp_path):
    """Makes plans over the sums of the third-party package; a suite of another name is another run."""

    def make(suite: str = "first", cache: str = "write", folder: Path = tiny_llama, **fields) -> EvalPlan:
        file = tmp_path / f"{suite}.yaml"
        if not file.exists():
            file.write_text(f"name: {suite}\nheadline: {{name: a}}\ntasks:\n  sums: {{task: sums}}\n")
        given = {"limit": 6, "energy": EnergySpec(idle_s=0), "sampling": {"max_tokens": 6}, **fields}
        runs = given.pop("runs", tmp_path / "runs")
        return EvalPlan(checkpoints=[str(folder)], suites=[str(file)], runs=runs, cache=cache, **given)

    return make


@pytest.fixture
def no_weights(monkeypatch):
    """From the call on, loading weights fails the test."""

    def forbid() -> None:
        monkeypatch.setattr(
            "harness.engines.loading.load_model", lambda *a, **k: pytest.fail("weights were loaded")
        )

    return forbid


def samples(run: RunRecord) -> list[Sample]:
    return list(Store(run.path.parent).samples(run))


def answered(run: RunRecord) -> list:
    return [
        (s.sample_id, s.prompt, s.outputs, s.scores, s.finish_reasons, s.output_tokens) for s in samples(run)
    ]


def computed(run: RunRecord) -> tuple[int, int]:
    return run.engine["requests"], run.engine["output_tokens"]


def test_a_second_suite_over_the_same_prompts_computes_nothing_and_loads_nothing(plan, no_weights):
    (first,) = evaluate(plan())
    no_weights()
    (second,) = evaluate(plan("second", "read"))
    assert second.run_id != first.run_id
    assert answered(second) == answered(first)
    assert second.metrics == first.metrics
    assert computed(second) == (0, 0)
    assert (second.engine["cache"]["hits"], second.engine["cache"]["misses"]) == (6, 0)
    assert second.engine["cache"]["made_by"][0]["dtype"] == "float32"
    assert "inference" not in second.energy, "what was not spent is not known, and not 0"
    assert first.energy["inference"].queries == 6
    expected = "6 of 6 answers came from the response cache: nothing was computed, so the energy is not known"
    assert expected in second.notes
    assert not any("cache" in note for note in first.notes)
    assert all(
        (s.answers, s.reused, s.total_s, s.first_token_s) == (1, 1, None, None) for s in samples(second)
    )


def test_without_the_flag_everything_is_computed_and_weighed(plan):
    (first,) = evaluate(plan())
    (second,) = evaluate(plan("second"))
    assert computed(second) == computed(first)
    assert computed(first)[0] == 6
    assert second.energy["inference"].queries == 6
    assert all(s.reused == 0 for s in samples(second))


def test_off_keeps_nothing(plan, tmp_path):
    evaluate(plan(cache="off"))
    assert not (tmp_path / "runs" / FOLDER).exists()


def test_the_cache_is_no_part_of_a_runs_identity(plan, tmp_path):
    names = {
        evaluate(plan(cache=cache, runs=tmp_path / cache))[0].run_id for cache in ("write", "read", "off")
    }
    assert len(names) == 1


def test_what_is_new_is_computed_and_alone_counted(plan):
    evaluate(plan())
    (longer,) = evaluate(plan("second", "read", limit=10))
    assert longer.engine["cache"]["hits"] == 6
    assert longer.engine["cache"]["misses"] == longer.engine["requests"] == 4
    energy = longer.energy["inference"]
    assert energy.queries == 4
    fresh = [s for s in samples(longer) if not s.reused]
    assert energy.output_tokens == sum(s.output_tokens for s in fresh) == longer.engine["output_tokens"]
    note = "6 of 10 answers came from the response cache: they are no queries of the energy"
    assert note in longer.notes
    assert longer.phases_s["inference"] >= 0


@pytest.mark.parametrize(
    "other",
    [
        {"sampling": {"max_tokens": 5}},
        {"sampling": {"max_tokens": 6, "temperature": 1.0}},
        {"chat": "off"},
        {"engine": EngineSpec(dtype="bfloat16")},
    ],
    ids=["max_tokens", "temperature", "chat", "dtype"],
)
def test_another_question_is_another_answer(plan, other):
    evaluate(plan())
    (run,) = evaluate(plan("second", "read", **other))
    assert (run.engine["cache"]["hits"], run.engine["requests"]) == (0, 6)


def test_draws_of_another_seed_are_other_draws(plan):
    drawn = {"sampling": {"max_tokens": 6, "temperature": 1.0}}
    evaluate(plan(**drawn))
    (other,) = evaluate(plan("second", "read", seed=1, **drawn))
    (same,) = evaluate(plan("third", "read", seed=1, **drawn))
    assert [run.engine["cache"]["hits"] for run in (other, same)] == [0, 6]


def test_another_adapter_or_template_or_model_finds_nothing(plan, tiny_llama, tmp_path):
    import shutil

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_llama), config).save_pretrained(
        tmp_path / "lora"
    )
    templated = shutil.copytree(tiny_llama, tmp_path / "templated")
    (templated / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}?")
    other = build_llama(tmp_path / "other", seed=5)
    evaluate(plan())
    for folder in (f"{tiny_llama}+{tmp_path / 'lora'}", templated, other):
        (run,) = evaluate(plan("second", "read", folder=folder))
        assert run.engine["cache"]["hits"] == 0, folder
        (again,) = evaluate(plan("third", "read", folder=folder))
        assert (again.engine["cache"]["hits"], computed(again)) == (6, (0, 0)), folder


def test_a_task_that_measures_speed_passes_the_cache_by(plan, tiny_llama, tmp_path):
    suite = tmp_path / "speed.yaml"
    load = "requests: 2, concurrencies: [1], warmup: 0, prompt_tokens: 8, output_tokens: 4"
    suite.write_text(
        f"name: speed\nheadline: {{name: a}}\ntasks:\n  latency: {{task: latency, options: {{{load}}}}}\n"
    )
    for seed in (0, 1):  # another run; the prompts of seed 0 are asked in a third, too
        evaluate(plan("speed", "read", seed=seed))
    assert not (tmp_path / "runs" / FOLDER).exists()
    (run,) = Store(tmp_path / "runs").runs()[-1:]
    assert run.engine["requests"] == 2
    assert run.energy["inference"].queries == 2
    assert not any("cache" in note for note in run.notes)


def test_damage_and_a_cache_that_cannot_be_written_are_said_and_stop_nothing(plan, tmp_path):
    (first,) = evaluate(plan())
    (path,) = (tmp_path / "runs" / FOLDER).glob("*/*")
    path.write_bytes(path.read_bytes().replace(b'"text":"', b'"text":"!', 2))
    heard = Heard()
    (second,) = evaluate(plan("second", "read"), heard)
    assert answered(second) == answered(first)
    assert (second.engine["cache"]["damaged_lines"], second.engine["requests"]) == (2, 2)
    assert sum("2 damaged lines" in text for text in heard.said) == 1
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / FOLDER).write_text("in the way")
    heard = Heard()
    (third,) = evaluate(plan(runs=blocked), heard)
    assert answered(third) == answered(first)
    assert sum("answers are not kept, the run goes on" in text for text in heard.said) == 1


def slow(made: EvalPlan) -> None:
    evaluate(made)


def test_a_killed_run_goes_on_from_its_journal_and_the_cache(plan, tmp_path):
    fields = {"limit": 120, "engine": EngineSpec(threads=1, batch_tokens=80)}
    (whole,) = evaluate(plan(runs=tmp_path / "whole", **fields))
    process = FORK.Process(target=slow, args=(plan(**fields),))
    process.start()
    end = time.monotonic() + 100
    while process.is_alive() and time.monotonic() < end:
        lines = [
            n for path in (tmp_path / "runs").glob(f"*/{SAMPLES}") for n in path.read_bytes().splitlines()
        ]
        kept = [path for path in (tmp_path / "runs" / FOLDER).glob("*/*") if path.stat().st_size > 2000]
        if lines and kept:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not Store(tmp_path / "runs").runs(), (
        "it was finished before it was killed: the test proves nothing"
    )
    journalled = {json.loads(line)["sample_id"] for line in lines[:-1]}
    (run,) = evaluate(plan(cache="read", **fields))
    assert answered(run) == answered(whole)
    assert run.metrics == whole.metrics
    cache = run.engine["cache"]
    assert cache["hits"] + cache["misses"] <= 120 - len(journalled)
    assert cache["misses"] == run.engine["requests"] < 120
    reused = [s for s in samples(run) if s.reused]
    assert not {s.sample_id for s in reused} & journalled, "a journalled sample was asked again"


def test_two_processes_score_two_suites_over_one_cache(plan, tmp_path):
    both = [FORK.Process(target=slow, args=(plan(name, "read", limit=60),)) for name in ("first", "second")]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    first, second = Store(tmp_path / "runs").runs()
    assert answered(first) == answered(second)
    (third,) = evaluate(plan("third", "read", limit=60))
    assert (computed(third), third.engine["cache"]["hits"]) == ((0, 0), 60)


def test_a_model_that_does_not_load_is_refused_in_one_line(plan, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = build_llama(tmp_path / "broken", seed=8)
    weights = load_file(broken / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadCheckpoint, match="lacks 1 weights"):
        evaluate(plan(cache="read", folder=broken))
    assert not Store(tmp_path / "runs").runs()
