"""IFBench: 58 constraints that no model was trained on, each checked by a program.

Pyatkin et al. 2025, arXiv:2507.02833: 300 prompts with one or two constraints each, asked greedily; 1280 new
tokens, as lighteval asks it. The checks are suites/following/constraints/ifbench_*.py, after the authors' own,
https://github.com/allenai/IFBench/blob/db69a6f/instructions.py , in the form that lighteval 0.13 carries; at the end
https://github.com/allenai/IFBench/blob/db69a6f/evaluation_lib.py :

    prompt_level_strict_acc  share of prompts all of whose constraints are followed; the headline
    inst_level_strict_acc    share of constraints that are followed; those of one prompt are a cluster
    prompt_level_loose_acc, inst_level_loose_acc
                             the same where a constraint may also be followed by the answer without its first or
                             its last line, or without asterisks

A few checks need nltk's data (punkt_tab, stopwords, averaged_perceptron_tagger_eng). Nothing is fetched: without it
those samples fail and say what to install. What a model thinks aloud before it answers is not read. Chance level 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from harness.errors import BadColumns
from harness.protocols import Row, TaskContext, TaskRef
from harness.records import Completion, Metric, Sample, Sampling, Score
from harness.stats.intervals import summarise
from harness.tasks import Asked, Item, MetricSpec, RequestTask, aggregate_metric
from harness.thoughts import final_answer
from suites.following.constraints.ifbench import CHECKS, NEEDS, strict_and_loose
from suites.following.constraints.language import how_to_install, missing

DATASET = "allenai/IFBench_test"
COLUMNS = ("key", "prompt", "instruction_id_list", "kwargs")


class IFBench(RequestTask):
    """Share of prompts and of constraints that are followed, strictly and loosely."""

    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        "prompt_level_strict_acc": MetricSpec(chance=0.0),
        "inst_level_strict_acc": MetricSpec(chance=0.0),
        "prompt_level_loose_acc": MetricSpec(chance=0.0),
        "inst_level_loose_acc": MetricSpec(chance=0.0),
    }
    uses_chat: ClassVar[bool | None] = None
    defaults: ClassVar[Sampling] = Sampling(max_tokens=1280)

    def items(self) -> Sequence[Item]:
        rows = self.context.data.rows(DATASET, None, "train", columns=COLUMNS)
        items = [_item(index, row) for index, row in enumerate(rows)]
        self._note_missing_data(items)
        return items

    def _note_missing_data(self, items: Sequence[Item]) -> None:
        absent = missing(dict.fromkeys(name for needed in NEEDS.values() for name in needed))
        asked = items if self.context.limit is None else items[: self.context.limit]
        hit = sum(any(set(NEEDS.get(name, ())) & set(absent) for name in _names(item)) for item in asked)
        if hit:
            self.notes.append(f"{hit} prompts may fail for want of data: {how_to_install(absent)}")

    def requests(self, item: Item) -> Asked:
        return self.ask(item.doc["prompt"])

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        answer = final_answer(completions[0].outputs[0].text)
        return followed_scores(*strict_and_loose(answer, item.doc["constraints"]))

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        return {
            name: over_instructions(samples, name)
            if name.startswith("inst_")
            else aggregate_metric(samples, name, spec)
            for name, spec in self.metrics.items()
        }


def followed_scores(strict: Sequence[bool], loose: Sequence[bool]) -> dict[str, Score]:
    """The four metrics of one prompt; the instruction level keeps its parts for the aggregation."""
    return {
        "prompt_level_strict_acc": Score(float(all(strict))),
        "inst_level_strict_acc": Score(sum(strict) / len(strict), detail=list(strict)),
        "prompt_level_loose_acc": Score(float(all(loose))),
        "inst_level_loose_acc": Score(sum(loose) / len(loose), detail=list(loose)),
    }


def over_instructions(samples: Sequence[Sample], name: str) -> Metric:
    """Share of instructions over all prompts; those of one prompt are a cluster. n counts instructions."""
    values: list[float] = []
    clusters: list[str] = []
    failed = 0
    for sample in samples:
        score = sample.scores.get(name)
        if sample.error is not None or score is None:
            failed += sample.error is not None
            continue
        values += [float(followed) for followed in score.detail]
        clusters += [sample.sample_id] * len(score.detail)
    return summarise(values, n_failed=failed, higher_is_better=True, clusters=clusters, chance=0.0)


def _item(index: int, row: Row) -> Item:
    """Raises: BadColumns: a constraint that has no check, or without its arguments."""
    names, arguments = row["instruction_id_list"], row["kwargs"]
    unknown = next((name for name in names if name not in CHECKS), None)
    if unknown is not None or len(names) != len(arguments) or not names:
        what = (
            f"the constraint {unknown!r}, which is none of IFBench's 58"
            if unknown
            else "other lists of names and kwargs"
        )
        raise BadColumns(f"{DATASET}: row {index} has {what}; take the data of allenai/IFBench_test")
    constraints = [
        [name, {key: value for key, value in given.items() if value is not None}]
        for name, given in zip(names, arguments, strict=True)
    ]
    doc = {"prompt": row["prompt"], "constraints": constraints}
    return Item(str(row["key"]), doc, metadata={"constraints": list(names)})


def _names(item: Item) -> Sequence[str]:
    names: Sequence[str] = item.metadata["constraints"]
    return names


def load(ref: TaskRef, context: TaskContext) -> IFBench:
    return IFBench(ref, context)
