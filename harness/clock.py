"""Wall seconds of a run, by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness.engines.lazy import LazyEngine


@dataclass
class Clock:
    """Wall seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@contextmanager
def timed_without_load(clock: Clock, phase: str, engine: LazyEngine) -> Iterator[None]:
    """Time a phase; loading the model is a phase of its own, wherever it happens."""
    loaded_s = engine.load_s
    with clock.phase(phase):
        yield
    clock.seconds[phase] -= engine.load_s - loaded_s
