"""The response caches under a runs folder: what is there, what may go, whether it is whole."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from harness.answers import files
from harness.answers.cache import FOLDER
from harness.answers.files import ABOUT
from harness.errors import BadInput, NotWritable
from harness.records import Json


class Stored(NamedTuple):
    """One segment on disk."""

    path: Path
    size_bytes: int
    used_at: float
    """Seconds since the epoch: when it was last written to, or answered something."""


class Kept(NamedTuple):
    """The answers of one model on one engine."""

    name: str
    """Name of the folder."""
    about: Mapping[str, Json]
    """First line of the first segment that can be read."""
    segments: list[Stored]

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self.segments)

    @property
    def used_at(self) -> float:
        return max(segment.used_at for segment in self.segments)


class Checked(NamedTuple):
    """What the checksums of one segment say."""

    path: Path
    answers: int
    damaged: int
    """Lines that do not match their checksum, and an end that was cut off."""
    problem: str = ""
    """Why it could not be read."""


@dataclass(frozen=True)
class Wanted:
    """What is to go. Everything that matches all that is given; max_bytes then takes the longest unused."""

    older_than_s: float | None = None
    max_bytes: int | None = None
    model: str | None = None
    """Start of a folder's name, or the model's name."""
    damaged: bool = False
    """Those with a line that does not match its checksum."""


class Pruning(NamedTuple):
    """What a prune takes, and what it must leave."""

    segments: list[Stored]
    held: list[Stored]
    """Wanted too, but a process is writing to them."""

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self.segments)


def find(runs: Path) -> list[Kept]:
    """Caches under a runs folder, by name. Raises: BadInput: there is no such folder."""
    if not runs.is_dir():
        raise BadInput(f"no runs folder {str(runs)!r}; name it with --runs")
    found = []
    for folder in sorted(path for path in _entries(runs / FOLDER) if path.is_dir()):
        segments = [stored for path in files.segments(folder) if (stored := _stored(path)) is not None]
        if segments:
            about = next((text for s in segments if (text := files.about(s.path))), {})
            found.append(Kept(folder.name, about, segments))
    return found


def _entries(folder: Path) -> list[Path]:
    with suppress(OSError):
        return list(folder.iterdir())
    return []


def _stored(path: Path) -> Stored | None:
    with suppress(OSError):  # pruned meanwhile
        stat = path.stat()
        return Stored(path, stat.st_size, stat.st_mtime)
    return None


def check(path: Path) -> Checked:
    """Hold every line of a segment against its checksum."""
    try:
        found = files.scan(path)
    except OSError as exc:
        return Checked(path, 0, 0, exc.strerror or str(exc))
    answers = sum(place.key != ABOUT for place in found.places)
    torn = bool(found.torn) and not files.is_held(path)
    return Checked(path, answers, found.damaged + torn)


def plan_pruning(kept: Sequence[Kept], wanted: Wanted) -> Pruning:
    """Which segments go. Nothing is removed."""
    chosen = [s for cache in kept if _is_of(cache, wanted.model) for s in cache.segments if _goes(s, wanted)]
    if wanted.max_bytes is not None:
        chosen = _beyond(chosen, wanted.max_bytes)
    held = [segment for segment in chosen if files.is_held(segment.path)]
    return Pruning([segment for segment in chosen if segment not in held], held)


def _is_of(cache: Kept, model: str | None) -> bool:
    return model is None or cache.name.startswith(model) or cache.about.get("model") == model


def _goes(segment: Stored, wanted: Wanted) -> bool:
    tests: list[Callable[[], bool]] = []
    if wanted.older_than_s is not None:
        age_s = time.time() - segment.used_at
        tests.append(lambda: age_s > (wanted.older_than_s or 0.0))
    if wanted.damaged:
        tests.append(lambda: check(segment.path).damaged > 0)
    return all(test() for test in tests)


def _beyond(segments: Sequence[Stored], max_bytes: int) -> list[Stored]:
    """Those that do not fit once the ones used last have taken their place."""
    left, gone = max_bytes, []
    for segment in sorted(segments, key=lambda one: -one.used_at):
        left -= segment.size_bytes
        if left < 0:
            gone.append(segment)
    return gone


def prune(pruning: Pruning, *, repair: bool) -> None:
    """Remove segments, and folders that are empty then.

    Args: repair: write what is whole in them anew, and remove the rest alone.
    Raises: NotWritable: a file cannot be removed or written.
    """
    for segment in pruning.segments:
        try:
            if repair:
                _repair(segment.path)
            else:
                segment.path.unlink(missing_ok=True)
        except OSError as exc:
            raise NotWritable.of(segment.path, exc) from exc
        for folder in (segment.path.parent, segment.path.parent.parent):
            with suppress(OSError):  # something is left in it
                folder.rmdir()


def _repair(path: Path) -> None:
    """Replace a segment by its whole lines, in one step; its time of use stays. One without an answer goes."""
    if check(path).answers == 0:
        path.unlink(missing_ok=True)
        return
    stat = path.stat()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.writelines(files.lines(path))
        os.utime(part, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
