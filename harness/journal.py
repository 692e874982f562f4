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
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from harness.errors import NotWritable, StoreError
from harness.kept import (
    KeptSamples,
    Key,
    Place,
    SamplesOf,
    sample_from_dict,
    sample_from_json,
    sample_to_dict,
    sample_to_json,
    spooled,
)
from harness.records import SCHEMA_VERSION, EnergyReading, Json, RunRecord, Sample

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = [
    "ENERGY", "LOCK", "RECORD", "SAMPLES", "TABLE", "Journal", "Key", "append_line", "open_journal", "read_record",
    "read_table", "reading_adapter", "run_adapter", "sample_from_json", "sample_to_json", "whole_lines",
    "write_atomically", "write_table",
]  # fmt: skip

SAMPLES = "samples.jsonl"
TABLE = "samples.parquet"
ENERGY = "energy.jsonl"
RECORD = "run.json"
LOCK = ".lock"
FSYNC_EVERY_S = 1.0
"""A kill loses nothing that was journalled; a power cut at most this much."""


@cache
def run_adapter() -> TypeAdapter[RunRecord]:
    from pydantic import TypeAdapter

    return TypeAdapter(RunRecord)


@cache
def reading_adapter() -> TypeAdapter[EnergyReading]:
    from pydantic import TypeAdapter

    return TypeAdapter(EnergyReading)


# Lines of a journal


class Line(NamedTuple):
    """A line that was read, and where it lies."""

    value: Any
    place: Place


def whole_lines(path: Path, parse: Callable[[bytes], Json]) -> Iterator[Line]:
    """Parsed lines, one after another, up to the first that is not whole; a damaged one in the middle is an error.

    Raises: StoreError: something other than a kill changed the journal.
    """
    if not path.exists():
        return
    start, number, damage = 0, 0, None
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return  # torn by a kill
            if damage is not None:
                raise damage
            number += 1
            try:
                value = parse(line)
            except (ValueError, KeyError, TypeError, AttributeError) as exc:
                what = f"{path}:{number} is damaged ({type(exc).__name__}); delete that line"
                damage = StoreError(f"{what}, its sample is computed again")
                continue  # of a last line, it is what a kill leaves
            yield Line(value, Place(start, len(line)))
            start += len(line)


def append_line(handle: IO[bytes], line: bytes) -> Place:
    """Append in one write; a write cut short by a full disk is taken back."""
    start = handle.seek(0, os.SEEK_END)
    try:
        if os.write(handle.fileno(), line) != len(line):
            raise OSError(28, "No space left on device")
    except OSError as exc:
        with suppress(OSError):
            handle.truncate(start)
        raise NotWritable.of(handle.name, exc) from exc
    return Place(start, len(line))


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write beside, flush to disk, rename: the file is whole or not there."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as handle:
            handle.writelines([data] if isinstance(data, bytes) else data)
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
        self.readings: list[EnergyReading] = []
        self.record = read_record(path) if (path / RECORD).exists() else None
        self._lock = threading.Lock()
        self._synced_s = time.monotonic()
        self._samples: KeptSamples | None = None
        self._samples_file: IO[bytes] | None = None
        if self.record is None:
            self._open_samples()
        else:
            (path / SAMPLES).unlink(missing_ok=True)  # a kill between the manifest and the clean-up
        self._recover_readings()
        self._energy_file = (path / ENERGY).open("ab", buffering=0)

    @property
    def samples(self) -> KeptSamples:
        """What is journalled; of a finished run, read when it is first asked for."""
        if self._samples is None:
            self._samples = spooled(read_table(self.path / TABLE))
        return self._samples

    def _open_samples(self) -> None:
        """Open the journal of samples and read back what is there; a torn last line is cut off."""
        path, end = self.path / SAMPLES, 0
        self._samples_file = path.open("ab", buffering=0)
        self._samples = KeptSamples(path.open("rb"))
        for sample, place in whole_lines(path, sample_from_json):
            self._samples.add(sample, place)
            end = place.start + place.length
        if path.stat().st_size > end:
            os.truncate(path, end)

    def _recover_readings(self) -> None:
        path, end = self.path / ENERGY, 0
        for reading, place in whole_lines(path, reading_adapter().validate_json):
            self.readings.append(reading)
            end = place.start + place.length
        if path.exists() and path.stat().st_size > end:
            os.truncate(path, end)

    def append(self, sample: Sample) -> None:
        """Journal one sample; a later line of the same sample replaces the earlier one. Thread-safe."""
        line = sample_to_json(sample).encode() + b"\n"
        with self._lock:
            if self._samples_file is None:
                raise StoreError(f"{self.path} is finished; reopen() it first")
            self.samples.add(sample, append_line(self._samples_file, line))
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
        finished = self.samples
        lines = (sample_to_json(sample).encode() + b"\n" for sample in finished.values())
        write_atomically(self.path / SAMPLES, lines)
        (self.path / RECORD).unlink(missing_ok=True)
        (self.path / TABLE).unlink(missing_ok=True)
        self.record = None
        finished.close()
        self._open_samples()

    def finish(self, record: RunRecord, order: Sequence[Key]) -> RunRecord:
        """Turn the journal into a table and write run.json, last."""
        write_table(self.path / TABLE, SamplesOf(self.samples, order))
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
        if self._samples is not None:
            self._samples.close()


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
TABLE_ROWS = 4096
"""Rows that are turned into columns at once."""


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

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    rows = iter(samples)
    try:
        with pq.ParquetWriter(part, _schema(), compression="zstd") as writer:
            while batch := [_row(sample) for sample in islice(rows, TABLE_ROWS)]:
                writer.write_table(pa.Table.from_pylist(batch, schema=_schema()))
        part.replace(path)
    except OSError as exc:
        part.unlink(missing_ok=True)
        raise NotWritable.of(path, exc) from exc


def _row(sample: Sample) -> dict[str, Json]:
    row = sample_to_dict(sample)
    for name in JSON_COLUMNS:
        row[name] = json.dumps(row[name], default=str)
    return {name: _valid_text(value) for name, value in row.items()}


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
