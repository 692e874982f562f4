"""Calibration tasks: two requests a sample, the second about the first's answer; figures by hand; choices."""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future

import pytest

from harness import registry
from harness.errors import BadInput, BadPlan, EngineError
from harness.feeding import run_tasks
from harness.records import Completion, GenerateRequest, LoglikelihoodRequest, Output, Sample
from harness.testing import TaskConformance
from suites.confidence import calibration, choice_calibration
from suites.confidence.choice_calibration import softmax
from suites.starter import calibration as starter_calibration
from tests.conftest import byte_tokenizer
from tests.suites.conftest import ref, run_whole


class Oracle:
    """An engine that gives written replies by question, and log 0.5 for every answer; notes what it is asked."""

    name, max_length = "oracle", 4096

    def __init__(self, replies, *, chat=True, broken=()):
        self.tokenizer = byte_tokenizer(chat=chat)
        self.replies = list(replies)
        self.broken = set(broken)
        self.generated: list[str] = []
        self.compared: list[tuple[str, str]] = []

    def submit(self, requests):
        return [self._answered(request) for request in requests]

    def _answered(self, request):
        future: Future = Future()
        if isinstance(request, GenerateRequest):
            self.generated.append(self.tokenizer.decode(request.prompt_ids))
            text = self.replies[len(self.generated) - 1]
            future.set_result(Completion(outputs=(Output(text, (), "stop"),), output_tokens=len(text)))
        else:
            assert isinstance(request, LoglikelihoodRequest)
            pair = tuple(map(self.tokenizer.decode, (request.context_ids, request.continuation_ids)))
            self.compared.append(pair)
            if len(self.compared) in self.broken:
                future.set_exception(EngineError("gone"))
            else:
                future.set_result(Completion(loglikelihood=math.log(0.5)))
        return future


REPLIES = [
    "Answer: 14 December 1972 UTC\nConfidence: 0.9",  # right
    "Answer: Cliff Richard\nConfidence: 0.8",  # wrong
    "Answer: one\nConfidence: 80%",  # right, unreadable
    "I would rather not say.",  # no answer: wrong, unreadable, nothing to compare
    "Answer: South Carolina, Confidence: 0.6",  # right, the paper's form
    "Answer: x\nConfidence: 1.5",  # wrong, outside
]


def run(task):
    journal = {}
    run_tasks([(task, task.sample_ids)], lambda sample: journal.setdefault(sample.sample_id, sample))
    return [journal[name] for name in task.sample_ids]


@pytest.fixture
def questions(mirror, context):
    """Build the task over the oracle, with the questions that REPLIES are written for."""

    def build(engine, **options):
        wanted = [0, 1, 2, 3, 4, 5]
        task = calibration.load(ref("calibration", **options), context(mirror, engine=engine, limit=6))
        assert [int(name) for name in task.sample_ids] == wanted
        return task

    return build


def test_figures_by_hand(questions):
    task = questions(Oracle(REPLIES))
    samples = run(task)
    right = [sample.scores["accuracy"].value for sample in samples]
    assert right == [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    assert [s.scores["confidence_unreadable"].detail for s in samples] == [
        None, None, "no number", "none", None, "outside 0..1",
    ]  # fmt: skip
    assert [s.answers for s in samples] == [2, 2, 2, 1, 2, 2]
    metrics = task.aggregate(samples)
    values = {name: metric.value for name, metric in metrics.items()}
    assert values["accuracy"] == 0.5
    assert values["confidence_unreadable"] == 0.5
    assert values["verbal_ece"] == pytest.approx((0.1 + 0.8 + 0.4) / 3)
    assert values["verbal_brier"] == pytest.approx((0.01 + 0.64 + 0.16) / 3)
    assert values["verbal_auroc"] == 0.5  # of (0.9 right, 0.6 right) one is above 0.8, which is wrong
    assert metrics["verbal_ece"].n == 3
    assert values["token_confidence"] == pytest.approx(0.5)
    assert values["token_ece"] == pytest.approx(0.1)  # 3 of 5 right at 0.5
    assert metrics["token_ece"].n == 5
    assert values["token_auroc"] == 0.5
    bars = metrics["verbal_ece"].detail["reliability"]
    assert [(bar["n"], bar["accuracy"]) for bar in bars if bar["n"]] == [(1, 1.0), (1, 0.0), (1, 1.0)]


def test_the_second_request_is_about_the_answer_that_was_given(questions):
    engine = Oracle(REPLIES)
    task = questions(engine)
    samples = run(task)
    assert len(engine.generated) == 6
    context, answer = engine.compared[0]
    assert context == engine.generated[0] + "Answer:"
    assert answer == " 14 December 1972 UTC"
    assert [pair[1] for pair in engine.compared] == [
        " 14 December 1972 UTC", " Cliff Richard", " one", " South Carolina", " x",
    ]  # fmt: skip
    assert samples[3].scores.keys() == {"accuracy", "confidence_unreadable", "extractors_disagree"}
    assert samples[0].outputs == (REPLIES[0],)


def test_without_a_template_the_prompt_holds_the_opening_of_the_reply(questions):
    engine = Oracle([reply.removeprefix("Answer:") for reply in REPLIES], chat=False)
    task = questions(engine)
    samples = run(task)
    assert [sample.scores["accuracy"].value for sample in samples] == [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    assert engine.generated[0].endswith("when was the last time anyone was on the moon?\nAnswer:")
    assert engine.compared[0] == (engine.generated[0], " 14 December 1972 UTC")


def test_a_likelihood_that_fails_fails_its_sample_alone(questions):
    task = questions(Oracle(REPLIES, broken=[2]))
    samples = run(task)
    assert [sample.error for sample in samples] == [None, "gone", None, None, None, None]
    metrics = task.aggregate(samples)
    assert {metrics[name].n_failed for name in ("verbal_ece", "token_ece", "accuracy")} == {1}


def test_servers_without_likelihoods_are_asked_for_the_stated_confidence_alone(questions):
    engine = Oracle(REPLIES)
    task = questions(engine, token_probability=False)
    samples = run(task)
    assert engine.compared == []
    assert (task.compares_likelihoods, task.n_requests) == (False, 6)
    names = list(task.aggregate(samples))
    assert "verbal_ece" in names
    assert not [name for name in names if name.startswith("token")]
    both = questions(Oracle(REPLIES))
    assert (both.compares_likelihoods, both.n_requests) == (True, 12)
    assert both.generative_form == "calibration,token_probability=false"
    assert both.fingerprint != task.fingerprint


@pytest.mark.parametrize(
    ("options", "message"), [({"n": 3}, "sampling.n is 3"), ({"token_probability": "no"}, "true or false")]
)
def test_options_that_do_not_fit_are_refused(mirror, context, options, message):
    with pytest.raises(BadPlan, match=message):
        calibration.load(ref("calibration", **options), context(mirror, engine=None))


def test_many_pieces_give_what_one_gives(questions, monkeypatch):
    whole = run(questions(Oracle(REPLIES)))
    monkeypatch.setattr("harness.feeding.FIRST_PIECE_CHARS", 1)
    monkeypatch.setattr("harness.feeding.PIECE_CHARS", 1)
    engine = Oracle(REPLIES)
    assert [s.scores for s in run(questions(engine))] == [s.scores for s in whole]
    assert len(engine.compared) == 5


@pytest.mark.parametrize("chat", ["auto", "off"])
def test_a_run_on_the_engine(mirror, context, chat, tiny_engine):
    task = calibration.load(ref("calibration"), context(mirror, limit=3, chat=chat))
    samples = run_whole(task)
    assert [s.error for s in samples] == [None] * 3
    for sample in samples:
        if "token_confidence" not in sample.scores:
            continue
        text = task._given + sample.outputs[0]
        stated = calibration.read_stated(text)
        tokens = tiny_engine.tokenizer.encode
        ids = tokens(sample.prompt + text[len(task._given) : stated.begin], add_special_tokens=False)
        request = LoglikelihoodRequest(tuple(ids), tuple(tokens(text[stated.begin : stated.end])))
        (again,) = tiny_engine.submit([request])
        assert sample.scores["token_confidence"].value == pytest.approx(
            math.exp(again.result().loglikelihood), rel=1e-3
        )
    assert chat == "auto" or any("token_confidence" in sample.scores for sample in samples)


def test_choices_as_probabilities(mirror, context):
    task = choice_calibration.load(ref("arc_challenge", "choice_calibration"), context(mirror, limit=8))
    samples = run_whole(task)
    assert [s.error for s in samples] == [None] * 8
    for sample in samples:
        shares = sample.scores["choice_confidence"].detail
        assert sum(shares) == pytest.approx(1.0, abs=1e-5)
        assert sample.scores["choice_confidence"].value == pytest.approx(max(shares), abs=1e-6)
        chosen = sample.scores["accuracy"].detail
        assert shares[chosen] == max(shares)
        assert sample.scores["accuracy"].value == float(chosen == sample.metadata["right"])
    metrics = task.aggregate(samples)
    assert list(metrics) == ["choice_ece", "choice_brier", "choice_auroc", "accuracy", "choice_confidence"]
    assert task.n_requests == sum(s.answers for s in samples)


def test_the_accuracy_of_choices_is_lm_evals(mirror, context):
    from suites.from_lm_eval import entry as from_lm_eval

    mine = choice_calibration.load(ref("arc_challenge", "choice_calibration"), context(mirror, limit=20))
    theirs = from_lm_eval.load(ref("arc_challenge", "lm_eval"), context(mirror, limit=20))
    values = [s.scores["accuracy"].value for s in run_whole(mine)]
    assert values == [s.scores["acc"].value for s in run_whole(theirs)]


def test_choices_inside_the_sentence(mirror, context):
    task = choice_calibration.load(ref("winogrande", "choice_calibration"), context(mirror, limit=2))
    item = next(iter(task._items.values()))
    first, second = item.doc["contexts"]
    assert first != second
    assert item.doc["choices"][0] == item.doc["choices"][1]
    assert [s.error for s in run_whole(task)] == [None] * 2


def test_a_task_without_one_right_choice_is_refused(mirror, context):
    task = choice_calibration.load(
        ref("truthfulqa_mc2", "choice_calibration"), context(mirror, engine=None, limit=2)
    )
    with pytest.raises(BadInput, match="truthfulqa_mc2"):
        _ = task.sample_ids


def test_softmax_by_hand():
    assert softmax([math.log(1), math.log(3)]) == pytest.approx([0.25, 0.75])
    assert softmax([-10_000.0, -10_000.0]) == [0.5, 0.5]
    assert softmax([-5.0]) == [1.0]


class TestConformance(TaskConformance):
    @pytest.fixture(params=["calibration", "starter_calibration", "choice_calibration:arc_challenge"])
    def task(self, request, mirror, context):
        loader, _, name = request.param.partition(":")
        return registry.load("task", loader)(
            ref(name or loader, loader if name else ""), context(mirror, limit=4)
        )


def test_a_starter_run(context):
    task = starter_calibration.load(ref("starter_calibration"), context(None, limit=5))
    samples = run_whole(task)
    assert [s.error for s in samples] == [None] * 5
    assert all(0.0 <= s.scores["token_confidence"].value <= 1.0 for s in samples)
    metrics = task.aggregate(samples)
    assert metrics["token_ece"].n == 5
    failed = Sample("x", "y", "?", error="gone")
    assert task.aggregate([*samples, failed])["token_ece"].n_failed == 1


def test_a_task_that_cannot_find_the_answer_fails_its_sample_alone(questions, monkeypatch):
    task = questions(Oracle(REPLIES))
    found = type(task).span

    def span(output):
        if "one" in output.text:
            raise LookupError("lost")
        return found(task, output)

    monkeypatch.setattr(task, "span", span)
    assert [sample.error for sample in run(task)] == [None, None, "span: LookupError: lost", None, None, None]


def test_an_answer_of_no_tokens_is_scored_without_a_likelihood(questions, monkeypatch):
    task = questions(Oracle(REPLIES))
    monkeypatch.setattr("suites.confidence.answer_likelihood._requests", lambda given, before, answer: ())
    samples = run(task)
    assert [sample.error for sample in samples] == [None] * 6
    assert not any("token_confidence" in sample.scores for sample in samples)


class Backwards(Oracle):
    """Answers the last question first, once all are asked."""

    def submit(self, requests):
        late = [Future() for _ in requests]
        pairs = list(zip(late, super().submit(requests), strict=True))

        def answer():
            for future, done in reversed(pairs):
                future.set_result(done.result())

        threading.Timer(0.1, answer).start()
        return late


def test_likelihoods_are_asked_in_the_order_of_the_samples_whatever_came_first(questions):
    engine = Backwards(REPLIES)
    run(questions(engine))
    assert [pair[1] for pair in engine.compared] == [
        " 14 December 1972 UTC", " Cliff Richard", " one", " South Carolina", " x",
    ]  # fmt: skip
