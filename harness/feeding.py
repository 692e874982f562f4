"""Keep the engine fed: tasks are tokenised and queued in one thread, scored and journalled in another.

The tasks of a suite follow one another without a gap: while the engine answers one piece of requests, the next
lies in its queue and the one after is being tokenised. Scoring stays in the thread that calls, the main one: task
files set alarms (signal.alarm), which no other thread may, and some take the error for a wrong answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol, TypeVar

from harness.protocols import Record
from harness.records import Completion, GenerateRequest, Request, Sample

T = TypeVar("T")

FIRST_PIECE_CHARS = 1_000_000
"""Prompts of the first piece: small, so that the engine starts soon."""
PIECE_CHARS = 4_000_000
"""Prompts of the others: about a million tokens, enough to share prefixes and fill batches."""
FIRST_TOKENS = FIRST_PIECE_CHARS // 4
GROUP_TOKENS = PIECE_CHARS // 4
"""Small pieces, of one task or of several, are queued together up to so many tokens: twenty long answers of one task
leave most of a batch empty, and the next task's fill it."""
COLLECTED_AT_ONCE = 32
"""Samples of other tasks that are scored in one go while a task with an event loop runs."""
STOP_S = 10.0
"""How long a stopped feeder may take to finish the piece that it is tokenising."""


class Question(NamedTuple):
    """A sample ready to be asked."""

    sample_id: str
    requests: Sequence[Request]
    finish: Callable[[Sequence[Future[Completion]]], Sample | None]
    """Scores it; called once, when the futures of its requests are done. None: the sample goes on (a dialogue)."""


class Asks(Protocol):
    """A task that says what it asks before it is answered."""

    def questions(self, todo: Sequence[str]) -> Iterator[Sequence[Question]]:
        """Pieces of questions, in an order and of sizes that depend on the samples alone. Runs in a thread."""
        ...

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        """Queue requests, through the task's strategy."""
        ...

    def stop(self) -> None: ...


Piece = tuple[Asks, Sequence[Question]]


def prepare(tasks: Iterable[object]) -> None:
    """Let tasks that ask ahead do what must be done in the main thread first."""
    for task in tasks:
        if isinstance(task, FedTask):
            task.prepare()


class FedTask:
    """Gives a task that Asks the run() that the protocol wants."""

    waits_for_answers = False
    """questions() waits for the answers to earlier pieces, as dialogues do: no piece of it is held back."""

    def prepare(self) -> None:
        """What must be done in the main thread before questions() is called in another."""

    def stop(self) -> None:
        """The run is over, or given up: questions() must not wait for answers any longer."""

    def run(self: Asks, todo: Sequence[str], record: Record) -> None:
        """Answer the samples named and journal each as soon as its last request is answered."""
        prepare([self])
        run_tasks([(self, todo)], record)


def is_fed(task: object) -> bool:
    """Whether several tasks of this kind may be asked at once: it asks ahead, and has no way of running of its own."""
    return isinstance(task, FedTask) and type(task).run is FedTask.run


def run_tasks(work: Sequence[tuple[Any, Sequence[str]]], record: Record) -> None:
    """Run tasks, as many at once as can be without a score hanging on the timing.

    Tasks that ask ahead follow one another in the engine's queue. Those with a way of running of their own (inspect
    keeps an event loop in the main thread) begin when the last piece of the others is being answered. What measures
    speed runs alone, last.

    Args: work: tasks, and of each the samples to answer.
    Raises: what tokenising, scoring or journalling raised; Ctrl-C. What was answered until then is journalled.
    """
    fed = [(task, todo) for task, todo in work if is_fed(task)]
    fed.sort(
        key=lambda pair: bool(getattr(pair[0], "waits_for_answers", False))
    )  # nobody waits behind a dialogue
    others = [(task, todo) for task, todo in work if not is_fed(task)]
    others.sort(key=lambda pair: bool(getattr(pair[0], "measures_speed", False)))
    main = threading.get_ident()
    with Feeding(fed) as feeding:

        def record_and_collect(sample: Sample) -> None:
            record(sample)
            if threading.get_ident() == main:
                feeding.collect_ready(record, COLLECTED_AT_ONCE)

        feeding.collect_until_fed(record)
        for task, todo in others:
            if getattr(task, "measures_speed", False):
                feeding.collect(record)
            task.run(todo, record_and_collect)
        feeding.collect(record)


def pieces(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Cut items into pieces of about PIECE_CHARS, the first of FIRST_PIECE_CHARS."""
    piece: list[T] = []
    total, most = 0, FIRST_PIECE_CHARS
    for item in items:
        piece.append(item)
        total += size(item)
        if total >= most:
            yield piece
            piece, total, most = [], 0, PIECE_CHARS
    if piece:
        yield piece


def _tokens(request: Request) -> int:
    if isinstance(request, GenerateRequest):
        return len(request.prompt_ids)
    return len(request.context_ids) + len(request.continuation_ids)


class _Waiting:
    """A question whose requests are queued."""

    def __init__(
        self, question: Question, futures: Sequence[Future[Completion]], begun: threading.Event
    ) -> None:
        self.question = question
        self.futures = futures
        self.left = max(len(futures), 1)
        self.begun = begun
        """The engine has begun to answer its group."""


class _End(NamedTuple):
    """The feeder's last word: everything is queued, and the engine has begun with the last piece."""

    problem: BaseException | None


class Feeding:
    """Some tasks being asked; use as a context manager, collect inside, in one thread.

    The order of pieces is that of the tasks. Small ones are queued together as a group, and a group when the engine has
    begun to answer the one before: so what the engine plans together is a group, whatever the timing, and no more than
    three are in memory.
    """

    def __init__(self, work: Sequence[tuple[Asks, Sequence[str]]]) -> None:
        self._work = work
        self._arrived: SimpleQueue[_Waiting | _End] = SimpleQueue()
        self._stopped = False
        self._begun = threading.Event()
        """Of the last group."""
        self._group: list[Piece] = []
        """Waits to be queued."""
        self._tokens, self._most_tokens = 0, FIRST_TOKENS
        self._feeding = True
        self._asked = 0
        """Questions queued; the feeder counts."""
        self._collected = 0
        self._thread = threading.Thread(target=self._feed, name="feeder", daemon=True)

    def __enter__(self) -> Feeding:
        self._begun.set()
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._stopped = True
        self._begun.set()
        for task, _ in self._work:
            task.stop()
        self._thread.join(timeout=STOP_S)

    # In the calling thread

    def collect_until_fed(self, record: Record) -> None:
        """Score and journal until nothing is left to be queued, and the engine has begun with the last piece."""
        while self._feeding:
            self._take(record, wait=True)

    def collect_ready(self, record: Record, most: int) -> None:
        """Score and journal what is answered by now."""
        for _ in range(most):
            if not self._take(record, wait=False):
                return

    def collect(self, record: Record) -> None:
        """Score and journal everything.

        Raises: what tokenising, scoring or journalling raised.
        """
        while self._feeding or self._collected < self._asked:
            self._take(record, wait=True)

    def _take(self, record: Record, *, wait: bool) -> bool:
        """One arrival; False: there was none."""
        try:
            arrived = self._arrived.get(block=wait)
        except Empty:
            return False
        if isinstance(arrived, _End):
            self._feeding = False
            if arrived.problem is not None:
                raise arrived.problem
            return True
        arrived.left -= 1
        if arrived.left == 0:
            self._collected += 1
            sample = arrived.question.finish(arrived.futures)
            if sample is not None:
                record(sample)
        return True

    # In the feeder

    def _feed(self) -> None:
        problem: BaseException | None = None
        try:
            for task, todo in self._work:
                self._feed_task(task, todo)
            self._ask_group()
            self._begun.wait()
        except BaseException as exc:  # noqa: BLE001  carried to the caller's thread
            problem = exc
        self._arrived.put(_End(problem))

    def _feed_task(self, task: Asks, todo: Sequence[str]) -> None:
        waits = getattr(task, "waits_for_answers", False)
        for piece in task.questions(todo):
            if self._stopped:
                return
            self._group.append((task, piece))
            self._tokens += sum(_tokens(request) for question in piece for request in question.requests)
            if waits or self._tokens >= self._most_tokens:
                self._ask_group()

    def _ask_group(self) -> None:
        """Queue what was gathered, when the engine has begun with the group before."""
        group, self._group, self._tokens = self._group, [], 0
        if not group:
            return
        self._begun.wait()
        if self._stopped:
            return
        self._most_tokens = GROUP_TOKENS
        self._begun = begun = threading.Event()
        for task, piece in group:
            self._ask(task, piece, begun)
        if self._stopped or not any(question.requests for _, piece in group for question in piece):
            begun.set()

    def _ask(self, task: Asks, piece: Sequence[Question], begun: threading.Event) -> None:
        flat = [request for question in piece for request in question.requests]
        futures = iter(task.submit(flat))
        waiting = [_Waiting(q, [next(futures) for _ in q.requests], begun) for q in piece]
        self._asked += len(waiting)
        for item in waiting:
            if not item.futures:  # an empty text asks nothing
                self._arrived.put(item)
            for future in item.futures:
                future.add_done_callback(lambda _, item=item: self._answered(item))  # type: ignore[misc]

    def _answered(self, item: _Waiting) -> None:
        """Called in the engine's thread, or in the feeder where the answer is there already."""
        self._arrived.put(item)
        if not item.begun.is_set():
            item.begun.set()
