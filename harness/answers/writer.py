"""The thread that writes answers: the engine hands them over and goes on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from harness.answers.files import ABOUT, Segment, seal
from harness.answers.index import MOST_BYTES, Index
from harness.records import Json

FLUSH_S = 0.25
"""Answers wait this long to be written together; a kill loses them, and they are computed again."""
CLOSE_S = 60.0

Entries = Mapping[bytes, Mapping[str, Json]]
"""Key -> what is kept under it."""


class Work(NamedTuple):
    """Something to write; made into entries in the writer's thread."""

    entries: Callable[[], Entries]


class Writer:
    """Appends answers to a segment of this process. The first failure ends the writing, never the run.

    Args:
        folder: where the segment goes.
        about: what its first line says; asked when that line is written.
        index: answers that it holds already are not written again; what is written is added to it.
    """

    def __init__(self, folder: Path, about: Callable[[], Mapping[str, Json]], index: Index) -> None:
        self.problem: Exception | None = None
        self._about = about
        self._index = index
        self._segment = Segment.new(folder)
        self._queue: SimpleQueue[Work | threading.Event | None] = SimpleQueue()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def put(self, entries: Callable[[], Entries]) -> None:
        """Hand over; thread-safe and quick. entries() is called in the writer's thread."""
        if self.problem is not None:
            return
        self._queue.put(Work(entries))
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="answers", daemon=True)
                thread.start()
                self._thread = thread

    def flush(self) -> None:
        """Wait until everything handed over is on its way to the disk."""
        if self._thread is not None:
            done = threading.Event()
            self._queue.put(done)
            self._wake.set()
            done.wait(CLOSE_S)

    def close(self) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._wake.set()
            self._thread.join(CLOSE_S)
            self._thread = None
        self._segment.close()

    def _work(self) -> None:
        self._index.refresh()
        taken: list[Work | threading.Event | None] = []
        while None not in taken:
            taken = [self._queue.get()]
            self._wake.wait(FLUSH_S)
            self._wake.clear()
            while True:
                try:
                    taken.append(self._queue.get_nowait())
                except Empty:
                    break
            try:
                self._write([item for item in taken if isinstance(item, Work)])
            except Exception as exc:  # noqa: BLE001  a cache that breaks must not take the run with it
                self.problem = exc
            for item in taken:
                if isinstance(item, threading.Event):
                    item.set()

    def _write(self, work: Sequence[Work]) -> None:
        if self.problem is not None or not work:
            return
        kept: dict[bytes, bytes] = {}
        for item in work:
            for key, entry in item.entries().items():
                if key not in self._index and key not in kept:
                    line = seal(key, json.dumps(entry, separators=(",", ":")).encode())
                    if len(line) <= MOST_BYTES:
                        kept[key] = line
        if not kept:
            return
        if self._segment.is_new:
            head = seal(ABOUT, json.dumps(self._about(), separators=(",", ":"), default=str).encode())
            kept = {ABOUT: head, **kept}
        start = self._segment.append(b"".join(kept.values()))
        self._index.add(self._segment.path, list(kept), list(kept.values()), start)
