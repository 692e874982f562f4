"""The evaluation loop on a tiny real model and a third-party suite: resume, identity, failures, energy."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.binding import Binder, run_id
from harness.dryrun import dry_run
from harness.errors import BadCheckpoint, EngineError, Interrupted, NotWritable, UnknownName
from harness.evaluate import evaluate, refuse_nan
from harness.journal import SAMPLES, sample_to_json
from harness.plan import EnergySpec, EvalPlan
from harness.protocols import SilentProgress
from harness.records import Sample, Score
from harness.store import Store


def plan_for(folder: Path, runs: Path, **fields) -> EvalPlan:
    given = {"suites": ["sums"], "limit": 6, "energy": EnergySpec(idle_s=0), **fields}
    return EvalPlan(checkpoints=[str(folder)], runs=runs, **given)


def test_a_task_beside_the_headline_is_run_and_shown_and_not_counted(plugin, tiny_llama, tmp_path):
    from harness.cli.tables import result_rows

    entry = "{{task: sums, limit: {}, headline: {}}}"
    tasks = f"  a: {entry.format(3, 'true')}\n  b: {entry.format(5, 'false')}\n"
    path = tmp_path / "two.yaml"
    path.write_text(f"name: two\nheadline: {{name: accuracy}}\ntasks:\n{tasks}", encoding="utf-8")
    (run,) = evaluate(plan_for(tiny_llama, tmp_path / "runs", suites=[str(path)], limit=None))
    assert (run.n_samples, run.headline.n) == (8, 3)
    assert run.headline.value == run.metrics["a"]["accuracy"].value
    assert (run.headline_metrics, run.other_metrics) == ({"a": "accuracy"}, {"b": "accuracy"})
    assert [row[2] for row in result_rows([run])] == ["a", "b (beside)"]
    assert Store(tmp_path / "runs").runs()[0].other_metrics == {"b": "accuracy"}


class Stop(SilentProgress):
    """Raises after some samples, as Ctrl-C or a crash would."""

    def __init__(self, after: int, error: BaseException) -> None:
        self.left, self.error = after, error

    def advance(self, n: int = 1) -> None:
        self.left -= n
        if self.left == 0:
            raise self.error


def test_a_run_is_scored_journalled_and_weighed(plugin, tiny_llama, tmp_path):
    (run,) = evaluate(plan_for(tiny_llama, tmp_path))
    assert run.path == tmp_path / run.run_id
    assert (run.n_samples, run.n_failed) == (6, 0)
    samples = list(Store(tmp_path).samples(run))
    assert [s.sample_id for s in samples] == ["0", "1", "2", "3", "4", "5"]
    assert samples[1].prompt == "<|user|>What is 7 + 11?<|end|><|assistant|>"
    assert samples[1].target == "18"
    accuracy = sum(s.scores["accuracy"].value for s in samples) / 6
    metric = run.metrics["sums"]["accuracy"]
    assert metric.value == run.headline.value == accuracy
    assert metric.n == 6
    assert metric.ci95[0] <= accuracy <= metric.ci95[1]
    assert run.engine["output_tokens"] == sum(s.output_tokens for s in samples)
    assert run.n_truncated == sum(s.finish_reasons == ("length",) for s in samples)
    energy = run.energy["inference"]
    assert energy.queries == 6
    assert energy.duration_s > 0
    assert all(c.provenance for c in energy.components)
    assert "6 of 400 samples" in " ".join(run.notes)


def test_the_same_command_returns_at_once_and_another_setting_is_another_run(plugin, tiny_llama, tmp_path):
    first = evaluate(plan_for(tiny_llama, tmp_path))[0]
    stamp = (first.path / "run.json").stat().st_mtime_ns
    again = evaluate(plan_for(tiny_llama, tmp_path))[0]
    assert again.run_id == first.run_id
    assert (first.path / "run.json").stat().st_mtime_ns == stamp
    for other in ({"limit": 5}, {"seed": 1}, {"chat": "off"}, {"sampling": {"max_tokens": 4}}):
        assert evaluate(plan_for(tiny_llama, tmp_path, **other))[0].run_id != first.run_id


def test_an_interrupted_run_goes_on_and_computes_nothing_twice(plugin, tiny_llama, tmp_path):
    whole = evaluate(plan_for(tiny_llama, tmp_path / "whole"))[0]
    with pytest.raises(Interrupted, match=r"4 of 6 samples are safe"):
        evaluate(plan_for(tiny_llama, tmp_path / "cut"), Stop(4, KeyboardInterrupt()))
    (journal,) = (tmp_path / "cut").glob(f"*/{SAMPLES}")
    held = journal.read_bytes()
    (planned,) = dry_run(plan_for(tiny_llama, tmp_path / "cut"))
    assert (planned.n_samples, planned.n_requests, planned.n_done) == (6, 6, 4)
    resumed = evaluate(plan_for(tiny_llama, tmp_path / "cut"))[0]
    assert resumed.engine["requests"] == 2
    assert resumed.metrics == whole.metrics
    texts = [(s.sample_id, s.outputs) for s in Store(tmp_path / "cut").samples(resumed)]
    assert texts == [(s.sample_id, s.outputs) for s in Store(tmp_path / "whole").samples(whole)]
    first = [json.loads(line)["total_s"] for line in held.splitlines()]
    kept = {s.total_s for s in Store(tmp_path / "cut").samples(resumed)}
    assert set(first) <= kept, "a journalled sample was computed again"
    assert resumed.energy["inference"].queries == 6


def test_failed_samples_are_counted_apart_and_tried_again(plugin, tiny_llama, tmp_path, monkeypatch):
    from harness_sums.tasks import Sums

    right = Sums.score

    def broken(self, item, completions):
        if item.id == "3":
            raise ZeroDivisionError("no")
        return right(self, item, completions)

    monkeypatch.setattr(Sums, "score", broken)
    run = evaluate(plan_for(tiny_llama, tmp_path))[0]
    metric = run.metrics["sums"]["accuracy"]
    assert (run.n_failed, metric.n, metric.n_failed) == (1, 5, 1)
    failed = [s for s in Store(tmp_path).samples(run) if s.failed]
    assert [s.error for s in failed] == ["scorer: ZeroDivisionError: no"]
    monkeypatch.setattr(Sums, "score", right)
    again = evaluate(plan_for(tiny_llama, tmp_path))[0]
    assert again.run_id == run.run_id
    assert (again.n_failed, again.metrics["sums"]["accuracy"].n, again.engine["requests"]) == (0, 6, 1)


def test_an_engine_that_breaks_is_a_failed_sample_not_a_wrong_one(plugin, tiny_llama, tmp_path, monkeypatch):
    from harness.engines.transformers import TransformersEngine

    def broken(self, taken):
        raise RuntimeError("the device fell over")

    monkeypatch.setattr(TransformersEngine, "_compute", broken)
    run = evaluate(plan_for(tiny_llama, tmp_path))[0]
    assert (run.n_failed, run.headline.value) == (6, None)
    assert "the device fell over" in next(iter(Store(tmp_path).samples(run))).error


def test_what_the_engine_has_to_say_stands_beside_the_score(plugin, tiny_llama, tmp_path, monkeypatch):
    from harness.engines import loading

    monkeypatch.setattr(loading, "ignored_settings", lambda model: ["no_repeat_ngram_size"])
    run = evaluate(plan_for(tiny_llama, tmp_path))[0]
    assert any("no_repeat_ngram_size" in note for note in run.notes)


def test_nan_is_a_failure():
    sample = Sample(
        "t", "0", "p", scores={"a": Score(float("nan")), "b": Score(float("inf")), "c": Score(0.5)}
    )
    checked = refuse_nan(sample)
    assert checked.failed
    assert [checked.scores[name].value for name in "abc"] == [None, None, 0.5]
    assert checked.scores["a"].error == "the scorer returned nan"
    assert "NaN" not in sample_to_json(checked)
    assert refuse_nan(replace(sample, scores={"c": Score(0.5)})) == replace(sample, scores={"c": Score(0.5)})


def test_a_chat_task_without_a_template_is_refused_before_anything_is_scored(
    plugin, tiny_llama_plain, tmp_path
):
    with pytest.raises(BadCheckpoint, match=r"no chat template.*--chat off"):
        evaluate(plan_for(tiny_llama_plain, tmp_path))
    assert evaluate(plan_for(tiny_llama_plain, tmp_path, chat="off"))[0].n_failed == 0


def refusing(folder, source, template):
    """A copy of a checkpoint with another chat template."""
    shutil.copytree(source, folder)
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    return folder


def test_a_template_that_refuses_every_chat_is_found_before_anything_is_scored(plugin, tiny_llama, tmp_path):
    stern = refusing(tmp_path / "stern", tiny_llama, "{{ raise_exception('no chats\\nhere') }}")
    plan = plan_for(tiny_llama, tmp_path / "runs")
    plan = plan.model_copy(update={"checkpoints": [str(tiny_llama), str(stern)]})
    with pytest.raises(BadCheckpoint, match=r"'stern' refuses.*: no chats here; .*--chat off") as said:
        evaluate(plan)
    assert "\n" not in str(said.value)
    assert not (tmp_path / "runs").exists()
    assert evaluate(plan_for(stern, tmp_path / "plain", chat="off"))[0].n_failed == 0


def test_a_template_that_is_broken_is_one_line_too(plugin, tiny_llama, tmp_path):
    broken = refusing(tmp_path / "broken", tiny_llama, "{% for m in messages %}{{ m['role'] }}")
    with pytest.raises(BadCheckpoint, match=r"'broken' refuses .*: .*end of template"):
        evaluate(plan_for(broken, tmp_path / "runs"))


def test_nothing_is_scored_when_one_of_the_checkpoints_cannot_be_asked(
    plugin, tiny_llama, tiny_llama_plain, tmp_path
):
    plan = plan_for(tiny_llama, tmp_path / "runs")
    plan = plan.model_copy(update={"checkpoints": [str(tiny_llama), str(tiny_llama_plain)]})
    with pytest.raises(BadCheckpoint, match=r"'llama-plain' has no chat template"):
        evaluate(plan)
    assert not (tmp_path / "runs").exists()


def test_a_price_given_later_is_put_on_the_finished_run(plugin, tiny_llama, tmp_path):
    first = evaluate(plan_for(tiny_llama, tmp_path))[0]
    assert first.energy["inference"].cost is None
    again = evaluate(plan_for(tiny_llama, tmp_path, energy=EnergySpec(idle_s=0, price_per_kwh=0.5)))[0]
    assert again.run_id == first.run_id
    energy = again.energy["inference"]
    assert energy.ranked_j == first.energy["inference"].ranked_j
    if energy.ranked_j is not None:
        assert energy.cost == pytest.approx(energy.ranked_j / 3.6e6 * 0.5)
    assert Store(tmp_path).runs()[0].energy["inference"].price_per_kwh == 0.5


def test_speed_depends_on_the_threads_and_answers_do_not(plugin, tiny_llama, tmp_path):
    def identity(suite: str, threads: int) -> str:
        plan = plan_for(tiny_llama, tmp_path, suites=[suite], engine={"threads": threads}, profile="starter")
        binder = Binder(plan, SilentProgress())
        return run_id(
            binder.store, binder.bind(binder.checkpoints[0], binder.suites[0], binder.shared_engine())
        )

    assert identity("latency", 1) != identity("latency", 2)
    assert identity("sums", 1) == identity("sums", 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"suites": ["sum"]}, r"no suite 'sum'; did you mean sums"),
        ({"suites": [], "tasks": ["sumz"]}, r"no task 'sumz'; did you mean sums"),
        ({"suites": [], "tasks": ["lm_evil:arc"]}, r"no task provider 'lm_evil'; did you mean lm_eval"),
        ({"strategy": "dirct"}, r"no strategy 'dirct'; did you mean direct"),
        ({"engine": {"name": "transformer"}}, r"no engine 'transformer'; did you mean transformers"),
        ({"energy": EnergySpec(meter="codecarbn")}, r"no meter 'codecarbn'; did you mean codecarbon"),
    ],
)
def test_unknown_names_come_with_the_nearest(plugin, tiny_llama, tmp_path, fields, message):
    with pytest.raises(UnknownName, match=message):
        evaluate(plan_for(tiny_llama, tmp_path, **fields))
    assert not list(tmp_path.iterdir()), "nothing may be written"


def test_an_unknown_headline_metric_is_refused_before_the_model_is_loaded(
    plugin, tiny_llama, tmp_path, monkeypatch
):
    suite = tmp_path / "my.yaml"
    suite.write_text("name: my\nheadline: {name: a}\ntasks:\n  sums: {task: sums, metric: acuracy}\n")
    monkeypatch.setattr("harness.engines.loading.load_model", lambda *a: pytest.fail("a model was loaded"))
    with pytest.raises(UnknownName, match="'acuracy'; did you mean accuracy"):
        evaluate(plan_for(tiny_llama, tmp_path / "runs", suites=[str(suite)]))


def test_two_checkpoints_of_one_base_share_a_load(plugin, tiny_llama, tmp_path, monkeypatch):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from harness.engines import loading

    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_llama), config).save_pretrained(
        tmp_path / "lora"
    )
    loads = []
    load = loading.load_model
    monkeypatch.setattr(loading, "load_model", lambda *args: loads.append(args) or load(*args))
    plan = plan_for(tiny_llama, tmp_path / "runs")
    plan = plan.model_copy(update={"checkpoints": [str(tiny_llama), f"{tiny_llama}+{tmp_path / 'lora'}"]})
    base, adapted = evaluate(plan)
    assert len(loads) == 1
    texts = [[s.outputs for s in Store(tmp_path / "runs").samples(run)] for run in (base, adapted)]
    assert texts[0] != texts[1]


@pytest.mark.skipif(
    __import__("os").geteuid() == 0 and not Path("/proc/sys").exists(), reason="needs a read-only place"
)
def test_a_read_only_runs_folder_is_refused_before_work(plugin, tiny_llama):
    with pytest.raises(NotWritable, match="cannot write /proc/sys/runs"):
        evaluate(plan_for(tiny_llama, Path("/proc/sys/runs")))


def test_a_crash_between_samples_keeps_what_was_done(plugin, tiny_llama, tmp_path):
    with pytest.raises(EngineError):
        evaluate(plan_for(tiny_llama, tmp_path), Stop(2, EngineError("boom")))
    run = evaluate(plan_for(tiny_llama, tmp_path))[0]
    assert run.engine["requests"] == 4
