"""harness train and train-then-eval: what the options mean, and what is printed at the end."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from harness.cli import tables
from harness.cli.main import run
from harness.cli.train_then_eval import headline_table
from harness.records import Checkpoint, EnergySummary, Headline, Metric, RunRecord, Training
from tests.cli.test_commands import harness


def test_train_options_make_a_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = "train grpo --data a/b:main:train --data rows.jsonl --columns prompt=question,answer=target"
    arguments += (
        " --reward math_verify,my.py:reward --lr 1e-5 --max-steps 7 --set lora.r=8 --set options.beta=0.1"
    )
    assert run([*arguments.split(), "--template", "Q: {question}", "--dry-run", "base"]) == 0
    columns = {"prompt": "question", "answer": "target"}
    assert yaml.safe_load(capsys.readouterr().out) == {
        "name": "grpo",
        "method": "grpo",
        "data": [
            {"dataset": name, "columns": columns, "template": "Q: {question}"}
            for name in ("a/b:main:train", "rows.jsonl")
        ],
        "learning_rate": 1e-5,
        "max_steps": 7,
        "lora": {"r": 8},
        "rewards": [{"name": "math_verify"}, {"name": "my.py:reward"}],
        "options": {"beta": 0.1},
    }
    assert run([*arguments.split(), "--full", "--set", "lora=null", "--dry-run", "base"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["lora"] is None


def test_no_plan_says_so_and_means_the_starter_plan(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["train-then-eval", "--dry-run", "--set", "stages.sft.max_steps=3", "--out", "here"]) == 0
    out, err = capsys.readouterr()
    plan = yaml.safe_load(out)
    assert err.startswith("no plan given: running the starter plan")
    assert plan["name"] == "starter"
    assert [stage["method"] for stage in plan["stages"]] == ["sft", "dpo", "grpo"]
    assert (plan["stages"][0]["max_steps"], plan["out"]) == (3, "here")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_without_stages_scores_the_base_and_reports(plugin, tiny_llama, tmp_path):
    plan = {
        "name": "demo", "base": str(tiny_llama), "evaluate": {"suites": ["sums"], "limit": 4}, "energy": {"idle_s": 0},
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    done = harness("train-then-eval", "plan.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    header, row, *rest = done.stdout.splitlines()
    assert header.split() == ["checkpoint", "sums", "training", "inference"]
    assert row.split()[:2] == ["llama", "0.000"]
    assert any(line.startswith("front: ") for line in rest)
    assert (tmp_path / "report" / "index.html").is_file()
    again = harness("train-then-eval", "plan.yaml", "--json", cwd=tmp_path)
    assert set(json.loads(again.stdout)) == {"runs", "checkpoints", "front", "forgetting", "report"}


def summary(rate, basis="estimated: cpu cpu_load"):
    return EnergySummary(1.0, (), None, 1.0, basis, 1.0, None, complete=True, wh_per_1000_queries=rate)


def record(name, suite, energy, **headline):
    given = {"value": 0.5, "ci95": (0.4, 0.6), "higher_is_better": True, **headline}
    return RunRecord(
        run_id=f"{name}-{suite}", suite=suite, suite_version="1", profile="quick", strategy="direct",
        checkpoint=Checkpoint(name, name, name, None, name, name),
        headline=Headline("mean", given["value"], 0.05, given["ci95"], given["higher_is_better"], 10, 0),
        metrics={}, headline_metrics={}, n_samples=10, n_failed=0, n_truncated=0, n_prompt_truncated=0,
        energy={"inference": energy}, engine={}, identity={}, phases_s={},
    )  # fmt: skip


def test_a_row_per_checkpoint_and_a_column_per_suite():
    table = headline_table(
        [
            record("base", "reasoning", summary(2.0)),
            record("base", "toxicity", summary(4.0), value=0.25, ci95=None, higher_is_better=False),
            record("sft", "reasoning", summary(2.0), value=None, ci95=None),
        ]
    )
    header, base, sft = table.splitlines()
    assert header.split("  ")[0] == "checkpoint"
    assert "toxicity (lower is better)" in header
    assert base.split() == ["base", "0.500", "±0.100", "0.250", "-", "3", "Wh/1000"]
    assert sft.split() == ["sft", "-", "-", "-", "2", "Wh/1000"]


def test_notes_are_said_once_with_all_their_names():
    run = record("a", "safety", summary(1.0))
    metrics = {"bold": {}, "rtp": {}}
    notes = (
        "quick profile",
        "bold: a stand-in",
        "rtp: a stand-in",
        "bold: 2 of 10 samples",
        "rtp: 3 of 20 samples",
    )
    first = replace(run, metrics=metrics, notes=notes)
    second = replace(first, suite="toxicity", headline=replace(run.headline, value=None, reason="no samples"))
    assert tables.notes([first, second]) == [
        "note: safety, toxicity: quick profile",
        "note: bold, rtp: a stand-in",
        "note: safety: samples: bold 2 of 10, rtp 3 of 20",
        "note: toxicity: samples: bold 2 of 10, rtp 3 of 20",
        "note: a, toxicity: no headline: no samples",
        "energy: Wh per 1000 samples, gross, estimated: cpu cpu_load (~ marks estimates)",
    ]


@pytest.mark.parametrize("other", [summary(None), summary(1.0, "measured: gpu nvml_counter")])
def test_unknown_or_mixed_energy_is_not_averaged(other):
    table = headline_table([record("a", "x", summary(1.0)), record("a", "y", other)])
    assert table.splitlines()[1].split()[-1] == "-"


def test_the_root_of_the_others_shown_cost_nothing_to_train():
    energy = replace(summary(1.0), ranked_j=7200.0)
    training = Training("sft", "sft", "base", "base", energy, energy, 1, 2)
    trained = record("sft", "x", summary(1.0))
    trained = replace(trained, checkpoint=replace(trained.checkpoint, training=training))
    rows = headline_table([record("base", "x", summary(1.0)), record("other", "x", summary(1.0)), trained])
    assert [line.split()[3:5] for line in rows.splitlines()[1:]] == [["0", "Wh"], ["-", "1"], ["2", "Wh"]]


def test_milliseconds_keep_their_unit_and_lose_decimals():
    metric = Metric(1419.2, 10, 0, higher_is_better=False, unit="ms")
    run = record("a", "latency", summary(1.0), value=1419.2, ci95=(1370.0, 1468.0))
    run = replace(run, metrics={"latency": {"e2e": metric}}, headline_metrics={"latency": "e2e"})
    assert headline_table([run]).splitlines()[1].split()[1:4] == ["1419", "ms", "±49.0"]
    assert tables.result_rows([run])[0][:6] == ("a", "latency", "latency", "e2e", "1419 ms", "1370 to 1468")
