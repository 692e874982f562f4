"""The queue's own promises."""

from __future__ import annotations

import time

import pytest

from harness.engines.queue import RequestQueue
from harness.records import Completion, GenerateRequest


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
