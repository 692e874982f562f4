"""An engine that loads on first use: what is already done costs no load, and a base is loaded once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from harness.protocols import Engine, EngineStats, Tokenizer
from harness.records import Checkpoint, Completion, Json, Request


class LazyEngine:
    """Stands for one checkpoint; the engine behind it is shared by all checkpoints of a base."""

    def __init__(self, shared: SharedEngine, checkpoint: Checkpoint) -> None:
        self._shared = shared
        self._checkpoint = checkpoint

    def attach(self, shared: SharedEngine) -> None:
        """Answer through another load of the base from now on."""
        self._shared = shared

    @property
    def name(self) -> str:
        return self._shared.name

    @property
    def loaded(self) -> Engine:
        return self._shared.engine(self._checkpoint)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.loaded.tokenizer

    @property
    def max_length(self) -> int:
        return self.loaded.max_length

    @classmethod
    def load(cls, checkpoint: Checkpoint, options: Mapping[str, Json]) -> Engine:
        raise NotImplementedError("a lazy engine is made by SharedEngine")

    def activate(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        return self.loaded.submit(requests)

    def stats(self) -> EngineStats:
        return self.loaded.stats()

    def describe(self) -> Mapping[str, Json]:
        return self.loaded.describe()

    def close(self) -> None: ...


class SharedEngine:
    """One load of one base, for all its checkpoints in turn."""

    def __init__(self, name: str, load: Callable[[Checkpoint], Engine]) -> None:
        self.name = name
        self.load_s = 0.0
        self._load = load
        self._engine: Engine | None = None
        self._active: str | None = None

    def engine(self, checkpoint: Checkpoint) -> Engine:
        """The engine, loaded and answering as this checkpoint."""
        if self._active == checkpoint.fingerprint and self._engine is not None:
            return self._engine
        start = time.perf_counter()
        if self._engine is None:
            self._engine = self._load(checkpoint)
        else:
            self._engine.activate(checkpoint)
        self._active = checkpoint.fingerprint
        self.load_s += time.perf_counter() - start
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None
