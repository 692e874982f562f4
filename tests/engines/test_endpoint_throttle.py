"""Servers that say that they have too many requests: everything is answered in the end, and they are not stormed."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from harness.engines.endpoint_throttle import Throttle
from tests.engines.conftest import failure, sums, texts_of
from tests.engines.endpoint_server import Act


def rate_limit(most, per_s, refusal):
    """So many answers in any stretch of that many seconds; the rest is refused."""
    answered, lock = [], threading.Lock()

    def act(path, body, number):
        with lock:
            now = time.monotonic()
            answered[:] = [at_s for at_s in answered if now - at_s < per_s]
            if len(answered) >= most:
                return refusal
            answered.append(now)
            return None

    return act


REFUSALS = {
    "429 with less than is needed": Act({"error": "rate"}, 429, {"retry-after": "0.01"}),
    "429 without a time": Act({"error": "rate"}, 429),
    "503 with a time": Act({"error": "busy"}, 503, {"retry-after": "0.01"}),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_storm_uses_up_no_tries(server, engine_on, kind):
    engine = engine_on(server, retries=1)
    server.arm(rate_limit(8, 0.2, REFUSALS[kind]))
    assert texts_of(sums(engine, 40)) == [str(3 * i) for i in range(40)]
    # they take 0.8 s at the least; a request every 10 ms, as it says, would be 80 refusals, and 32 are at the start
    refused = len(server.asked) - 40
    assert 0 < refused < 80
    assert engine.describe()["retries"] == refused


def test_as_many_are_in_flight_as_the_server_takes(server, engine_on):
    server.delay_s = 0.02
    engine = engine_on(server, concurrency=32)
    server.arm(lambda path, body, number: Act({"error": "rate"}, 429) if server._at_once > 4 else None)
    assert texts_of(sums(engine, 80)) == [str(3 * i) for i in range(80)]
    # 32 at the start are refused but 4, and 16 and 8 after them: then it is found out
    assert len(server.asked) - 80 < 80
    late = engine._client.limits.throttle.most
    assert 1 <= late < 10
    server.arm(lambda path, body, number: None)
    texts_of(sums(engine, 80))
    assert engine._client.limits.throttle.most > late + 5  # the server is well again: more and more at once


def test_a_server_that_refuses_everything_is_given_up_after_the_deadline(server, engine_on):
    engine = engine_on(server, deadline_s=0.5, concurrency=4)
    server.arm(lambda path, body, number: Act({"error": "rate"}, 429, {"retry-after": "0.05"}))
    start_s = time.monotonic()
    futures = sums(engine, 200)
    said = {failure(future).partition("/v1")[2] for future in futures}
    assert said == {
        ": HTTP 429 Too Many Requests: rate (nothing was answered for 0.5 s, deadline_s)",
        " says that it has too many requests, and answers none (deadline_s)",
    }
    assert 0.5 < time.monotonic() - start_s < 10
    assert engine.describe()["failed"] == 200
    server.arm(lambda path, body, number: None)
    while engine._client.limits.throttle.resting:
        time.sleep(0.05)
    assert texts_of(sums(engine, 3)) == ["0", "3", "6"]


def test_a_request_that_is_always_refused_holds_up_no_other_for_ever(server, engine_on, monkeypatch):
    monkeypatch.setattr("harness.engines.endpoint_client.MOST_REFUSALS", 5)
    engine = engine_on(server, concurrency=2)
    server.delay_s = 0.01
    server.arm(lambda path, body, number: Act({}, 429) if "What is 1 +" in body["prompt"] else None)
    futures = sums(engine, 60)
    assert "6 times, while others were answered" in failure(futures[1])
    assert texts_of(futures[2:]) == [str(3 * i) for i in range(2, 60)]


def test_money_that_is_spent_is_not_waited_for(server, engine_on):
    engine = engine_on(server)
    spent = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    server.arm(lambda path, body, number: Act(spent, 429))
    assert "exceeded your current quota" in failure(sums(engine, 1)[0])
    assert len(server.asked) == 1


def test_refusals_of_one_round_halve_once_and_answers_add_one_a_round():
    async def storm():
        throttle = Throttle(backoff_s=0.001, patience_s=10)
        for _ in range(16):
            await throttle.enter()
        sent_s = time.monotonic()
        for _ in range(16):
            throttle.refused(sent_s, None)
            await throttle.leave()
        halved = throttle.most
        for _ in range(8):
            await throttle.enter()
        for _ in range(8):
            throttle.answered()
            await throttle.leave()
        return halved, throttle.most, throttle.in_flight

    halved, grown, in_flight = asyncio.run(storm())
    assert (halved, in_flight) == (8, 0)
    assert 8.9 < grown < 9.0  # 8 + 1/8 + 1/8.125 + ...
