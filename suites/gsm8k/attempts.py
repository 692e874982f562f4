"""Multi-attempt: does a model that is told "wrong" do better at the next try?

Chung, Du & Fu 2025, "Learning from Failures in Multi-Attempt Reinforcement Learning", arXiv:2503.04808: a question,
an answer, and where that is wrong the word that it is and how many tries are left, until it is right or none is. The
problems are those of GSM8K (Cobbe et al. 2021, arXiv:2110.14168), without shots; the prompts are our own words. The
authors train with such dialogues (https://github.com/DualityRL/multi-attempt); here they only measure.

`accuracy@i` is the share of problems that are solved within i tries (`attempts`, 3), so `accuracy@1` is the usual
accuracy; `gain` is what all tries after the first add. `repeated` is the share of later tries that give a number that
was said to be wrong before: deafness to the feedback. An answer is the number behind ####
(https://github.com/openai/grade-school-math/blob/3101c7d/grade_school_math/dataset.py), or else its last number;
`extractors_disagree` is the share of dialogues in which the two would judge a try differently.

A chat where the tokenizer has a template, else a dialogue in plain text. Chance level 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from typing import ClassVar

from harness.errors import BadInput, BadPlan
from harness.protocols import TaskContext, TaskRef
from harness.records import Completion, Sampling, Score
from harness.tasks import Item, MetricSpec
from harness.turns import Message, TurnsTask
from suites.gsm8k import data as gsm8k

ATTEMPTS = 3
FORM = "Reason step by step, and end with the answer, as a number, behind ####."


class MultiAttempt(TurnsTask):
    """GSM8K with several tries and feedback after a wrong one."""

    defaults: ClassVar[Sampling] = Sampling(max_tokens=256)
    options: ClassVar[Collection[str]] = ("attempts",)

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        attempts = ref.options.get("attempts", ATTEMPTS)
        if not isinstance(attempts, int) or isinstance(attempts, bool) or not 2 <= attempts <= 20:
            raise BadPlan(f"task {ref.label!r}: attempts is {attempts!r}; give a whole number from 2 to 20")
        self.most_turns = attempts
        self.metrics = {
            f"accuracy@{attempts}": MetricSpec(chance=0.0),
            **{f"accuracy@{i}": MetricSpec(chance=0.0) for i in range(1, attempts)},
            "gain": MetricSpec(chance=0.0),
            "repeated": MetricSpec(higher_is_better=False),
            "extractors_disagree": MetricSpec(higher_is_better=False),
        }
        super().__init__(ref, context)

    def items(self) -> Sequence[Item]:
        rows = gsm8k.problems(self.context.data)
        return [_item(index, row) for index, row in enumerate(rows)]

    def opening(self, item: Item) -> Sequence[Message]:
        question = item.doc["question"]
        return [{"role": "user", "content": f"{question}\n\nYou have {self.most_turns} tries. {FORM}"}]

    def reply(self, item: Item, answers: Sequence[Completion]) -> str | None:
        found = gsm8k.given(answers[-1].outputs[0].text)
        if found == wanted(item):
            return None
        left = self.most_turns - len(answers)
        tries = "1 try" if left == 1 else f"{left} tries"
        wrong = "There is no number in your answer." if found is None else "Your answer is wrong."
        return f"{wrong} You have {tries} left. Try again. {FORM}"

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        texts = [completion.outputs[0].text for completion in completions]
        found = [gsm8k.given(text) for text in texts]
        solved = [value == wanted(item) for value in found]
        scores = {
            f"accuracy@{tries}": Score(float(any(solved[:tries]))) for tries in range(1, self.most_turns + 1)
        }
        scores["gain"] = Score(float(any(solved) and not solved[0]))
        later = [value in found[:place] for place, value in enumerate(found) if place and value is not None]
        if later:
            scores["repeated"] = Score(sum(later) / len(later))
        differ = any(
            (gsm8k.strict(text) == wanted(item)) != (gsm8k.last(text) == wanted(item)) for text in texts
        )
        scores["extractors_disagree"] = Score(float(differ))
        return scores


def wanted(item: Item) -> Fraction:
    return Fraction(str(item.target))


def _item(index: int, row: Mapping[str, str]) -> Item:
    answer = gsm8k.strict(row["answer"])
    if answer is None:
        raise BadInput(f"{gsm8k.DATASET}, row {index}: no number behind #### in its answer")
    return Item(str(index), {"question": row["question"]}, str(answer))


def load(ref: TaskRef, context: TaskContext) -> MultiAttempt:
    return MultiAttempt(ref, context)
