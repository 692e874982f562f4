"""The command line as a user meets it: real processes, their exit codes, their one line."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cli.main import explain, run
from harness.errors import EngineError, Interrupted

ROOT = Path(__file__).parents[2]


def harness(*arguments, cwd, timeout=120, **environment):
    return subprocess.run(
        [sys.executable, "-m", "harness", *map(str, arguments)],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def test_help_lists_every_command_and_is_quick(tmp_path):
    start_s = time.perf_counter()
    done = harness("--help", cwd=tmp_path)
    assert (
        time.perf_counter() - start_s < 5
    )  # a gross slip, such as importing torch; benchmarks/ holds the figure
    assert done.returncode == 0
    names = (
        "eval",
        "train",
        "train-then-eval",
        "report",
        "compare",
        "parity",
        "next",
        "list",
        "doctor",
        "schema",
    )
    for name in names:
        assert f"\n  {name} " in done.stdout
    assert "\x1b" not in done.stdout


def test_nothing_typed_is_help(capsys):
    assert run([]) == 0
    assert capsys.readouterr().out.startswith("Usage: harness")


@pytest.mark.parametrize("arguments", [["--help"], ["eval", "--help"], ["train", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(tmp_path, arguments):
    heavy = {"torch", "transformers", "pandas", "numpy", "yaml", "rich", "codecarbon", "lm_eval"}
    if arguments[0].startswith("--"):
        heavy.add("pydantic")  # typer itself parses a command's options with pydantic
    code = (
        f"import sys\nfrom harness.cli.main import run\ncode = run({arguments!r})\n"
        f"sys.exit(code or ', '.join(sorted({heavy!r} & set(sys.modules))) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


MISTAKES = [
    (["evl"], "did you mean 'eval'"),
    (["eval", "x"], "give --suite or --tasks"),
    (["eval", "--suite", "reasoning"], "no checkpoint given"),
    (["eval", "--limit", "many", "x"], "--limit"),
    (
        ["eval", "--suite", "reasoning", "--limit", "0", "x"],
        "limit: input should be greater than or equal to 1",
    ),
    (["eval", "--profile", "huge", "x"], "--profile"),
    (["eval", "--no-such-option", "x"], "no such option: --no-such-option"),
    (["eval", "--suite", "reasonin", "x"], "no suite 'reasonin'; did you mean reasoning"),
    (["eval", "--suite", "mine.yaml", "x"], "no file 'mine.yaml'"),
    (["eval", "--tasks", "no_such_task", "x"], "no task 'no_such_task'"),
    (["eval", "--tasks", "lm_evil:arc", "x"], "no task provider 'lm_evil'; did you mean lm_eval"),
    (["eval", "--suite", "reasoning", "./nowhere"], "nowhere"),
    (["eval", "--suite", "reasoning", "--engine", "transformer", "x"], "did you mean transformers"),
    (["eval", "--suite", "reasoning", "--meter", "codecarbn", "x"], "codecarbon"),
    (["eval", "--suite", "reasoning", "--country", "DEX", "x"], "no grid intensity for country 'dex'"),
    (["eval", "--suite", "reasoning", "--set", "foo", "x"], "--set 'foo' is not key=value"),
    (
        ["eval", "--suite", "reasoning", "--engine-option", "nonsense", "x"],
        "--engine-option 'nonsense' is not key=value; write e.g. --engine-option rpm=60",
    ),
    (
        ["eval", "--suite", "reasoning", "--judge-option", "nonsense", "x"],
        "--judge-option 'nonsense' is not key=value; write e.g. --judge-option dtype=bfloat16",
    ),
    (["eval", "--suite", "reasoning", "--device", "foo", "x"], "no device 'foo'; use auto, cpu, cuda"),
    (
        ["eval", "--suite", "reasoning", "--engine-option", "nope=1", "x"],
        "engine transformers has no option 'nope'; known: batch_tokens",
    ),
    (["eval", "--suite", "reasoning", "--set", "limt=3", "x"], "unknown key 'limt'; did you mean 'limit'"),
    (["eval", "--plan", "none.yaml"], "no file 'none.yaml'"),
    (["train"], "missing argument 'method'"),
    (["train", "sft", "x"], "give --data"),
    (
        ["train", "sft", "--data", "rows.jsonl", "--columns", "prompt", "x"],
        "--columns 'prompt' is not wanted=have",
    ),
    (["train", "sft", "--data", "rows.jsonl", "--set", "lora.rank=8", "x"], "unknown key 'lora.rank'"),
    (["train-then-eval", "none.yaml"], "no file 'none.yaml'"),
    (["report"], "no runs folder 'runs'"),
    (["report", "--format", "pdf", "--runs", "."], "no report 'pdf'; known: html"),
    (["compare", "a", "b"], "a"),
    (["list", "modles"], "no kind of plug-in 'modles'"),
    (["schema", "plans"], "plan"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capfd, arguments, message):
    monkeypatch.chdir(tmp_path)
    code = run([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    assert code == 2, err
    assert out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith("harness: ")
    assert message in line.lower()
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_a_mistake_in_a_process_of_its_own(tmp_path):
    done = harness("eval", "--suite", "reasonin", "x", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("harness: no suite 'reasonin'; did you mean reasoning?")


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (OSError(errno.ENOSPC, "full", "runs/x"), "runs/x: the disk is full", 2),
        (OSError(errno.EROFS, "ro", "runs"), "runs: the file system is read-only", 2),
        (PermissionError(errno.EACCES, "denied", "runs"), "runs: permission denied", 2),
        (Interrupted("interrupted: 3 of 5"), "interrupted: 3 of 5", 1),
        (KeyboardInterrupt(), "repeat the command to go on", 1),
        (EngineError("the engine\nstopped"), "the engine stopped", 1),
        (MemoryError(), "out of memory", 1),
        (
            ZeroDivisionError("division by zero"),
            "ZeroDivisionError: division by zero (run again with --debug",
            1,
        ),
    ],
)
def test_every_kind_of_error_has_a_line_and_a_code(error, line, code):
    said, given = explain(error)
    assert line in said
    assert "\n" not in said
    assert given == code


def test_debug_shows_the_traceback(tmp_path):
    done = harness("eval", "--suite", "reasonin", "--debug", "x", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_schema_is_json_schema_of_a_plan(tmp_path):
    for what, key in (("plan", "stages"), ("eval", "checkpoints"), ("suite", "headline")):
        done = harness("schema", what, cwd=tmp_path)
        assert done.returncode == 0
        assert key in json.loads(done.stdout)["properties"]


def test_list_names_what_is_installed_and_whose_it_is(tmp_path):
    done = harness("list", "meters", "--json", cwd=tmp_path)
    meters = {row["name"]: row for row in json.loads(done.stdout)["meters"]}
    assert set(meters) >= {"codecarbon", "replay"}
    assert meters["codecarbon"]["origin"].startswith("pareto-harness ")
    assert "CodeCarbon" in meters["codecarbon"]["description"]
    assert harness("list", "suites", cwd=tmp_path).stdout.startswith("name")


def test_doctor_says_what_this_machine_offers(tmp_path):
    done = harness("doctor", "--json", cwd=tmp_path, HF_HUB_OFFLINE="1")
    findings = {row["subject"]: row for row in json.loads(done.stdout)["findings"]}
    assert {"harness", "libraries", "cpu", "speed", "meter codecarbon", "hub", "toxicity", "disk"} <= set(
        findings
    )
    assert findings["hub"]["text"].startswith("switched off by HF_HUB_OFFLINE")
    bad = harness("doctor", "--data-dir", "nowhere", cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert bad.returncode == 1
    assert "bad   data: no folder 'nowhere'" in bad.stdout


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    command = f"{sys.executable} -m harness schema plan | head -n 1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_the_reference_is_what_the_commands_say():
    from harness.cli.reference import reference

    written = (ROOT / "docs" / "cli.md").read_text()
    assert written == reference(), "docs/cli.md drifted: python -m harness.cli.reference > docs/cli.md"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Zou et al. 2023: harmful behaviours.\n\nMore.", "Zou et al. 2023: harmful behaviours"),
        ("Sums, e.g. of two numbers. And more.", "Sums, e.g. of two numbers"),
        ("As a rule final. Second.", "As a rule final"),
        ("\nOne line", "One line"),
    ],
)
def test_a_description_is_its_first_sentence(text, line):
    from harness.cli.listing import first_line

    assert first_line(text) == line


def test_the_overview_repeats_the_first_line_of_each_command():
    from harness.cli.app import COMMANDS

    for command in COMMANDS:
        assert (command.load().__doc__ or "").partition("\n")[0] == command.help
