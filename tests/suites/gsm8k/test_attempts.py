"""Several tries with feedback: when a dialogue ends, what it is told, and the accuracy by try."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from harness.errors import BadPlan
from harness.records import Completion, Output
from harness.testing import TaskConformance
from suites.gsm8k.attempts import load
from tests.suites.conftest import ref, run_whole

pytestmark = pytest.mark.mirror


def said(texts: Sequence[str]) -> list[Completion]:
    return [Completion((Output(text, (1,), "stop"),), output_tokens=1) for text in texts]


def test_accuracy_by_try_on_answers_that_are_known(context, mirror, monkeypatch):
    """Right at once, at the second try, at the third, never (the same wrong number thrice)."""
    task = load(ref("gsm8k_attempts"), context(mirror, limit=4))
    targets = {task._items[name].doc["question"]: task._items[name].target for name in task.sample_ids}
    solves = dict(zip(targets, (1, 2, 3, 9), strict=True))
    asked: list[str] = []

    def submit(requests: Sequence) -> list[Future]:
        futures: list[Future] = []
        for request in requests:
            prompt = task.engine.tokenizer.decode(request.prompt_ids)
            asked.append(prompt)
            question = next(q for q in targets if q in prompt)
            right = prompt.count("<|assistant|>") == solves[question]
            text = f"So it is.\n#### {targets[question]}" if right else "#### 123456"
            futures.append(Future())
            futures[-1].set_result(said([text])[0])
        return futures

    monkeypatch.setattr(task, "submit", submit)
    samples = run_whole(task)
    assert [len(sample.outputs) for sample in samples] == [1, 2, 3, 3]
    metrics = task.aggregate(samples)
    assert list(metrics) == task.metric_names
    assert [metrics[f"accuracy@{i}"].value for i in (1, 2, 3)] == [0.25, 0.5, 0.75]
    assert metrics["gain"].value == 0.5
    # later tries: one right; one wrong again and one right; two wrong again
    assert metrics["repeated"].value == pytest.approx((0 + 0.5 + 1) / 3)
    assert metrics["accuracy@3"].interval == "wilson"
    last = max(asked, key=len)
    assert last.count("Your answer is wrong. You have") == 2
    assert "You have 1 try left." in last
    assert samples[3].metadata["messages"][-1] == {"role": "assistant", "content": "#### 123456"}


def test_feedback_says_what_is_wrong_and_ends_with_the_tries(context, mirror):
    task = load(ref("gsm8k_attempts", attempts=2), context(mirror, limit=1))
    (item,) = task._items.values()
    assert task.opening(item)[0]["content"].startswith(item.doc["question"] + "\n\nYou have 2 tries.")
    assert task.reply(item, said(["Hm."])).startswith(
        "There is no number in your answer. You have 1 try left."
    )
    assert task.reply(item, said(["17"])).startswith("Your answer is wrong. You have 1 try left.")
    assert task.reply(item, said([f"the answer is {item.target}"])) is None
    assert task.n_requests == 2
    scores = task.score(item, said(["Hm.", f"#### {item.target} of 99"]))
    assert (scores["accuracy@1"].value, scores["accuracy@2"].value) == (0.0, 1.0)
    assert scores["extractors_disagree"].value == 1.0
    assert scores["repeated"].value == 0.0


@pytest.mark.parametrize("attempts", [1, 0, True, "three", 21])
def test_a_number_of_tries_that_makes_no_sense_is_refused(context, mirror, attempts):
    with pytest.raises(BadPlan, match=r"attempts is .*; give a whole number from 2 to 20"):
        load(ref("gsm8k_attempts", attempts=attempts), context(mirror))


class TestOnARealModel(TaskConformance):
    @pytest.fixture
    def task(self, context, mirror):
        return load(ref("gsm8k_attempts", max_tokens=6), context(mirror, limit=3))
