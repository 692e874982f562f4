"""The feeder: what is queued when, what stops it, and that a score does not hang on the timing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import pytest

from harness.errors import StoreError
from harness.feeding import FedTask, Question, is_fed, pieces, run_tasks
from harness.records import Completion, GenerateRequest, Request, Sample


class Desk:
    """An engine that takes what was submitted together, and answers when it is told to."""

    def __init__(self, *, slow_s: float = 0.0) -> None:
        self.taken: list[list[str]] = []
        self.slow_s = slow_s
        self.idle_with_work_waiting = 0
        self._waiting: list[tuple[str, Future]] = []
        self._changed = threading.Condition()
        self.closed = False
        self.gate = threading.Event()
        """Nothing is answered before it is set."""
        self.gate.set()
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, requests: Sequence[Request]) -> list[Future]:
        futures = [Future() for _ in requests]
        with self._changed:
            names = ["".join(map(chr, request.prompt_ids)) for request in requests]
            self._waiting += zip(names, futures, strict=True)
            self._changed.notify()
        return futures

    def _work(self) -> None:
        while not self.closed:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self.closed)
                taken, self._waiting = self._waiting, []
            self.taken.append([name for name, _ in taken])
            self.gate.wait()
            for name, future in taken:
                time.sleep(self.slow_s)
                future.set_result(Completion(loglikelihood=float(len(name))))


class Words(FedTask):
    """Each sample asks for its letters, one request of one token each; a piece is two samples."""

    def __init__(self, name: str, desk: Desk, samples: Sequence[str], problem: BaseException | None = None):
        self.name, self.desk, self.samples, self.problem = name, desk, samples, problem
        self.threads: set[str] = set()

    def questions(self, todo: Sequence[str]) -> Iterator[list[Question]]:
        for start in range(0, len(todo), 2):
            if self.problem is not None and start:
                raise self.problem
            self.threads.add(threading.current_thread().name)
            yield [
                Question(
                    s, [GenerateRequest((ord(c),)) for c in s], lambda futures, s=s: self.finish(s, futures)
                )
                for s in todo[start : start + 2]
            ]

    def submit(self, requests: Sequence[Request]) -> list[Future]:
        return self.desk.submit(requests)

    def finish(self, sample_id: str, futures: Sequence[Future]) -> Sample:
        assert all(future.done() for future in futures)
        self.threads.add(threading.current_thread().name)
        return Sample(self.name, sample_id, str(len(futures)))


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Every piece of two letters and more is a group of its own."""
    group_tokens(monkeypatch, 2)
    found = Desk(slow_s=0.002)
    yield found
    found.closed = True


def group_tokens(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr("harness.feeding.FIRST_TOKENS", most)
    monkeypatch.setattr("harness.feeding.GROUP_TOKENS", most)


def test_tasks_follow_one_another_in_pieces_that_do_not_hang_on_the_timing(desk: Desk) -> None:
    first, second = Words("a", desk, []), Words("b", desk, [])
    journal: list[Sample] = []
    run_tasks([(first, ["ab", "cd", "ef"]), (second, ["gh", "", "ij"])], journal.append)
    assert desk.taken == [["a", "b", "c", "d"], ["e", "f"], ["g", "h"], ["i", "j"]]
    assert sorted((s.task, s.sample_id, s.prompt) for s in journal) == [
        ("a", "ab", "2"), ("a", "cd", "2"), ("a", "ef", "2"), ("b", "", "0"), ("b", "gh", "2"), ("b", "ij", "2"),
    ]  # fmt: skip
    assert first.threads == {"feeder", "MainThread"}, "asked ahead in one thread, scored in the main one"


def test_the_next_piece_lies_ready_before_the_engine_is_done(desk: Desk) -> None:
    desk.slow_s = 0.05
    queued_s: list[float] = []
    submit = desk.submit

    def noting(requests):
        queued_s.append(time.perf_counter())
        return submit(requests)

    desk.submit = noting
    start = time.perf_counter()
    run_tasks([(Words("a", desk, []), ["abc", "def", "ghi", "jkl"])], lambda sample: None)
    # six requests of 50 ms in the first piece: the second is queued after the first answer, not after the last
    assert queued_s[1] - start < 0.2
    assert len(desk.taken) == 2


def test_small_tasks_are_queued_together_and_large_ones_are_not(desk: Desk, monkeypatch) -> None:
    group_tokens(monkeypatch, 7)
    queued: list[str] = []
    before_any_answer: list[str] = []
    submit = desk.submit

    def noting(requests):
        queued.append("".join(chr(request.prompt_ids[0]) for request in requests))
        return submit(requests)

    def look():
        before_any_answer.extend(queued)
        desk.gate.set()

    desk.submit = noting
    desk.gate.clear()
    threading.Timer(0.3, look).start()
    work = [
        (Words(name, desk, []), todo)
        for name, todo in (("a", ["ab", "cd", "ef"]), ("b", ["gh"]), ("c", ["ij"]))
    ]
    run_tasks(work, lambda sample: None)
    assert before_any_answer == ["abcd", "ef", "gh"], "seven tokens and more, across tasks"
    assert queued == ["abcd", "ef", "gh", "ij"]


class Dialogues(Words):
    """One sample a piece, and no piece before the one before it is answered."""

    waits_for_answers = True

    def questions(self, todo: Sequence[str]) -> Iterator[list[Question]]:
        for sample_id in todo:
            said = threading.Event()

            def finish(futures, sample_id=sample_id, said=said):
                said.set()
                return self.finish(sample_id, futures)

            yield [Question(sample_id, [GenerateRequest((ord(c),)) for c in sample_id], finish)]
            assert said.wait(10), "its piece was held back, and it waits for the answer"


def test_a_task_that_waits_for_answers_comes_last_and_is_not_held_back(desk: Desk, monkeypatch) -> None:
    group_tokens(monkeypatch, 1000)
    work = [(Dialogues("d", desk, []), ["ab", "cd", "ef"]), (Words("a", desk, []), ["gh"])]
    journal: list[Sample] = []
    run_tasks(work, journal.append)
    assert sorted(s.sample_id for s in journal) == ["ab", "cd", "ef", "gh"]
    assert "".join("".join(taken) for taken in desk.taken) == "ghabcdef"


class Own:
    """A task with a way of running of its own."""

    def __init__(self, order: list[str], name: str, *, measures_speed: bool = False) -> None:
        self.order, self.name, self.measures_speed = order, name, measures_speed

    def run(self, todo, record) -> None:
        self.order.append(self.name)
        for sample_id in todo:
            record(Sample(self.name, sample_id, ""))


def test_speed_is_measured_alone_and_last(desk: Desk) -> None:
    order: list[str] = []
    fed = Words("fed", desk, [])
    work = [
        (Own(order, "speed", measures_speed=True), ["1"]),
        (Own(order, "own"), ["1"]),
        (fed, ["ab", "cd", "ef"]),
    ]
    run_tasks(work, lambda sample: order.append(f"{sample.task} {sample.sample_id}"))
    assert order[-2:] == ["speed", "speed 1"]
    assert {"fed ab", "fed cd", "fed ef", "own 1"} <= set(order[:-2])
    assert [is_fed(task) for task, _ in work] == [False, False, True]


def test_a_class_with_its_own_run_is_left_to_itself(desk: Desk) -> None:
    class Mine(Words):
        def run(self, todo, record) -> None: ...

    assert not is_fed(Mine("m", desk, []))


@pytest.mark.parametrize("problem", [ValueError("no tokens"), KeyError("x")])
def test_what_tokenising_raises_comes_out(desk: Desk, problem: Exception) -> None:
    journal: list[Sample] = []
    with pytest.raises(type(problem)):
        run_tasks([(Words("a", desk, [], problem), ["ab", "cd", "ef"])], journal.append)
    assert not [t for t in threading.enumerate() if t.name == "feeder"]


def test_what_journalling_raises_ends_the_run_and_its_feeder(desk: Desk) -> None:
    def full(sample: Sample) -> None:
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="full"):
        run_tasks([(Words("a", desk, []), [f"{i:04}" for i in range(400)])], full)
    assert not [t for t in threading.enumerate() if t.name == "feeder"]
    assert len(desk.taken) <= 3, "no more was queued"


def test_ctrl_c_ends_it_while_the_engine_is_at_work(desk: Desk) -> None:
    desk.slow_s = 0.05
    journal: list[Sample] = []
    timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        run_tasks([(Words("a", desk, []), [f"{i:04}" for i in range(400)])], journal.append)
    assert time.perf_counter() - start < 5
    assert not [t for t in threading.enumerate() if t.name == "feeder"]


def test_pieces_depend_on_the_items_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.feeding.FIRST_PIECE_CHARS", 3)
    monkeypatch.setattr("harness.feeding.PIECE_CHARS", 10)
    assert list(pieces([2, 2, 9, 1, 4], lambda n: n)) == [[2, 2], [9, 1], [4]]
    assert list(pieces([], len)) == []
    assert list(pieces([50, 60], lambda n: n)) == [[50], [60]]
