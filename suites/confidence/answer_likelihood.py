"""Tasks that ask twice: for an answer, and for how likely the model holds the answer that it gave.

The likelihood needs the answer, so the second request of a sample can only follow the first. Samples go in pieces:
while the engine answers one, the likelihoods of the piece before are queued. Each piece is queued as a whole and in
order, so that what the engine plans together does not hang on the timing.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import ClassVar, NamedTuple

from harness.errors import BadPlan, EngineError
from harness.feeding import Question, pieces
from harness.protocols import TaskContext, TaskRef
from harness.records import Completion, GenerateRequest, LoglikelihoodRequest, Output, Request, Sample
from harness.tasks import Asked, Item, RequestTask, scored
from harness.tokens import encoder_of
from harness.turns import dialogue_fields


class Span(NamedTuple):
    """Where in an output the answer stands."""

    before: str
    """What the model wrote before it."""
    answer: str
    """As it was written, with the white space before it; not empty."""


class AnswerLikelihoodTask(RequestTask):
    """A task whose score() sees the completion, and where it holds an answer the one with its loglikelihood."""

    waits_for_answers = True
    requests_per_item: ClassVar[int] = 2
    asks_likelihood: bool = True
    """False: the answers alone are asked for, e.g. of a server that gives no log-likelihoods."""

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        super().__init__(ref, context)
        if self.sampling.n != 1:
            raise BadPlan(
                f"task {self.name!r} asks for the likelihood of one answer a question, and sampling.n is "
                f"{self.sampling.n}; leave it at 1 and use --seed for other draws"
            )
        self._stopped = False
        self._on_the_way: list[_Piece] = []

    @property
    def compares_likelihoods(self) -> bool:
        """Whether it asks for log-likelihoods, which not every server gives."""
        return self.asks_likelihood

    @property
    def n_requests(self) -> int:
        return len(self.sample_ids) * (2 if self.asks_likelihood else 1)

    @abstractmethod
    def span(self, output: Output) -> Span | None:
        """Where the answer stands; None: there is none to ask about."""

    def questions(self, todo: Sequence[str]) -> Iterator[list[Question]]:
        """Answers of one piece, then likelihoods of the piece before."""
        self._stopped, self._on_the_way = False, []
        live: deque[_Piece] = deque()
        pairs = ((item, self.requests(item)) for item in map(self._items.__getitem__, todo))
        for members in pieces(pairs, lambda pair: len(pair[1].prompt)):
            live.append(_Piece([item.id for item, _ in members]))
            self._on_the_way.append(live[-1])
            answered = partial(self._answered, live[-1])
            yield [Question(item.id, ask.requests, partial(answered, item, ask)) for item, ask in members]
            if len(live) > 1:
                yield from self._likelihoods(live.popleft())
        for piece in live:
            yield from self._likelihoods(piece)

    def stop(self) -> None:
        """The run ends before its time: nobody will read the answers that a piece waits for."""
        self._stopped = True
        for piece in list(self._on_the_way):
            piece.answered.set()

    def _answered(
        self, piece: _Piece, item: Item, asked: Asked, futures: Sequence[Future[Completion]]
    ) -> Sample | None:
        """The sample where there is nothing more to ask; None: its likelihood will be asked for. In the main thread."""
        blank = Sample(self.name, item.id, asked.prompt, target=item.target, metadata=item.metadata)
        try:
            (written,) = [future.result() for future in futures]
            completion = self.whole(asked.prompt, written)
            span = self._span(completion.outputs[0], written.outputs[0]) if self.asks_likelihood else None
        except EngineError as exc:
            return replace(blank, error=str(exc))
        except Exception as exc:  # noqa: BLE001  tasks are plug-in code; it fails this sample and no other
            return replace(blank, error=f"span: {type(exc).__name__}: {exc}")
        else:
            if span is None:
                return self._finished(item, asked, [completion])
            piece.keep(_Given(item, asked, completion, span))
            return None
        finally:
            piece.arrived()

    def _span(self, turn: Output, written: Output) -> Span | None:
        """Where the answer stands in what was written: the tag that the prompt ends with is in the prompt."""
        span = self.span(turn)
        return span and span._replace(before=span.before[len(turn.text) - len(written.text) :])

    def _likelihoods(self, piece: _Piece) -> Iterator[list[Question]]:
        """The second requests of a piece whose answers are all there. In the feeder's thread."""
        piece.answered.wait()
        if self._stopped:
            return
        self._on_the_way.remove(piece)
        asked = piece.given
        if not asked:
            return
        encode = partial(encoder_of(self.engine.tokenizer).encode, special=False)
        before = encode([given.span.before for given in asked])
        answers = encode([given.span.answer for given in asked])
        yield [
            Question(given.item.id, _requests(given, ahead, tail), partial(self._likely, given))
            for given, ahead, tail in zip(asked, before, answers, strict=True)
        ]

    def _likely(self, given: _Given, futures: Sequence[Future[Completion]]) -> Sample:
        item, asked = given.item, given.asked
        try:
            likelihood = [future.result() for future in futures]
        except EngineError as exc:
            blank = Sample(self.name, item.id, asked.prompt, target=item.target, metadata=item.metadata)
            return replace(blank, error=str(exc))
        return self._finished(item, asked, [given.completion, *likelihood])

    def _finished(self, item: Item, asked: Asked, completions: Sequence[Completion]) -> Sample:
        blank = Sample(self.name, item.id, asked.prompt, target=item.target, metadata=item.metadata)
        answered = replace(blank, **dialogue_fields(completions))
        return scored(answered, lambda: self.score(item, completions))


class _Given(NamedTuple):
    """An answer whose likelihood is to be asked for."""

    item: Item
    asked: Asked
    completion: Completion
    span: Span


class _Piece:
    """Samples whose answers are asked for together."""

    def __init__(self, names: Sequence[str]) -> None:
        self.answered = threading.Event()
        self._given: dict[str, _Given | None] = dict.fromkeys(names)
        self._left = len(names)

    @property
    def given(self) -> list[_Given]:
        """Answers to ask about, in the order of the samples, whatever order they came in."""
        return [one for one in self._given.values() if one is not None]

    def keep(self, given: _Given) -> None:
        self._given[given.item.id] = given

    def arrived(self) -> None:
        """One was read; called in the main thread alone."""
        self._left -= 1
        if self._left == 0:
            self.answered.set()


def _requests(given: _Given, before: Sequence[int], answer: Sequence[int]) -> tuple[Request, ...]:
    """Likelihood of the answer behind the prompt and what the model wrote before it; none of no tokens."""
    (first,) = given.asked.requests
    prompt = first.prompt_ids if isinstance(first, GenerateRequest) else ()
    return (LoglikelihoodRequest((*prompt, *before), tuple(answer)),) if answer else ()
