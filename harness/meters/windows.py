"""Energy windows cut into segments, over any source that can weigh one stretch of time after another."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import ClassVar, Protocol
from uuid import uuid4

from harness.errors import MeterError
from harness.meters.neighbours import Neighbours
from harness.plan import EnergySpec
from harness.protocols import Window
from harness.records import ComponentEnergy, EnergyReading, Json, Phase

Write = Callable[[EnergyReading], None]
_RANK_VARIABLES = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK")


class Source(Protocol):
    """Weighs one stretch at a time; begin() and end() alternate.

    Optional attribute: `least_s` (a shorter stretch cannot be weighed).
    """

    def begin(self) -> None: ...

    def end(self) -> Sequence[ComponentEnergy]:
        """Components since begin(), gross only; None where the method cannot tell. Raises: MeterError."""
        ...

    def describe(self) -> Mapping[str, Json]: ...


def is_weighing_rank() -> bool:
    """One meter per node: machine mode on every rank would multiply the node's energy."""
    return all(os.environ.get(name, "0") in ("", "0") for name in _RANK_VARIABLES)


class UnweighedWindow:
    """Stands in on the ranks that do not weigh."""

    def count(self, queries: int, output_tokens: int) -> None: ...


class SegmentedWindow:
    """An open window. A timer thread closes a segment every segment_s, so that a kill loses at most one."""

    def __init__(
        self, source: Source, segment_s: float, closed: Callable[[EnergyReading], EnergyReading]
    ) -> None:
        """Args: closed: writes a reading, and returns it as it was written."""
        self._source = source
        self._segment_s = segment_s
        self._closed = closed
        self._part = ""
        self._of_part: list[EnergyReading] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._timer: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._queries = 0
        self._output_tokens = 0
        self._since_s = self._begun_s = 0.0

    def count(self, queries: int, output_tokens: int) -> None:
        with self._lock:
            self._queries += queries
            self._output_tokens += output_tokens

    @contextmanager
    def stretch(self, part: str) -> Iterator[list[EnergyReading]]:
        """Segments of their own for what happens inside, marked as this part of the work; not to be nested.

        Gives a list that holds their readings after leaving; empty where the stretch was too short to be weighed.
        """
        found: list[EnergyReading] = []
        self._cut(part, found)
        start_s = time.perf_counter()
        try:
            yield found
        finally:
            inside_s = time.perf_counter() - start_s
            self._cut("", [])
            if inside_s < self._least_s:
                found.clear()  # it was filled up with waiting

    def _cut(self, part: str, of_part: list[EnergyReading]) -> None:
        """End a segment and begin one of another part. Waits until there is something to be weighed."""
        time.sleep(max(0.0, self._begun_s + self._least_s - time.perf_counter()))
        with self._lock:
            self._end()
            self._part, self._of_part = part, of_part
            self._begin()

    @property
    def _least_s(self) -> float:
        return float(getattr(self._source, "least_s", 0.0))

    def open(self, blank: EnergyReading) -> None:
        """Start weighing; blank carries the phase and the window's name."""
        self._blank = blank
        self._begin()
        self._timer = threading.Thread(target=self._cut_regularly, name="energy-segments", daemon=True)
        self._timer.start()

    def close(self) -> None:
        """Write the last segment. Raises what writing or weighing raised, in the timer thread or here."""
        self._stop.set()
        if self._timer is not None:
            self._timer.join()
        if self._failure is not None:
            raise self._failure
        with self._lock:
            self._end()

    def _cut_regularly(self) -> None:
        while not self._stop.wait(self._segment_s):
            try:
                with self._lock:
                    self._end()
                    self._begin()
            except BaseException as exc:  # noqa: BLE001  carried to close(), which raises it in the caller's thread
                self._failure = exc
                return

    def _begin(self) -> None:
        # The opening line of every segment: without it, a kill after a closed segment would look like an end.
        self._closed(replace(self._blank, part=self._part))
        self._since_s = time.perf_counter()
        self._source.begin()
        self._begun_s = time.perf_counter()

    def _end(self) -> None:
        components = tuple(self._source.end())
        reading = replace(
            self._blank,
            duration_s=time.perf_counter() - self._since_s,
            components=components,
            queries=self._queries,
            output_tokens=self._output_tokens,
            closed=True,
            part=self._part,
        )
        self._queries = self._output_tokens = 0
        self._of_part.append(self._closed(reading))


class SegmentedMeter:
    """The part that all measuring meters share: rank rule, idle baseline, segments, neighbours."""

    name = "segmented"
    _idle_by_name: ClassVar[dict[str, dict[tuple[str, str], float]]] = {}
    """Idle watts of this process's machine per meter name, by (component, provenance): measured once."""

    def __init__(self, spec: EnergySpec, source: Callable[[], Source]) -> None:
        """Args: source: makes the source, which may take seconds; called when the first window opens."""
        self._spec = spec
        self._make_source = source
        self._made: Source | None = None
        self._open = threading.Lock()
        self._neighbours = Neighbours()

    @property
    def _source(self) -> Source:
        if self._made is None:
            self._made = self._make_source()
        return self._made

    def window(self, phase: Phase, label: str, write: Write) -> AbstractContextManager[Window]:
        """Weigh what happens inside. `write` may be called from a timer thread, never twice at a time.

        Raises: MeterError: a window of this meter is open already, or the source cannot weigh.
        """
        return self._window(phase, label, write)

    @contextmanager
    def _window(self, phase: Phase, label: str, write: Write) -> Iterator[Window]:
        if not is_weighing_rank():
            yield UnweighedWindow()
            return
        if not self._open.acquire(blocking=False):
            raise MeterError(f"a window is open already; close it before opening {label!r}")
        try:
            idle_w = self._idle_w()
            with self._neighbours.watch() as is_shared:

                def finish(reading: EnergyReading) -> EnergyReading:
                    shared = reading.closed and is_shared()
                    whole = replace(reading, components=_net(reading, idle_w), shared=shared)
                    write(whole)
                    return whole

                window = SegmentedWindow(self._source, self._spec.segment_s, finish)
                window.open(EnergyReading(phase, 0.0, (), f"{label}-{uuid4().hex[:8]}", closed=False))
                try:
                    yield window
                finally:
                    window.close()
        finally:
            self._open.release()

    def _idle_w(self) -> Mapping[tuple[str, str], float]:
        """Idle watts per component, measured over idle_s before this process's first window."""
        if self._spec.idle_s <= 0:
            return {}
        if self.name not in self._idle_by_name:
            self._source.begin()
            start_s = time.perf_counter()
            time.sleep(self._spec.idle_s)
            components = self._source.end()
            seconds = time.perf_counter() - start_s
            self._idle_by_name[self.name] = {
                (c.component, c.provenance): c.gross_j / seconds for c in components if c.gross_j is not None
            }
        return self._idle_by_name[self.name]

    def describe(self) -> Mapping[str, Json]:
        idle = self._idle_by_name.get(self.name, {})
        return {
            "meter": self.name,
            **self._source.describe(),
            "idle_w": {f"{component} {provenance}": watts for (component, provenance), watts in idle.items()},
            "idle_s": self._spec.idle_s,
            "segment_s": self._spec.segment_s,
        }

    def close(self) -> None:
        """Nothing to release: the source holds no file and no thread outside a window."""


def _net(reading: EnergyReading, idle_w: Mapping[tuple[str, str], float]) -> tuple[ComponentEnergy, ...]:
    """Gross less idle power times duration. May be negative by noise: clipping would bias the sum."""
    return tuple(
        replace(c, net_j=c.gross_j - watts * reading.duration_s, idle_w=watts)
        if c.gross_j is not None and (watts := idle_w.get((c.component, c.provenance))) is not None
        else c
        for c in reading.components
    )
