"""An engine that loads on first use: what is already done or kept costs no load, and a base is loaded once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from harness.answers.cache import Answers, Outline
from harness.engines.endpoint_texts import TextTokenizer
from harness.protocols import Engine, EngineStats, Tokenizer
from harness.records import Checkpoint, Completion, Json, Request


class LazyEngine:
    """Stands for one checkpoint; the engine behind it is shared by all checkpoints of a base."""

    def __init__(self, shared: SharedEngine, checkpoint: Checkpoint) -> None:
        self._shared = shared
        self._checkpoint = checkpoint
        self._uses_cache = True
        self._of_tasks: list[LazyEngine] = []

    def for_task(self) -> LazyEngine:
        """The same for one task, which may pass the response cache by."""
        own = LazyEngine(self._shared, self._checkpoint)
        self._of_tasks.append(own)
        return own

    def attach(self, shared: SharedEngine) -> None:
        """Answer through another load of the base from now on."""
        self._shared = shared
        for own in self._of_tasks:
            own.attach(shared)

    def bypass_cache(self) -> None:
        """Compute every request and keep nothing: for tasks that measure speed."""
        self._uses_cache = False

    @property
    def answers(self) -> Answers | None:
        """The checkpoint's response cache; None: every request is computed."""
        return self._shared.answers(self._checkpoint) if self._uses_cache else None

    @property
    def name(self) -> str:
        return self._shared.name

    @property
    def loaded(self) -> Engine:
        return self._shared.engine(self._checkpoint)

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's own, without the weights, where the cache knows that the engine's is that one."""
        outline = self._outline
        if outline is not None and outline.own_tokenizer:
            return self._shared.tokenizer(self._checkpoint)
        if outline is not None and outline.text_chat is not None:
            return TextTokenizer(self._checkpoint.spec, chat=outline.text_chat)
        return self.loaded.tokenizer

    @property
    def max_length(self) -> int:
        outline = self._outline
        return self.loaded.max_length if outline is None else outline.max_length

    @property
    def _outline(self) -> Outline | None:
        """What the cache knows of the engine; once that is loaded, it speaks for itself."""
        if self._shared.is_active(self._checkpoint) or self.answers is None:
            return None
        return self.answers.outline()

    @classmethod
    def load(cls, checkpoint: Checkpoint, options: Mapping[str, Json]) -> Engine:
        raise NotImplementedError("a lazy engine is made by SharedEngine")

    def activate(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        answers = self.answers
        if answers is None:
            return self._computing().submit(requests)
        return answers.submit(requests, self._computing)

    def _computing(self) -> Engine:
        """The engine, about to compute."""
        engine = self.loaded
        self._shared.before_computing()
        return engine

    @contextmanager
    def before_computing(self, begin: Callable[[], None]) -> Iterator[None]:
        """Inside, begin() is called whenever requests are about to go to the engine."""
        self._shared.before_computing = begin
        try:
            yield
        finally:
            self._shared.before_computing = _nothing

    @property
    def load_s(self) -> float:
        """Seconds that loading has taken so far."""
        return self._shared.load_s

    def stats(self) -> EngineStats:
        return self.loaded.stats()

    def describe(self) -> Mapping[str, Json]:
        return self.loaded.describe()

    def close(self) -> None: ...


class SharedEngine:
    """One load of one base, for all its checkpoints in turn.

    Args: load: loads a checkpoint. answers: opens the response cache of a checkpoint; gives None where it is off.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[Checkpoint], Engine],
        answers: Callable[[Checkpoint], Answers | None] = lambda checkpoint: None,
    ) -> None:
        self.name = name
        self.load_s = 0.0
        self.before_computing: Callable[[], None] = _nothing
        self._load = load
        self._engine: Engine | None = None
        self._active: str | None = None
        self._open_answers = answers
        self._answers: dict[str, Answers | None] = {}
        self._tokenizers: dict[str, Tokenizer] = {}
        self._lock = threading.RLock()

    @property
    def loaded(self) -> Engine | None:
        """The engine, if it is loaded."""
        return self._engine

    def unload(self) -> None:
        """Give the engine's memory back; the next request loads it again."""
        if self._engine is not None:
            self._engine.close()
            self._engine = self._active = None

    def is_active(self, checkpoint: Checkpoint) -> bool:
        """Whether the engine is loaded and answers as this checkpoint."""
        return self._engine is not None and self._active == checkpoint.fingerprint

    def engine(self, checkpoint: Checkpoint) -> Engine:
        """The engine, loaded and answering as this checkpoint."""
        if self._engine is not None and self._active == checkpoint.fingerprint:
            return self._engine
        with self._lock:
            start = time.perf_counter()
            if self._engine is None:
                self._engine = self._load(checkpoint)
            elif self._active != checkpoint.fingerprint:
                self._engine.activate(checkpoint)
            self._active = checkpoint.fingerprint
            self.load_s += time.perf_counter() - start
            return self._engine

    def answers(self, checkpoint: Checkpoint) -> Answers | None:
        """The checkpoint's response cache; opened once."""
        if checkpoint.fingerprint not in self._answers:
            self._answers[checkpoint.fingerprint] = self._open_answers(checkpoint)
        return self._answers[checkpoint.fingerprint]

    def tokenizer(self, checkpoint: Checkpoint) -> Tokenizer:
        """The tokenizer of a checkpoint's folder, whether or not its weights are loaded."""
        if checkpoint.fingerprint not in self._tokenizers:
            from harness.engines.loading import load_tokenizer  # imports torch

            self._tokenizers[checkpoint.fingerprint] = load_tokenizer(checkpoint)
        return self._tokenizers[checkpoint.fingerprint]

    def close(self) -> None:
        self.unload()
        for answers in self._answers.values():
            if answers is not None:
                answers.close()
        self._answers.clear()


def _nothing() -> None: ...
