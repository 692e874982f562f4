"""FollowBench: instructions that grow by one constraint per level, from one to five, and how far a model follows.

Jiang et al. 2024, arXiv:2310.20410; the English half: 164 groups of six families (content, situation, style, format,
example, mixed), asked greedily with 2048 new tokens. Of a group at level N all N constraints must hold. Official code:
https://github.com/YJiangcm/FollowBench/tree/6278f4c/code  ; the rules are
constraints/followbench.py, the judge's part is
https://github.com/YJiangcm/FollowBench/blob/6278f4c/code/gpt4_based_evaluation.py .

70 groups a program can check, and they alone are asked where there is no judge:

    hard_satisfaction          share of their answers that satisfy every constraint, over all levels; the headline
    hard_satisfaction_level_N  the same at one level
    consistent_levels          levels satisfied from the first on without a gap, 0 to 5, mean over groups

With --judge the other 94 groups are asked too; the judge sees the instruction grow, as in the paper, and says YES or
NO to each constraint. These are the paper's figures, rules where there is one and the judge elsewhere:

    judge_hard_satisfaction, judge_hard_satisfaction_level_N, judge_consistent_levels
    judge_soft_satisfaction, judge_soft_satisfaction_level_N
                               share of the constraints that are satisfied, mean over answers
    judge_hard_satisfaction_FAMILY
    judge_unreadable           share of judged answers to which the judge gave no list of as many YES and NO as there
                               are constraints; they are in no other figure

Levels of one group are a cluster. Where this differs: the judge's instructions are in words of our own, so that
figures of the paper's judge (GPT-4) are not to be held against these; what a model thinks aloud before it answers is
not read. Chance level 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import ClassVar, NamedTuple

from harness.errors import BadColumns
from harness.judging.asking import Verdicts, grade_with, metric_name, take_judge
from harness.protocols import Row, TaskContext, TaskRef
from harness.records import Completion, Metric, Sample, Sampling, Score
from harness.stats.intervals import summarise
from harness.tasks import Asked, Item, MetricSpec, RequestTask, aggregate_metric, scored
from harness.thoughts import final_answer
from suites.dealing import deal
from suites.following.constraints.followbench import Rule, rule_of

DATASET = "YuxinJiang/FollowBench"
COLUMNS = ("example_id", "category", "source", "level", "instruction", "target")
LEVELS = range(1, 6)
FAMILIES = ("content", "situation", "style", "format", "example", "mixed")
HARD, SOFT = "hard_satisfaction", "soft_satisfaction"
CONSISTENT, UNREADABLE = "consistent_levels", "unreadable"
LIST = re.compile(r"\[([^\[\]]*)\]")
HAN = re.compile(r"[\u4e00-\u9fff]")


class Group(NamedTuple):
    """One instruction and its five levels."""

    family: str
    example_id: int
    rows: Mapping[int, Row]
    """Level -> row; level 0, the instruction without constraints, is not there for family example."""

    @property
    def name(self) -> str:
        return f"{self.family}/{self.example_id}"

    @property
    def rule(self) -> Rule | None:
        return rule_of(self.family, self.rows[1]["source"], self.example_id)


class FollowBench(RequestTask):
    """Hard and soft satisfaction rates by level, and consistent satisfaction levels."""

    uses_chat: ClassVar[bool | None] = None
    defaults: ClassVar[Sampling] = Sampling(max_tokens=2048)

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        super().__init__(ref, context)
        self.metrics = {HARD: MetricSpec(chance=0.0, cluster="group")}  # type: ignore[misc]
        take_judge(self)

    def items(self) -> Sequence[Item]:
        """Groups dealt round the families, the five levels of each together."""
        rows = self.context.data.rows(DATASET, None, "train", columns=COLUMNS)
        groups = [group for group in read_groups(rows) if not _is_chinese(group)]
        checked = groups if self.context.judge else [group for group in groups if group.rule]
        if len(checked) < len(groups):
            self.notes.append(
                f"{len(groups) - len(checked)} of {len(groups)} groups are left out: only a judge can tell, and "
                "--judge names none"
            )
        by_family = [[group for group in checked if group.family == family] for family in FAMILIES]
        return [_item(group, level) for group in deal(by_family) for level in LEVELS]

    def requests(self, item: Item) -> Asked:
        return self.ask(item.doc["instructions"][-1])

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        return self._by_rule(item, completions[0].outputs[0].text)

    def _by_rule(self, item: Item, answer: str) -> dict[str, Score]:
        rule = rule_of(item.metadata["family"], item.doc["source"], item.doc["example_id"])
        if rule is None:
            return {}
        held = Score(float(rule(final_answer(answer), str(item.target), item.metadata["level"])))
        judge = self.context.judge
        return {HARD: held} | ({metric_name(judge, name): held for name in (HARD, SOFT)} if judge else {})

    def grade(self, samples: Sequence[Sample]) -> Iterable[Sample]:
        """By rule where there is one; the judge is asked about the others."""
        judge = self.context.judge
        others = [sample for sample in samples if not sample.metadata["rule"]]
        for sample in samples:
            if sample.metadata["rule"]:
                yield scored(sample, lambda s=sample: self._by_rule(self._items[s.sample_id], s.outputs[0]))
        if judge is not None:
            names = [metric_name(judge, name) for name in (HARD, SOFT)]
            yield from grade_with(
                judge, others, Verdicts(self._question, self._verdict, names, max_tokens=1024)
            )

    def _question(self, sample: Sample) -> Sequence[Sequence[Mapping[str, str]]]:
        item = self._items[sample.sample_id]
        text = judge_question(
            item.doc["instructions"], final_answer(sample.outputs[0]), item.metadata["family"]
        )
        return [[{"role": "user", "content": text}]]

    def _verdict(self, sample: Sample, answers: Sequence[str]) -> Mapping[str, Score]:
        judge = self.context.judge
        held = read_verdict(answers[0], sample.metadata["level"])
        unreadable = {metric_name(judge, UNREADABLE): Score(float(held is None), detail=answers[0])}
        if held is None:
            return unreadable
        return {
            metric_name(judge, HARD): Score(float(all(held)), detail=held),
            metric_name(judge, SOFT): Score(sum(held) / len(held)),
            **unreadable,
        }

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        ruled = [sample for sample in samples if sample.metadata["rule"]]
        metrics = rates(ruled, HARD, str) | {CONSISTENT: consistent_levels(ruled, HARD)}
        judge = self.context.judge
        if judge is None:
            return metrics
        named = partial(metric_name, judge)
        hard, unreadable = named(HARD), named(UNREADABLE)
        of_family = {
            named(f"{HARD}_{family}"): [s for s in samples if s.metadata["family"] == family]
            for family in FAMILIES
        }
        judged = [sample for sample in samples if not sample.metadata["rule"]]
        return (
            metrics
            | rates(samples, HARD, named)
            | rates(samples, SOFT, named)
            | {named(CONSISTENT): consistent_levels(samples, hard)}
            | {name: _rate(own, hard) for name, own in of_family.items()}
            | {unreadable: _rate(judged, unreadable, higher_is_better=False)}
        )


def rates(samples: Sequence[Sample], kind: str, named: Callable[[str], str]) -> dict[str, Metric]:
    """A metric over all levels and at each. Args: named: from its kind to its name."""
    of_level = {n: [s for s in samples if s.metadata["level"] == n] for n in LEVELS}
    return {named(kind): _rate(samples, named(kind))} | {
        named(f"{kind}_level_{n}"): _rate(own, named(kind)) for n, own in of_level.items()
    }


def _rate(samples: Sequence[Sample], name: str, *, higher_is_better: bool = True) -> Metric:
    chance = 0.0 if higher_is_better else None
    return aggregate_metric(samples, name, MetricSpec(higher_is_better, chance=chance, cluster="group"))


def consistent_levels(samples: Sequence[Sample], name: str) -> Metric:
    """Mean over groups of the levels satisfied from the first on. A group without all five scores is left out.

    Source: https://github.com/YJiangcm/FollowBench/blob/6278f4c/code/rule_based_evaluation.py
    (csl_five_constraint).
    """
    groups: dict[str, dict[int, Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.metadata["group"], {})[sample.metadata["level"]] = sample
    values: list[float] = []
    failed = 0
    for by_level in groups.values():
        scores = [by_level[n].scores.get(name) for n in LEVELS if n in by_level]
        held = [score.value for score in scores if score is not None and score.value is not None]
        failed += any(sample.failed for sample in by_level.values())
        if len(held) == len(LEVELS):
            values.append(float(next((i for i, value in enumerate(held) if value != 1), len(held))))
    return summarise(values, n_failed=failed, higher_is_better=True, unit="levels")


def judge_question(instructions: Sequence[str], answer: str, family: str) -> str:
    """What the judge reads: the instruction as it grew, the answer to the last form, what to say.

    Args: instructions: level 0 to N, N >= 1.
    """
    level = len(instructions) - 1
    grown = [f"[Instruction with {n} added]\n{text}" for n, text in enumerate(instructions[1:], start=1)]
    kind = "" if family == "mixed" else f"{family} "
    return "\n\n".join(
        [
            f"An instruction was made harder step by step: each step adds one {kind}constraint to the one before.",
            f"[Instruction without constraints]\n{instructions[0]}",
            *grown,
            f"[Answer to the instruction with {level} added]\n{answer}",
            f"[Your task]\nName the {level} added constraints in the order in which they came. Say of each whether "
            "the answer satisfies it; an answer that leaves any part of a constraint out does not. End with one "
            f"line that holds nothing but a list of {level} words in square brackets, YES or NO for each "
            'constraint, like ["YES", "NO"].',
        ]
    )


def read_verdict(text: str, level: int) -> list[bool] | None:
    """YES or NO for each constraint, from the last line of the judge's answer; None where it is not of that form."""
    last = text.strip().rpartition("\n")[2]
    found = LIST.findall(last)
    words = [word.strip(" \"'").upper() for word in found[-1].split(",")] if found else []
    if not found and level == 1:
        words = [word for word in re.findall(r"\w+", last.upper()) if word in ("YES", "NO")]
    if len(words) != level or not set(words) <= {"YES", "NO"}:
        return None
    return [word == "YES" for word in words]


def read_groups(rows: Sequence[Row]) -> list[Group]:
    """Rows in the data's order, one group after another. Raises: BadColumns: a group without its five levels."""
    groups: list[tuple[str, int, dict[int, Row]]] = []
    for row in rows:
        level, category = int(row["level"]), row["category"]
        if level == 0 or (category == "example" and level == 1):
            groups.append((category, int(row["example_id"]), {}))
        if groups:
            groups[-1][2][level] = row
    for family, example_id, levels in groups:
        absent = [level for level in LEVELS if level not in levels]
        if absent or family not in FAMILIES:
            raise BadColumns(
                f"{DATASET}: group {example_id} of category {family!r} has no level {absent[0] if absent else 0}; "
                f"each wants levels 1 to 5 in one of {', '.join(FAMILIES)}"
            )
    return [Group(*group) for group in groups]


def _item(group: Group, level: int) -> Item:
    row = group.rows[level]
    grown = [group.rows[n]["instruction"] for n in range(level + 1) if n in group.rows]
    doc = {"instructions": grown, "source": row["source"], "example_id": group.example_id}
    metadata = {"group": group.name, "family": group.family, "level": level, "rule": group.rule is not None}
    return Item(f"{group.name}/{level}", doc, row["target"], metadata)


def _is_chinese(group: Group) -> bool:
    """The hub's split holds the Chinese half too, for which there are other rules."""
    text = group.rows[1]["instruction"]
    return len(HAN.findall(text)) * 4 > len(text)


def load(ref: TaskRef, context: TaskContext) -> FollowBench:
    return FollowBench(ref, context)
