"""TOFU: its figures by hand, its sums against the formulas in the authors' words, a run on the mirror."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import hmean, ks_2samp

from harness import registry
from harness.engines.endpoint_texts import TextTokenizer
from harness.errors import BadInput, BadPlan
from harness.records import LoglikelihoodRequest
from suites.tofu.recall import rouge_l_recall
from suites.tofu.sums import forget_quality, model_utility
from suites.tofu.task import SETS, Losses, ks_log_ratio, probability, truth_score
from tests.made_runs import checkpoint, run, write
from tests.suites.awkward import SHORT
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


def test_all_sums_are_those_of_the_official_script():
    """200 questions with random losses, summed as utils.py of locuslab/tofu (at 8c49eee) sums whole arrays.

    TOFU's code is on no package registry: the arithmetic of get_model_utility and get_forget_quality stands here in
    words of our own.
    """
    rng = np.random.default_rng(5)
    sets = {
        name: [drawn_losses(rng, n) for _ in range(50)] for name, n in zip(SETS, (5, 3, 3, 5), strict=True)
    }
    recalls = {name: rng.random(50) for name in SETS}
    nine, ours = [], {}
    for name in SETS[:-1]:
        answer, reference, wrong = arrays(sets[name])
        alone = name == "retain"
        share = answer if alone else answer / (answer + wrong.sum(axis=1))
        ratio = wrong.mean(axis=1) / reference
        nine += [recalls[name].mean(), share.mean(), np.maximum(0, 1 - ratio).mean()]
        ours[name] = [
            (float(recall), probability(losses, among_wrong=not alone), truth_score(losses, forget=False))
            for recall, losses in zip(recalls[name], sets[name], strict=True)
        ]
    assert model_utility(ours, 0).value == pytest.approx(hmean(nine))
    answer, reference, wrong = arrays(sets["forget"])
    ratio = wrong.mean(axis=1) / reference
    forgot = [truth_score(losses, forget=True) for losses in sets["forget"]]
    assert np.mean(forgot) == pytest.approx(np.minimum(ratio, 1 / ratio).mean())
    retain = [drawn_losses(rng, 5) for _ in range(50)]
    raw = [
        np.exp([np.mean(losses.wrong) - losses.reference for losses in run])
        for run in (sets["forget"], retain)
    ]
    found = forget_quality(
        *({str(i): ks_log_ratio(losses) for i, losses in enumerate(run)} for run in (sets["forget"], retain)),
        0,
    )
    assert found["forget_quality"].value == pytest.approx(ks_2samp(*raw).pvalue)


def drawn_losses(rng, wrong: int) -> Losses:
    return Losses(
        *(float(x) for x in rng.exponential(2, size=2)), tuple(map(float, rng.exponential(2, size=wrong)))
    )


def arrays(questions: list[Losses]) -> tuple[np.ndarray, ...]:
    """Probabilities of the answers, the references and the wrong answers."""
    columns = zip(*questions, strict=True)
    return tuple(np.exp(-np.array(list(column))) for column in columns)


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


def test_recall_is_that_of_rouge_score():
    """TOFU asks rouge_score with its stemmer: 150 pairs, awkward ones among them."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    rng = random.Random(0)
    words = [
        "the",
        "author",
        "wrote",
        "writing",
        "written",
        "books",
        "book",
        "Basil's",
        "18",
        "ünï",
        "１８",
        "ran",
        "-",
    ]
    drawn = [" ".join(rng.choices(words, k=rng.randrange(40))) for _ in range(60)]
    pairs = [
        *zip(drawn, reversed(drawn), strict=True),
        *((text, drawn[9]) for text in SHORT[::7]),
        *zip(SHORT[::2], SHORT[1::2], strict=True),
    ]
    assert len(pairs) > 150
    for answer, target in pairs:
        assert rouge_l_recall(answer, target) == pytest.approx(
            scorer.score(target, answer)["rougeL"].recall
        ), answer


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


def test_a_part_of_zeros_leaves_model_utility_a_width():
    """Ten zeros may be up to z^2 / (10 + z^2) = 0.2775 in truth; the others may be 1, by Wilson of 10 of 10."""
    metric = model_utility({"retain": [(0.0, 1.0, 1.0)] * 10}, 0)
    assert (metric.value, metric.interval) == (0.0, "wilson of the parts")
    assert metric.ci95 == pytest.approx((0.0, 3 / (1 / 0.277533 + 2)), abs=1e-5)


def test_the_distance_of_two_distributions_has_a_band_of_each():
    """Of 20 questions: 2 sqrt(ln 80 / 40) = 0.6620 either way."""
    own, other = ({f"forget/{i}": i + shift for i in range(20)} for shift in (0.0, 5.0))
    metric = forget_quality(own, other, 0)["forget_ks_distance"]
    assert (metric.value, metric.interval) == (0.25, "dkw")
    assert metric.ci95 == pytest.approx((0.0, 0.25 + 0.661966), abs=1e-4)


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
    assert len(metrics["model_utility"].made_of) == 9
    assert set(metrics["model_utility"].made_of) < set(task.metrics)
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
