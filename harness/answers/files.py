"""Segments of the response cache: append-only files of checksummed lines, one per writing process.

    <crc32 of the rest, 8 hex digits> <key, 32 hex digits> <JSON>

The first line has the key 0 and says of which model and engine the answers are. A line that is torn or altered does
not match its checksum: it is counted, never used. Nothing is locked to read; a writer holds a lock on its own file, so
that pruning leaves it alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from harness.records import Json

SUFFIX = ".answers"
ABOUT = b"0" * 32
"""Key of the line that says what the segment is of."""
_KEY_AT = 9
_BODY_AT = 42
_SHORTEST = _BODY_AT + 3


class Place(NamedTuple):
    """A whole line of a segment."""

    key: bytes
    """32 hex digits."""
    offset: int
    length: int


class Scan(NamedTuple):
    """What a look at a segment found."""

    places: list[Place]
    damaged: int
    """Lines that do not match their checksum."""
    end: int
    """Where the last line that has an end ends."""
    torn: int
    """Bytes behind that: a writer is at work, was killed, or the file was cut."""


def seal(key: bytes, body: bytes) -> bytes:
    """One line with its checksum."""
    rest = key + b" " + body
    return b"%08x %s\n" % (zlib.crc32(rest), rest)


def is_whole(line: bytes) -> bool:
    """Whether a line, its end included, is what was written."""
    if len(line) < _SHORTEST or line[-1:] != b"\n" or line[8:9] != b" ":
        return False
    return line[:8] == b"%08x" % zlib.crc32(line[_KEY_AT:-1])


def body_of(line: bytes, key: bytes) -> Json:
    """What a line holds under a key; None where it is damaged or of another key."""
    if not is_whole(line) or line[_KEY_AT : _BODY_AT - 1] != key:
        return None
    with suppress(ValueError):
        return json.loads(line[_BODY_AT:])
    return None


def scan(path: Path, start: int = 0) -> Scan:
    """Check the lines of a segment from a byte on. Raises: OSError: it cannot be read."""
    places: list[Place] = []
    damaged, offset, torn = 0, start, 0
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if line[-1:] != b"\n":
                torn = len(line)
                break
            if is_whole(line):
                places.append(Place(line[_KEY_AT : _BODY_AT - 1], offset, len(line)))
            else:
                damaged += 1
            offset += len(line)
    return Scan(places, damaged, offset, torn)


def about(path: Path) -> Mapping[str, Json]:
    """What a segment says it is of; empty where that cannot be read."""
    try:
        with path.open("rb") as file:
            found = body_of(file.readline(), ABOUT)
    except OSError:
        return {}
    return found if isinstance(found, dict) else {}


def segments(folder: Path) -> list[Path]:
    """Segments of a folder, oldest first; none where it cannot be read."""
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    return []


def is_held(path: Path) -> bool:
    """Whether a living process writes to a segment. A file system without locks: no."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class Segment:
    """The file that this process appends to; it comes into being with its first line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None
        self._end = 0

    @property
    def is_new(self) -> bool:
        return self._fd is None

    @classmethod
    def new(cls, folder: Path) -> Segment:
        """A name that no other process takes, on this machine or another; names sort by time."""
        host = zlib.crc32(socket.gethostname().encode())
        return cls(folder / f"{time.time_ns():020d}-{host:08x}-{os.getpid()}{SUFFIX}")

    def append(self, data: bytes) -> int:
        """Append whole lines in one write; returns where they begin.

        Raises: OSError: they were not written, or not whole; what was written of them is cut off again.
        """
        if self._fd is None:
            self._fd = self._open()
        start, written = self._end, 0
        try:
            while written < len(data):  # a disk that runs full writes a part first, and then says so
                written += os.write(self._fd, data[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, start)
            raise
        self._end += written
        return start

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle

    def close(self) -> None:
        if self._fd is not None:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = None


def lines(path: Path) -> Iterator[bytes]:
    """Whole lines of a segment. Raises: OSError: it cannot be read."""
    with path.open("rb") as file:
        yield from (line for line in file if is_whole(line))
