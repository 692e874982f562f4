"""Rows of one local data file, and which files a dataset folder's card names. Nothing is written beside them."""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import BadInput, DatasetUnavailable
from harness.records import Json

JSON_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
SUFFIXES = (*JSON_SUFFIXES, ".csv", ".parquet")
GZIP_MAGIC = b"\x1f\x8b"
Files = Mapping[str, Mapping[str, Sequence[Path]]]
"""config -> split -> files."""


def is_data_file(name: str) -> bool:
    """Whether a name ends like a file that read_files understands."""
    return name.lower().endswith(SUFFIXES)


def read_files(paths: Sequence[Path]) -> list[dict[str, Json]]:
    """Rows of JSONL, JSON, CSV or Parquet files, with every column in every row (None where it lacks one).

    Values are those of datasets.load_dataset on the same file (datasets 5.2), but strings that look like a
    time stay strings, and a column may be all null in one split and text in another.

    Raises: DatasetUnavailable: no such file. BadInput: one cannot be understood (file and line).
    """
    return _even([row for path in paths for row in _read_file(path)])


def read_texts(path: Path) -> list[dict[str, Json]]:
    """Rows of one file for prompts and answers: the cells of a CSV file are the text that stands there.

    A CSV file does not say what is a number, and `02134`, `1.50` and `NA` may each be a right answer; a cell without
    any text is None. The other formats name their types, and are read as read_files reads them.

    Raises: as read_files.
    """
    return _even(_read_file(path, texts=True))


def as_text(cell: Json) -> str | None:
    """A cell as a text to ask or to judge: numbers are. None: it is empty, no finite number, a list, a mapping."""
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        return None
    return None if isinstance(cell, float) and not math.isfinite(cell) else str(cell)


def _read_file(path: Path, *, texts: bool = False) -> list[dict[str, Json]]:
    name = path.name.lower()
    if not path.is_file():
        hint = " (write / where it says \\)" if "\\" in str(path) else ""
        hint = " (download it first)" if str(path).startswith(("http:", "https:")) else hint
        raise DatasetUnavailable(
            f"no data file {str(path)!r}; give a {', '.join(SUFFIXES)} file that is there{hint}"
        )
    if not is_data_file(name):
        raise BadInput(f"{str(path)!r} is no {', '.join(SUFFIXES)} file; convert it to JSONL")
    try:
        if name.endswith(JSON_SUFFIXES):
            return _read_json(path)
        return _read_csv_texts(path) if texts and name.endswith(".csv") else _read_table(path)
    except UnicodeDecodeError as exc:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP_MAGIC
        wanted = f"packed by gzip; name it {path.name}.gz" if packed else "no UTF-8 text; save it as UTF-8"
        raise BadInput(f"{path} is {wanted} ({exc.reason} at byte {exc.start})") from exc
    except (OSError, ValueError, EOFError, zlib.error, RecursionError) as exc:
        # pyarrow's and pandas' errors are ValueErrors; EOFError: a packed file that was cut
        why = next(iter(str(exc).splitlines()), type(exc).__name__)
        raise BadInput(f"{path} cannot be read ({why}); repair or replace it") from exc


def _read_json(path: Path) -> list[dict[str, Json]]:
    """JSON lines, or one JSON list of objects."""
    packed = path.read_bytes()
    text = (gzip.decompress(packed) if path.suffix.lower() == ".gz" else packed).decode("utf-8-sig")
    if text.lstrip().startswith("["):
        return [_object(row, path, i + 1) for i, row in enumerate(_parsed(text))]
    # str.splitlines would also cut at U+2028 and its kin, which JSON allows inside strings
    return list(_json_lines(text.split("\n"), path))


def _parsed(text: str) -> Any:
    """Raises: ValueError: no JSON, or a key twice in one object."""
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """An object whose keys are all different: of two values nobody can say which is meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found


def _json_lines(lines: Sequence[str], path: Path) -> Iterator[dict[str, Json]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = _parsed(line)
        except (ValueError, RecursionError) as exc:
            raise BadInput(
                f"{path}:{number} cannot be read as JSON ({exc}); one object per line is wanted, or one list of objects"
            ) from exc
        yield _object(value, path, number)


def _object(value: Json, path: Path, number: int) -> dict[str, Json]:
    if not isinstance(value, dict):
        found = "nothing (null)" if value is None else type(value).__name__
        raise BadInput(f"{path}: row {number} holds {found}; one JSON object per row is wanted")
    return value


def _read_table(path: Path) -> list[dict[str, Json]]:
    """CSV and Parquet through Arrow, as `datasets` does."""
    import pyarrow

    if path.suffix.lower() == ".parquet":
        from pyarrow import parquet

        return list(parquet.ParquetFile(path).read().to_pylist())
    import pandas

    _check_header(path)
    rows = pyarrow.Table.from_pandas(pandas.read_csv(path), preserve_index=False).to_pylist()
    return list(rows)


def _read_csv_texts(path: Path) -> list[dict[str, Json]]:
    """CSV without a guess of types. Raises: BadInput: rows have more cells than the first line names."""
    import pandas

    _check_header(path)
    frame = pandas.read_csv(path, dtype=str, keep_default_na=False)
    if not isinstance(frame.index, pandas.RangeIndex):  # pandas takes the cells too many for names of rows
        raise BadInput(
            f"{path}: rows hold more cells than its first line names columns; quote cells with commas"
        )
    rows = frame.to_dict("records")
    return [{str(name): _cell(cell) for name, cell in row.items()} for row in rows]


def _cell(cell: object) -> str | None:
    """None: nothing stands there, or the row ends before it."""
    return cell if isinstance(cell, str) and cell else None


def _check_header(path: Path) -> None:
    """Raises: BadInput: no line at all, or a column twice, which pandas would rename in silence."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    if not header:
        raise BadInput(f"{path} holds no rows; its first line names the columns, the others hold the values")
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"{path}:1 names the column {twice!r} twice; rename one")


def _even(rows: Sequence[dict[str, Json]]) -> list[dict[str, Json]]:
    """Give all rows the same columns, in the order of first appearance, and one number type per column."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    even = [{name: row.get(name) for name in columns} for row in rows]
    for name in columns:
        if _is_mixed_number(row[name] for row in even):
            for row in even:
                row[name] = _as_float(row[name])
    return even


def _as_float(value: Json) -> float | None:
    return None if value is None else float(value)


def _is_mixed_number(values: Iterator[Json]) -> bool:
    """Ints and floats, nothing else: a table keeps such a column as floats."""
    return {type(value) for value in values} - {type(None)} == {int, float}


def card_files(folder: Path) -> Files | None:
    """Files by config and split as the folder's dataset card (README.md) names them; None if it names none.

    Raises: BadInput: the card cannot be understood, or points outside the folder.
    """
    card = folder / "README.md"
    configs = _header(card).get("configs") if card.is_file() else None
    if not isinstance(configs, list):
        return None
    found: dict[str, dict[str, list[Path]]] = {}
    for config in configs:
        if not isinstance(config, dict) or "data_files" not in config:
            return None  # a card with `data_dir` or nothing: load_dataset knows the conventions
        name = str(config.get("config_name", "default"))
        found[name] = dict(_splits(folder, config["data_files"]))
    return found


def _header(card: Path) -> dict[str, Any]:
    """The YAML between the first two lines of dashes."""
    import yaml

    text = card.read_text(encoding="utf-8")
    if not text.startswith("---"):
        return {}
    try:
        header = yaml.safe_load(text.split("---", 2)[1])
    except yaml.YAMLError as exc:
        raise BadInput(f"{card} has a broken YAML header; repair or download it again") from exc
    return header if isinstance(header, dict) else {}


def _splits(folder: Path, data_files: Json) -> Iterator[tuple[str, list[Path]]]:
    entries = data_files if isinstance(data_files, list) else [data_files]
    for entry in entries:
        split, patterns = (entry["split"], entry["path"]) if isinstance(entry, dict) else ("train", entry)
        names = patterns if isinstance(patterns, list) else [patterns]
        yield str(split), [path for name in names for path in _match(folder, str(name))]


def _match(folder: Path, pattern: str) -> list[Path]:
    """Files of the folder that a name or a glob of the card stands for."""
    parts = PurePosixPath(pattern)
    if parts.is_absolute() or ".." in parts.parts or "://" in pattern:
        raise BadInput(f"{folder}/README.md points to {pattern!r}, outside its folder; correct the card")
    if (folder / pattern).is_file():
        return [folder / pattern]
    matched = sorted(path for path in folder.glob(pattern) if path.is_file())
    return matched or [folder / pattern]  # reading it says that it is not there
