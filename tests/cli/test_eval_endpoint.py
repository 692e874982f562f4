"""harness eval on a server: the command line from end to end, a server that dies and comes back, keys, limits."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.test_commands import harness
from tests.engines.endpoint_server import MODEL, Act, Server, answer, running

SECRET = "tests-secret-77aa01bd4e"


@pytest.fixture
def server():
    with running() as found:
        yield found


@pytest.fixture
def evaluate(plugin, tmp_path):
    def run(*arguments, **given):
        return harness(
            "eval", "--suite", "sums", "--engine-option", "backoff_s=0.05", *arguments, cwd=tmp_path, **given
        )

    return run


def run_of(folder: Path) -> dict:
    (file,) = folder.glob("runs/*/run.json")
    return json.loads(file.read_text())


def samples_of(folder: Path) -> list:
    from harness.journal import read_table

    (file,) = folder.glob("runs/*/samples.parquet")
    return list(read_table(file))


def test_from_the_spec_to_the_report(evaluate, server, tmp_path):
    done = evaluate("--limit", "30", server.spec)
    assert done.returncode == 0, done.stderr
    record = run_of(tmp_path)
    assert record["headline"]["value"] == 1.0
    assert record["n_failed"] == 0
    assert record["checkpoint"]["spec"] == server.spec
    assert record["engine"]["name"] == "endpoint"
    assert record["engine"]["server"]["chat"] is True
    # the suite asks in the server's chat; words are its tokens
    samples = samples_of(tmp_path)
    assert {s.sample_id for s in samples} == {str(i) for i in range(30)}
    assert {(s.prompt_tokens, s.output_tokens) for s in samples} == {(5, 1)}
    energy = record["energy"]["inference"]
    assert (energy["ranked_j"], energy["wh_per_1000_queries"], energy["queries"]) == (None, None, 30)
    assert [c["provenance"] for c in energy["components"]] == ["absent:elsewhere"]
    assert any("energy is not known" in note for note in record["notes"])

    asked = len(server.asked)
    again = evaluate("--limit", "30", server.spec)
    assert "done already" in again.stderr
    assert len(server.asked) == asked

    report = harness("report", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    assert any(MODEL in page.read_text() for page in (tmp_path / "report").rglob("*.html"))


def test_a_server_on_this_machine_is_weighed_if_the_user_says_so(evaluate, server, tmp_path):
    done = evaluate("--limit", "4", "--set", "energy.idle_s=0", "--engine-option", "local=true", server.spec)
    assert done.returncode == 0, done.stderr
    components = run_of(tmp_path)["energy"]["inference"]["components"]
    assert "absent:elsewhere" not in [c["provenance"] for c in components]


def test_a_dry_run_asks_no_server(evaluate, tmp_path):
    done = evaluate("--dry-run", "--limit", "7", "http://127.0.0.1:9/v1#nobody")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "7 requests in all; nothing was run"


def test_a_server_that_dies_and_comes_back_costs_no_sample_and_doubles_none(evaluate, tmp_path):
    """The whole server goes away in mid-run and returns on its port a second later."""
    first = Server()
    first.delay_s = 0.02
    command = [
        sys.executable, "-m", "harness", "eval", "--suite", "sums", "--limit", "200",
        "--engine-option", "backoff_s=0.1", "--engine-option", "concurrency=4", first.spec,
    ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        deadline_s = time.monotonic() + 90
        while len(first.asked) < 60:
            assert run.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        first.stop()
        time.sleep(1.0)
        second = Server(port=first.port)
        try:
            _, stderr = run.communicate(timeout=120)
        finally:
            second.stop()
    assert run.returncode == 0, stderr
    samples = samples_of(tmp_path)
    assert sorted(int(s.sample_id) for s in samples) == list(range(200))
    assert not [s for s in samples if s.failed]
    assert run_of(tmp_path)["headline"]["value"] == 1.0
    assert run_of(tmp_path)["engine"]["retries"] > 0


def test_samples_that_fail_are_failed_not_wrong_and_asked_again(evaluate, server, tmp_path):
    server.act = lambda path, body, number: (
        Act(b"<html>maintenance</html>") if "+ 11?" in json.dumps(body) else None
    )
    done = evaluate("--limit", "20", server.spec)
    assert done.returncode == 3
    assert "answered with HTML" in done.stdout
    record = run_of(tmp_path)
    assert (record["headline"]["value"], record["n_failed"]) == (1.0, 1)
    server.arm(lambda path, body, number: None)
    done = evaluate("--limit", "20", server.spec)
    assert done.returncode == 0, done.stderr
    assert (run_of(tmp_path)["n_failed"], run_of(tmp_path)["headline"]["n"]) == (0, 20)
    assert sum("+" in json.dumps(one.body) for one in server.asked if one.path != "models") == 1


def test_a_cost_limit_stops_with_one_line_and_the_same_command_goes_on(evaluate, server, tmp_path):
    prices = ["--engine-option", "price_in=1", "--engine-option", "price_out=10"]
    limit = [*prices, "--engine-option", "concurrency=1", "--engine-option", "cost_limit=0.0005"]
    done = evaluate("--limit", "40", *limit, server.spec)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert "cost limit" in line
    assert "repeat the command" in line
    (journal,) = tmp_path.glob("runs/*/samples.jsonl")
    held = [json.loads(text)["sample_id"] for text in journal.read_text().splitlines()]
    paid = [one for one in server.asked if "+" in json.dumps(one.body)]
    assert 10 < len(held) == len(set(held)) == len(paid) < 40
    done = evaluate("--limit", "40", *prices, server.spec)
    assert done.returncode == 0, done.stderr
    paid = [one for one in server.asked if "+" in json.dumps(one.body)]
    assert len(paid) == 40
    assert run_of(tmp_path)["headline"]["n"] == 40


def test_a_plan_mixes_servers_and_folders(evaluate, server, tiny_llama, tmp_path):
    done = evaluate(
        "--limit", "3", "--set", "energy.idle_s=0", "--engine-option", "rpm=6000", server.spec, tiny_llama
    )
    assert done.returncode == 0, done.stderr
    engines = [json.loads(f.read_text())["engine"]["name"] for f in tmp_path.glob("runs/*/run.json")]
    assert sorted(engines) == ["endpoint", "transformers"]


def test_no_file_and_no_line_holds_the_key(evaluate, tmp_path):
    with running(key=SECRET) as server:
        server.act = lambda path, body, number: (
            Act({"error": {"message": f"no {SECRET}"}}, 400) if "+ 11?" in json.dumps(body) else None
        )
        done = evaluate("--limit", "9", "--debug", server.spec, HARNESS_API_KEY=SECRET)
        report = harness("report", cwd=tmp_path)
        assert done.returncode == 3, done.stderr
        wrong = evaluate("--limit", "5", server.spec, HARNESS_API_KEY="a-wrong-key-of-mine")
    assert wrong.returncode == 2
    assert "HTTP 401" in wrong.stderr.splitlines()[-1]
    shown = [done.stdout, done.stderr, report.stdout, report.stderr, wrong.stdout, wrong.stderr]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    for text in [*shown, *(path.read_bytes().decode("utf-8", "replace") for path in files)]:
        assert SECRET not in text
        assert "a-wrong-key-of-mine" not in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["https://u:p4ssw0rd@h/v1#m"], "user or a password"),
        (["http://127.0.0.1:9/v1"], "names no model"),
        (["http://127.0.0.1:9/v1#m"], "start the server, or mend the address"),
        (["--engine", "transformers", "http://127.0.0.1:9/v1#m"], "drop --engine transformers"),
        (["--adapters", "x", "http://127.0.0.1:9/v1#m"], "models of its own"),
        (["--engine-option", "nonsense=1", "http://127.0.0.1:9/v1#m"], "no option 'nonsense'"),
        (["--engine", "endpoint", "some/folder"], "no endpoint"),
    ],
)
def test_slips_are_one_line(evaluate, arguments, named):
    done = evaluate("--limit", "2", *arguments)
    assert done.returncode == 2, done.stderr
    assert named in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "p4ssw0rd" not in done.stderr


@pytest.mark.mirror
def test_log_likelihoods_that_a_server_does_not_give_name_the_form_that_it_can_answer(
    server, mirror, tmp_path
):
    options = ["--data-dir", mirror, "--limit", "3", server.spec]
    done = harness("eval", "--tasks", "lm_eval:arc_challenge", *options, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "--tasks lettered:arc_challenge" in done.stderr.splitlines()[-1]
    server.act = lambda path, body, number: Act(answer(path, body, "B"))
    done = harness("eval", "--tasks", "lettered:arc_challenge", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = run_of(tmp_path)
    (sample, *_) = samples_of(tmp_path)
    assert "A. " in sample.prompt
    assert set(record["metrics"]["arc_challenge"]) == {"letter_accuracy", "no_letter"}
    targets = [s.target for s in samples_of(tmp_path)]
    assert record["metrics"]["arc_challenge"]["letter_accuracy"]["value"] == targets.count("B") / 3


@pytest.mark.mirror
def test_inspects_tasks_stop_at_the_cost_limit_without_losing_an_answer(server, mirror, tmp_path):
    options = ["--data-dir", mirror, "--limit", "12", "--set", "sampling.max_tokens=8", server.spec]
    priced = [
        "--engine-option",
        "price_in=1",
        "--engine-option",
        "price_out=10",
        "--engine-option",
        "concurrency=1",
    ]
    done = harness(
        "eval", "--tasks", "inspect:gsm8k,fewshot=0", *priced, "--engine-option", "cost_limit=0.002", *options,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "cost limit" in done.stderr.splitlines()[-1]
    (journal,) = tmp_path.glob("runs/*/samples.jsonl")
    held = [json.loads(text) for text in journal.read_text().splitlines()]
    assert 0 < len(held) < 12
    assert not [one for one in held if one["error"]]
    done = harness("eval", "--tasks", "inspect:gsm8k,fewshot=0", *priced, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run_of(tmp_path)["n_samples"] == 12
