"""The driver's end of a worker: start it, tell it what to do, read what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rows import KV_CACHE_GIB

HERE = Path(__file__).parent
CLOSE_S = 60


class Worker:
    """A side of a row in a process of its own. Raises RuntimeError with the log's last lines if it dies."""

    def __init__(self, job: dict[str, Any]) -> None:
        logs = Path(job["work"]) / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self.side = str(job["side"])
        self.log = logs / f"{self.side}-{time.time_ns()}.log"
        with tempfile.NamedTemporaryFile("w", suffix=".json", dir=logs, delete=False) as file:
            json.dump(job, file)
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), file.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w", encoding="utf-8"),
            text=True,
            env=environment(job),
        )
        try:
            self.loaded_s = self._read()["loaded_s"]
        except RuntimeError:
            self.close()
            raise

    def warm(self) -> None:
        self._ask("warm")

    def run(self) -> dict[str, Any]:
        return self._ask("run")

    def _ask(self, command: str) -> dict[str, Any]:
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            tail = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-6:]
            raise RuntimeError(f"{self.side} died (log: {self.log}): " + " / ".join(tail))
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        if self._process.poll() is None and self._process.stdin is not None:
            self._process.stdin.close()  # the worker's loop ends with its input
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def environment(job: dict[str, Any]) -> dict[str, str]:
    """Offline, and the same threads for every library of both sides."""
    base = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    threads = {"OMP_NUM_THREADS": str(job["threads"])} if job["threads"] else {}
    return {
        **base,
        **threads,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(Path(job["work"]) / "datasets"),
        "HARNESS_CACHE_DIR": str(Path(job["work"]) / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_GIB),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else vLLM takes all cores, whatever OMP_NUM_THREADS says
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
