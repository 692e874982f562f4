"""The response cache: answers of one model on one engine, kept beside the runs and read back on request.

A cache that cannot be written or read never stops a run. harness.answers.files says what lies on disk,
harness.answers.keys what an answer depends on.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from harness.answers.entries import Entry, completion_of, entries_of, fits, n_answers, rest_of
from harness.answers.index import Index
from harness.answers.keys import draws_of, keys_of
from harness.answers.writer import Writer
from harness.checkpoints import tokenizer_folder
from harness.errors import BadInput
from harness.folders import has_tokenizer
from harness.hashing import hash_json, slug
from harness.protocols import Engine
from harness.records import Checkpoint, Completion, GenerateRequest, Json, LoglikelihoodRequest, Request

KINDS = (GenerateRequest, LoglikelihoodRequest)
FOLDER = ".answers"
"""In the runs folder; the dot keeps it apart from run folders."""
SETTLE_S = 1.0
"""Longest wait for answers of an engine that is still at work."""
TOLD = ("dtype", "device", "attention", "architecture")
"""What an engine says of itself that stands in the first line of a segment, for a reader."""


class Counts(NamedTuple):
    """Answers asked of a cache that is read."""

    hits: int
    misses: int


class Outline(NamedTuple):
    """What the engine that computed the answers was like; enough to put the requests again."""

    max_length: int
    own_tokenizer: bool
    """Its tokenizer is the one in the checkpoint's folder."""
    text_chat: bool | None = None
    """A server that is asked in texts: whether it takes chats. None: it is asked in tokens, or it is not known."""


class Answers:
    """Answers of one checkpoint on one engine.

    Args:
        runs: the runs folder.
        identity: what the answers depend on beside the requests (harness.answers.keys.model_identity).
        reads: answer from the cache; otherwise answers are kept and nothing more.
    """

    def __init__(
        self, runs: Path, checkpoint: Checkpoint, identity: Mapping[str, Json], *, reads: bool
    ) -> None:
        self.reads = reads
        self._checkpoint = checkpoint
        self._identity = identity
        self._root = runs / FOLDER
        self._digest = hash_json(identity)
        self._index = Index(self._folders)
        self._about: dict[str, Json] = {}
        self._described: Callable[[], Engine | None] = lambda: None
        """The engine that was asked last, if it still is there."""
        self._numbers: str | None = None
        """Number type that it computes in; None: it has not been asked yet."""
        self._given: str | None = None
        """That of the answers which were given from the cache; None: none was."""
        self._writer = Writer(self._folder(), lambda: self._about, self._index)
        self._hits = self._misses = 0
        self._in_flight = 0
        self._lock = threading.Condition()
        self._told: set[str] = set()

    def _folders(self) -> list[Path]:
        return sorted(self._root.glob(f"*--{self._digest}"))

    def _folder(self) -> Path:
        """An earlier folder of the same answers keeps its name, whatever the checkpoint is called now."""
        name = f"{slug(self._checkpoint.name)}--{slug(str(self._identity['engine']))}--{self._digest}"
        return next(iter(self._folders()), self._root / name)

    # Reading

    def refresh(self) -> None:
        """Look for what this process or others have written meanwhile."""
        if self.reads:
            self.settle()
            self._index.refresh()

    def outline(self) -> Outline | None:
        """What tasks need to know of the engine without loading it; None where the cache cannot tell."""
        told = ("max_length", "own_tokenizer", "text_chat")
        found = {tuple(about.get(name) for name in told) for about in self._index.abouts}
        if not self.reads or len(found) != 1:
            return None
        length, own, chat = found.pop()
        return Outline(length, bool(own), chat) if isinstance(length, int) else None

    def made_by(self) -> list[Json]:
        """What the engines that computed the answers said of themselves."""
        told = [{name: about.get(name) for name in TOLD} for about in self._index.abouts]
        return [one for place, one in enumerate(told) if one not in told[:place]]

    # Asking

    def submit(self, requests: Sequence[Request], load: Callable[[], Engine]) -> list[Future[Completion]]:
        """Answer from the cache what it holds and from the engine the rest; futures in the order asked.

        Args: load: gives the engine; not called where the cache holds everything.
        """
        numbers = self._kept_numbers()
        held = [self._recall(request, numbers) for request in requests]
        if all(wanted == len(entries) for wanted, entries in held):
            self._count(requests, held, numbers)
            return [_done(completion_of(r, entries)) for r, (_, entries) in zip(requests, held, strict=True)]
        engine = load()
        self._describe(engine)
        if self._numbers != numbers:
            held = [self._recall(request, self._numbers) for request in requests]
        self._count(requests, held, self._numbers)
        takes_first_draw = getattr(engine, "takes_first_draw", False)
        asked = [
            rest_of(request, len(entries) if takes_first_draw or len(entries) == wanted else 0)
            for request, (wanted, entries) in zip(requests, held, strict=True)
        ]
        computed = iter(engine.submit([request for request in asked if request is not None]))
        return [
            _done(completion_of(request, entries))
            if rest is None
            else self._computed(rest, next(computed), request, entries if rest is not request else [])
            for request, rest, (_, entries) in zip(requests, asked, held, strict=True)
        ]

    def _kept_numbers(self) -> str | None:
        """Number type of the answers to give; None: several are kept, or none, and the engine must say its own."""
        for known in (self._numbers, self._given):
            if known is not None:
                return known
        told = {_numbers_in(about) for about in self._index.abouts}
        return told.pop() if len(told) == 1 else None

    def _recall(self, request: Request, numbers: str | None) -> tuple[int, list[Entry]]:
        """Answers wanted, and those held of the first draws, as far as they go without a gap."""
        draws = draws_of(request)
        entries: list[Entry] = []
        if self.reads and numbers is not None and isinstance(request, KINDS):
            for key in keys_of(request, draws, numbers):
                entry = self._index.find(key)
                if not fits(entry, request):
                    break
                entries.append(entry)
        return len(draws), entries

    def _count(
        self, requests: Sequence[Request], held: Sequence[tuple[int, list[Entry]]], numbers: str | None
    ) -> None:
        """Raises: BadInput: answers of another number type were given already."""
        with self._lock:
            if self._given is not None and numbers != self._given:
                raise BadInput(
                    f"the kept answers of {self._checkpoint.name} were computed in {self._given}, and dtype auto is "
                    f"{numbers} here: name one with --dtype, or compute all of them without --cache"
                )
            if any(entries for _, entries in held):
                self._given = numbers
            for request, (wanted, entries) in zip(requests, held, strict=True):
                each = n_answers(request) // wanted
                self._hits += len(entries) * each
                self._misses += (wanted - len(entries)) * each

    def _computed(
        self, rest: Request, future: Future[Completion], request: Request, entries: Sequence[Entry]
    ) -> Future[Completion]:
        """Keep what the engine answers, and put the draws that are held already in front of it."""
        if isinstance(rest, KINDS):
            with self._lock:
                self._in_flight += 1
            future.add_done_callback(partial(self._keep, rest, self._numbers or ""))
        if not entries:
            return future
        whole: Future[Completion] = Future()

        def finish(done: Future[Completion]) -> None:
            with suppress(Exception):  # whoever waited has cancelled
                if done.exception() is not None:
                    whole.set_exception(done.exception())
                else:
                    whole.set_result(completion_of(request, entries, done.result()))

        future.add_done_callback(finish)
        return whole

    # Keeping

    def _keep(self, request: Request, numbers: str, future: Future[Completion]) -> None:
        """Runs in the engine's thread: hands over, and no more."""
        if not future.cancelled() and future.exception() is None:
            self._writer.put(partial(entries_of, request, future.result(), numbers))
        with self._lock:
            self._in_flight -= 1
            if not self._in_flight:
                self._lock.notify_all()

    def _describe(self, engine: Engine) -> None:
        """Once for every load, and before the first answer of the engine is written."""
        if self._described() is engine:
            return
        facts = engine.describe()
        self._numbers, self._described = _numbers_in(facts), weakref.ref(engine)
        if self._about:
            return
        folder = tokenizer_folder(self._checkpoint)
        own = getattr(engine.tokenizer, "name_or_path", None) == folder and has_tokenizer(Path(folder))
        self._about = {
            "model": self._checkpoint.name,
            "fingerprint": self._checkpoint.fingerprint,
            **{name: self._identity[name] for name in ("format", "engine", "origin", "versions")},
            **{name: facts[name] for name in TOLD if name in facts},
            "max_length": engine.max_length,
            "own_tokenizer": own,
            "text_chat": bool(engine.tokenizer.chat_template)
            if getattr(engine.tokenizer, "is_text", False)
            else None,
        }

    # Facts

    @property
    def counts(self) -> Counts:
        return Counts(self._hits, self._misses)

    @property
    def damaged(self) -> int:
        """Lines that were torn or altered."""
        return self._index.damaged

    def problems(self) -> list[str]:
        """What went wrong, each thing once."""
        found: dict[str, str] = {}
        if self._index.damaged and self.reads:
            found["damaged"] = (
                f"the response cache of {self._checkpoint.name} holds {self._index.damaged} damaged lines: they are "
                "not used, and their answers are computed again (`harness cache verify`)"
            )
        if self._index.unreadable:
            found["unreadable"] = f"a part of the response cache cannot be read: {self._index.unreadable}"
        if self._writer.problem is not None:
            problem = getattr(self._writer.problem, "strerror", None) or self._writer.problem
            found["unwritable"] = f"answers are not kept, the run goes on: {self._root}: {problem}"
        new = [text for kind, text in found.items() if kind not in self._told]
        self._told.update(found)
        return new

    def settle(self) -> None:
        """Wait until what was answered so far is on its way to the disk."""
        # whoever waits for an answer can have it a moment before it is handed over
        with self._lock:
            self._lock.wait_for(lambda: not self._in_flight, SETTLE_S)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self.settle()
        self._writer.close()
        self._index.close()


def _numbers_in(facts: Mapping[str, Json]) -> str:
    """Number type that an engine says it computes in; empty where it says none."""
    return str(facts.get("dtype") or "")


def _done(completion: Completion) -> Future[Completion]:
    future: Future[Completion] = Future()
    future.set_result(completion)
    return future
