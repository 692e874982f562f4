"""TOFU: its figures by hand, its sums against the formulas in the authors' words, a run on the mirror."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import hmean, ks_2samp

from harness import registry
from harness.engines.endpoint_texts import TextTokenizer
from harness.errors import BadInput, BadPlan
from harness.records import LoglikelihoodRequest
from suites.tofu.sums import forget_quality, model_utility
from suites.tofu.task import Losses, ks_log_ratio, probability, rouge_l_recall, truth_score
from tests.made_runs import checkpoint, run, write
from tests.suites.conftest import ref, run_whole

CASES = [
    Losses(0.5, 0.7, (1.0, 2.0, 3.0)),
    Losses(2.0, 1.0, (0.5, 0.5)),
    Losses(0.0, 0.0, (0.0,)),
    Losses(9.0, 800.0, (900.0, 950.0)),
    Losses(800.0, 3.0, (1.0, 2.0, 4.0, 8.0, 16.0)),
]


@pytest.mark.parametrize("losses", [case for case in CASES if max(*case.wrong, case.reference) < 700])
def test_one_question_is_scored_as_in_the_official_sums(losses):
    """The arithmetic of get_model_utility and get_forget_quality, on arrays of one."""
    wrong = np.exp(-np.array(losses.wrong))
    ratio = wrong.mean() / np.exp(-losses.reference)
    assert truth_score(losses, forget=False) == pytest.approx(max(0, 1 - ratio))
    assert truth_score(losses, forget=True) == pytest.approx(min(ratio, 1 / ratio))
    assert ks_log_ratio(losses) == pytest.approx(np.mean(losses.wrong) - losses.reference)
    assert probability(losses, among_wrong=False) == pytest.approx(np.exp(-losses.answer))
    right = np.exp(-losses.answer)
    assert probability(losses, among_wrong=True) == pytest.approx(right / (right + wrong.sum()))


def test_improbable_answers_do_not_underflow():
    losses = CASES[3]
    assert truth_score(losses, forget=False) == 1.0
    assert truth_score(losses, forget=True) == pytest.approx(0, abs=1e-40)
    assert probability(Losses(800.0, 1.0, (801.0,)), among_wrong=True) == pytest.approx(
        1 / (1 + math.exp(-1))
    )


@pytest.mark.parametrize(
    ("answer", "target", "recall"),
    [
        ("Basil wrote books", "Basil wrote many books", 0.75),
        ("The writers were writing", "the writer was written", 0.5),  # stems: writer, write != written
        ("", "anything", 0.0),
        ("Books, and more books!", "books", 1.0),
    ],
)
def test_recall_of_the_longest_common_subsequence(answer, target, recall):
    assert rouge_l_recall(answer, target) == pytest.approx(recall)


def test_model_utility_is_the_harmonic_mean_of_nine_means():
    kept = {
        "retain": [(0.9, 0.8, 0.7), (0.7, 0.6, 0.5)],
        "real_authors": [(0.5, 0.4, 0.3), (0.3, 0.4, 0.5), (0.1, 0.1, 0.1)],
        "world_facts": [(1.0, 0.2, 0.6), (0.6, 0.4, 0.2)],
    }
    nine = [np.mean(rows, axis=0) for rows in kept.values()]
    metric = model_utility(kept, 2)
    assert metric.value == pytest.approx(hmean(np.concatenate(nine)))
    assert (metric.n, metric.n_failed, metric.interval) == (7, 2, "stratified bootstrap")
    assert metric.ci95[0] < metric.value < metric.ci95[1]
    assert metric == model_utility(kept, 2), "the draws are seeded"
    assert model_utility(kept | {"retain": []}, 0).value is None
    assert model_utility(kept | {"retain": [(0.0, 0.5, 0.5), (0.0, 0.5, 0.5)]}, 0).value == 0.0


def test_forget_quality_is_a_test_against_the_retain_model():
    own = {f"forget/{i}": i / 10 for i in range(20)}
    other = {f"forget/{i}": i / 10 + (0.8 if i % 3 else 0.0) for i in range(20)}
    found = forget_quality(own, other, 1)
    expected = ks_2samp(np.exp(list(own.values())), np.exp(list(other.values())))
    assert found["forget_quality"].value == pytest.approx(expected.pvalue)
    assert found["forget_ks_distance"].value == pytest.approx(expected.statistic)
    assert forget_quality(own, dict(own), 0)["forget_quality"].value == 1.0
    unknown = forget_quality(own, None, 0)
    assert [metric.value for metric in unknown.values()] == [None, None]


def bind(mirror, context, *, limit=12, chat="auto", **options):
    return registry.load("task", "tofu")(
        ref("tofu", max_tokens=6, **options), context(mirror, limit=limit, chat=chat)
    )


def test_a_run_on_the_mirror(mirror, context):
    task = bind(mirror, context)
    samples = run_whole(task)
    assert [s.metadata["set"] for s in samples[:4]] == ["retain", "real_authors", "world_facts", "forget"]
    assert all(s.error is None for s in samples)
    metrics = task.aggregate(samples)
    assert list(metrics)[:3] == ["model_utility", "forget_quality", "forget_ks_distance"]
    assert (metrics["forget_quality"].value, metrics["retain_probability"].n) == (None, 3)
    assert not metrics["forget_probability"].higher_is_better
    assert any("retain_run" in note for note in task.notes)


def test_what_is_asked_of_one_question(mirror, context):
    task = bind(mirror, context, limit=4)
    retain, authors, *_ = task._items.values()
    asked = task.requests(retain)
    assert len(asked.requests) == 1 + 2 + 5  # the answer; right, in other words; five wrong
    assert len(task.requests(authors).requests) == 1 + 1 + 3
    assert task.n_requests == sum(len(task.requests(item).requests) for item in task._items.values())
    engine = task.engine
    _, right, *_ = asked.requests
    assert isinstance(right, LoglikelihoodRequest)
    assert right.continuation_ids[-1] == engine.tokenizer.eos_token_id
    assert engine.tokenizer.decode(list(right.continuation_ids[:-1])) == retain.target
    assert asked.prompt == f"<|user|>{retain.doc['question']}<|end|><|assistant|>"
    plain = bind(mirror, context, limit=4, chat="off").requests(retain)
    assert plain.prompt == f"Question: {retain.doc['question']}\nAnswer:"
    assert engine.tokenizer.decode(list(plain.requests[1].continuation_ids[:-1])) == f" {retain.target}"


def test_the_mean_log_likelihood_is_the_engines(mirror, context):
    task = bind(mirror, context, limit=1)
    (item,) = task._items.values()
    asked = task.requests(item)
    completions = [future.result() for future in task.submit(asked.requests)]
    scores = task.score(item, completions)
    tokens = len(asked.requests[1].continuation_ids)
    assert scores["retain_probability"].value == pytest.approx(
        math.exp(completions[1].loglikelihood / tokens)
    )
    wrong = [
        -done.loglikelihood / len(request.continuation_ids)
        for done, request in zip(completions[3:], asked.requests[3:], strict=True)
    ]
    reference = -completions[2].loglikelihood / len(asked.requests[2].continuation_ids)
    log_ratio = scores["retain_truth_ratio"].detail["log_ratio"]
    assert log_ratio == pytest.approx(sum(wrong) / 5 - reference)


def test_a_retain_models_run_makes_forget_quality_known(mirror, context, tmp_path):
    samples = run_whole(bind(mirror, context))
    write(tmp_path, run(checkpoint("retain"), "unlearning", 0.5), samples)
    path = tmp_path / "retain--unlearning"
    task = bind(mirror, context, retain_run=str(path))
    assert task.aggregate(samples)["forget_quality"].value == 1.0
    assert any("retain model: retain" in note for note in task.notes)
    assert task.fingerprint != bind(mirror, context).fingerprint
    with pytest.raises(BadInput, match=r"no truth ratios of locuslab/TOFU forget05"):
        bind(mirror, context, retain_run=str(path), forget="forget05")


def test_a_failed_sample_is_in_no_figure(mirror, context):
    task = bind(mirror, context)
    samples = run_whole(task)
    broken = [
        replace(samples[0], scores={}, error="died"),
        *samples[1:3],
        replace(samples[3], scores={}, error="x"),
    ]
    metrics = task.aggregate([*broken, *samples[4:]])
    assert (metrics["model_utility"].n, metrics["model_utility"].n_failed) == (8, 1)
    assert (metrics["forget_quality"].n, metrics["forget_quality"].n_failed) == (2, 1)


def test_an_unknown_forget_set_is_named(mirror, context):
    with pytest.raises(BadPlan, match="forget=forget50 is none of forget10, forget05, forget01"):
        bind(mirror, context, forget="forget50")


def test_a_server_whose_tokens_are_not_known_is_refused(mirror, context):
    engine = SimpleNamespace(tokenizer=TextTokenizer("model", chat=False))
    task = registry.load("task", "tofu")(ref("tofu"), context(mirror, limit=1, engine=engine))
    with pytest.raises(BadInput, match=r"'tofu' counts tokens.*tokenizer=FOLDER"):
        task.requests(next(iter(task._items.values())))
