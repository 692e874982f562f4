"""Any multiple-choice task of lm-eval in a form that text alone can answer: `lettered:NAME`.

    harness eval --tasks lettered:arc_challenge https://host/v1#model

lm-eval's form compares the log-likelihoods of the choices, which most servers do not give. This one shows the choices
with letters, asks for the letter, and reads it. It measures something else, so task and metric have other names:
`letter_accuracy` is not comparable with `acc`. `no_letter` is the share of answers in which no letter stands; they
count as wrong.

Questions and choices are lm-eval's own; no shots. The choices come in an order drawn from seed and question (some data
sets keep the right one first); where the question shows lettered choices already (MMLU), it stays as it is. A chat
where the model has a template, unless --chat says otherwise.

The paper is that of NAME. The reader of letters is this project's own; a stated answer ("Answer: B") is read as by
https://github.com/UKGovernmentBEIS/inspect_ai/blob/main/src/inspect_ai/solver/_multiple_choice.py (parse_answers).
Chance level: the mean over questions of one over the number of choices.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import Any, ClassVar

from harness.chat import render
from harness.errors import BadInput
from harness.protocols import TaskContext, TaskRef
from harness.records import Completion, Metric, Sample, Sampling, Score
from harness.tasks import Asked, Item, MetricSpec, RequestTask
from harness.thoughts import final_answer

INSTRUCTION = "Answer with the letter of the right choice alone."
ANSWER = "Answer:"
ONE_OF_SEVERAL = {"truthfulqa_mc2": "truthfulqa_mc1", "truthfulqa": "truthfulqa_mc1"}
"""Tasks with several right choices, and the one on the same questions that has one."""
NO_ARTICLE = r"(?!(?<=[AI])[ \t]{1,3}(?!(?i:because|is|since|as|seems|would|and|or)\b)\w)"
"""Behind a capital: "A cat" and "I think" name no letter, "A because" does."""
LEADS = (
    r"answer|choice|option|I(?:['\u2019]d| would)? (?:say|think|believe|choose|pick)(?: it)?(?:['\u2019]s)?"
)
SAYS = re.compile(
    rf"\b(?i:{LEADS})(?!\w)\s{{0,3}}(?i:is)?\s{{0,3}}:?\s{{0,3}}\W{{0,3}}"
    rf"(?:([A-Z])(?![\w'\u2019]){NO_ARTICLE}|([a-z])(?=[^\w\s'\u2019]|\s{{0,3}}$))",
    re.MULTILINE,
)
"""A small letter is one at the end of a line or before a mark: "the answer is a cat" names none."""
OPENS = re.compile(rf"\W{{0,20}}([A-Z])(?![\w'\u2019]){NO_ARTICLE}")


def letter_of(answer: str, n: int) -> str | None:
    """The letter that an answer names: at its beginning, or after "the answer is"; None where there is none.

    Thoughts before the answer are not read.

    Args: n: choices shown.
    """
    allowed = ascii_uppercase[:n]
    text = final_answer(answer)
    opening = OPENS.match(text.strip())
    if opening and opening[1] in allowed:
        return opening[1]
    said = [(large or small).upper() for large, small in SAYS.findall(text)]
    said = [letter for letter in said if letter in allowed]
    return said[-1] if said else None


class Lettered(RequestTask):
    """One question of a multiple-choice task, its choices lettered."""

    uses_chat: ClassVar[bool] = False  # auto: a chat where there is a template, see encode()
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        "letter_accuracy": MetricSpec(),
        "no_letter": MetricSpec(higher_is_better=False),
    }
    defaults: ClassVar[Sampling] = Sampling(max_tokens=16)

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        super().__init__(ref, context)
        if context.num_fewshot:
            raise BadInput(f"lettered:{ref.name} takes no examples; drop --num-fewshot")
        self.notes.append("asked for a letter: not comparable with scores from log-likelihoods")

    def items(self) -> Sequence[Item]:
        """Raises: BadInput: not a multiple-choice task with one right choice."""
        from suites.from_lm_eval.build import Wanted, build

        source = f"{type(self.context.data).__name__}:{self.context.data.data_dir}"
        wanted = Wanted(
            name=self.ref.name,
            limit=self.context.limit,
            num_fewshot=0,
            chat=False,
            fewshot_seed=0,
            system_instruction=None,
            allow_unsafe=False,
            source=source,
            data=self.context.data,
        )
        built = build(wanted)
        return [
            self._item(sample_id, built.task(sample_id), group[0].doc)
            for sample_id, group in built.instances.items()
        ]

    def _item(self, sample_id: str, task: Any, doc: Any) -> Item:
        if not is_lettered(task):
            other = ONE_OF_SEVERAL.get(self.ref.name)
            hint = f"; ask lettered:{other}" if other else ""
            raise BadInput(f"lm-eval task {task.task_name!r} has no choices of which one is right{hint}")
        question, choices, right = _parts(task, doc)
        if not _are_letters(choices):
            order = list(range(len(choices)))
            random.Random(f"{self.context.seed}:{sample_id}:{question}").shuffle(order)
            choices, right = [choices[place] for place in order], order.index(right)
            shown = "\n".join(f"{ascii_uppercase[i]}. {text}" for i, text in enumerate(choices))
            question = f"{question}\n{shown}"
        prompt = f"{question}\n\n{INSTRUCTION}\n{ANSWER}"
        metadata = {"subtask": task.task_name, "choices": len(choices)}
        return Item(sample_id, {"prompt": prompt}, ascii_uppercase[right], metadata)

    @property
    def chat_where_possible(self) -> bool:
        return self.context.chat == "auto"

    def encode(self, text: str | Sequence[Mapping[str, str]]) -> tuple[str, tuple[int, ...]]:
        tokenizer = self.engine.tokenizer
        if self.context.chat != "auto" or not tokenizer.chat_template or not isinstance(text, str):
            return super().encode(text)
        turns = [{"role": "user", "content": text.removesuffix(f"\n{ANSWER}")}]
        rendered = render(tokenizer, turns, self._checkpoint_name())
        return rendered, tuple(tokenizer.encode(rendered, add_special_tokens=False))

    def requests(self, item: Item) -> Asked:
        plain = not self.chat and not (self.context.chat == "auto" and self.engine.tokenizer.chat_template)
        stop = self.sampling.stop or (("\n",) if plain else ())
        return self.ask(item.doc["prompt"], replace(self.sampling, stop=stop))

    @property
    def metric_names(self) -> Sequence[str]:
        return list(self.metrics)

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        found = dict(super().aggregate(samples))
        shares = [1 / int(sample.metadata["choices"]) for sample in samples]
        chance = sum(shares) / len(shares) if shares else None
        return found | {"letter_accuracy": replace(found["letter_accuracy"], chance=chance)}

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        n = int(item.metadata["choices"])
        found = [letter_of(output.text, n) for output in completions[0].outputs]
        return {
            "letter_accuracy": Score(sum(one == item.target for one in found) / len(found), detail=found),
            "no_letter": Score(found.count(None) / len(found)),
        }


def _parts(task: Any, doc: Any) -> tuple[str, list[str], int]:
    """Question, choices, place of the right one: as lm-eval's task has them."""
    choices = [str(choice) for choice in task.doc_to_choice(doc)]
    if task.multiple_input:  # the choices stand in the middle of a sentence, whose end is the target
        end = str(task.doc_to_target(doc)).strip()
        right = task.doc_to_text(doc)
        return "Which of these makes sense?", [f"{choice.strip()} {end}" for choice in choices], int(right)
    question = str(task.doc_to_text(doc)).rstrip()
    for ending in (ANSWER, "A:"):
        question = question.removesuffix(ending).rstrip()
    right = task.doc_to_target(doc)
    place = choices.index(right) if isinstance(right, str) and right in choices else int(right)
    return question, [choice.strip() for choice in choices], place


def _are_letters(choices: Sequence[str]) -> bool:
    return [choice.strip() for choice in choices] == list(ascii_uppercase[: len(choices)])


def is_lettered(task: Any) -> bool:
    """Whether a task of lm-eval has lettered choices for a form: one right one among several."""
    several = task.task_name in ONE_OF_SEVERAL or getattr(task, "multiple_target", 0)
    return task.OUTPUT_TYPE == "multiple_choice" and not several


def form_of(name: str, tasks: Iterable[Any]) -> str | None:
    """What to ask, as --tasks takes it, of a model that gives no log-likelihoods; None: there is no such form."""
    if name in ONE_OF_SEVERAL:
        return f"lettered:{ONE_OF_SEVERAL[name]}"
    return f"lettered:{name}" if all(map(is_lettered, tasks)) else None


def load(ref: TaskRef, context: TaskContext) -> Lettered:
    """Raises: UnknownName, BadInput, DatasetUnavailable."""
    from suites.from_lm_eval import index

    index.find(ref.name)
    return Lettered(ref, context)
