"""A judge on what is there already: two finished runs, one run by a rubric, a set that people labelled.

What the judge said lies in RUNS/.judged/<name>/: verdicts.jsonl (a line per sample, with the judge's words),
energy.jsonl (of every command that asked), and result.json, last. Verdicts are in the response cache, so that a
command that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from harness import registry
from harness.compare import compare
from harness.energy import summarise
from harness.errors import BadInput, NotWritable
from harness.grading import Grading, Where
from harness.hashing import canonical_json, hash_json, slug
from harness.journal import append_line, reading_adapter, sample_to_json, write_atomically
from harness.judging.asking import Verdicts, grade_with, note_of
from harness.judging.choice import foreign_name
from harness.judging.figures import (
    agreement_metrics,
    pair_metrics,
    pair_verdicts,
    rubric_metrics,
    rubric_verdicts,
)
from harness.judging.labels import Labelled
from harness.judging.model import EngineJudge
from harness.judging.opening import open_judge
from harness.judging.pairwise import CRITERION
from harness.judging.rubric import Rubric
from harness.judging.selection import Part, Selection, answers_of_run, find_run, pairs_of
from harness.meters.elsewhere import unweighed
from harness.plan import Common
from harness.protocols import Meter, Progress, SilentProgress, Window
from harness.records import EnergyReading, EnergySummary, Json, Metric, RunRecord, Sample
from harness.store import Store

FOLDER = ".judged"
ALL = "(all)"
LABELS = "labels"
Metrics = Mapping[str, Mapping[str, Metric]]


class JudgePlan(Common):
    """`harness judge`: who judges, and how."""

    judge: str
    judge_options: dict[str, Json] = Field(default_factory=dict)
    checkpoints: list[str] = Field(default_factory=list, description="Specs of the models that are judged")
    tasks: list[str] = Field(
        default_factory=list, description="Tasks of the runs; none: all that hold answers"
    )
    limit: int | None = Field(default=None, ge=1, description="First samples of every task")
    criterion: str = Field(default=CRITERION, description="What two answers are compared by, as a question")


@dataclass(frozen=True)
class Judged:
    """What a judge said, added up."""

    judge: str
    judge_spec: str
    judges_itself: bool
    runs: tuple[str, ...]
    """Run ids: of one run, or of A and B; none for a labelled set."""
    checkpoints: tuple[str, ...]
    n_samples: int
    n_failed: int
    """Samples that the judge did not answer."""
    n_left_out: int
    """Samples of the runs without an answer to judge: failed there."""
    metrics: Metrics
    """task -> metric -> value; '(all)' where there are several tasks."""
    energy: EnergySummary | None
    asked: Mapping[str, Json]
    """Questions, how many the cache answered, tokens, cost."""
    notes: tuple[str, ...]
    folder: Path


class _Work(NamedTuple):
    """What is to be judged, and how it is added up."""

    chosen: Selection
    verdicts: Callable[[EngineJudge], Verdicts]
    metrics: Callable[[EngineJudge, Sequence[Sample]], Mapping[str, Metric]]
    runs: Sequence[RunRecord]
    identity: Json
    notes: Sequence[str] = ()


def judge_pairs(plan: JudgePlan, run_a: str, run_b: str, progress: Progress | None = None) -> Judged:
    """Compare the answers of two finished runs on the same samples, in both orders; the win rate is B's.

    Raises: NotComparable: other samples. UnknownName: no such run. BadInput: no answers to compare. CostLimitReached.
    """
    store = Store(plan.runs)
    comparison = compare(run_a, run_b, store)
    a, b = find_run(store, run_a), find_run(store, run_b)
    chosen = pairs_of(a, b, store, Part(plan.tasks, plan.limit))
    notes = [*comparison.notes]
    if chosen.n_reworded:
        notes.append(f"{chosen.n_reworded} requests are not worded alike in the two runs: the judge saw A's")
    work = _Work(
        chosen,
        lambda judge: pair_verdicts(judge, _pair, plan.criterion),
        pair_metrics,
        (a, b),
        ["pairs", [a.run_id, b.run_id], plan.criterion],
        notes,
    )
    return _judge(plan, work, progress)


def judge_run(plan: JudgePlan, run: str, rubric: Rubric, progress: Progress | None = None) -> Judged:
    """Grade the answers of a finished run by a rubric. Raises: as judge_pairs."""
    store = Store(plan.runs)
    record = find_run(store, run)
    work = _Work(
        answers_of_run(record, store, Part(plan.tasks, plan.limit)),
        lambda judge: rubric_verdicts(judge, rubric, _single),
        lambda judge, graded: rubric_metrics(judge, rubric, graded),
        (record,),
        ["rubric", record.run_id, rubric.model_dump()],
    )
    return _judge(plan, work, progress)


def judge_labels(
    plan: JudgePlan, rows: Sequence[Labelled], rubric: Rubric | None, progress: Progress | None = None
) -> Judged:
    """Hold the judge against labels: Cohen's kappa, agreement, off-format verdicts."""
    rows = rows[: plan.limit]
    samples = [
        Sample(LABELS, str(i), row.request, row.answers, str(row.label), graded=False)
        for i, row in enumerate(rows, 1)
    ]

    def verdicts(judge: EngineJudge) -> Verdicts:
        if rubric is None:
            return pair_verdicts(judge, _pair, plan.criterion)
        return rubric_verdicts(judge, rubric, _single)

    kind = None if rubric is None else rubric.model_dump()
    work = _Work(
        Selection(samples, 0),
        verdicts,
        lambda judge, graded: agreement_metrics(judge, graded, rubric),
        (),
        ["labels", hash_json([list(row) for row in rows]), kind, plan.criterion],
    )
    return _judge(plan, work, progress)


def _pair(sample: Sample) -> tuple[str, str, str]:
    return sample.prompt, sample.outputs[0], sample.outputs[1]


def _single(sample: Sample) -> tuple[str, str]:
    return sample.prompt, sample.outputs[0]


# What all of them share


def _judge(plan: JudgePlan, work: _Work, progress: Progress | None) -> Judged:
    shown = progress or SilentProgress()
    if (foreign := foreign_name(plan.judge)) is not None:
        raise BadInput(
            f"--judge {plan.judge!r} is {foreign!r} of another library, which grades its own tasks alone; give a "
            "folder, a hub id or http(s)://host/v1#model"
        )
    specs = [record.checkpoint.spec for record in work.runs]
    model = open_judge(plan.model_copy(update={"checkpoints": specs}), shown)
    if model is None:
        raise BadInput("no judge named; give --judge MODEL")
    with closing(model):
        judge = model.of(*(record.checkpoint for record in work.runs))
        folder = _folder(plan, judge, work)
        readings: list[EnergyReading] = []
        graded = _graded(plan, judge, work, (folder, readings), shown)
        facts = model.take_facts()
        for problem in model.problems():
            shown.say(problem)
        result = Judged(
            judge=judge.name,
            judge_spec=model.checkpoint.spec,
            judges_itself=judge.judges_itself,
            runs=tuple(record.run_id for record in work.runs),
            checkpoints=tuple(record.checkpoint.name for record in work.runs),
            n_samples=len(graded),
            n_failed=sum(sample.failed for sample in graded),
            n_left_out=work.chosen.n_left_out,
            metrics=_by_task(lambda some: work.metrics(judge, some), graded),
            energy=summarise(readings, plan.energy)
            if facts.get("questions", 0) > facts.get("reused", 0)
            else None,
            asked=facts,
            notes=(note_of(judge), *work.notes, *model.notes(facts)),
            folder=folder,
        )
    write_atomically(folder / "result.json", (canonical_json(result) + "\n").encode())
    return result


def _graded(
    plan: JudgePlan,
    judge: EngineJudge,
    work: _Work,
    kept: tuple[Path, list[EnergyReading]],
    progress: Progress,
) -> list[Sample]:
    """Ask, and write every line as it comes."""
    folder, readings = kept
    meter: Meter = registry.load("meter", plan.energy.meter)(plan.energy)
    graded: list[Sample] = []
    label = f"{judge.name} judges"
    progress.start(label, len(work.chosen.samples))
    try:
        with (
            (folder / "verdicts.jsonl").open("wb", buffering=0) as lines,
            (folder / "energy.jsonl").open("ab", buffering=0) as weighed,
        ):

            def keep(reading: EnergyReading) -> None:
                append_line(weighed, reading_adapter().dump_json(reading) + b"\n")
                readings.append(reading)

            def window(where: Where) -> AbstractContextManager[Window]:
                if where == "elsewhere":
                    return unweighed("grading", label, keep)
                return meter.window("grading", label, keep)

            with Grading(judge.model, window, _nothing_to_unload) as grading:
                for sample in grading.weighed(grade_with(judge, work.chosen.samples, work.verdicts(judge))):
                    append_line(lines, sample_to_json(sample).encode() + b"\n")
                    graded.append(sample)
                    progress.advance()
    except OSError as exc:
        raise NotWritable.of(folder, exc) from exc
    finally:
        progress.finish()
        meter.close()
    return graded


def _folder(plan: JudgePlan, judge: EngineJudge, work: _Work) -> Path:
    names = [record.checkpoint.name for record in work.runs] or [LABELS]
    digest = hash_json([work.identity, judge.identity(), plan.limit, plan.tasks])
    folder = plan.runs / FOLDER / f"{slug('--vs--'.join(names))}--{slug(judge.name)}--{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise NotWritable.of(folder, exc) from exc
    return folder


def _by_task(
    metrics: Callable[[Sequence[Sample]], Mapping[str, Metric]], samples: Sequence[Sample]
) -> dict[str, Mapping[str, Metric]]:
    tasks = list(dict.fromkeys(sample.task for sample in samples))
    found = {task: metrics([s for s in samples if s.task == task]) for task in tasks}
    return {ALL: metrics(samples), **found} if len(tasks) > 1 else found


def _nothing_to_unload() -> None: ...


__all__ = ["CRITERION", "JudgePlan", "Judged", "judge_labels", "judge_pairs", "judge_run"]
