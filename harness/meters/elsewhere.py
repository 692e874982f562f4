"""A window for work whose energy is spent on another machine: it counts and weighs nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from harness.protocols import Window
from harness.records import ComponentEnergy, EnergyReading, Phase

PROVENANCE = "absent:elsewhere"
"""The server computes: this machine's joules are not the model's."""


class Counter:
    """Counts what was answered; thread-safe."""

    def __init__(self) -> None:
        self.queries = self.output_tokens = 0
        self._lock = threading.Lock()

    def count(self, queries: int, output_tokens: int) -> None:
        with self._lock:
            self.queries += queries
            self.output_tokens += output_tokens


@contextmanager
def unweighed(phase: Phase, label: str, write: Callable[[EnergyReading], None]) -> Iterator[Window]:
    """Like a meter's window, with one component that says that nothing was weighed, and why."""
    name = f"{label}-{uuid4().hex[:8]}"
    write(EnergyReading(phase, 0.0, (), name, closed=False))
    counter, start_s = Counter(), time.perf_counter()
    try:
        yield counter
    finally:
        nothing = (ComponentEnergy("cpu", PROVENANCE, None),)
        seconds = time.perf_counter() - start_s
        write(EnergyReading(phase, seconds, nothing, name, counter.queries, counter.output_tokens))
