"""HaluEval QA: can the model tell a hallucinated answer from a right one?

Li et al. 2023, arXiv:2305.11747. The official protocol: every question is shown with its right or its
hallucinated answer, one of the two by chance, and the model judges whether the answer is hallucinated. Official
grader: https://github.com/RUCAIBox/HaluEval/blob/c0432f6/evaluation/evaluate.py . Its instruction with seven
worked examples is part of the protocol and stands, word for word, in halueval_qa_instruction.txt (MIT licence,
Copyright (c) 2020 RUCAIBox, in halueval_qa_instruction.LICENSE). A judgement counts when the answer, without full
stops, holds exactly one of "Yes" and "No", in this case; an answer with both or neither is a wrong one, as in the
official script.

Where this differs: which answer is shown is drawn from the seed and the row, not from the order of the run; 16 new
tokens (the default of the completion models of the paper; its chat models had no limit); without a chat template
the answer ends at the line's end, since a base model would go on with questions of its own; what a model thinks aloud
before it answers (harness/thoughts.py) is not read.

Chance level 0.5, which saying always "Yes" reaches as well: `accuracy_on_right` and `accuracy_on_hallucinated`
tell the difference, `no_judgement` is the share of answers without one. `extractors_disagree` is the share of answers
that a laxer reading understands otherwise: the first "yes" or "no" as a word, in any case.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import ClassVar

from harness.errors import BadCheckpoint
from harness.protocols import TaskContext, TaskRef
from harness.records import Completion, Metric, Sample, Sampling, Score
from harness.tasks import Asked, Item, MetricSpec, RequestTask, aggregate_metric
from harness.thoughts import final_answer

DATASET = "pminervini/HaluEval"
SYSTEM = (
    "You are a huallucination detector. You MUST determine if the provided answer contains hallucination or not "
    'for the question based on the world knowledge. The answer you provided MUST be "Yes" or "No"'
)
"""The official system message, its spelling included."""
KINDS = {"Yes": "hallucinated", "No": "right"}
WORD = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def judgement(answer: str) -> str | None:
    """The official reading of an answer: "Yes", "No", or None where it holds both or neither.

    https://github.com/RUCAIBox/HaluEval/blob/c0432f6/evaluation/evaluate.py (evaluation_qa_dataset)
    """
    text = answer.replace(".", "")
    found = [word for word in ("Yes", "No") if word in text]
    return found[0] if len(found) == 1 else None


def first_word(answer: str) -> str | None:
    """The first yes or no of an answer, as a word and in any case: "Yes", "No", or None."""
    found = WORD.search(answer)
    return found[1].capitalize() if found else None


class JudgementTask(RequestTask):
    """Yes/no judgements about texts of two KINDS; items carry the right word as target, the kind in their metadata."""

    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        "accuracy": MetricSpec(),
        "accuracy_on_right": MetricSpec(),
        "accuracy_on_hallucinated": MetricSpec(),
        "no_judgement": MetricSpec(higher_is_better=False),
        "extractors_disagree": MetricSpec(higher_is_better=False),
    }
    defaults: ClassVar[Sampling] = Sampling(max_tokens=16)

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        texts = [final_answer(output.text) for output in completions[0].outputs]
        found = [judgement(text) for text in texts]
        differ = sum(word != first_word(text) for word, text in zip(found, texts, strict=True))
        right = Score(sum(word == item.target for word in found) / len(found), detail=found)
        return {
            "accuracy": right,
            f"accuracy_on_{item.metadata['kind']}": right,
            "no_judgement": Score(found.count(None) / len(found)),
            "extractors_disagree": Score(differ / len(found)),
        }

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        """Each metric over the samples it is about, so that a failed one is not counted for the other kind."""
        other = {f"accuracy_on_{kind}": kind for kind in KINDS.values()}
        return {
            name: aggregate_metric(
                [s for s in samples if other.get(name) in (None, s.metadata["kind"])], name, spec
            )
            for name, spec in self.metrics.items()
        }


class HaluEvalQA(JudgementTask):
    """Accuracy of yes/no judgements about right and hallucinated answers."""

    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        **JudgementTask.metrics,
        "accuracy": MetricSpec(chance=0.5),
    }

    def items(self) -> Sequence[Item]:
        columns = ("question", "right_answer", "hallucinated_answer")
        rows = self.context.data.rows(DATASET, "qa", "data", columns=columns)
        return [self._item(index, row) for index, row in enumerate(rows)]

    def _item(self, index: int, row: Mapping[str, str]) -> Item:
        hallucinated = random.Random(f"{self.context.seed}:{index}:{row['question']}").random() > 0.5
        answer = row["hallucinated_answer" if hallucinated else "right_answer"]
        target = "Yes" if hallucinated else "No"
        doc = {"question": row["question"], "answer": answer}
        return Item(str(index), doc, target, metadata={"kind": KINDS[target]})

    def requests(self, item: Item) -> Asked:
        question = (
            f"{_instruction()}\n\n#Question#: {item.doc['question']}\n#Answer#: {item.doc['answer']}"
            "\n#Your Judgement#:"
        )
        if not self.chat:
            stop = self.sampling.stop or ("\n",)
            return self.ask(question, replace(self.sampling, stop=stop))
        return self._ask_chat(question + " ")

    def _ask_chat(self, question: str) -> Asked:
        try:
            return self.ask([{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}])
        except BadCheckpoint:
            note = "the chat template takes no system message: it opens the user's turn instead"
            if note not in self.notes:
                self.notes.append(note)
            return self.ask(f"{SYSTEM}\n\n{question}")


def _instruction() -> str:
    return (
        files("suites.truthfulness")
        .joinpath("halueval_qa_instruction.txt")
        .read_text(encoding="utf-8")
        .removesuffix("\n")
    )


def load(ref: TaskRef, context: TaskContext) -> HaluEvalQA:
    return HaluEvalQA(ref, context)
