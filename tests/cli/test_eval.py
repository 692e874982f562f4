"""harness eval on a tiny real model and a third-party suite."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from harness.cli import tables
from tests.cli.test_commands import harness


@pytest.fixture
def evaluated(plugin, tiny_llama, tmp_path):
    def run(*arguments, **given):
        return harness(
            "eval", "--suite", "sums", "--limit", "6", "--set", "energy.idle_s=0", *arguments, tiny_llama,
            cwd=tmp_path, **given,
        )  # fmt: skip

    return run


def test_table_on_stdout_progress_on_stderr_then_json(evaluated, tmp_path):
    done = evaluated()
    assert done.returncode == 0, done.stderr
    header, row, *rest = done.stdout.splitlines()
    assert header.split()[:6] == ["checkpoint", "suite", "task", "metric", "score", "95%"]
    assert row.split()[:4] == ["llama", "sums", "sums", "accuracy"]
    assert any("sums 6 of 400" in line for line in rest)
    assert "6/6 in" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert len([path for path in (tmp_path / "runs").iterdir() if not path.name.startswith(".")]) == 1

    again = evaluated("--json")
    assert again.returncode == 0
    assert "done already" in again.stderr
    (run,) = json.loads(again.stdout)["runs"]
    assert set(run) >= {"run_id", "path", "checkpoint", "suite", "headline", "metrics", "energy"}
    assert set(run["metrics"]["sums"]["accuracy"]) == {
        "value", "stderr", "ci95", "n", "n_failed", "higher_is_better",
    }  # fmt: skip
    assert run["headline"]["n"] == 6
    assert (tmp_path / run["path"] / "run.json").is_file()
    assert run["energy"]["inference"]["basis"].split(":")[0] in ("estimated", "measured", None)


def test_a_dry_run_counts_and_writes_nothing(evaluated, tmp_path):
    done = evaluated("--dry-run")
    assert done.returncode == 0
    assert "limit: 6" in done.stdout
    assert done.stdout.splitlines()[-1] == "6 requests in all; nothing was run"
    assert not (tmp_path / "runs").exists()


def test_options_go_over_a_plan_file(evaluated, tmp_path):
    (tmp_path / "eval.yaml").write_text("limit: 3\nseed: 7\nenergy: {price_per_kwh: 0.3}\n")
    planned = json.loads(evaluated("--plan", "eval.yaml", "--dry-run", "--json", "--country", "DEU").stdout)
    plan = planned["plan"]
    assert planned["requests"] == 6
    assert (plan["suites"], plan["limit"], plan["seed"]) == (["sums"], 6, 7)
    assert (plan["energy"]["price_per_kwh"], plan["energy"]["country"]) == (0.3, "DEU")


def test_a_read_only_runs_folder_is_one_line(evaluated, tmp_path):
    if os.geteuid() == 0:
        (tmp_path / "runs").write_text("a file in the way")  # root may write anywhere
    else:
        (tmp_path / "runs").mkdir(mode=0o500)
    done = evaluated()
    assert done.returncode == 2
    assert "runs" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_ctrl_c_keeps_the_journal_and_says_how_to_go_on(plugin, tiny_llama, tmp_path):
    command = [
        sys.executable, "-m", "harness", "eval", "--suite", "sums", "--limit", "400",
        "--set", "energy.idle_s=0", "--set", "engine.batch_tokens=60", str(tiny_llama),
    ]  # fmt: skip
    # one row a batch: 400 batches leave time to be interrupted in
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        journal = tmp_path / "runs"
        deadline = time.time() + 60
        while not any(path.stat().st_size for path in journal.glob("*/samples.jsonl")):
            assert time.time() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in stderr
    assert "repeat the command to go on" in stderr.splitlines()[-1]
    lines = next(journal.glob("*/samples.jsonl")).read_text().splitlines()
    assert all(json.loads(line) for line in lines)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (0.5, "0.500"),
        (99.99949, "99.999"),
        (1234.5, "1234"),
        (-2.0, "-2.000"),
    ],
)
def test_numbers(value, text):
    assert tables.number(value) == text


def test_json_has_no_nan():
    assert json.loads(tables.to_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": (1, None)})) == {
        "a": None, "b": [None, 1.5], "c": [1, None],
    }  # fmt: skip


def test_names_cannot_write_to_the_terminal():
    text = tables.align(("a", "b"), [["\x1b[31mred\x07", "1"], ["x", "22"]])
    assert text.splitlines() == ["a           b", "?[31mred?   1", "x          22"]
