"""Datasets: files, folders, bundled rows, and being offline. Values are compared with datasets.load_dataset."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import time
from pathlib import Path

import pytest

from harness import hubdata
from harness.datasets import DatasetRef, Datasets, fingerprint, parse
from harness.errors import BadColumns, BadInput, DatasetUnavailable, UnknownName

CARD = """---
configs:
- config_name: first
  data_files:
  - split: train
    path: first/*.jsonl
  - split: test
    path: first/held.csv
- config_name: default
  data_files: only.jsonl
---
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data_dir with one dataset of two configs."""
    place = tmp_path / "owner" / "name"
    (place / "first").mkdir(parents=True)
    (place / "README.md").write_text(CARD)
    (place / "first" / "a.jsonl").write_text('{"q": "1", "n": 1}\n{"q": "2", "n": 2.5}\n')
    (place / "first" / "b.jsonl").write_text('{"q": "3", "extra": [1]}\n')
    (place / "first" / "held.csv").write_text("q,n\nx,3\n,4\n")
    (place / "only.jsonl").write_text('{"q": "only"}\n')
    return tmp_path


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("openai/gsm8k", DatasetRef("openai/gsm8k", None, "train")),
        ("openai/gsm8k:main", DatasetRef("openai/gsm8k", "main", "train")),
        ("openai/gsm8k:main:test", DatasetRef("openai/gsm8k", "main", "test")),
        ("openai/gsm8k::test", DatasetRef("openai/gsm8k", None, "test")),
        ("data/my rows.jsonl", DatasetRef("data/my rows.jsonl", None, "train")),
        ("C:/rows.parquet", DatasetRef("C:/rows.parquet", None, "train")),
    ],
)
def test_a_reference_has_three_parts_and_a_path_one(ref: str, expected: DatasetRef) -> None:
    assert parse(ref) == expected


@pytest.mark.parametrize("ref", ["", ":main", "a:b:c:d"])
def test_what_is_no_reference_is_refused(ref: str) -> None:
    with pytest.raises(BadInput, match=r"id\[:config\[:split\]\]"):
        parse(ref)


def test_rows_of_all_files_of_a_split_come_in_the_order_of_their_names(folder: Path) -> None:
    rows = Datasets(folder).rows("owner/name", "first", "train")
    assert [row["q"] for row in rows] == ["1", "2", "3"]


def test_every_row_has_every_column_and_one_number_type(folder: Path) -> None:
    first, second, third = Datasets(folder).rows("owner/name", "first", "train")
    assert first == {"q": "1", "n": 1.0, "extra": None}
    assert isinstance(first["n"], float)
    assert second["n"] == 2.5
    assert third == {"q": "3", "n": None, "extra": [1]}


def test_an_empty_cell_of_a_csv_file_is_none(folder: Path) -> None:
    assert Datasets(folder).rows("owner/name", "first", "test") == [{"q": "x", "n": 3}, {"q": None, "n": 4}]


def test_without_a_config_the_default_one_is_read(folder: Path) -> None:
    assert Datasets(folder).rows("owner/name", None, "train") == [{"q": "only"}]


def test_an_unknown_config_split_or_column_names_what_is_there(folder: Path) -> None:
    data = Datasets(folder)
    with pytest.raises(UnknownName, match=r"no config of owner/name 'frist'; did you mean first\?"):
        data.rows("owner/name", "frist", "train")
    with pytest.raises(UnknownName, match=r"no split of owner/name 'dev'.*test, train"):
        data.rows("owner/name", "first", "dev")
    with pytest.raises(BadColumns, match="owner/name:first:test has no column 'prompt'; it has: q, n"):
        data.rows("owner/name", "first", "test", columns=["q", "prompt"])


def test_path_or_id_is_the_folder_and_checks_the_config(folder: Path) -> None:
    data = Datasets(folder)
    assert data.path_or_id("owner/name", "first") == str(folder / "owner" / "name")
    with pytest.raises(UnknownName, match="first"):
        data.path_or_id("owner/name", "secnd")


def test_a_card_may_not_point_outside_its_folder(folder: Path) -> None:
    (folder / "secret.jsonl").write_text('{"q": 1}\n')
    card = folder / "owner" / "name" / "README.md"
    card.write_text(CARD.replace("only.jsonl", "../../secret.jsonl"))
    with pytest.raises(BadInput, match="outside its folder"):
        Datasets(folder).rows("owner/name", None, "train")


def test_an_id_may_not_climb_out_of_the_data_dir(folder: Path) -> None:
    (folder / "inner").mkdir()
    with pytest.raises(DatasetUnavailable):
        Datasets(folder / "inner").rows("x/../../owner/name", None, "train")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.jsonl.gz", "rows.csv", "rows.parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    import pandas

    rows = [{"prompt": "a\u2028b", "n": 1}, {"prompt": "c", "n": 2}]
    path = tmp_path / name
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if name.endswith(".csv"):
        pandas.DataFrame(rows).to_csv(path, index=False)
    elif name.endswith(".parquet"):
        pandas.DataFrame(rows).to_parquet(path)
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows))
    else:
        path.write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    assert Datasets(None).rows(str(path), None, "train", columns=["prompt", "n"]) == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', r"a\.jsonl:2 cannot be read as JSON"),
        ("b.jsonl", '{"a": 1}\n[1]\n', r"b\.jsonl: row 2 holds list; one JSON object"),
        ("c.jsonl", "\n\n", "holds no rows"),
        ("d.jsonl", b"\xff\xfe\x00", "is no UTF-8 text; save it as UTF-8"),
        ("e.parquet", "no parquet", "cannot be read"),
        ("f.jsonl.gz", "no gzip", "cannot be read"),
    ],
)
def test_a_broken_file_is_one_line_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput, match=message) as raised:
        Datasets(None).rows(str(path), None, "train")
    assert "\n" not in str(raised.value)


def test_what_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnavailable, match=r"no data file .*gone\.jsonl"):
        Datasets(None).rows(str(tmp_path / "gone.jsonl"), None, "train")
    with pytest.raises(DatasetUnavailable, match="no dataset folder"):
        Datasets(None).rows(str(tmp_path / "gone"), None, "train")
    with pytest.raises(DatasetUnavailable, match="is no folder"):
        Datasets(tmp_path / "gone")


def test_offline_names_the_three_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    with pytest.raises(DatasetUnavailable, match=r"go online, .*fill the hub's cache.*--data-dir FOLDER"):
        Datasets(tmp_path).rows("owner/none", None, "test")


def test_a_hub_that_does_not_answer_costs_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that accepts and never speaks: the worst network there is."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_DATASETS_OFFLINE", "0")
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        monkeypatch.setattr(hubdata, "REACH_TIMEOUT_S", 0.3)
        for module in ("huggingface_hub.constants", "datasets.config"):
            monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True)  # restored after the code has set it
        start = time.perf_counter()
        with pytest.raises(DatasetUnavailable, match="the hub cannot be reached"):
            Datasets(None).rows("owner/none", None, "test")
        assert time.perf_counter() - start < 3


def test_a_downloaded_snapshot_is_found_offline(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    snapshot = home / "hub" / "datasets--some--rows" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: a.jsonl\n---\n")
    (snapshot / "a.jsonl").write_text('{"x": 1}\n')
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(home))
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert Datasets(None).path_or_id("some/rows") == str(snapshot)


def test_bundled_rows_come_from_the_installed_plugin() -> None:
    data = Datasets(None)
    assert data.path_or_id("starter/facts") == "starter/facts"
    assert {"prompt", "completion"} <= set(data.rows("starter/facts", None, "test", columns=["prompt"])[0])


def test_the_fingerprint_is_the_hash_of_canonical_json_lines() -> None:
    expected = hashlib.sha256(b'{"a":1,"b":"\xc3\xa9"}\n{"a":2,"b":null}\n').hexdigest()
    assert fingerprint([{"b": "é", "a": 1}, {"a": 2, "b": None}]) == expected
    assert fingerprint([{"a": 2, "b": None}, {"b": "é", "a": 1}]) != expected


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("dataset", "config", "split"),
    [
        ("openai/gsm8k", "main", "test"),
        ("google/IFEval", "default", "train"),
        ("allenai/ai2_arc", "ARC-Challenge", "test"),
        ("truthfulqa/truthful_qa", "multiple_choice", "validation"),
        ("cais/mmlu", "all", "dev"),
        ("walledai/XSTest", None, "test"),
    ],
)
def test_rows_of_the_mirror_are_those_of_load_dataset(
    mirror: Path, tmp_path: Path, dataset: str, config: str | None, split: str
) -> None:
    import datasets

    theirs = datasets.load_dataset(str(mirror / dataset), config, split=split, cache_dir=str(tmp_path))
    ours = Datasets(mirror).rows(dataset, config, split)
    assert [typed(row) for row in ours] == [typed(row) for row in theirs]


def typed(value: object) -> object:
    """The value with the type of every leaf, so that 1 and 1.0 differ."""
    if isinstance(value, dict):
        return {key: typed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [typed(entry) for entry in value]
    return type(value).__name__, value


@pytest.mark.mirror
def test_nothing_is_written_into_the_data_dir(mirror: Path) -> None:
    before = sorted(path.name for path in (mirror / "openai" / "gsm8k").rglob("*"))
    Datasets(mirror).rows("openai/gsm8k", "main", "test")
    assert sorted(path.name for path in (mirror / "openai" / "gsm8k").rglob("*")) == before


@pytest.mark.mirror
def test_a_column_that_is_null_in_one_split_and_text_in_another_is_read(mirror: Path) -> None:
    """load_dataset 5.2 refuses this folder: 'Couldn't cast array of type string to null'."""
    data = Datasets(mirror)
    assert {row["answer"] for row in data.rows("juletxara/mgsm", "en", "test")} == {None}
    assert all(isinstance(row["answer"], str) for row in data.rows("juletxara/mgsm", "en", "train"))


def test_a_row_without_a_wanted_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"q": "a", "n": 0}\n{"q": "b", "n": 0}\n{"n": 1}\n', encoding="utf-8")
    assert len(Datasets().rows(str(path), None, "train", columns=["n"])) == 3
    with pytest.raises(BadColumns, match=r"row 2 of .*rows\.jsonl has no 'q'"):
        Datasets().rows(str(path), None, "train", columns=["q"])
