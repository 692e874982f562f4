"""What vLLM and its processes print goes to a file, whose end explains a failure; the environment is put back."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

DEAD = "EngineDeadError"
"""What vLLM raises here when its process has died: it says nothing of why."""


class Log:
    """The file, and the logging config that vLLM's processes read."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="harness-vllm-")  # removed when Python ends
        self.path = Path(self._folder.name) / "vllm.log"
        self.config = Path(self._folder.name) / "logging.json"
        handler = {"class": "logging.FileHandler", "filename": str(self.path), "formatter": "plain"}
        config = {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"plain": {"format": "%(levelname)s %(message)s"}},
            "handlers": {"file": handler},
            "loggers": {"vllm": {"handlers": ["file"], "level": "WARNING", "propagate": False}},
        }
        self.config.write_text(json.dumps(config), encoding="utf-8")
        self.path.touch()
        # vLLM warns while it is imported, before it reads that config
        logging.getLogger("vllm").addHandler(logging.FileHandler(self.path))
        logging.getLogger("vllm").propagate = False

    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def last_words(self, since: int = 0) -> str:
        """The last line behind that many bytes that names an error."""
        if not self.path.is_file():
            return ""
        text = self.path.read_bytes()[since:].decode("utf-8", errors="replace")
        named = [words for line in text.splitlines() if (words := _error_in(line)) and DEAD not in words]
        return named[-1] if named else ""


@cache
def log() -> Log:
    return Log()


def _error_in(line: str) -> str:
    """'(EngineCore pid=7) ERROR ... pkg.SomeError: what' -> 'SomeError: what'; else empty."""
    head, _, what = line.partition("Error: ")
    name = head.split()[-1].rpartition(".")[2] if head.split() else ""
    return f"{name}Error: {what.strip()}" if what and name.isidentifier() else ""


@contextlib.contextmanager
def quiet(**variables: str) -> Iterator[None]:
    """Set variables for vLLM and send its processes' output to the log; then put everything back.

    vLLM leaves LD_PRELOAD and more in the environment, which no later child of the harness should find.
    """
    before = dict(os.environ)
    silence = {
        "VLLM_LOGGING_CONFIG_PATH": str(log().config),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # there are threads here, which a fork would not survive
        "PYTHONWARNINGS": "ignore",
    }
    os.environ.update({**silence, **variables})
    spawned: Any = SpawnProcess
    original = spawned._Popen

    def popen(process: Any) -> Any:
        with _streams_to(log().path):
            return original(process)

    spawned._Popen = staticmethod(popen)
    try:
        yield
    finally:
        spawned._Popen = staticmethod(original)
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _streams_to(path: Path) -> Iterator[None]:
    """Let a child inherit a file as its output: for the moment in which it is started."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    target = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        for number, _ in kept:
            os.dup2(target, number)
        yield
    finally:
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)
        os.close(target)
