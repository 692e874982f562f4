"""The engines that are held against each other: how they are named, and how tasks reach them."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from harness.errors import BadInput, EngineError
from harness.plan import EngineSpec
from harness.protocols import Engine, Strategy
from harness.records import Completion, Json, Request
from harness.yamlfile import problem

CHECKPOINT = "checkpoint"
"""Setting that gives an engine another checkpoint, e.g. the merged weights of an adapter."""


class Side(NamedTuple):
    """An engine with its settings."""

    label: str
    """As it was typed."""
    spec: EngineSpec
    checkpoint: str | None
    """None: the one that parity is asked about."""


def parse_sides(texts: Iterable[str], common: EngineSpec) -> list[Side]:
    """'transformers,vllm:dtype=bfloat16,batch_tokens=64' -> sides; a piece that holds '=' is a setting.

    Args: common: settings of all of them, where they have none of their own.
    Raises: BadInput: fewer than two, or a setting that is none.
    """
    labels: list[str] = []
    for piece in (part.strip() for text in texts for part in text.split(",")):
        head, equals, _ = piece.partition("=")
        if equals and labels and ":" not in head:
            labels[-1] += f",{piece}"
        elif piece:
            labels.append(piece)
    if len(labels) < 2:
        raise BadInput(
            f"--engines {','.join(labels)!r}: parity holds engines against each other; name two or more, e.g. "
            "transformers,vllm or transformers,transformers:dtype=bfloat16"
        )
    return [_side(label, common) for label in labels]


def _side(label: str, common: EngineSpec) -> Side:
    name, _, rest = label.partition(":")
    given: dict[str, Json] = {}
    for piece in filter(None, rest.split(",")):
        key, equals, value = piece.partition("=")
        if not equals or not key:
            raise BadInput(f"engine {label!r}: {piece!r} is no setting; write {name}:key=value,key=value")
        given[key] = _scalar(value)
    checkpoint = given.pop(CHECKPOINT, None)
    fields = {key: value for key, value in given.items() if key in EngineSpec.model_fields}
    options = {**common.options, **{k: v for k, v in given.items() if k not in EngineSpec.model_fields}}
    settings = {**common.model_dump(), "name": name, "options": options, **fields}
    try:
        spec = EngineSpec.model_validate(settings)
    except ValidationError as exc:
        raise BadInput(f"engine {label!r}: {problem(exc, EngineSpec)}") from exc
    return Side(label, spec, None if checkpoint is None else str(checkpoint))


def _scalar(text: str) -> Json:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


class Asked(NamedTuple):
    """A request of a task, and the answer on its way."""

    request: Request
    future: Future[Completion]


class Recorder:
    """A strategy that remembers what an engine is asked under it, task by task."""

    def __init__(self, inner: Strategy) -> None:
        self.name = inner.name
        self.task = ""
        """Whose requests come now."""
        self.asked: dict[str, list[Asked]] = defaultdict(list)
        self._inner = inner

    def identity(self) -> Mapping[str, Json]:
        return self._inner.identity()

    def submit(self, engine: Engine, requests: Sequence[Request]) -> list[Future[Completion]]:
        return self._inner.submit(_Through(engine, self), requests)  # type: ignore[arg-type]

    def answer(self, engine: Engine, requests: Sequence[Request]) -> list[Future[Completion]]:
        futures = engine.submit(requests)
        self.asked[self.task] += map(Asked, requests, futures)
        return futures


class Replayer(Recorder):
    """A strategy under which requests that were answered already get those answers; others go to the engine."""

    def __init__(self, inner: Strategy) -> None:
        super().__init__(inner)
        self._kept: dict[Request, deque[Future[Completion]]] = {}

    def keep(self, task: str, answered: Iterable[Asked]) -> None:
        """Answers of the task that comes now."""
        self.task = task
        self._kept = {}
        for request, future in answered:
            self._kept.setdefault(request, deque()).append(future)

    def answer(self, engine: Engine, requests: Sequence[Request]) -> list[Future[Completion]]:
        missing = [request for request in requests if request not in self._kept]
        new = iter(super().answer(engine, missing) if missing else [])
        return [self._take(request) if request in self._kept else next(new) for request in requests]

    def _take(self, request: Request) -> Future[Completion]:
        """In the order of asking; the last one again, should it be asked once more."""
        kept = self._kept[request]
        return kept.popleft() if len(kept) > 1 else kept[0]


class _Through:
    """An engine whose requests pass by a recorder."""

    def __init__(self, engine: Engine, recorder: Recorder) -> None:
        self._engine = engine
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        return self._recorder.answer(self._engine, requests)


class Answer(NamedTuple):
    """A completion, or why there is none."""

    completion: Completion | None
    error: str | None


def wait_for(future: Future[Completion]) -> Answer:
    try:
        return Answer(future.result(), None)
    except EngineError as exc:
        return Answer(None, str(exc) or type(exc).__name__)
