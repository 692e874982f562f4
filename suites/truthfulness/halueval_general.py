"""HaluEval, general: does the model see that a chat model's response to a user holds a hallucination?

Li et al. 2023, arXiv:2305.11747, section 2.2: ChatGPT's responses to user queries of the Alpaca data, labelled by
people. The model is asked whether a response holds information that is not factual or cannot be verified. The
official repository has data for this part and no script; answers are read as its script reads those of the other
parts, https://github.com/RUCAIBox/HaluEval/blob/c0432f6/evaluation/evaluate.py : exactly one of "Yes" and "No", an
answer with both or neither being wrong. The wording of the question is this project's own, so figures are not
comparable with the paper's table to the last point.

Most responses hold none (76 % of the first 1,000), and always saying "No" has that accuracy. The headline is therefore
`balanced_accuracy`, the mean of the accuracies on the two kinds; its chance level is 0.5, whatever is always said.

    accuracy                                    share of right judgements, as in the paper
    accuracy_on_right, accuracy_on_hallucinated of the responses without and with a hallucination
    no_judgement                                share of answers that hold both words or neither
    extractors_disagree                         share of answers that halueval.py's laxer reading understands
                                                otherwise
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from harness.errors import BadColumns
from harness.protocols import Row, TaskContext, TaskRef
from harness.records import Metric, Sample
from harness.stats.averages import macro_average
from harness.tasks import Asked, Item
from suites.dealing import deal
from suites.truthfulness.halueval import DATASET, KINDS, JudgementTask

TARGETS = {"yes": "Yes", "no": "No"}
INSTRUCTION = (
    "Below are a user's query and a chat assistant's response to it. Say whether the response contains a "
    "hallucination: something that is not factual, that contradicts itself or the query, or that cannot be verified "
    "(for example a claim of the assistant to have done what it cannot do).\n"
    'Answer "Yes" if it contains one and "No" if it does not, with this one word.'
)


class HaluEvalGeneral(JudgementTask):
    """Balanced accuracy of yes/no judgements about responses with and without hallucinations."""

    uses_chat: ClassVar[bool | None] = None

    def items(self) -> Sequence[Item]:
        """Dealt in turn from the two kinds, so that the first N hold as many of each as there are.

        Raises: BadColumns: a label that is neither yes nor no.
        """
        columns = ("ID", "user_query", "chatgpt_response", "hallucination")
        rows = self.context.data.rows(DATASET, "general", "data", columns=columns)
        piles: dict[str, list[Item]] = {kind: [] for kind in KINDS.values()}
        for index, row in enumerate(rows):
            item = _item(index, row)
            piles[item.metadata["kind"]].append(item)
        return deal(list(piles.values()))

    def requests(self, item: Item) -> Asked:
        question = (
            f"{INSTRUCTION}\n\nQuery: {item.doc['query']}\n\nResponse: {item.doc['response']}\n\n"
            "Does the response contain a hallucination?"
        )
        if self.in_chat:
            return self.ask(question)
        stop = self.sampling.stop or ("\n",)
        return self.ask(f"{question}\nAnswer:", replace(self.sampling, stop=stop))

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        """With the mean of the two kinds, which the headline is."""
        found = super().aggregate(samples)
        both = macro_average([found[f"accuracy_on_{kind}"] for kind in KINDS.values()])
        return {"balanced_accuracy": replace(both, chance=0.5), **found}


def _item(index: int, row: Row) -> Item:
    label = str(row["hallucination"]).strip().lower()
    if label not in TARGETS:
        raise BadColumns(
            f"{DATASET} (general): column 'hallucination' holds {row['hallucination']!r}; known: yes, no"
        )
    target = TARGETS[label]
    doc = {"query": row["user_query"], "response": row["chatgpt_response"]}
    return Item(str(index), doc, target, metadata={"kind": KINDS[target], "ID": row["ID"]})


def load(ref: TaskRef, context: TaskContext) -> HaluEvalGeneral:
    return HaluEvalGeneral(ref, context)
