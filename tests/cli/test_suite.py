"""harness suite check, and a suite of the user's own from the command line to its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli.main import run
from harness.cli.suite import printable, rounded, shortened
from harness.store import Store

SUITE = """\
name: capitals
headline: accuracy
tasks:
  capitals:
    data: capitals.csv
    prompt: "What is the capital of {country}?"
    target: city
    scorer: contains
    max_tokens: 4
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "capitals.csv").write_text(
        "country,city\nFrance,Paris\nJapan,Tokyo\nSpain,Madrid\nPeru,Lima\n", "utf-8"
    )
    (tmp_path / "my.yaml").write_text(SUITE, "utf-8")
    return tmp_path / "my.yaml"


def checked(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert run(["suite", "check", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_suite_is_checked_without_a_model(suite: Path, tmp_path: Path, capsys) -> None:
    found = checked(capsys, suite, "--runs", tmp_path / "runs")
    assert (found["samples"], found["requests"], found["time_s"]) == (4, 4, None)
    assert "not known" in found["time_basis"]
    (task,) = found["tasks"]
    assert task["metric"] == "contains"
    assert task["previews"] == [
        {"sample_id": str(i), "prompt": f"What is the capital of {country}?", "target": city}
        for i, (country, city) in enumerate([("France", "Paris"), ("Japan", "Tokyo"), ("Spain", "Madrid")])
    ]


def test_a_checkpoint_gives_template_and_time_then_its_run_does(suite, tmp_path, tiny_llama, capsys) -> None:
    options = ["--runs", tmp_path / "runs", "--threads", 1]
    measured = checked(capsys, suite, tiny_llama, *options)
    assert measured["tasks"][0]["previews"][0]["prompt"] == (
        "<|user|>What is the capital of France?<|end|><|assistant|>"
    )
    assert measured["time_s"] > 0
    assert "measured on up to 8 samples" in measured["time_basis"]
    assert not (tmp_path / "runs").exists()  # nothing is kept of a check

    assert run(["eval", "--suite", str(suite), str(tiny_llama), *map(str, options)]) == 0
    capsys.readouterr()
    (record,) = Store(tmp_path / "runs").runs()
    assert (record.n_samples, record.headline_metrics) == (4, {"capitals": "contains"})
    later = checked(capsys, suite, tiny_llama, "--limit", 2, *options)
    assert later["time_s"] == pytest.approx(record.phases_s["inference"] / 2)
    assert record.run_id in later["time_basis"]
    text_code = run(["suite", "check", str(suite), "--runs", str(tmp_path / "runs")])
    out = capsys.readouterr().out
    assert text_code == 0
    assert "suite 'capitals' fits its data" in out
    assert "--- target: Tokyo" in out


def test_a_mistake_costs_one_line_and_exit_code_2(suite: Path, capsys) -> None:
    suite.write_text(SUITE.replace("scorer:", "scorrer:"), "utf-8")
    assert run(["suite", "check", str(suite)]) == 2
    error = capsys.readouterr().err
    assert f"{suite}:8: unknown key 'tasks.capitals.scorrer'; did you mean 'scorer'?" in error
    assert error.count("\n") == 1


def test_a_scorer_that_raises_fails_its_sample_and_no_other(suite, tmp_path, tiny_llama, capsys) -> None:
    (tmp_path / "mine.py").write_text(
        "def picky(answer, row):\n"
        "    if row['country'] == 'Japan':\n"
        "        raise RuntimeError('no idea')\n"
        "    return 1\n",
        "utf-8",
    )
    suite.write_text(SUITE.replace("contains", "./mine.py:picky"), "utf-8")
    runs = tmp_path / "runs"
    assert run(["eval", "--suite", str(suite), str(tiny_llama), "--runs", str(runs), "--threads", "1"]) == 3
    assert "RuntimeError: no idea" in capsys.readouterr().out
    (record,) = Store(runs).runs()
    metric = record.metrics["capitals"]["picky"]
    assert (metric.value, metric.n, metric.n_failed) == (1.0, 3, 1)


def test_texts_of_a_data_set_are_fit_for_a_terminal() -> None:
    assert printable("a\x1b[31m\tb\nc") == "a\N{REPLACEMENT CHARACTER}[31m\tb\nc"
    assert shortened("x" * 1200) == "x" * 1200
    assert shortened("a" * 700 + "b" * 700) == "a" * 600 + "\n[... 200 characters ...]\n" + "b" * 600


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (119, "119 s"), (130, "2.2 min"), (7200, "2 h")]
)
def test_durations_are_rounded(seconds: float, text: str) -> None:
    assert rounded(seconds) == text
