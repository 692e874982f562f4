"""Answers to a user's own prompts against reference answers: a judge says which is better, in both orders.

    harness eval --tasks judged_pairs,data=prompts.jsonl ckpt/ --judge MODEL

`data` is a JSONL, CSV or Parquet file with the columns `prompt` and `reference`, the answer to beat: another model's,
or a person's. Columns by another name: `prompt=instruction,reference=output`. The order is swapped as in Zheng et al.
2023, arXiv:2306.05685; the length-controlled win rate is that of Dubois et al. 2024, arXiv:2404.04475, with the terms
that harness.stats.length_control names. Chance level of a win rate: 0.5. There is no starter version: it is about the
user's own data. (By a rubric: scorer `judge` of an own suite.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from harness.datafiles import as_text, read_texts
from harness.errors import BadColumns, BadInput, BadPlan
from harness.judging.asking import grade_with, note_of
from harness.judging.figures import pair_metrics, pair_verdicts
from harness.protocols import Judge, TaskContext, TaskRef
from harness.records import Completion, Metric, Sample, Sampling, Score
from harness.tasks import Asked, Item, RequestTask
from harness.thoughts import final_answer

COLUMNS = ("prompt", "reference")


class JudgedPairs(RequestTask):
    """Win rate over reference answers, plain and length-controlled."""

    graded_apart = True
    options: ClassVar[Sequence[str]] = ("data", *COLUMNS)
    defaults: ClassVar[Sampling] = Sampling(max_tokens=512)

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        super().__init__(ref, context)
        if context.judge is None:
            raise BadInput(
                f"task {ref.label!r} is graded by a judge alone; give --judge MODEL (docs/judge.md)"
            )
        self.judge: Judge = context.judge
        self.notes.append(note_of(self.judge))

    def items(self) -> Sequence[Item]:
        given = self.ref.options.get("data")
        if given is None:
            raise BadPlan(f"task {self.ref.label!r} lacks data; write --tasks {self.ref.name},data=FILE")
        path = Path(str(given)).expanduser()
        rows = read_texts(path)
        names = {column: str(self.ref.options.get(column) or column) for column in COLUMNS}
        for column, name in names.items():
            if rows and name not in rows[0]:
                held = ", ".join(rows[0])
                raise BadColumns(f"{path} has no column {name!r}; it has {held}: write {column}=COLUMN")
        return [_item(path, number, row, names) for number, row in enumerate(rows, 1)]

    def requests(self, item: Item) -> Asked:
        return self.ask(item.doc["prompt"])

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        return {}  # nothing without the judge

    def grade(self, samples: Sequence[Sample]) -> Iterable[Sample]:
        return grade_with(self.judge, samples, pair_verdicts(self.judge, self._pair))

    def _pair(self, sample: Sample) -> tuple[str, str, str]:
        """Request, reference and answer, without thoughts; of several answers the first."""
        doc = self._items[sample.sample_id].doc
        return doc["prompt"], doc["reference"], final_answer(sample.outputs[0])

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        return pair_metrics(self.judge, samples)


def _item(path: Path, number: int, row: Mapping[str, object], names: Mapping[str, str]) -> Item:
    texts = {column: as_text(row[name]) for column, name in names.items()}
    odd = next((names[column] for column, text in texts.items() if text is None), None)
    if odd is not None:
        raise BadColumns(f"{path}, row {number}: {odd!r} is {row[odd]!r}, which is no text")
    return Item(str(number), texts)
