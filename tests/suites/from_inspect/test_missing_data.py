"""Tasks of inspect whose data cannot be reached: one line that names them and the way out, however the task fails."""

from __future__ import annotations

import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from harness import registry
from harness.cli.main import run
from harness.datasets import Datasets
from harness.errors import BadInput, DatasetUnavailable
from suites.from_inspect.index import find_task, make_task

NOWHERE = "http://127.0.0.1:9/rows.jsonl"
"""The port of `discard`, on which nobody listens."""


@pytest.fixture(scope="module", autouse=True)
def _tasks():
    define_tasks_that_read_files()
    define_tasks_that_read_otherwise()


def define_tasks_that_read_files() -> None:
    from inspect_ai import Task, task
    from inspect_ai.dataset import MemoryDataset
    from inspect_evals.utils import load_json_dataset

    def swallowed() -> dict:
        try:
            return {"rows": load_json_dataset(NOWHERE, eval_name="harness_test")}
        except Exception as exc:  # noqa: BLE001  as inspect_evals' own task does
            print(f"no rows: {exc}")
            return {}

    @task(name="harness_test_stumbles")
    def stumbles():
        return Task(swallowed()["rows"])

    @task(name="harness_test_empty")
    def empty():
        return Task(MemoryDataset(list(swallowed().values())))


def define_tasks_that_read_otherwise() -> None:
    from inspect_ai import Task, task
    from tenacity import retry, stop_after_attempt

    @retry(stop=stop_after_attempt(2))
    def tries():
        raise ConnectionError("reset by peer")

    @task(name="harness_test_retries")
    def retries():
        return Task(tries())

    @task(name="harness_test_host")
    def host():
        return Task(urllib.request.urlopen("http://data.invalid/rows.csv").read())

    @task(name="harness_test_clones")
    def clones():
        subprocess.run(["git", "clone", "-q", "/no/such/repository", "/no/such/place"], check=True)

    @task(name="harness_test_program")
    def program():
        subprocess.run(["no-such-program"], check=True)


def problem(name: str, kind: type[Exception], data_dir: Path | None = None) -> str:
    with pytest.raises(kind) as caught:
        make_task(name, {}, Datasets(data_dir))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["harness_test_stumbles", "harness_test_empty"])
def test_what_a_task_swallows_is_found_out(name, capfd):
    said = problem(name, DatasetUnavailable)
    assert said.startswith(
        f"data of inspect task '{name}': {NOWHERE} cannot be reached; go online, or save that file as"
    )
    assert "harness_test" in said.partition("save that file as ")[2]
    assert "no rows" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("harness_test_retries", "ConnectionError: reset by peer"),
        ("harness_test_host", "data.invalid cannot be reached"),
        ("harness_test_clones", "git clone -q /no/such/repository /no/such/place fails"),
    ],
)
def test_other_ways_to_read_are_named(name, named):
    said = problem(name, DatasetUnavailable)
    assert named in said
    assert "go online" in said


def test_a_program_that_is_not_there_is_no_matter_of_data():
    assert "could not be built: FileNotFoundError" in problem("harness_test_program", BadInput)


def test_a_folder_that_holds_something_else_is_named(tmp_path):
    folder = tmp_path / "walledai" / "XSTest"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text("prompt\nhi\n")
    name, _ = find_task("xstest")
    said = problem(name, DatasetUnavailable, tmp_path)
    assert str(folder) in said
    assert "as it is on the hub" in said
    assert "the harness has a task 'xstest' of its own" in said


def test_sycophancy_on_the_command_line(tiny_llama, tmp_path, monkeypatch, capsys):
    """Its file lies at an address, and the task catches what reading it raises."""

    def no_network(host, *arguments, **fields):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr("inspect_evals.utils.load_dataset.INSPECT_EVALS_CACHE_PATH", tmp_path)
    assert (
        run(["eval", "--tasks", "inspect:sycophancy", "--runs", str(tmp_path / "runs"), str(tiny_llama)]) == 2
    )
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "sycophancy" in text]
    assert "are_you_sure.jsonl cannot be reached; go online, or save that file as" in line
    assert "the harness has a task 'sycophancy' of its own" in line
    assert "sycophancy" in registry.names("task")
