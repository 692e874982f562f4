"""harness eval --judge: from the command line to the record, on a real server and on tiny real models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.cli.main import run as harness
from harness.judging.choice import foreign_name
from tests.cli.test_commands import harness as process
from tests.cli.test_eval_endpoint import run_of, samples_of
from tests.engines.endpoint_server import MODEL, Act, running
from tests.judging.test_judged import by_rule, longer

TASK = ("--tasks", "judged_sums", "--limit", "6")
IDLE = ("--set", "energy.idle_s=0")
FAST = ("--judge-option", "backoff_s=0.05", "--judge-option", "retries=1")


@pytest.fixture
def server():
    with running() as found:
        yield found


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def evaluate(plugin, tmp_path, monkeypatch, capsys):
    """The command line in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        task = () if "--tasks" in arguments else TASK
        code = harness(["eval", *task, *IDLE, *arguments])
        return Done(code, *capsys.readouterr())

    return run


def verdicts_asked(server) -> int:
    return sum("Somebody says" in json.dumps(one.body) for one in server.asked)


def test_a_server_judges_a_model_here(evaluate, server, tiny_llama, tmp_path):
    done = evaluate(str(tiny_llama), "--judge", server.spec, *FAST)
    assert done.returncode == 0, done.stderr
    record = run_of(tmp_path)
    metric = record["metrics"]["judged_sums"]["judge_agrees"]
    assert (metric["n"], metric["n_failed"]) == (6, 0)
    judge = record["engine"]["judge"]
    assert (judge["name"], judge["engine"], judge["questions"], judge["reused"]) == (MODEL, "endpoint", 6, 0)
    assert record["identity"]["judge"]["fingerprint"] == judge["fingerprint"]
    assert any("judged by adder" in note for note in record["notes"])
    # the random model's answers are no sums: the judge was asked and disagrees
    assert [s.scores["judge_agrees"].detail for s in samples_of(tmp_path)][:3] == ["0", "18", "36"]
    assert metric["value"] == 0.0


def test_energy_of_a_judge_elsewhere_is_not_known_and_apart(evaluate, server, tiny_llama, tmp_path):
    done = evaluate(str(tiny_llama), "--judge", server.spec, *FAST)
    assert done.returncode == 0, done.stderr
    energy = run_of(tmp_path)["energy"]
    provenances = {c["provenance"] for c in energy["grading"]["components"]}
    assert "absent:elsewhere" in provenances
    assert energy["grading"]["queries"] == 6
    assert "absent:elsewhere" not in {c["provenance"] for c in energy["inference"]["components"]}
    assert energy["inference"]["queries"] == 6


def test_verdicts_are_read_back_and_a_run_says_so(evaluate, server, tiny_llama, tmp_path):
    assert evaluate(str(tiny_llama), "--judge", server.spec, *FAST).returncode == 0
    first = run_of(tmp_path)
    (folder,) = tmp_path.glob("runs/*--*")
    folder.rename(tmp_path / "elsewhere")
    server.arm()
    assert evaluate(str(tiny_llama), "--judge", server.spec, *FAST).returncode == 0
    second = run_of(tmp_path)
    assert verdicts_asked(server) == 0
    assert second["metrics"] == first["metrics"]
    assert second["engine"]["judge"]["reused"] == 6
    assert any("6 of 6 answers of the judge adder came from the response cache" in n for n in second["notes"])


def test_without_the_cache_the_judge_is_asked_anew_and_its_price_stands_apart(
    evaluate, server, tiny_llama, tmp_path
):
    """One per token: the cost is the number of the judge's tokens, and of those few that asked what the server can."""
    priced = ("--judge-option", "price_in=1000000", "--judge-option", "price_out=1000000")
    for run in ("one", "two"):
        server.arm()
        done = evaluate(str(tiny_llama), "--judge", server.spec, "--no-cache", "--runs", run, *FAST, *priced)
        assert done.returncode == 0, done.stderr
        assert verdicts_asked(server) == 6
        (file,) = tmp_path.glob(f"{run}/*/run.json")
        judge = json.loads(file.read_text())["engine"]["judge"]
        tokens = judge["prompt_tokens"] + judge["output_tokens"]
        assert 6 < tokens <= judge["cost"] < tokens + 200


def test_a_judge_that_dies_fails_samples_and_is_asked_again_alone(evaluate, server, tiny_llama, tmp_path):
    server.act = lambda path, body, number: (
        Act({"error": {"message": "out"}}, 500)
        if "Somebody says" in json.dumps(body) and number % 2
        else None
    )
    done = evaluate(str(tiny_llama), "--judge", server.spec, "--judge-option", "retries=0")
    assert done.returncode == 3, done.stderr
    assert "judge adder" in done.stdout
    record = run_of(tmp_path)
    lost = record["n_failed"]
    assert 0 < lost <= 6
    assert record["metrics"]["judged_sums"]["judge_agrees"]["n_failed"] == lost
    answers = [s.outputs for s in samples_of(tmp_path)]
    server.arm(lambda path, body, number: None)
    done = evaluate(str(tiny_llama), "--judge", server.spec)
    assert done.returncode == 0, done.stderr
    assert f"loading {server.url}" in done.stderr
    assert f"loading {tiny_llama}" not in done.stderr, "the model that answered already is not loaded"
    assert verdicts_asked(server) == lost
    assert [s.outputs for s in samples_of(tmp_path)] == answers
    assert run_of(tmp_path)["n_failed"] == 0


def test_a_judge_without_its_key_fails_samples_and_keeps_the_answers(plugin, tmp_path, tiny_llama):
    with running(key="right-key-0123456789") as server:
        command = (
            "eval",
            *TASK,
            str(tiny_llama),
            "--judge",
            server.spec,
            "--judge-option",
            "key_env=JUDGE_KEY",
        )
        missing = process(*command, cwd=tmp_path)
        assert missing.returncode == 2
        assert "JUDGE_KEY" in missing.stderr.splitlines()[-1]
        wrong = process(*command, cwd=tmp_path, JUDGE_KEY="wrong-key-0123456789")
        assert wrong.returncode == 3, wrong.stderr
        assert "export the right one" in wrong.stdout
        assert "wrong-key" not in wrong.stdout + wrong.stderr
        right = process(*command, cwd=tmp_path, JUDGE_KEY="right-key-0123456789")
        assert right.returncode == 0, right.stderr
        assert run_of(tmp_path)["n_failed"] == 0


def test_a_model_that_judges_itself_is_marked(evaluate, tiny_llama, tmp_path):
    done = evaluate(str(tiny_llama), "--judge", str(tiny_llama))
    assert done.returncode == 0, done.stderr
    record = run_of(tmp_path)
    assert list(record["metrics"]["judged_sums"]) == ["judge_agrees (self-judged)"]
    assert any("which is the model whose answers it judges" in note for note in record["notes"])
    # weighed here, in a phase of its own, with the judge's tokens
    assert record["energy"]["grading"]["output_tokens"] == record["engine"]["judge"]["output_tokens"] > 0


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("inspect:openai/gpt-4o", "openai/gpt-4o"),
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("openai/gpt-oss-20b@main", None),
        ("nosuchprovider/model", None),
        ("./openai/gpt-4o", None),
        ("http://127.0.0.1:1/v1#openai/gpt-4o", None),
        ("bundled:starter", None),
        ("base/model+adapter/of", None),
    ],
)
def test_inspects_judges_and_checkpoints_are_told_apart(spec, name):
    assert foreign_name(spec) == name


def test_a_folder_goes_before_a_provider_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("openai/mine").mkdir(parents=True)
    assert foreign_name("openai/mine") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--judge", "nowhere/at-all"), "--judge 'nowhere/at-all':"),
        (("--judge-option", "engine=vllm"), "name one with --judge"),
        (("--judge", "bundled:starter", "--judge-option", "engine=vlm"), "known: transformers"),
        (("--judge", "http://127.0.0.1:9/v1#m", "--judge-option", "engine=vllm"), "is a server"),
        (("--judge", "http://127.0.0.1:9/v1#m", "--judge-option", "rmp=6"), "no option 'rmp'"),
    ],
)
def test_a_judge_that_cannot_be_used_is_one_line_before_anything_runs(
    evaluate, tiny_llama, arguments, message
):
    done = evaluate(str(tiny_llama), *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert "loading" not in done.stderr


def test_own_prompts_are_judged_against_references(evaluate, server, tiny_llama, tmp_path):
    """The judge takes the longer answer: a reference of 2,000 letters beats the random model, an empty one loses."""
    rows = [{"q": f"Say {i}.", "reference": "x" * 2000 if i % 4 else ""} for i in range(8)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server.act = by_rule(longer)
    done = evaluate(
        str(tiny_llama),
        "--judge",
        server.spec,
        *FAST,
        "--tasks",
        "judged_pairs,data=p.jsonl,prompt=q,max_tokens=16",
    )
    assert done.returncode == 0, done.stderr
    metrics = run_of(tmp_path)["metrics"]["judged_pairs"]
    assert metrics["judge_win_rate"]["value"] == 0.25
    assert 0 < metrics["judge_lc_win_rate"]["value"] < 1
    assert metrics["position_inconsistent"]["value"] == 0.0


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("judged_pairs,data=p.jsonl", "has no column 'prompt'; it has q"),
        ("judged_pairs,data=p.jsonl,prompt=q", "row 1: 'reference' is [7], which is no text"),
        ("judged_pairs", "lacks data"),
    ],
)
def test_a_task_that_lacks_something_is_one_line(evaluate, tiny_llama, tmp_path, task, message):
    (tmp_path / "p.jsonl").write_text('{"q": "Say 1.", "reference": [7]}\n')
    done = evaluate(str(tiny_llama), "--judge", str(tiny_llama), "--tasks", task)
    assert (done.returncode, message in done.stderr.splitlines()[-1]) == (2, True), done.stderr


def test_a_judged_task_without_a_judge_says_what_to_give(evaluate, tiny_llama):
    done = evaluate(str(tiny_llama), "--tasks", "judged_pairs,data=p.jsonl")
    assert (done.returncode, "give --judge MODEL" in done.stderr) == (2, True), done.stderr
