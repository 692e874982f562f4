"""Options, schedules and senders of the latency task."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future
from itertools import pairwise

import numpy as np
import pytest

from harness.errors import BadInput, BadPlan, EngineError
from harness.records import Metric
from harness.suitefile import adhoc_suite
from harness.suitespec import headline
from suites.serving.load import Load, Point, arrivals
from suites.serving.profiles import Slo
from suites.serving.prompts import Prompts, draw_ids
from suites.serving.sending import Sender
from tests.conftest import byte_tokenizer


def test_lists_are_sorted_and_one_number_or_words_will_do():
    assert Load.of({"concurrencies": [4, 1, 4]}).concurrencies == (1, 4)
    assert Load.of({"concurrencies": 3, "warmup": 0}).concurrencies == (3,)
    assert Load.of({"concurrencies": "1 16 4"}).concurrencies == (1, 4, 16)
    assert Load.of({"rates": "0.5 2"}).rates == (0.5, 2.0)
    assert Load.of({"rates": 2}).concurrencies == ()  # an open loop alone
    assert Load.of({"profiles": "vllm aiperf"}).profiles == ("vllm", "aiperf")
    assert Load.of({"slo_ttft_ms": 200}).slo == Slo(ttft=0.2)
    assert Load.of({}).slo is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"requests": 0}, "requests is 0; give whole numbers from 1 on"),
        ({"concurrencies": [0]}, r"concurrencies is \[0\]; give whole numbers"),
        ({"prompt_tokens": "x"}, "prompt_tokens is 'x'; give whole numbers"),
        ({"prompt_tokens": []}, "prompt_tokens is"),
        ({"warmup": -1}, "warmup is -1; give whole numbers from 0 on"),
        ({"requests": True}, "requests is True"),
        ({"requests": 2.0}, "requests is 2.0"),
        ({"concurrencies": [[1]]}, "concurrencies is"),
        ({"concurrencies": []}, "nothing to send"),
        ({"rates": [0]}, r"rates is \[0\]; give numbers above 0"),
        ({"rates": float("nan")}, "rates is nan"),
        ({"rates": float("inf")}, "rates is inf; give finite"),
        ({"burstiness": -1}, "burstiness is -1"),
        ({"utilisations": [0.5], "concurrencies": []}, "utilisations are shares"),
        ({"profiles": "vlm"}, "profiles is 'vlm'; give some of vllm, guidellm, aiperf"),
        ({"slo_ttft_ms": "fast"}, "slo_ttft_ms is 'fast'"),
        ({"stop_at_knee": 3}, "stop_at_knee is 3; give true or false"),
        ({"prompts": "nowhere.jsonl"}, "prompts is 'nowhere.jsonl'; give a JSONL file"),
    ],
)
def test_options_that_do_not_fit_are_named(options, said):
    with pytest.raises(BadPlan, match=said):
        Load.of(options)


def test_every_combination_is_a_load_and_labels_tell_them_apart():
    load = Load.of({"concurrencies": [1, 4], "rates": 2.5, "utilisations": 0.5, "prompt_tokens": [8, 16]})
    assert [point.label for point in load.points()] == [
        "1-in8", "4-in8", "2.5rps-in8", "0.5load-in8", "1-in16", "4-in16", "2.5rps-in16", "0.5load-in16",
    ]  # fmt: skip
    assert [p.label for p in Load.of({"output_tokens": [4, 2], "concurrencies": 1}).points()] == [
        "1-out2",
        "1-out4",
    ]
    assert [p.label for p in Load.of({"concurrencies": [1, 4]}).points()] == ["1", "4"]


def test_a_wide_load_gets_enough_requests_to_settle():
    load = Load.of({"requests": 10, "rounds": 4, "concurrencies": [1, 8]})
    assert [load.requests_at(point, None) for point in load.points()] == [10, 32]
    assert [load.requests_at(point, 20) for point in load.points()] == [10, 20]
    assert load.requests_at(Point(1, 1, rate=2.0), None) == 10


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_are_gamma_and_the_last_request_is_due_at_n_over_rate(burstiness):
    due = arrivals(4000, rate=5.0, burstiness=burstiness, seed=3)
    assert due[-1] == pytest.approx(4000 / 5.0)
    gaps = np.diff([0.0, *due])
    assert (gaps >= 0).all()
    assert gaps.std() / gaps.mean() == pytest.approx(1 / math.sqrt(burstiness), rel=0.08)
    # the very numbers that vLLM's client draws: numpy's legacy generator, one gap at a time, then stretched
    np.random.seed(3)
    drawn = np.cumsum([np.random.gamma(shape=burstiness, scale=1 / (5.0 * burstiness)) for _ in range(4000)])
    assert due == pytest.approx(list(drawn * (800 / drawn[-1])))


def test_even_arrivals():
    assert arrivals(4, rate=2.0, burstiness=math.inf, seed=0) == pytest.approx([0.5, 1.0, 1.5, 2.0])


class Sleeper:
    """Answers each request after a time, in a thread of its own."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.sent: list[float] = []
        self.flying = self.most = 0
        self.lock = threading.Lock()

    def __call__(self, what: int) -> Future:
        future: Future = Future()
        with self.lock:
            self.sent.append(time.perf_counter())
            self.flying += 1
            self.most = max(self.most, self.flying)

        def answer() -> None:
            with self.lock:
                self.flying -= 1
            future.set_result(what)

        threading.Timer(self.seconds, answer).start()
        return future


def test_a_closed_loop_keeps_its_slots_filled():
    server = Sleeper(0.05)
    start = time.perf_counter()
    done = list(Sender(server, slots=3).run(range(9)))
    assert sorted(sent.what for sent in done) == list(range(9))
    assert server.most == 3
    assert 0.15 <= time.perf_counter() - start < 1.5
    assert all(0 <= sent.sent_s - sent.scheduled_s < 0.5 for sent in done)


def test_an_open_loop_keeps_to_its_schedule():
    server = Sleeper(2.0)
    due = [0.05, 0.06, 0.2]
    start = time.perf_counter()
    done = sorted(Sender(server, None, due).run("abc"), key=lambda sent: sent.sent_s)
    first = done[0].scheduled_s
    assert [sent.scheduled_s - first for sent in done] == pytest.approx([0.0, 0.01, 0.15])
    assert 0.05 <= first - start < 1.0
    assert all(0 <= sent.sent_s - sent.scheduled_s < 0.5 for sent in done)  # never early
    assert server.most == 3


def test_a_slot_that_is_not_free_delays_the_sending_and_not_the_schedule():
    server = Sleeper(0.1)
    done = list(Sender(server, 1, [0.01, 0.02, 0.03]).run("abc"))
    lags = [sent.sent_s - sent.scheduled_s for sent in done]
    assert lags[0] < lags[1] < lags[2]
    assert lags[2] >= 0.17  # two answers of 0.1 s before it, due at 0.03 instead of 0.01
    assert all(later.sent_s > earlier.sent_s for earlier, later in pairwise(done))


def test_what_cannot_be_sent_is_raised_where_answers_are_awaited():
    def refuse(what: int) -> Future:
        raise EngineError("closed")

    with pytest.raises(EngineError, match="closed"):
        list(Sender(refuse, 2).run(range(4)))
    assert list(Sender(refuse, 2).run([])) == []


def test_a_sender_that_is_given_up_sends_no_more():
    server = Sleeper(0.01)
    answers = Sender(server, None, [0.0, 0.02, 30.0]).run("abc")
    next(answers)
    start = time.perf_counter()
    answers.close()
    assert time.perf_counter() - start < 1
    assert len(server.sent) < 3


def test_drawn_prompts_come_back_from_their_text():
    tokenizer = byte_tokenizer()
    ids = draw_ids(tokenizer, 50, "0:a")
    assert len(ids) == 50
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert ids == draw_ids(tokenizer, 50, "0:a") != draw_ids(tokenizer, 50, "1:a")


def test_a_file_of_prompts_is_used_in_turn_and_its_faults_are_named(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "one"}\n\n{"prompt": "two"}\n')
    prompts = Prompts(str(file), 0)
    assert [prompts.doc(place)["prompt"] for place in range(3)] == ["one", "two", "one"]
    for text, said in (("", "no prompts"), ("nonsense\n", ":1: no JSON"), ('{"text": "a"}\n', ":1: no text")):
        file.write_text(text)
        with pytest.raises(BadInput, match=said):
            Prompts(str(file), 0)


def test_asked_by_itself_its_headline_keeps_its_own_direction():
    suite = adhoc_suite(["latency"])
    found = headline(suite, {"latency": {"vllm_e2e_p50_ms@1": Metric(12.5, 8, 0, False, unit="ms")}})
    assert (found.value, found.higher_is_better, found.reason) == (12.5, False, None)
