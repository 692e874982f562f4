"""The feeder: what is queued when, what stops it, and that a score does not hang on the timing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import pytest

from harness.errors import EngineError, StoreError
from harness.feeding import FedTask, Question, is_fed, pieces, run_tasks
from harness.records import Completion, Sample


class Desk:
    """An engine that takes what was submitted together, and answers when it is told to."""

    def __init__(self, *, slow_s: float = 0.0) -> None:
        self.taken: list[list[str]] = []
        self.slow_s = slow_s
        self.idle_with_work_waiting = 0
        self._waiting: list[tuple[str, Future]] = []
        self._changed = threading.Condition()
        self.closed = False
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, requests: Sequence[str]) -> list[Future]:
        futures = [Future() for _ in requests]
        with self._changed:
            self._waiting += zip(requests, futures, strict=True)
            self._changed.notify()
        return futures

    def _work(self) -> None:
        while not self.closed:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self.closed)
                taken, self._waiting = self._waiting, []
            self.taken.append([name for name, _ in taken])
            for name, future in taken:
                time.sleep(self.slow_s)
                if name.startswith("bad"):
                    future.set_exception(EngineError("no"))
                else:
                    future.set_result(Completion(loglikelihood=float(len(name))))


class Words(FedTask):
    """Each sample asks for its letters, one request each; a piece is two samples."""

    def __init__(self, name: str, desk: Desk, samples: Sequence[str], problem: BaseException | None = None):
        self.name, self.desk, self.samples, self.problem = name, desk, samples, problem
        self.threads: set[str] = set()

    def questions(self, todo: Sequence[str]) -> Iterator[list[Question]]:
        for start in range(0, len(todo), 2):
            if self.problem is not None and start:
                raise self.problem
            self.threads.add(threading.current_thread().name)
            yield [
                Question(s, list(s), lambda futures, s=s: self.finish(s, futures))
                for s in todo[start : start + 2]
            ]

    def submit(self, requests: Sequence[str]) -> list[Future]:
        return self.desk.submit(requests)

    def finish(self, sample_id: str, futures: Sequence[Future]) -> Sample:
        assert all(future.done() for future in futures)
        self.threads.add(threading.current_thread().name)
        return Sample(self.name, sample_id, str(len(futures)))


@pytest.fixture
def desk() -> Iterator[Desk]:
    found = Desk(slow_s=0.002)
    yield found
    found.closed = True


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
