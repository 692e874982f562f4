"""One run's folder: an append-only journal that survives a kill, and what it becomes when the run is whole.

samples.jsonl (journal; samples.parquet when finished), energy.jsonl, run.json (last). `.lock` is held while writing.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness.errors import NotWritable, StoreError
from harness.records import SCHEMA_VERSION, EnergyReading, Json, RunRecord, Sample, Score

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SAMPLES = "samples.jsonl"
TABLE = "samples.parquet"
ENERGY = "energy.jsonl"
RECORD = "run.json"
LOCK = ".lock"
FSYNC_EVERY_S = 1.0
"""A kill loses nothing that was journalled; a power cut at most this much."""

Key = tuple[str, str]
"""(task, sample_id)"""


@cache
def run_adapter() -> TypeAdapter[RunRecord]:
    from pydantic import TypeAdapter

    return TypeAdapter(RunRecord)


@cache
def reading_adapter() -> TypeAdapter[EnergyReading]:
    from pydantic import TypeAdapter

    return TypeAdapter(EnergyReading)


# Samples as JSON


def sample_to_json(sample: Sample) -> str:
    """One line without its end. Text is ASCII-escaped, so lone surrogates and line separators are safe."""
    return json.dumps(sample_to_dict(sample), separators=(",", ":"), default=str)


def sample_to_dict(sample: Sample) -> dict[str, Any]:
    """As dataclasses.asdict, without copying what is only written: that took longer than all the rest of a line."""
    return {**vars(sample), "scores": {name: vars(score) for name, score in sample.scores.items()}}


def sample_from_json(line: str | bytes) -> Sample:
    """Raises: ValueError, KeyError, TypeError: the line is no sample."""
    return sample_from_dict(json.loads(line))


def sample_from_dict(raw: dict[str, Any]) -> Sample:
    raw["scores"] = {name: Score(**score) for name, score in raw["scores"].items()}
    raw["outputs"] = tuple(raw["outputs"])
    raw["finish_reasons"] = tuple(raw["finish_reasons"])
    return Sample(**raw)


# Lines of a journal


def read_lines(path: Path) -> tuple[list[bytes], int]:
    """Whole lines of a journal, and where the last one ends: what follows was torn by a kill."""
    if not path.exists():
        return [], 0
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    return data[:end].splitlines(), end


def parse_lines(path: Path, parse: Callable[[bytes], Json]) -> tuple[list[Any], int]:
    """Parsed lines up to the first one that is not whole; a damaged line in the middle is an error.

    Raises: StoreError: something other than a kill changed the journal.
    """
    lines, end = read_lines(path)
    parsed: list[Any] = []
    offset = 0
    for number, line in enumerate(lines, 1):
        try:
            parsed.append(parse(line))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            if number == len(lines):
                return parsed, offset
            raise StoreError(
                f"{path}:{number} is damaged ({type(exc).__name__}); delete that line, its sample is computed again"
            ) from exc
        offset += len(line) + 1
    return parsed, end


def append_line(handle: IO[bytes], line: bytes) -> None:
    """Append in one write; a write cut short by a full disk is taken back."""
    start = handle.seek(0, os.SEEK_END)
    try:
        if os.write(handle.fileno(), line) != len(line):
            raise OSError(28, "No space left on device")
    except OSError as exc:
        with suppress(OSError):
            handle.truncate(start)
        raise NotWritable.of(handle.name, exc) from exc


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, flush to disk, rename: the file is whole or not there."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(path)
    except OSError as exc:
        part.unlink(missing_ok=True)
        raise NotWritable.of(path, exc) from exc


class Journal:
    """An open run folder, locked against other writers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples: dict[Key, Sample] = {}
        self.readings: list[EnergyReading] = []
        self.record: RunRecord | None = None
        self._lock = threading.Lock()
        self._synced_s = time.monotonic()
        self._recover()
        self._samples_file = (path / SAMPLES).open("ab", buffering=0) if self.record is None else None
        self._energy_file = (path / ENERGY).open("ab", buffering=0)

    def _recover(self) -> None:
        """Read back what is there; cut torn last lines off."""
        record = self.path / RECORD
        if record.exists():
            self.record = read_record(self.path)
            (self.path / SAMPLES).unlink(missing_ok=True)  # a kill between the manifest and the clean-up
        for name, parse, keep in (
            (SAMPLES, sample_from_json, self._keep_sample),
            (ENERGY, reading_adapter().validate_json, self.readings.append),
        ):
            path = self.path / name
            items, end = parse_lines(path, parse)
            if path.exists() and path.stat().st_size > end:
                os.truncate(path, end)
            for item in items:
                keep(item)
        if self.record is not None:
            for sample in read_table(self.path / TABLE):
                self._keep_sample(sample)

    def _keep_sample(self, sample: Sample) -> None:
        self.samples[sample.task, sample.sample_id] = sample

    def append(self, sample: Sample) -> None:
        """Journal one sample; a later line of the same sample replaces the earlier one. Thread-safe."""
        line = sample_to_json(sample).encode() + b"\n"
        with self._lock:
            if self._samples_file is None:
                raise StoreError(f"{self.path} is finished; reopen() it first")
            append_line(self._samples_file, line)
            self._keep_sample(sample)
            if time.monotonic() - self._synced_s > FSYNC_EVERY_S:
                os.fsync(self._samples_file.fileno())
                self._synced_s = time.monotonic()

    def append_reading(self, reading: EnergyReading) -> None:
        """Journal a line of energy.jsonl. Thread-safe."""
        line = reading_adapter().dump_json(reading) + b"\n"
        with self._lock:
            append_line(self._energy_file, line)
            self.readings.append(reading)

    def reopen(self) -> None:
        """Turn a finished run back into a journal, so that its failed samples can be tried again."""
        lines = b"".join(sample_to_json(sample).encode() + b"\n" for sample in self.samples.values())
        write_atomically(self.path / SAMPLES, lines)
        (self.path / RECORD).unlink(missing_ok=True)
        (self.path / TABLE).unlink(missing_ok=True)
        self.record = None
        self._samples_file = (self.path / SAMPLES).open("ab", buffering=0)

    def finish(self, record: RunRecord, order: Sequence[Key]) -> RunRecord:
        """Turn the journal into a table and write run.json, last."""
        write_table(self.path / TABLE, [self.samples[key] for key in order])
        self.amend(record)
        (self.path / SAMPLES).unlink(missing_ok=True)
        return replace(record, path=self.path)

    def amend(self, record: RunRecord) -> RunRecord:
        """Write run.json anew, in one step."""
        written = replace(record, path=None)
        write_atomically(self.path / RECORD, run_adapter().dump_json(written, indent=1) + b"\n")
        self.record = replace(record, path=self.path)
        return self.record

    def close(self) -> None:
        for handle in (self._samples_file, self._energy_file):
            if handle is not None:
                with suppress(OSError):
                    os.fsync(handle.fileno())
                handle.close()


@contextmanager
def open_journal(path: Path, waiting: Callable[[str], None]) -> Iterator[Journal]:
    """Open a run folder for writing; waits while another process holds it.

    Raises: NotWritable: the folder cannot be made or written. StoreError: what is in it is damaged.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK).open("ab")
    except OSError as exc:
        raise NotWritable.of(path, exc) from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(f"another process is scoring {path.name}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            journal = Journal(path)
        except PermissionError as exc:
            raise NotWritable.of(path, exc) from exc
        try:
            yield journal
        finally:
            journal.close()


# Reading finished runs


def read_record(path: Path) -> RunRecord:
    """Raises: StoreError: no run.json, or one that cannot be read."""
    file = path / RECORD
    try:
        raw = json.loads(file.read_bytes())
        version = raw.get("schema_version") if isinstance(raw, Mapping) else None
        if version != SCHEMA_VERSION:
            raise StoreError(f"{file} has schema version {version!r}; this version reads {SCHEMA_VERSION}")
        return replace(run_adapter().validate_python(raw), path=path)
    except FileNotFoundError as exc:
        raise StoreError(f"{path} is not a finished run: it has no {RECORD}") from exc
    except (OSError, ValueError) as exc:
        raise StoreError(f"{file} cannot be read: {str(exc).splitlines()[0]}") from exc


JSON_COLUMNS = ("scores", "metadata")
LIST_COLUMNS = ("outputs", "finish_reasons")


def _valid_text(value: Json) -> Json:
    """Text that UTF-8 can hold: lone surrogates of broken data become replacement characters."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if not value.isascii() else value
    if isinstance(value, (list, tuple)):
        return [_valid_text(item) for item in value]
    return value


def write_table(path: Path, samples: Iterable[Sample]) -> None:
    """Samples as parquet, one row each; scores and metadata are JSON text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for sample in samples:
        row = sample_to_dict(sample)
        for name in JSON_COLUMNS:
            row[name] = json.dumps(row[name], default=str)
        rows.append({name: _valid_text(value) for name, value in row.items()})
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema=_schema()), part, compression="zstd")
        part.replace(path)
    except OSError as exc:
        part.unlink(missing_ok=True)
        raise NotWritable.of(path, exc) from exc


def _schema() -> Any:
    import pyarrow as pa

    kinds = {"int": pa.int64(), "float | None": pa.float64(), "bool": pa.bool_()}
    fields = []
    for name, spec in Sample.__dataclass_fields__.items():
        kind = pa.list_(pa.string()) if name in LIST_COLUMNS else kinds.get(str(spec.type), pa.string())
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


def read_table(path: Path) -> Iterator[Sample]:
    """Samples of a finished run, in the order of its tasks. Raises: StoreError: damaged or missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    for name in JSON_COLUMNS:
                        row[name] = json.loads(row[name])
                    yield sample_from_dict(row)
    except (OSError, ValueError, pa.ArrowInvalid) as exc:
        raise StoreError(f"{path} cannot be read: {str(exc).splitlines()[0]}") from exc
