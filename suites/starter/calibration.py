"""The starter's calibration: are its answers about people as often right as it holds them likely?

Questions of starter/facts, half about people of its invented world, half about people whom nobody knows; an answer is
right to the letter. The confidence is the probability of the whole answer, from the engine: the starter's vocabulary
has no numbers to state one with. See suites/confidence/calibration.py for the figures. No chance level but AUROC's 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from harness.protocols import TaskContext, TaskRef
from harness.records import Completion, Metric, Output, Sample, Score
from harness.tasks import Item, MetricSpec, aggregate_metric
from suites.confidence.answer_likelihood import AnswerLikelihoodTask, Span
from suites.confidence.calibration import calibrated, probability
from suites.starter.tasks import StarterTask, same


class StarterCalibration(AnswerLikelihoodTask, StarterTask):
    """Accuracy, and how well the probability of the answer foretells it."""

    dataset = "starter/facts"
    metrics: ClassVar[Mapping[str, MetricSpec]] = {"accuracy": MetricSpec(), "token_confidence": MetricSpec()}

    def span(self, output: Output) -> Span | None:
        return Span("", output.text) if output.text.strip() else None

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        right = same(completions[0].outputs[0].text, str(item.target))
        scores = {"accuracy": Score(float(right))}
        if len(completions) > 1:
            scores["token_confidence"] = Score(probability(completions[1]))
        return scores

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        found = calibrated(samples, "token", self.context.seed)
        return found | {name: aggregate_metric(samples, name, spec) for name, spec in self.metrics.items()}


def load(ref: TaskRef, context: TaskContext) -> StarterCalibration:
    return StarterCalibration(ref, context)
