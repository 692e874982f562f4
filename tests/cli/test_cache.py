"""harness cache, and --cache on harness eval, as a user meets them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from harness.answers.cache import FOLDER
from harness.answers.files import ABOUT, Segment, seal
from harness.cli.cache import BYTES, read_amount, size
from harness.cli.main import run
from harness.errors import BadInput

OLD_S = 40 * 86400


@pytest.fixture
def runs(tmp_path) -> Path:
    """Two models' answers: one segment of 3, one of 2 that nobody used for forty days; and a run."""
    for model, count, age_s in (("new", 3, 0), ("old", 2, OLD_S)):
        segment = Segment(tmp_path / FOLDER / f"{model}--transformers--0123" / "1.answers")
        about = {
            "model": model,
            "engine": "transformers",
            "dtype": "float32",
            "device": "cpu",
            "fingerprint": "f",
        }
        lines = [seal(b"%032x" % number, b'{"text":"a"}') for number in range(1, count + 1)]
        segment.append(seal(ABOUT, json.dumps(about).encode()) + b"".join(lines))
        segment.close()
        os.utime(segment.path, (time.time() - age_s,) * 2)
    (tmp_path / "a-run").mkdir()
    (tmp_path / "a-run" / "run.json").write_text("{}")
    return tmp_path


def cache(runs: Path, *arguments: str) -> int:
    return run(["cache", *arguments, "--runs", str(runs)])


def kept(runs: Path) -> list[str]:
    return sorted(path.parent.name.partition("--")[0] for path in runs.glob(f"{FOLDER}/*/*.answers"))


def flip(path: Path, text: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(text, text[:-1] + bytes([text[-1] ^ 1]), 1))


def test_show(runs, capsys):
    assert cache(runs) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["model", "engine", "dtype", "device", "answers"]
    assert lines[1].split()[:6] == ["new", "transformers", "float32", "cpu", "3", "0"]
    assert lines[2].split()[:6] == ["old", "transformers", "float32", "cpu", "2", "0"]
    assert cache(runs, "show", "--json") == 0
    first, second = json.loads(capsys.readouterr().out)["caches"]
    size_bytes = (runs / FOLDER / "new--transformers--0123" / "1.answers").stat().st_size
    assert (first["answers"], first["damaged"], first["bytes"], first["segments"]) == (3, 0, size_bytes, 1)
    assert second["used_at"] < first["used_at"]


def test_nothing_kept(tmp_path, capsys):
    assert cache(tmp_path) == 0
    assert capsys.readouterr().out.startswith("nothing is kept under")
    assert cache(tmp_path, "verify") == 0


def test_verify_tells_by_its_exit_code(runs, capsys):
    assert cache(runs, "verify") == 0
    assert capsys.readouterr().out == "5 answers in 2 files are whole\n"
    path = runs / FOLDER / "new--transformers--0123" / "1.answers"
    flip(path, b'"text"')
    assert cache(runs, "verify") == 1
    out = capsys.readouterr().out
    assert f"{path}: 1 damaged lines, 2 whole" in out
    assert "4 answers in 2 files are whole; damaged ones are never used" in out
    assert cache(runs, "verify", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["damaged"] == 1
    assert [segment["answers"] for segment in found["segments"]] == [2, 2]


def test_prune_says_what_would_go_and_removes_with_yes_alone(runs, capsys):
    assert cache(runs, "prune", "--older-than", "30d") == 0
    assert "to be removed: 1 files" in capsys.readouterr().out
    assert kept(runs) == ["new", "old"]
    assert cache(runs, "prune", "--older-than", "30d", "--yes") == 0
    assert capsys.readouterr().out.startswith("removed: 1 files")
    assert kept(runs) == ["new"]
    assert not (runs / FOLDER / "old--transformers--0123").exists()
    assert cache(runs, "prune", "--all", "--yes") == 0
    assert not (runs / FOLDER).exists()
    assert (runs / "a-run" / "run.json").exists(), "runs are never touched"


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--older-than", "41d"], ["new", "old"]),
        (["--older-than", "5w"], ["new"]),
        (["--model", "old"], ["new"]),
        (["--model", "new--transformers"], ["old"]),
        (["--model", "ol", "--older-than", "60d"], ["new", "old"]),
        (["--max-size", "0"], []),
        (["--max-size", "400"], ["new"]),
        (["--max-size", "1MB"], ["new", "old"]),
        (["--damaged"], ["new", "old"]),
    ],
)
def test_what_prune_takes(runs, arguments, left):
    assert cache(runs, "prune", *arguments, "--yes") == 0
    assert kept(runs) == left


def test_prune_damaged_keeps_what_is_whole(runs, capsys):
    path = runs / FOLDER / "old--transformers--0123" / "1.answers"
    flip(path, b'"text"')
    used = path.stat().st_mtime
    assert cache(runs, "prune", "--damaged") == 0
    assert "to be mended: 1 files with damaged lines" in capsys.readouterr().out
    assert cache(runs, "prune", "--damaged", "--yes") == 0
    assert cache(runs, "verify") == 0
    assert "4 answers in 2 files are whole" in capsys.readouterr().out
    assert path.stat().st_mtime == pytest.approx(used)


def test_prune_leaves_a_file_that_is_being_written(runs, capsys):
    segment = Segment(runs / FOLDER / "new--transformers--0123" / "2.answers")
    segment.append(seal(ABOUT, b"{}"))
    assert cache(runs, "prune", "--all", "--yes", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["held"] == [str(segment.path)]
    assert len(found["segments"]) == 2
    assert kept(runs) == ["new"]
    segment.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune"], "say what is to go: --older-than, --max-size, --model, --damaged or --all"),
        (["prune", "--yes"], "say what is to go"),
        (["show", "--all"], "--all is for `harness cache prune`, not for show"),
        (["verify", "--older-than", "3d"], "--older-than is for `harness cache prune`"),
        (["prune", "--older-than", "soon"], "--older-than 'soon' cannot be read; write e.g. 30d"),
        (["prune", "--max-size", "1 parsec"], "--max-size '1 parsec' cannot be read; write e.g. 500MB"),
        (["purge"], "'purge' is not one of 'show', 'prune', 'verify'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(runs, capsys, arguments, message):
    assert cache(runs, *arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_runs_folder_that_is_not_there(tmp_path, capsys):
    assert cache(tmp_path / "nowhere") == 2
    assert "no runs folder" in capsys.readouterr().err


def test_amounts():
    assert read_amount("--max-size", "1.5GB", BYTES, "") == 1.5e9
    assert read_amount("--max-size", "2 MiB", BYTES, "") == 2 * 1024**2
    with pytest.raises(BadInput):
        read_amount("--max-size", "-3", BYTES, "")
    assert [size(n) for n in (0, 999, 1000, 1_250_000)] == ["0 B", "999 B", "1.0 kB", "1.2 MB"]


# --cache


def test_cache_and_no_cache_contradict_each_other(tmp_path, capsys):
    assert run(["eval", "--cache", "--no-cache", "--tasks", "sums", "bundled:starter"]) == 2
    assert "--cache and --no-cache contradict each other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "meant"),
    [([], "write"), (["--cache"], "read"), (["--no-cache"], "off"), (["--set", "cache=off"], "off"),
     (["--set", "cache=read"], "read"), (["--set", "cache=true"], "read")],
)  # fmt: skip
@pytest.mark.usefixtures("plugin")
def test_what_the_flags_mean(tiny_llama, tmp_path, capsys, given, meant):
    arguments = ["eval", str(tiny_llama), "--tasks", "sums", "--runs", str(tmp_path), "--dry-run", "--json"]
    assert run([*arguments, *given]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["cache"] == meant


def test_a_cache_setting_that_is_none(capsys):
    assert run(["eval", "--set", "cache=maybe", "--tasks", "sums", "bundled:starter"]) == 2
    assert "cache" in capsys.readouterr().err
