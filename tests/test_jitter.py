"""How much scores move between batch plans, on a tiny real model and by hand."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

import pytest

from harness.binding import Binder
from harness.errors import BadPlan
from harness.evaluate import Evaluation, evaluate
from harness.jitter import Noted, Pass, Regrouped, note_of, spread
from harness.plan import EvalPlan
from harness.planfile import from_options
from harness.protocols import SilentProgress
from harness.records import Completion, Headline, LoglikelihoodRequest, Sample, Score
from harness.store import Store
from harness.strategies.direct import Direct
from tests.test_evaluate import plan_for


def test_the_scores_are_those_of_the_first_plan_and_the_rest_is_not_weighed(plugin, tiny_llama, tmp_path):
    fields = {"tasks": ["sums", "sum_choices"], "suites": []}
    plain = evaluate(plan_for(tiny_llama, tmp_path / "plain", **fields))[0]
    run = evaluate(plan_for(tiny_llama, tmp_path / "jitter", jitter=3, **fields))[0]
    assert (plain.jitter, run.run_id, run.metrics) == (None, plain.run_id, plain.metrics)
    assert "jitter" not in " ".join(plain.notes) + " ".join(plain.phases_s)
    jitter = run.jitter
    assert (jitter.plans, jitter.n_samples, jitter.n_changed, jitter.share_changed) == (3, 12, 0, 0)
    assert 0 <= jitter.max_loglikelihood_difference < 1e-4
    assert jitter.headline_low == jitter.headline_high == run.headline.value
    assert any("over 3 batch plans 0 of 12 samples changed" in note for note in run.notes)
    assert run.energy["inference"].queries == 12
    assert run.engine["requests"] == plain.engine["requests"], "what the record says is of the first plan"
    assert run.phases_s["jitter"] > 0


def test_a_finished_run_is_measured_afterwards(plugin, tiny_llama, tmp_path):
    fields = {"tasks": ["sum_choices"], "suites": []}
    first = evaluate(plan_for(tiny_llama, tmp_path, **fields))[0]
    later = evaluate(plan_for(tiny_llama, tmp_path, jitter=2, **fields))[0]
    assert (later.run_id, later.metrics, later.jitter.plans) == (first.run_id, first.metrics, 2)
    assert later.jitter.max_loglikelihood_difference is not None
    assert later.energy["inference"].queries == 6
    assert Store(tmp_path).runs()[0].jitter == later.jitter
    again = evaluate(plan_for(tiny_llama, tmp_path, jitter=2, **fields))[0]
    assert again.jitter == later.jitter
    assert sum("batch plans" in note for note in again.notes) == 1


def test_one_plan_is_no_spread():
    with pytest.raises(BadPlan, match="jitter"):
        from_options(EvalPlan, {"checkpoints": ["a"], "suites": ["b"], "jitter": 1})


class Engine:
    """Answers at once and remembers in what groups it was asked."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []

    def submit(self, requests):
        self.groups.append([request.continuation_ids[0] for request in requests])
        futures = [Future() for _ in requests]
        for request, future in zip(requests, futures, strict=True):
            future.set_result(Completion(loglikelihood=-float(request.continuation_ids[0])))
        return futures


@pytest.mark.parametrize("count", [0, 1, 2, 10])
def test_plans_differ_in_order_and_groups_and_not_in_answers(count: int):
    requests = [LoglikelihoodRequest((0,), (i,)) for i in range(count)]
    seen = []
    for plan in range(3):
        engine, regrouped = Engine(), Regrouped(Direct(), plan)
        answers = [future.result().loglikelihood for future in regrouped.submit(engine, requests)]
        assert answers == [-i for i in range(count)]
        assert sorted(i for group in engine.groups for i in group) == list(range(count))
        assert len(regrouped.values) == count
        seen.append(engine.groups)
    assert seen[0] == [list(range(count))]
    assert count < 10 or (len(seen[1]), len(seen[2])) == (3, 5)


def sample(number: int, value: float | None, error: str | None = None) -> Sample:
    return Sample("t", str(number), "p", scores={"acc": Score(value)}, error=error)


def one(values: list[float | None], lls: dict[int, float], head: float | None) -> Pass:
    samples = {("t", str(i)): sample(i, v, None if v is not None else "lost") for i, v in enumerate(values)}
    return Pass(samples, lls, Headline("acc", head, None, None, True, len(values), 0))


def test_the_spread_by_hand():
    first = one([1, 0, 1, None], {1: -2.0, 2: -3.0}, 0.75)
    second = one([1, 1, 1, 0], {1: -2.25, 2: -3.0}, 0.5)
    third = one([1, 0, 1, 0], {1: -1.75, 3: -9.0}, 0.625)
    found = spread(first, [second, third])
    assert (found.plans, found.n_samples, found.n_changed, found.share_changed) == (3, 4, 2, 0.5)
    assert (found.max_loglikelihood_difference, found.headline_low, found.headline_high) == (0.5, 0.5, 0.75)
    assert note_of(found) == (
        "jitter: over 3 batch plans 2 of 4 samples changed their score, the headline lies between 0.5 and 0.75, "
        "loglikelihoods moved by at most 0.5 nats"
    )
    unknown = spread(first, [replace(second, headline=None, loglikelihoods={})])
    assert (unknown.headline_low, unknown.max_loglikelihood_difference) == (None, None)


def test_tasks_ask_through_the_noting_strategy(plugin, tiny_llama, tmp_path):
    plan = plan_for(tiny_llama, tmp_path, jitter=2)
    assert isinstance(Evaluation(Binder(plan, SilentProgress()), None).binder.strategy, Noted)
