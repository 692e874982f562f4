"""The queue's own promises."""

from __future__ import annotations

import threading
import time

import pytest

from harness.engines.queue import RequestQueue
from harness.errors import EngineError
from harness.records import Completion, GenerateRequest, LoglikelihoodRequest


def test_the_busy_time_holds_the_batch_whose_answers_are_there_already() -> None:
    def compute(taken) -> None:
        time.sleep(0.2)
        for item in taken:
            item.future.set_result(Completion())
        time.sleep(0.2)  # what a batch does after its last answer

    queue = RequestQueue(compute, lambda: None)
    try:
        assert queue.busy_s == 0
        (item,) = queue.put([GenerateRequest((1,))], lambda request: None)
        item.future.result()
        assert queue.busy_s == pytest.approx(0.2, abs=0.15)
        queue.drain()
        assert queue.busy_s == pytest.approx(0.4, abs=0.2)
        at_rest = queue.busy_s
        time.sleep(0.1)
        assert queue.busy_s == at_rest
    finally:
        queue.close()


def test_what_joins_a_batch_is_answered_or_fails_with_it() -> None:
    wanted = LoglikelihoodRequest((1,), (2,))
    go = threading.Event()
    joined: list[int] = []

    def compute(taken) -> None:
        go.wait(10)
        generations = [queue.join(least, 2, lambda r: isinstance(r, GenerateRequest)) for least in (4, 1)]
        joined.extend(map(len, generations))
        raise RuntimeError("lost")

    queue = RequestQueue(compute, lambda: None)
    try:
        first = queue.put([GenerateRequest((1,))], lambda request: None)
        time.sleep(0.1)
        more = queue.put([GenerateRequest((i,)) for i in range(3)], lambda request: None)
        go.set()
        for item in (*first, *more[:2]):
            with pytest.raises(EngineError, match="lost"):
                item.future.result(10)
        assert joined[:2] == [0, 2]  # fewer than four wait; two at most
        with pytest.raises(EngineError):
            more[2].future.result(10)
        assert joined[2:] == [0, 0]
        go.clear()
        first = queue.put([GenerateRequest((1,))], lambda request: None)
        time.sleep(0.1)
        mixed = queue.put([GenerateRequest((2,)), wanted], lambda request: None)
        go.set()
        with pytest.raises(EngineError):
            mixed[1].future.result(10)
        assert joined[4:6] == [0, 0]  # a scoring request would wait until the last generation is done
    finally:
        queue.close()


def test_what_the_engine_forgets_fails() -> None:
    queue = RequestQueue(lambda taken: taken[0].future.set_result(Completion()), lambda: None)
    try:
        kept, lost = queue.put([GenerateRequest((1,)), GenerateRequest((2,))], lambda request: None)
        assert kept.future.result(10) == Completion()
        with pytest.raises(EngineError, match="did not answer"):
            lost.future.result(10)
    finally:
        queue.close()
