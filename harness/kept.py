"""Samples of a run within a fixed amount of memory: the first ones as they are, the others by their place on disk."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, NamedTuple, overload

from harness.records import Sample, Score

Key = tuple[str, str]
"""(task, sample_id)"""
HELD_BYTES = 32_000_000
"""Lines up to this many bytes are held as samples, which take about four times as much; what comes after is read
again when it is wanted."""


class Place(NamedTuple):
    """Where a line lies."""

    start: int
    length: int


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


class KeptSamples(Mapping[Key, Sample]):
    """Samples by key, in the order of their first coming. Reading is thread-safe; adding is for one thread at a time.

    Args: file: the journal that holds the lines; read by place, never moved.
    """

    def __init__(self, file: IO[bytes], held_bytes: int = HELD_BYTES) -> None:
        self._file = file
        self._room = held_bytes
        self._kept: dict[Key, Sample | Place] = {}

    def add(self, sample: Sample, place: Place) -> None:
        """Keep a sample whose line lies in the file; a later one of its key takes its place."""
        key = (sample.task, sample.sample_id)
        if self._room >= place.length:
            self._room -= place.length
            self._kept[key] = sample
        else:
            self._kept[key] = place

    def __getitem__(self, key: Key) -> Sample:
        kept = self._kept[key]
        if isinstance(kept, Sample):
            return kept
        return sample_from_json(os.pread(self._file.fileno(), kept.length, kept.start))

    def __contains__(self, key: object) -> bool:
        return key in self._kept

    def __iter__(self) -> Iterator[Key]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


def spooled(samples: Iterable[Sample], held_bytes: int = HELD_BYTES) -> KeptSamples:
    """Samples that lie in no journal, kept the same way in a file without a name."""
    file = tempfile.TemporaryFile(prefix="harness-")  # noqa: SIM115  open as long as the samples are wanted
    kept = KeptSamples(file, held_bytes)
    start = 0
    for sample in samples:
        line = sample_to_json(sample).encode() + b"\n"
        file.write(line)
        kept.add(sample, Place(start, len(line)))
        start += len(line)
    file.flush()
    return kept


class SamplesOf(Sequence[Sample]):
    """Some of the samples as a sequence: each is read when it is asked for, and let go."""

    def __init__(self, samples: Mapping[Key, Sample], keys: Sequence[Key]) -> None:
        self._samples = samples
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> SamplesOf: ...

    def __getitem__(self, index: int | slice) -> Sample | SamplesOf:
        if isinstance(index, slice):
            return SamplesOf(self._samples, self._keys[index])
        return self._samples[self._keys[index]]

    def __iter__(self) -> Iterator[Sample]:
        return (self._samples[key] for key in self._keys)
