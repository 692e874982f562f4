"""Where each answer lies: one number per answer in memory, the answers themselves on disk."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from harness.answers import files
from harness.answers.files import ABOUT, Scan
from harness.records import Json

_LENGTH_BITS = 24
_OFFSET_BITS = 40
MOST_BYTES = (1 << _LENGTH_BITS) - 1
"""A longer line is not kept."""
OPEN_FILES = 32


class Index:
    """Key -> place, over all segments of some folders. Thread-safe.

    A key's first 64 bits name it here; the whole key stands in the line that is read.
    """

    def __init__(self, folders: Callable[[], Sequence[Path]]) -> None:
        self.damaged = 0
        """Lines that did not match their checksum, and torn ends that no living writer accounts for."""
        self.unreadable: str | None = None
        """The first segment that could not be read, and why."""
        self.abouts: list[Mapping[str, Json]] = []
        """What the segments say they are of."""
        self._folders = folders
        self._places: dict[int, int] = {}
        self._paths: list[Path] = []
        self._numbers: dict[Path, int] = {}
        self._ends: dict[Path, int] = {}
        self._torn: dict[Path, int] = {}
        self._open: OrderedDict[int, int] = OrderedDict()
        self._used: set[int] = set()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return _short(key) in self._places

    def refresh(self) -> None:
        """Take in what has been written since the last look, by this process or others."""
        with self._lock:
            for path in (path for folder in self._folders() for path in files.segments(folder)):
                try:
                    self._read(path)
                except OSError as exc:
                    self.unreadable = self.unreadable or f"{path}: {exc.strerror or exc}"

    def _read(self, path: Path) -> None:
        start = self._ends.get(path, 0)
        if path.stat().st_size in (start, start + self._torn.get(path, 0)):
            return
        found = files.scan(path, start)
        number = self._number(path)
        for place in found.places:
            if place.key == ABOUT:
                self.abouts.append(files.about(path))
            else:
                self._places.setdefault(
                    _short(place.key), _pack(number, start=place.offset, length=place.length)
                )
        self._ends[path] = found.end
        self._count_damage(path, found)

    def _count_damage(self, path: Path, found: Scan) -> None:
        self.damaged += found.damaged
        if found.torn and not files.is_held(path):
            self.damaged += path not in self._torn
            self._torn[path] = found.torn

    def _number(self, path: Path) -> int:
        if path not in self._numbers:
            self._numbers[path] = len(self._paths)
            self._paths.append(path)
        return self._numbers[path]

    def add(self, path: Path, keys: Sequence[bytes], lines: Sequence[bytes], start: int) -> None:
        """Take in lines that this process has just written one after another."""
        with self._lock:
            number = self._number(path)
            for key, line in zip(keys, lines, strict=True):
                if key != ABOUT:
                    self._places.setdefault(_short(key), _pack(number, start=start, length=len(line)))
                start += len(line)
            self._ends[path] = start

    def find(self, key: bytes) -> Json:
        """What is kept under a key; None where there is nothing, or nothing whole."""
        packed = self._places.get(_short(key))
        if packed is None:
            return None
        number, offset, length = _unpack(packed)
        with self._lock:
            try:
                line = os.pread(self._descriptor(number), length, offset)
            except OSError:  # pruned meanwhile
                line = b""
            found = files.body_of(line, key)
            if found is not None:
                self._used.add(number)
            elif not files.is_whole(line):
                self.damaged += bool(line)
                self._places.pop(_short(key), None)
        return found

    def _descriptor(self, number: int) -> int:
        """A few segments are held open, the ones read last."""
        if number not in self._open:
            self._open[number] = os.open(self._paths[number], os.O_RDONLY)
            if len(self._open) > OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(number)
        return self._open[number]

    def close(self) -> None:
        """Leave on the segments that were of use the time of it: `harness cache prune` goes by age."""
        with self._lock:
            for number in self._used:
                with suppress(OSError):
                    os.utime(self._paths[number])
            self._used.clear()
            while self._open:
                os.close(self._open.popitem()[1])


def _short(key: bytes) -> int:
    return int(key[:16], 16)


def _pack(number: int, *, start: int, length: int) -> int:
    return (number << _OFFSET_BITS | start) << _LENGTH_BITS | length


def _unpack(packed: int) -> tuple[int, int, int]:
    place, length = packed >> _LENGTH_BITS, packed & MOST_BYTES
    return place >> _OFFSET_BITS, place & ((1 << _OFFSET_BITS) - 1), length
