"""Tasks of several turns: what the journal holds of a dialogue, when it ends, and that the engine is kept busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from harness.datasets import Datasets
from harness.engines.transformers import TransformersEngine
from harness.errors import BadPlan, EngineError
from harness.feeding import run_tasks
from harness.protocols import TaskContext, TaskRef
from harness.records import Checkpoint, Completion, GenerateRequest, Output, Sample, Sampling, Score
from harness.strategies.direct import Direct
from harness.tasks import Item, MetricSpec
from harness.testing import TaskConformance
from harness.turns import TurnsTask
from tests.conftest import byte_tokenizer


class Echo(TurnsTask):
    """Dialogues of as many turns as their number says; the user repeats how long the last answer was."""

    most_turns = 4
    metrics = {"turns": MetricSpec(unit="turns")}
    defaults = Sampling(max_tokens=5)
    lengths: Sequence[int] = (1, 3, 2, 2, 4)

    def items(self):
        return [
            Item(f"d{index}", {"turns": turns}, str(turns), {"kind": "echo"})
            for index, turns in enumerate(self.lengths)
        ]

    def opening(self, item):
        return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"begin {item.id}"}]

    def reply(self, item, answers):
        if item.doc["turns"] == 0:
            raise ValueError("nothing to say")
        if len(answers) == item.doc["turns"]:
            return None
        return f"{item.id} said {len(answers[-1].outputs[0].text)}"

    def score(self, item, completions):
        return {"turns": Score(float(len(completions)))}


class Desk:
    """An engine that takes all that waits at once, answers one after another, and writes down what it took."""

    name, max_length = "desk", 4096

    def __init__(self, *, slow_s: float = 0.0, chat: bool = True) -> None:
        self.tokenizer = byte_tokenizer(chat=chat)
        self.taken: list[list[str]] = []
        self.stops: list[tuple[str, ...]] = []
        self.slow_s = slow_s
        self.idle_s = 0.0
        self._waiting: list[tuple[GenerateRequest, Future]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, requests: Sequence[GenerateRequest]) -> list[Future]:
        futures: list[Future] = [Future() for _ in requests]
        with self._changed:
            self._waiting += zip(requests, futures, strict=True)
            self._changed.notify()
        return futures

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            since = time.perf_counter()
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                taken, self._waiting = self._waiting, []
            self.idle_s += time.perf_counter() - since
            prompts = [self.tokenizer.decode(request.prompt_ids) for request, _ in taken]
            self.taken.append(prompts)
            for prompt, (request, future) in zip(prompts, taken, strict=True):
                time.sleep(self.slow_s)
                self.stops.append(request.sampling.stop)
                if "begin d1" in prompt and "said" in prompt:
                    future.set_exception(EngineError("the server is gone"))
                    continue
                text = f"answer {prompt.count('said') + 1}"
                length = len(request.prompt_ids)
                now = time.perf_counter()
                future.set_result(
                    Completion(
                        (Output(text, (1, 2), "stop"),), prompt_tokens=length, output_tokens=2, done_s=now
                    )
                )


@pytest.fixture
def desk() -> Iterator[Desk]:
    found = Desk(slow_s=0.001)
    yield found
    found.close()


def bound(engine, kind: type[TurnsTask] = Echo, **fields) -> TurnsTask:
    context = TaskContext(engine=engine, strategy=Direct(), data=Datasets(None), **fields)
    return kind(TaskRef("", "echo", {}, "echo"), context)


def run(task: TurnsTask) -> dict[str, Sample]:
    journal: list[Sample] = []
    task.run(task.sample_ids, journal.append)
    assert len({sample.sample_id for sample in journal}) == len(journal) == len(task.sample_ids)
    return {sample.sample_id: sample for sample in journal}


def test_the_journal_holds_every_turn(desk: Desk) -> None:
    found = run(bound(desk))
    sample = found["d4"]
    assert sample.outputs == ("answer 1", "answer 2", "answer 3", "answer 4")
    assert sample.finish_reasons == ("stop",) * 4
    assert (sample.answers, sample.output_tokens) == (4, 8)
    assert sample.prompt == "<|system|>Be brief.<|end|><|user|>begin d4<|end|><|assistant|>"
    assert [message["role"] for message in sample.metadata["messages"]] == [
        "system",
        *["user", "assistant"] * 4,
    ]
    assert sample.metadata["messages"][3:5] == [
        {"role": "user", "content": "d4 said 8"},
        {"role": "assistant", "content": "answer 2"},
    ]
    assert sample.metadata["kind"] == "echo"
    assert [found[name].scores["turns"].value for name in ("d0", "d2", "d3", "d4")] == [1, 2, 2, 4]
    assert desk.taken[-1][0].endswith("<|assistant|>answer 3<|end|><|user|>d4 said 8<|end|><|assistant|>")


def test_a_turn_that_was_not_answered_fails_its_dialogue_and_no_other(desk: Desk) -> None:
    task = bound(desk)
    found = run(task)
    assert found["d1"].error == "the server is gone"
    assert [m["content"] for m in found["d1"].metadata["messages"]][-1] == "d1 said 8"
    metric = task.aggregate(list(found.values()))["turns"]
    assert (metric.n, metric.n_failed, metric.value) == (4, 1, 2.25)


def test_a_reply_that_raises_fails_its_dialogue(desk: Desk) -> None:
    class Odd(Echo):
        lengths = (2, 0, 1)

    found = run(bound(desk, Odd))
    assert found["d1"].error == "reply: ValueError: nothing to say"
    assert [found[name].error for name in ("d0", "d2")] == [None, None]


def test_turns_of_two_cohorts_take_turns_whatever_the_timing(desk: Desk, monkeypatch) -> None:
    monkeypatch.setattr("harness.turns.SMALL", 5)

    class Even(Echo):
        lengths = (2, 3, 2, 4, 2)

    def asked(prompts: list[str]) -> list[str]:
        return [prompt.partition("begin ")[2][:2] for prompt in prompts]

    expected = [["d0", "d1", "d2"], ["d3", "d4"], ["d0", "d1", "d2"], ["d3", "d4"], ["d3"], ["d3"]]
    for slow_s in (0.0, 0.004):
        desk.taken.clear()
        desk.slow_s = slow_s
        run(bound(desk, Even))
        assert [asked(prompts) for prompts in desk.taken] == expected


def test_few_dialogues_are_asked_together(desk: Desk) -> None:
    class Even(Echo):
        lengths = (2, 3, 2, 4, 2)

    run(bound(desk, Even))
    assert [len(prompts) for prompts in desk.taken] == [5, 5, 1, 1]  # d1 fails in its second turn


def test_the_engine_has_work_while_answers_are_read_and_the_next_turn_is_made(
    desk: Desk, monkeypatch
) -> None:
    monkeypatch.setattr("harness.turns.SMALL", 2)

    class Slow(Echo):
        lengths = (3,) * 8

        def items(self):  # d1 is the one that fails
            return [replace(item, id=f"e{item.id}") for item in super().items()]

        def reply(self, item, answers):
            time.sleep(0.005)
            return super().reply(item, answers)

    desk.slow_s = 0.02
    task = bound(desk, Slow)
    desk.idle_s = 0.0
    run(task)
    # 24 answers of 20 ms. Reading them takes 16 times 5 ms; one after another the engine would stand still for that.
    assert len(desk.taken) == 6
    assert desk.idle_s < 0.05


def test_a_run_that_is_given_up_ends(desk: Desk) -> None:
    def refuse(sample: Sample) -> None:
        raise OSError("the disk is full")

    start = time.perf_counter()
    with pytest.raises(OSError, match="disk is full"):
        run_tasks([(bound(desk), ["d0", "d4"])], refuse)
    assert time.perf_counter() - start < 5
    assert not [thread for thread in threading.enumerate() if thread.name == "feeder"]


def test_without_a_template_the_parts_are_named_and_an_answer_ends_before_the_next_question() -> None:
    desk = Desk(chat=False)
    sample = run(bound(desk))["d2"]
    assert sample.prompt == "System: Be brief.\n\nUser: begin d2\n\nAssistant:"
    assert any(
        prompt
        == "System: Be brief.\n\nUser: begin d2\n\nAssistant: answer 1\n\nUser: d2 said 8\n\nAssistant:"
        for prompts in desk.taken
        for prompt in prompts
    )
    assert set(desk.stops) == {("\nUser:",)}
    desk.close()


def test_dialogues_are_counted_and_take_one_answer_to_a_turn(desk: Desk) -> None:
    assert bound(desk, limit=3).n_requests == 12
    with pytest.raises(BadPlan, match=r"sampling\.n is 4; leave it at 1"):
        bound(desk, sampling={"n": 4})


@pytest.fixture(scope="module")
def tiny_engine(tiny_llama: Path) -> Iterator[TransformersEngine]:
    checkpoint = Checkpoint(str(tiny_llama), "tiny", str(tiny_llama), None, "tiny", "tiny")
    engine = TransformersEngine.load(checkpoint, {"threads": 1})
    yield engine
    engine.close()


class TestOnARealModel(TaskConformance):
    @pytest.fixture
    def task(self, tiny_engine: TransformersEngine) -> TurnsTask:
        return bound(tiny_engine)

    def test_the_second_prompt_holds_the_first_answer(self, tiny_engine: TransformersEngine) -> None:
        first = run(bound(tiny_engine))
        again = run(bound(tiny_engine))
        assert {k: s.outputs for k, s in first.items()} == {k: s.outputs for k, s in again.items()}
        messages = first["d4"].metadata["messages"]
        spoken = "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in messages[:-1]) + "<|assistant|>"
        (asked,) = bound(tiny_engine).ask(messages[:-1]).requests
        assert tiny_engine.tokenizer.decode(asked.prompt_ids) == spoken
        (done,) = tiny_engine.submit([asked])
        assert done.result().outputs[0].text == first["d4"].outputs[-1]
