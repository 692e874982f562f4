"""Figures from what a judge said of samples: preferences between two answers, grades by a rubric. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from harness.judging import pairwise
from harness.judging.asking import Verdicts, metric_name
from harness.judging.model import Turns
from harness.judging.pairwise import both_orders, preference
from harness.judging.rubric import MAX_TOKENS, Rubric
from harness.protocols import Judge
from harness.records import Metric, Sample, Score
from harness.stats.agreement import agreement_metric, kappa_metric
from harness.stats.intervals import mean, summarise
from harness.stats.length_control import length_controlled
from harness.tasks import MetricSpec, aggregate_metric

INCONSISTENT = "position_inconsistent"
CHOICE_OF_WIN = {0.0: "A", 0.5: "tie", 1.0: "B"}


class PairNames(NamedTuple):
    """Metrics of a pairwise comparison; those that rest on who judges carry it in their names."""

    win: str
    controlled: str
    tie: str
    unreadable: str
    first: str

    @classmethod
    def of(cls, judge: Judge) -> PairNames:
        named = ("win_rate", "lc_win_rate", "ties", "unreadable", "prefers_first")
        return cls(*(metric_name(judge, name) for name in named))


def pair_verdicts(
    judge: Judge, pair: Callable[[Sample], tuple[str, str, str]], criterion: str = pairwise.CRITERION
) -> Verdicts:
    """How samples are graded by comparing two answers.

    Args: pair: the request, answer a and answer b of a sample; the win rate is b's.
    """
    names = PairNames.of(judge)

    def questions(sample: Sample) -> Sequence[Turns]:
        request, a, b = pair(sample)
        return [] if a == b else both_orders(request, a, b, criterion)

    def score(sample: Sample, texts: Sequence[str]) -> Mapping[str, Score]:
        _, a, b = pair(sample)
        longer_by = len(b) - len(a)
        if not texts:  # the same answer: a tie, and nothing to ask
            return {
                names.win: Score(0.5, detail={"longer_by": 0, "identical": True}),
                names.unreadable: Score(0.0),
            }
        found = preference(texts)
        chosen = found.first_chosen + found.second_chosen if found.win is not None else 0
        return {
            names.win: Score(found.win, detail={"longer_by": longer_by, "said": list(texts)}),
            INCONSISTENT: Score(None if found.inconsistent is None else float(found.inconsistent)),
            names.first: Score(found.first_chosen / chosen if chosen else None),
            names.unreadable: Score(float(found.win is None), detail=found.unreadable),
        }

    return Verdicts(questions, score, [names.win], pairwise.MAX_TOKENS)


def pair_metrics(judge: Judge, samples: Sequence[Sample]) -> dict[str, Metric]:
    """Win rate of b, length-controlled and not, ties, and what speaks for or against the judge."""
    names = PairNames.of(judge)
    wins, deltas = [], []
    for sample in samples:
        score = sample.scores.get(names.win)
        if score is not None and score.value is not None:
            wins.append(score.value)
            deltas.append(float(score.detail["longer_by"]))
    win_rate = aggregate_metric(samples, names.win, MetricSpec(chance=0.5))
    controlled = length_controlled(wins, deltas)
    failed = win_rate.n_failed
    return {
        names.win: win_rate,
        names.controlled: replace(controlled, n_failed=failed),
        names.tie: summarise([float(win == 0.5) for win in wins], n_failed=failed, higher_is_better=False),
        INCONSISTENT: aggregate_metric(samples, INCONSISTENT, MetricSpec(higher_is_better=False)),
        names.first: replace(_first_chosen(samples, names.win), n_failed=failed),
        names.unreadable: aggregate_metric(samples, names.unreadable, MetricSpec(higher_is_better=False)),
    }


def _first_chosen(samples: Sequence[Sample], win: str) -> Metric:
    """Of the verdicts for one answer, the share for the one shown first; those of one pair are a cluster.

    Args: win: metric whose detail holds what was said. Pairs with an off-format verdict are in no figure.
    """
    firsts: list[float] = []
    pairs: list[str] = []
    for sample in samples:
        score = sample.scores.get(win)
        if score is None or score.value is None or "said" not in score.detail:
            continue
        found = preference(score.detail["said"])
        firsts += [1.0] * found.first_chosen + [0.0] * found.second_chosen
        pairs += [f"{sample.task}/{sample.sample_id}"] * (found.first_chosen + found.second_chosen)
    return summarise(firsts, n_failed=0, higher_is_better=False, clusters=pairs, chance=0.5)


def rubric_verdicts(judge: Judge, rubric: Rubric, pair: Callable[[Sample], tuple[str, str]]) -> Verdicts:
    """How samples are graded by a rubric. Args: pair: the request and the answer of a sample."""
    grade, unreadable = metric_name(judge, rubric.name), metric_name(judge, "unreadable")

    def score(sample: Sample, texts: Sequence[str]) -> Mapping[str, Score]:
        found = rubric.read(texts[0])
        return {
            grade: Score(None if found is None else float(found), detail=texts[0]),
            unreadable: Score(float(found is None)),
        }

    return Verdicts(lambda sample: [rubric.question(*pair(sample))], score, [grade], MAX_TOKENS)


def rubric_metrics(judge: Judge, rubric: Rubric, samples: Sequence[Sample]) -> dict[str, Metric]:
    """Mean grade, in points of the scale, and the share of answers that held no grade."""
    grade, unreadable = metric_name(judge, rubric.name), metric_name(judge, "unreadable")
    values = [s.scores[grade].value for s in samples if grade in s.scores]
    failed = aggregate_metric(samples, grade, MetricSpec()).n_failed
    return {
        grade: mean(
            [v for v in values if v is not None], n_failed=failed, unit=f"of {rubric.low}-{rubric.high}"
        ),
        unreadable: aggregate_metric(samples, unreadable, MetricSpec(higher_is_better=False)),
    }


def agreement_metrics(judge: Judge, samples: Sequence[Sample], rubric: Rubric | None) -> dict[str, Metric]:
    """Cohen's kappa of the judge with the samples' targets, which people gave.

    Over the samples whose verdict could be read; the others are counted beside it. Figures that compare two models are
    left out: in a labelled set A and B are anybody's.

    Args: rubric: of labelled grades; None: the labels are A, B or tie.
    """
    figures = pair_metrics(judge, samples) if rubric is None else rubric_metrics(judge, rubric, samples)
    names = PairNames.of(judge)
    scored = names.win if rubric is None else metric_name(judge, rubric.name)
    read = [
        (score.value, s.target) for s in samples if (score := s.scores.get(scored)) and s.target is not None
    ]
    known = [(value, target) for value, target in read if value is not None]
    said = [int(value) if rubric else CHOICE_OF_WIN[value] for value, _ in known]
    labels = [int(target) if rubric else target for _, target in known]
    categories: Sequence[str | int] = rubric.grades if rubric else pairwise.CHOICES
    found = {
        metric_name(judge, "kappa"): kappa_metric(said, labels, categories=categories),
        metric_name(judge, "agreement"): agreement_metric(said, labels),
    }
    if rubric is not None:
        weighted = kappa_metric(said, labels, categories=categories, weights="quadratic")
        found[metric_name(judge, "kappa_quadratic")] = weighted
    failed = figures[scored].n_failed
    beside = {name: metric for name, metric in figures.items() if name not in (names.win, names.controlled)}
    return {name: replace(metric, n_failed=failed) for name, metric in found.items()} | beside
