"""Calibration on multiple choice: `choice_calibration:NAME`, any task of lm-eval with one right choice.

    harness eval --tasks choice_calibration:arc_challenge ckpt/

The choices' log-likelihoods, which lm-eval compares, made probabilities that add up to 1 (softmax); the largest is
the confidence in the choice that it belongs to. `accuracy` is lm-eval's `acc`:
https://github.com/EleutherAI/lm-evaluation-harness/blob/v0.4.13/lm_eval/api/task.py (process_results). Guo et al.
2017, arXiv:1706.04599, and for language models Kadavath et al. 2022, arXiv:2207.05221, section 2. Prompts, choices
and shots are lm-eval's own, in plain text. Chance level of the accuracy: one over the number of choices.

    choice_ece, choice_brier, choice_auroc   see harness/stats/calibration.py; the bars of the reliability diagram are
                                             the detail of `choice_ece`
    choice_confidence                        mean confidence; above `accuracy`, the model is too sure
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from harness.errors import BadInput
from harness.protocols import TaskContext, TaskRef
from harness.records import Completion, LoglikelihoodRequest, Metric, Sample, Score
from harness.tasks import Asked, Item, MetricSpec, RequestTask, aggregate_metric
from harness.tokens import encoder_of
from suites.confidence.calibration import calibrated
from suites.from_lm_eval.options import FEWSHOT_SEED
from suites.lettered import is_lettered

KIND = "choice"


class ChoiceCalibration(RequestTask):
    """Accuracy of the likeliest choice, and how well its probability foretells it."""

    uses_chat: ClassVar[bool | None] = False
    compares_likelihoods: ClassVar[bool] = True
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        "accuracy": MetricSpec(),
        "choice_confidence": MetricSpec(),
    }

    def items(self) -> Sequence[Item]:
        """Raises: BadInput: not a multiple-choice task with one right choice. UnknownName, DatasetUnavailable."""
        from suites.from_lm_eval.build import Wanted, build

        data = self.context.data
        wanted = Wanted(
            name=self.ref.name,
            limit=self.context.limit,
            num_fewshot=self.context.num_fewshot,
            chat=False,
            fewshot_seed=FEWSHOT_SEED,
            system_instruction=None,
            allow_unsafe=False,
            source=f"{type(data).__name__}:{data.data_dir}",
            data=data,
        )
        built = build(wanted)
        return [
            _item(sample_id, built.task(sample_id), group) for sample_id, group in built.instances.items()
        ]

    @property
    def n_requests(self) -> int:
        return sum(len(item.doc["choices"]) for item in self._items.values())

    def requests(self, item: Item) -> Asked:
        encoder = encoder_of(self.engine.tokenizer)
        contexts = encoder.encode(item.doc["contexts"], special=True)
        choices = encoder.encode(item.doc["choices"], special=False)
        asked = tuple(LoglikelihoodRequest(*pair) for pair in zip(contexts, choices, strict=True))
        return Asked(item.doc["contexts"][0], asked)

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        shares = softmax([_likelihood(completion) for completion in completions])
        chosen = max(range(len(shares)), key=shares.__getitem__)
        right = chosen == item.metadata["right"]
        return {
            "accuracy": Score(float(right), detail=chosen),
            "choice_confidence": Score(shares[chosen], detail=[round(share, 6) for share in shares]),
        }

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        found = calibrated(samples, KIND, self.context.seed)
        return found | {name: aggregate_metric(samples, name, spec) for name, spec in self.metrics.items()}


def softmax(logs: Sequence[float]) -> list[float]:
    """Shares that add up to 1, of numbers whose exponents may be too small for a float."""
    top = max(logs)
    weights = [math.exp(log - top) for log in logs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _likelihood(completion: Completion) -> float:
    if completion.loglikelihood is None:
        raise ValueError("the engine gave no loglikelihood of a choice")
    return completion.loglikelihood


def _item(sample_id: str, task: Any, group: Sequence[Any]) -> Item:
    if not is_lettered(task):
        raise BadInput(f"lm-eval task {task.task_name!r} has no choices of which one is right; name another")
    asked = group[: len(task.doc_to_choice(group[0].doc))]  # some tasks ask for the choices alone as well
    doc = {
        "contexts": [str(one.args[0]) for one in asked],
        "choices": [str(one.args[1]) for one in asked],
    }
    right = _right(task, group[0].doc)
    return Item(sample_id, doc, doc["choices"][right], {"subtask": task.task_name, "right": right})


def _right(task: Any, doc: Any) -> int:
    """Place of the right choice. Where the choices stand inside the sentence, lm-eval has it in doc_to_text."""
    found = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    choices = list(task.doc_to_choice(doc))
    return choices.index(found) if isinstance(found, str) and found in choices else int(found)


def load(ref: TaskRef, context: TaskContext) -> ChoiceCalibration:
    """Raises: UnknownName: lm-eval has no such task."""
    from suites.from_lm_eval import index

    index.find(ref.name)
    return ChoiceCalibration(ref, context)
