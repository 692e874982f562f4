"""Calibration on open questions: is the model right as often as it says, and as often as its probabilities say?

After Stangel et al. 2025, "Rewarding Doubt", arXiv:2503.02623: the model answers a question and states a confidence
with it; an answer is right where the F1 of its words with a reference is above 0.5
(https://github.com/pasta99/RewardingDoubt/blob/8a6c606/SingleAnswerSetting/util/EvaluationMetrics.py). Where this
differs: NQ-open's questions (TriviaQA there), a number between 0 and 1 (0 to 10 there), the wording, ten bins (eleven
there), and two lines or the paper's one.

Two confidences, each with its calibration error, Brier score and AUROC (harness/stats/calibration.py; the bars of the
reliability diagram are the detail of `..._ece`):

    verbal  the number that it states. Read strictly: one outside 0..1, a percentage, none, or two that differ count
            in `confidence_unreadable` and enter no other figure
    token   the probability of the answer that it gave, from the engine: of the whole answer, not per token

`accuracy` is over all questions: an output without an answer is wrong. `extractors_disagree` is the share of answers
that are right by F1 and not by exact match. What a model thinks aloud before it answers is not read. There is no chance
level but AUROC's 0.5.

`token_probability=false` leaves the second out, for servers that give no log-likelihoods.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from harness.errors import BadPlan
from harness.protocols import TaskContext, TaskRef
from harness.records import Completion, Metric, Output, Sample, Sampling, Score
from harness.stats.calibration import calibration
from harness.tasks import Asked, Item, MetricSpec, aggregate_metric
from suites.confidence.answer_likelihood import AnswerLikelihoodTask, Span
from suites.confidence.stated_confidence import Stated, read_stated
from suites.truthfulness.nq_open_abstention import questions
from suites.truthfulness.short_answers import F1_RIGHT, exact, overlap

INSTRUCTION = (
    "Answer the question with as few words as possible. Then say how sure you are that your answer is right: a number "
    "between 0 (surely wrong) and 1 (surely right).\n"
    "Reply with these two lines and nothing else:\n"
    "Answer: <answer>\n"
    "Confidence: <number between 0 and 1>"
)
EXAMPLES = (
    ("how many legs does a spider have", "eight", "0.98"),
    ("what was the name of the dog of the painter titian", "Cesare", "0.05"),
    ("in which year did the first tram run in brno", "1869", "0.6"),
)
"""For base models, which have no chat template. None of them is in the data."""
CONFIDENCES = ("verbal", "token")


class Calibration(AnswerLikelihoodTask):
    """Accuracy, and how well two kinds of confidence foretell it."""

    uses_chat: ClassVar[bool | None] = None
    options: ClassVar[Collection[str]] = ("token_probability",)
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        "accuracy": MetricSpec(),
        "confidence_unreadable": MetricSpec(higher_is_better=False),
        "extractors_disagree": MetricSpec(higher_is_better=False),
        "verbal_confidence": MetricSpec(),
        "token_confidence": MetricSpec(),
    }
    defaults: ClassVar[Sampling] = Sampling(max_tokens=64)

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        super().__init__(ref, context)
        wanted = ref.options.get("token_probability", True)
        if not isinstance(wanted, bool):
            raise BadPlan(f"task {self.name!r}: token_probability is {wanted!r}; give true or false")
        self.asks_likelihood = wanted

    @property
    def generative_form(self) -> str:
        """What to ask of a server that gives no log-likelihoods."""
        return f"{self.ref.name},token_probability=false"

    def items(self) -> Sequence[Item]:
        return questions(self.context.data)

    def requests(self, item: Item) -> Asked:
        question = item.doc["question"]
        if self.in_chat:
            return self.ask(f"{INSTRUCTION}\n\nQuestion: {question}?")
        shown = "\n\n".join(f"Question: {q}?\nAnswer: {a}\nConfidence: {c}" for q, a, c in EXAMPLES)
        stop = self.sampling.stop or ("\n\n", "\nQuestion:")
        prompt = f"{INSTRUCTION}\n\n{shown}\n\nQuestion: {question}?\n{self._given}"
        return self.ask(prompt, replace(self.sampling, stop=stop))

    @property
    def _given(self) -> str:
        """What of the reply stands at the end of the prompt."""
        return "" if self.in_chat else "Answer:"

    def read(self, output: Output) -> Stated:
        """What a reply states; positions are those in the reply with what the prompt gave of it."""
        return read_stated(self._given + output.text)

    def span(self, output: Output) -> Span | None:
        stated = self.read(output)
        if stated.answer is None:
            return None
        reply = self._given + output.text
        return Span(reply[len(self._given) : stated.begin], reply[stated.begin : stated.end])

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        stated = self.read(completions[0].outputs[0])
        answer, references = stated.answer or "", item.doc["answers"]
        right = bool(answer) and overlap(answer, references) > F1_RIGHT
        scores = {
            "accuracy": Score(float(right), detail=stated.answer),
            "confidence_unreadable": Score(float(stated.confidence is None), detail=stated.problem),
            "extractors_disagree": Score(float(right != exact(answer, references))),
        }
        if stated.confidence is not None and answer:
            scores["verbal_confidence"] = Score(stated.confidence)
        if len(completions) > 1:
            scores["token_confidence"] = Score(probability(completions[1]))
        return scores

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        kinds = CONFIDENCES if self.asks_likelihood else CONFIDENCES[:1]
        found: dict[str, Metric] = {}
        for kind in kinds:
            found |= calibrated(samples, kind, self.context.seed)
        plain = [name for name in self.metrics if self.asks_likelihood or name != "token_confidence"]
        return found | {name: aggregate_metric(samples, name, self.metrics[name]) for name in plain}


def probability(completion: Completion) -> float:
    """Of the answer, in [0, 1]. Raises: ValueError: the engine gave no loglikelihood."""
    if completion.loglikelihood is None:
        raise ValueError("the engine gave no loglikelihood of the answer")
    return math.exp(min(0.0, completion.loglikelihood))  # rounding can leave 1e-7 above 0


def calibrated(samples: Sequence[Sample], kind: str, seed: int) -> dict[str, Metric]:
    """Calibration error, Brier score and AUROC of one kind of confidence, over the answers that have it.

    Args: samples: with scores `accuracy` (0 or 1) and KIND_confidence. kind: of confidence.
    """
    name = f"{kind}_confidence"
    having = [s for s in samples if s.error is None and name in s.scores]
    stated = [s.scores[name].value or 0.0 for s in having]
    right = [s.scores["accuracy"].value or 0.0 for s in having]
    failed = sum(sample.failed for sample in samples)
    found = calibration(stated, right, n_failed=failed, seed=seed)
    return {f"{kind}_{measure}": metric for measure, metric in found.items()}


def load(ref: TaskRef, context: TaskContext) -> Calibration:
    return Calibration(ref, context)
