"""A meter that reads energy instead of weighing it: for tests, and to re-weigh with somebody else's figures."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from harness.errors import BadInput, MeterError
from harness.plan import EnergySpec
from harness.protocols import Window
from harness.records import EnergyReading, Json, Phase


class ReplayMeter:
    """Gives out the recorded windows of a phase in order, and starts over when they are used up."""

    name = "replay"

    def __init__(self, spec: EnergySpec) -> None:
        """Raises: BadInput: no file given, or a line of it is no EnergyReading."""
        if spec.replay is None:
            raise BadInput("the replay meter needs a file of readings; set energy.replay to a JSONL file")
        self._path = spec.replay
        windows = _windows(_read(spec.replay))
        self._windows = {
            phase: itertools.cycle([w for w in windows if w[0].phase == phase])
            for phase in {w[0].phase for w in windows}
        }

    def window(
        self, phase: Phase, label: str, write: Callable[[EnergyReading], None]
    ) -> AbstractContextManager[Window]:
        """Raises: MeterError: nothing was recorded of this phase."""
        return self._window(phase, label, write)

    @contextmanager
    def _window(self, phase: Phase, label: str, write: Callable[[EnergyReading], None]) -> Iterator[Window]:
        if phase not in self._windows:
            raise MeterError(f"{self._path} holds no {phase} window to replay for {label!r}")
        readings = next(self._windows[phase])
        counted = _Count(readings)
        write(replace(readings[0], duration_s=0.0, components=(), queries=0, output_tokens=0, closed=False))
        try:
            yield counted
        finally:
            for reading in _with_counts(readings, counted):
                write(reading)

    def describe(self) -> Mapping[str, Json]:
        return {"meter": self.name, "file": str(self._path), "provenance": "as recorded"}

    def close(self) -> None: ...


class _Count:
    def __init__(self, readings: Sequence[EnergyReading]) -> None:
        self._readings = readings
        self._lock = threading.Lock()
        self.queries = 0
        self.output_tokens = 0

    def count(self, queries: int, output_tokens: int) -> None:
        with self._lock:
            self.queries += queries
            self.output_tokens += output_tokens

    @contextmanager
    def stretch(self, part: str) -> Iterator[list[EnergyReading]]:
        """What was recorded of this part of the work; nothing where the recording was not parted."""
        yield [reading for reading in self._readings if reading.part == part]


def _with_counts(readings: Sequence[EnergyReading], counted: _Count) -> list[EnergyReading]:
    """Recorded counts stand; where none were recorded, the real ones are spread evenly over the segments."""
    if any(r.queries or r.output_tokens for r in readings):
        return list(readings)
    n = len(readings)
    return [
        replace(
            r,
            queries=counted.queries * (k + 1) // n - counted.queries * k // n,
            output_tokens=counted.output_tokens * (k + 1) // n - counted.output_tokens * k // n,
        )
        for k, r in enumerate(readings)
    ]


def _read(path: Path) -> list[EnergyReading]:
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(EnergyReading)
    readings = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise BadInput(f"cannot read {path}: {exc.strerror}; energy.replay must name a JSONL file") from exc
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            readings.append(adapter.validate_python(json.loads(line), strict=False))
        except (json.JSONDecodeError, ValidationError) as exc:
            raise BadInput(
                f"{path}:{number}: not an energy reading ({str(exc).splitlines()[0]}); "
                "each line is one EnergyReading, as in a run's energy.jsonl"
            ) from exc
    return readings


def _windows(readings: Sequence[EnergyReading]) -> list[list[EnergyReading]]:
    """Closed segments grouped by window, in order of appearance; nameless lines are windows of their own."""
    windows: dict[tuple[str, str, int], list[EnergyReading]] = {}
    for number, reading in enumerate(readings):
        if reading.closed:
            key = (reading.phase, reading.window, 0 if reading.window else number + 1)
            windows.setdefault(key, []).append(reading)
    return list(windows.values())
