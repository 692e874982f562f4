"""How a task asks a judge: many samples at once, failures per sample, one wording of names and notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from harness.errors import EngineError
from harness.judging.model import Turns
from harness.protocols import Judge
from harness.records import Sample, Score
from harness.tasks import MetricSpec, RequestTask, scored

SELF_JUDGED = " (self-judged)"
SAMPLES_AHEAD = 128
"""Samples whose questions are with the judge while earlier ones are scored."""


def metric_name(judge: Judge, name: str) -> str:
    """`judge_NAME`, marked where the judge is the model that it judges."""
    return f"judge_{name}{SELF_JUDGED if judge.judges_itself else ''}"


def note_of(judge: Judge) -> str:
    """What a reader must know beside a judge's figures."""
    itself = ", which is the model whose answers it judges: it may favour them"
    return f"judge_* metrics: judged by {judge.name}{itself if judge.judges_itself else ''}"


def take_judge(task: RequestTask) -> Judge | None:
    """The judge that the user named, if any; the task is then graded apart, and a note stands beside its figures."""
    judge = task.context.judge
    if judge is not None:
        task.graded_apart = True
        task.notes.append(note_of(judge))
    return judge


def judged_metrics(judge: Judge | None, specs: Mapping[str, MetricSpec]) -> dict[str, MetricSpec]:
    """The specs of what a judge tells under the names that carry it; nothing where there is none."""
    return {} if judge is None else {metric_name(judge, name): spec for name, spec in specs.items()}


class Verdicts(NamedTuple):
    """How a task grades with a judge."""

    questions: Callable[[Sample], Sequence[Turns]]
    """Conversations to ask about a sample; none: there is nothing to ask."""
    score: Callable[[Sample, Sequence[str]], Mapping[str, Score]]
    """Scores from the judge's answers, in the order of the questions; added to those that the sample has."""
    names: Sequence[str]
    """Metrics that fail where the judge does not answer; the sample's other scores stand."""
    max_tokens: int = 256


def grade_with(judge: Judge, samples: Sequence[Sample], verdicts: Verdicts) -> Iterator[Sample]:
    """Ask the judge about samples and score them, in their order.

    A sample that the judge could not answer stays ungraded with the reason in its scores: the same command asks
    again, the judge alone.

    Args: samples: with the scores of rules, if there are any.
    Raises: CostLimitReached: what was graded before is yielded.
    """
    rest = iter(samples)
    ahead: list[tuple[Sample, Sequence[Future[str]]]] = []
    while True:
        taken = list(islice(rest, SAMPLES_AHEAD))
        following = _ask(judge, taken, verdicts)
        for sample, futures in ahead:
            yield _graded(sample, futures, verdicts)
        ahead = following
        if not ahead:
            return


def _ask(
    judge: Judge, samples: Sequence[Sample], verdicts: Verdicts
) -> list[tuple[Sample, Sequence[Future[str]]]]:
    if not samples:
        return []
    questions = [verdicts.questions(sample) for sample in samples]
    futures = iter(judge.submit([turns for own in questions for turns in own], verdicts.max_tokens))
    return [(sample, list(islice(futures, len(own)))) for sample, own in zip(samples, questions, strict=True)]


def _graded(sample: Sample, futures: Sequence[Future[str]], verdicts: Verdicts) -> Sample:
    try:
        answers = [future.result() for future in futures]
    except EngineError as exc:
        failed = {name: Score(None, error=str(exc)) for name in verdicts.names}
        return replace(sample, scores={**sample.scores, **failed}, graded=False)
    return scored(sample, lambda: {**sample.scores, **verdicts.score(sample, answers)})
