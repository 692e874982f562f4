"""Constraints over several turns: does one that was set once still hold, and does a change of it take hold?

Every dialogue puts four real questions (FollowBench's instructions without constraints: Jiang et al. 2024,
arXiv:2310.20410) in four turns. A constraint that a program can check (constraints/simple.py) is set in the
first turn for all answers to come and is not said again. Dialogues are of three kinds, dealt in turn:

    keep     nothing changes
    add      a second constraint joins in the third turn; both hold from there on
    replace  another takes the first one's place in the third turn, which no answer can follow both of

Answers are the model's own: what it did wrong before stands in what it reads. Metrics:

    dialogue_accuracy  share of dialogues in which every turn follows every constraint then in force; the headline
    turn_accuracy      share of turns that do; turn_1 ... turn_4 one by one
    stated             share of constraints followed in the turn in which they are said
    kept               share of constraints followed in later turns
    kept_if_stated     the same, of the constraints that were followed when they were said: forgetting, apart from
                       not being able to
    changed            share of the turns after a change (add or replace) that follow what is then in force

Turns of one dialogue are a cluster. There is no official grader: the checks are the task's own. A blank answer
follows nothing. Chance level 0.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import ClassVar

from harness.errors import BadInput
from harness.records import Completion, Json, Metric, Sample, Sampling, Score
from harness.stats.intervals import summarise
from harness.tasks import Item, MetricSpec, aggregate_metric
from harness.thoughts import final_answer
from harness.turns import Message, TurnsTask
from suites.following.constraints.simple import BY_NAME, PAIRS, TOGETHER
from suites.following.followbench import COLUMNS, DATASET, read_groups

DIALOGUES = 120
TURNS = 4
CHANGE_AT = 2
"""Index of the turn in which something changes."""
KINDS = ("keep", "add", "replace")
LONGEST_QUESTION = 400
"""Characters: four questions and their answers must fit a context."""
ASIDE = ("content", "mixed", "example")
"""Families whose instructions carry long texts, or a form of answer of their own."""


class TurnConstraints(TurnsTask):
    """Share of dialogues and turns in which what was asked for is kept."""

    metrics: ClassVar[Mapping[str, MetricSpec]] = {"dialogue_accuracy": MetricSpec(chance=0.0)}
    most_turns = TURNS
    defaults: ClassVar[Sampling] = Sampling(max_tokens=512)

    def items(self) -> Sequence[Item]:
        questions = self._questions()
        return [self._dialogue(number, questions) for number in range(DIALOGUES)]

    def _questions(self) -> list[str]:
        rows = self.context.data.rows(DATASET, None, "train", columns=COLUMNS)
        groups = [group for group in read_groups(rows) if group.family not in ASIDE and group.rule is None]
        texts = dict.fromkeys(group.rows[0]["instruction"].strip() for group in groups if 0 in group.rows)
        found = [text for text in texts if len(text) <= LONGEST_QUESTION and text.isascii()]
        if len(found) < TURNS:
            raise BadInput(
                f"{DATASET} has {len(found)} instructions of at most {LONGEST_QUESTION} characters without "
                f"constraints, and a dialogue needs {TURNS}; take the whole data set"
            )
        return found

    def _dialogue(self, number: int, questions: Sequence[str]) -> Item:
        rng = random.Random(f"{self.context.seed}:turn_constraints:{number}")
        kind = KINDS[number % len(KINDS)]
        asked = rng.sample(questions, TURNS)
        if kind == "add":
            first, second = rng.choice(TOGETHER)
        else:
            first, second = (constraint.name for constraint in rng.sample(rng.choice(PAIRS), 2))
        in_force = [[first]] * CHANGE_AT + [
            {"keep": [first], "add": [first, second], "replace": [second]}[kind]
        ] * (TURNS - CHANGE_AT)
        doc: dict[str, Json] = {"turns": _said(kind, asked, first, second)}
        return Item(f"{kind}-{number}", doc, metadata={"kind": kind, "in_force": in_force})

    def opening(self, item: Item) -> Sequence[Message]:
        return [{"role": "user", "content": item.doc["turns"][0]}]

    def reply(self, item: Item, answers: Sequence[Completion]) -> str | None:
        turns: Sequence[str] = item.doc["turns"]
        return turns[len(answers)] if len(answers) < len(turns) else None

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        texts = [final_answer(completion.outputs[0].text) for completion in completions]
        held = [
            {name: bool(text.strip()) and BY_NAME[name].holds(text) for name in names}
            for text, names in zip(texts, item.metadata["in_force"], strict=True)
        ]
        return {"dialogue_accuracy": Score(float(all(all(turn.values()) for turn in held)), detail=held)}

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        name = "dialogue_accuracy"
        failed = sum(sample.failed for sample in samples)
        done = [s for s in samples if not s.failed and name in s.scores]
        held = [(s.sample_id, s.metadata["kind"], s.scores[name].detail) for s in done]
        turns = [(i, n, float(all(turn.values()))) for i, _, turns in held for n, turn in enumerate(turns)]
        after = [
            (i, float(all(turn.values())))
            for i, kind, turns in held
            if kind != "keep"
            for turn in turns[CHANGE_AT:]
        ]
        checks = [(i, *check) for i, _, turns in held for check in checks_of(turns)]
        values: dict[str, list[tuple[str, float]]] = {
            "turn_accuracy": [(i, value) for i, _, value in turns],
            "stated": [(i, now) for i, stated, now, _ in checks if stated],
            "kept": [(i, now) for i, stated, now, _ in checks if not stated],
            "kept_if_stated": [(i, now) for i, stated, now, then in checks if not stated and then],
            "changed": after,
            **{f"turn_{k + 1}": [(i, value) for i, n, value in turns if n == k] for k in range(TURNS)},
        }
        spec = self.metrics[name]
        return {name: aggregate_metric(samples, name, spec)} | {
            key: _share(found, failed) for key, found in values.items()
        }


def checks_of(turns: Sequence[Mapping[str, bool]]) -> list[tuple[bool, float, bool]]:
    """Of every constraint in every turn: is it said there, is it followed, was it followed when it was said."""
    when_said: dict[str, bool] = {}
    checks = []
    for turn in turns:
        for name, held in turn.items():
            stated = name not in when_said
            when_said.setdefault(name, held)
            checks.append((stated, float(held), when_said[name]))
    return checks


def _share(found: Sequence[tuple[str, float]], failed: int) -> Metric:
    """Share of turns or checks; those of one dialogue are a cluster."""
    return summarise(
        [value for _, value in found],
        n_failed=failed,
        higher_is_better=True,
        clusters=[dialogue for dialogue, _ in found],
        chance=0.0,
    )


def _said(kind: str, questions: Sequence[str], first: str, second: str) -> list[str]:
    """The user's side of a dialogue."""
    rule, change = BY_NAME[first].text, BY_NAME[second].text
    said = list(questions)
    said[0] += f"\n\nIn this and all of your later answers, keep to this rule: {rule}"
    if kind == "add":
        said[CHANGE_AT] += f"\n\nFrom this answer on, keep to a second rule besides the first: {change}"
    if kind == "replace":
        said[CHANGE_AT] += (
            f"\n\nThe rule from before no longer applies. From this answer on, keep to this one: {change}"
        )
    return said
