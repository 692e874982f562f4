"""What of a run the engine computes, and what the response cache gives: counters, energy window, notes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from harness.engines.lazy import LazyEngine
from harness.protocols import EngineStats, Window
from harness.records import EnergyReading, Json, Sample

COUNTED = ("requests", "prompt_tokens", "cached_tokens", "output_tokens")


class Inference:
    """The computing part of a run. It begins with the first request that goes to the engine: where the cache is
    read that may be late or never, and until then nothing is loaded and nothing weighed.

    Args: window: opens the energy window.
    """

    def __init__(self, engine: LazyEngine, window: Callable[[], AbstractContextManager[Window]]) -> None:
        self._engine = engine
        self._make_window = window
        self._window: Window | None = None
        self._before: EngineStats | None = None
        self._stack = ExitStack()
        self._lock = threading.RLock()
        answers = engine.answers
        self._asked = answers.counts if answers else None

    @contextmanager
    def open(self) -> Iterator[Inference]:
        answers = self._engine.answers
        with self._engine.before_computing(self._begin), self._stack:
            if answers is None or not answers.reads:
                self._begin()
            else:
                answers.refresh()
            yield self

    def _begin(self) -> None:
        with self._lock:
            if self._before is None:
                self._before = self._engine.loaded.stats()
                self._window = self._stack.enter_context(self._make_window())

    @contextmanager
    def weigh(self, part: str) -> Iterator[Sequence[EnergyReading]]:
        """Energy of a part of the work by itself: the list is filled on leaving, and stays empty where the meter, or
        what it weighs, cannot be parted.
        """
        stretch = getattr(self._window, "stretch", None)
        if stretch is None:
            yield ()
            return
        with stretch(part) as readings:
            yield readings

    def count(self, sample: Sample) -> None:
        """Book a sample to the window; what was not sent, or came from the cache (in part, too), is no query of it."""
        if self._window is not None:
            asked = not (sample.reused or "not_sent" in sample.metadata)
            self._window.count(int(asked), sample.output_tokens - sample.reused_tokens)

    def facts(self, seconds: float) -> dict[str, Json]:
        """What the engine and the cache say of the work. Args: seconds: of inference."""
        return {**self._engine_facts(seconds), **self._cache_facts()}

    def _engine_facts(self, seconds: float) -> dict[str, Json]:
        if self._before is None:
            return {"busy_share": None, **dict.fromkeys(COUNTED, 0)}
        engine = self._engine.loaded
        after = engine.stats()
        busy = after.busy_s - self._before.busy_s
        return {
            **engine.describe(),
            "busy_share": round(busy / seconds, 4) if seconds > 0 else None,
            **{name: getattr(after, name) - getattr(self._before, name) for name in COUNTED},
            "peak_memory_bytes": after.peak_memory_bytes,
        }

    def _cache_facts(self) -> dict[str, Json]:
        answers = self._engine.answers
        if answers is None or self._asked is None or not answers.reads:
            return {}
        now = answers.counts
        found = {"hits": now.hits - self._asked.hits, "misses": now.misses - self._asked.misses}
        return {"cache": {**found, "damaged_lines": answers.damaged, "made_by": answers.made_by()}}


def cache_notes(samples: Sequence[Sample], *, remote: bool) -> list[str]:
    """What a reader must know of answers that were not computed in this run.

    Args: remote: the model lies elsewhere, and can have changed under its name.
    """
    reused, asked = sum(s.reused for s in samples), sum(s.answers for s in samples)
    if not reused:
        return []
    energy = (
        "nothing was computed, so the energy is not known"
        if all(s.all_reused for s in samples)
        else "they are no queries of the energy"
    )
    notes = [f"{reused} of {asked} answers came from the response cache: {energy}"]
    if remote:
        notes.append(
            "the server can have changed the model under its name since the cached answers were given; "
            "leave out --cache to ask it anew"
        )
    return notes
