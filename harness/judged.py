"""A judge on what is there already: two finished runs, one run by a rubric, a set that people labelled.

What the judge said lies in RUNS/.judged/<name>/: verdicts.jsonl (a line per sample, with the judge's words),
energy.jsonl, and result.json, last. Verdicts are in the response cache, so that a command that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
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
from harness.judging.asking import Verdicts, grade_with, metric_name, note_of
from harness.judging.choice import foreign_name
from harness.judging.figures import pair_metrics, pair_verdicts, rubric_metrics, rubric_verdicts
from harness.judging.labels import Labelled
from harness.judging.model import EngineJudge, JudgeModel
from harness.judging.opening import open_judge
from harness.judging.pairwise import CHOICES, CRITERION
from harness.judging.requests import unwrapper
from harness.judging.rubric import Rubric
from harness.meters.elsewhere import unweighed
from harness.plan import Common
from harness.protocols import Meter, Progress, SilentProgress, Window
from harness.records import EnergyReading, EnergySummary, Json, Metric, RunRecord, Sample
from harness.stats.agreement import agreement_metric, kappa_metric
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

    samples: Sequence[Sample]
    verdicts: Callable[[EngineJudge], Verdicts]
    metrics: Callable[[EngineJudge, Sequence[Sample]], Mapping[str, Metric]]
    runs: Sequence[RunRecord]
    n_left_out: int
    notes: Sequence[str]
    identity: Json


def judge_pairs(plan: JudgePlan, run_a: str, run_b: str, progress: Progress | None = None) -> Judged:
    """Compare the answers of two finished runs on the same samples, in both orders; the win rate is B's.

    Raises: NotComparable: other samples. UnknownName: no such run. BadInput: no answers to compare. CostLimitReached.
    """
    store = Store(plan.runs)
    comparison = compare(run_a, run_b, store)
    records = [_find(store, run_a), _find(store, run_b)]
    unwrap = [unwrapper(record.checkpoint) for record in records]
    others = {(s.task, s.sample_id): s for s in _store_of(records[1], store).samples(records[1])}
    samples, left_out, differ = [], 0, 0
    for a in _chosen(plan, _store_of(records[0], store).samples(records[0])):
        b = others[a.task, a.sample_id]
        if not (a.outputs and b.outputs) or a.error is not None or b.error is not None:
            left_out += 1
            continue
        request = unwrap[0](a.prompt)
        differ += request != unwrap[1](b.prompt)
        samples.append(
            Sample(a.task, a.sample_id, request, (a.outputs[0], b.outputs[0]), a.target, graded=False)
        )
    _refuse_nothing(samples, f"{records[0].run_id} and {records[1].run_id}", left_out)
    notes = [*comparison.notes]
    if differ:
        notes.append(f"{differ} requests are not worded alike in the two runs: the judge saw A's")
    work = _Work(
        samples,
        lambda judge: pair_verdicts(judge, lambda s: (s.prompt, s.outputs[0], s.outputs[1]), plan.criterion),
        pair_metrics,
        records,
        left_out,
        notes,
        ["pairs", [record.run_id for record in records], plan.criterion],
    )
    return _judge(plan, work, progress)


def judge_run(plan: JudgePlan, run: str, rubric: Rubric, progress: Progress | None = None) -> Judged:
    """Grade the answers of a finished run by a rubric. Raises: as judge_pairs."""
    store = Store(plan.runs)
    record = _find(store, run)
    unwrap = unwrapper(record.checkpoint)
    samples, left_out = [], 0
    for sample in _chosen(plan, _store_of(record, store).samples(record)):
        if sample.outputs and sample.error is None:
            asked = replace(sample, prompt=unwrap(sample.prompt), scores={}, graded=False)
            samples.append(asked)
        else:
            left_out += 1
    _refuse_nothing(samples, record.run_id, left_out)
    work = _Work(
        samples,
        lambda judge: rubric_verdicts(judge, rubric, lambda s: (s.prompt, s.outputs[0])),
        lambda judge, graded: rubric_metrics(judge, rubric, graded),
        [record],
        left_out,
        [],
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
    if rubric is None:

        def verdicts(judge: EngineJudge) -> Verdicts:
            return pair_verdicts(judge, lambda s: (s.prompt, s.outputs[0], s.outputs[1]), plan.criterion)
    else:

        def verdicts(judge: EngineJudge) -> Verdicts:
            return rubric_verdicts(judge, rubric, lambda s: (s.prompt, s.outputs[0]))

    kind = None if rubric is None else rubric.model_dump()
    work = _Work(
        samples,
        verdicts,
        lambda judge, graded: _agreement(judge, graded, rubric),
        [],
        0,
        [],
        ["labels", hash_json([list(row) for row in rows]), kind, plan.criterion],
    )
    return _judge(plan, work, progress)


def _agreement(judge: EngineJudge, samples: Sequence[Sample], rubric: Rubric | None) -> dict[str, Metric]:
    """Kappa over the samples with a verdict that could be read; the others are counted beside it."""
    figures = pair_metrics(judge, samples) if rubric is None else rubric_metrics(judge, rubric, samples)
    scored = metric_name(judge, "win_rate" if rubric is None else rubric.name)
    said: list[str | int] = []
    labels: list[str | int] = []
    for sample in samples:
        score = sample.scores.get(scored)
        if score is not None and score.value is not None and sample.target is not None:
            said.append(int(score.value) if rubric else {0.0: "A", 0.5: "tie", 1.0: "B"}[score.value])
            labels.append(int(sample.target) if rubric else sample.target)
    categories: Sequence[str | int] = rubric.grades if rubric else CHOICES
    failed = figures[scored].n_failed
    found = {
        metric_name(judge, "kappa"): kappa_metric(said, labels, categories=categories),
        metric_name(judge, "agreement"): agreement_metric(said, labels),
    }
    if rubric is not None:
        weighted = kappa_metric(said, labels, categories=categories, weights="quadratic")
        found[metric_name(judge, "kappa_quadratic")] = weighted
    beside = {name: metric for name, metric in figures.items() if name not in _of_models(judge)}
    return {name: replace(metric, n_failed=failed) for name, metric in found.items()} | beside


def _of_models(judge: EngineJudge) -> tuple[str, ...]:
    """Figures that compare two models; in a labelled set A and B are anybody's."""
    return metric_name(judge, "win_rate"), metric_name(judge, "lc_win_rate")


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
            n_left_out=work.n_left_out,
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
    progress.start(label, len(work.samples))
    try:
        with (
            (folder / "verdicts.jsonl").open("wb", buffering=0) as lines,
            (folder / "energy.jsonl").open("wb", buffering=0) as weighed,
        ):

            def keep(reading: EnergyReading) -> None:
                append_line(weighed, reading_adapter().dump_json(reading) + b"\n")
                readings.append(reading)

            def window(where: Where) -> AbstractContextManager[Window]:
                if where == "elsewhere":
                    return unweighed("grading", label, keep)
                return meter.window("grading", label, keep)

            with Grading(judge.model, window, _nothing_to_unload) as grading:
                for sample in grading.weighed(grade_with(judge, work.samples, work.verdicts(judge))):
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


def _find(store: Store, run: str) -> RunRecord:
    path = Path(run)
    return Store(path.parent).find(str(path)) if path.is_dir() else store.find(run)


def _store_of(record: RunRecord, store: Store) -> Store:
    return store if record.path is None else Store(record.path.parent)


def _chosen(plan: JudgePlan, samples: Iterator[Sample]) -> Iterator[Sample]:
    """Samples of the plan's tasks, so many of each. Raises: BadInput: a task that the run does not hold."""
    taken: dict[str, int] = {}
    for sample in samples:
        n = taken.setdefault(sample.task, 0)
        if (not plan.tasks or sample.task in plan.tasks) and (plan.limit is None or n < plan.limit):
            taken[sample.task] += 1
            yield sample
    missing = [task for task in plan.tasks if task not in taken]
    if missing:
        raise BadInput(f"no task {missing[0]!r} in the run; it holds {', '.join(taken) or 'nothing'}")


def _refuse_nothing(samples: Sequence[Sample], what: str, left_out: int) -> None:
    if not samples:
        raise BadInput(
            f"{what}: no answers to judge ({left_out} samples have none; tasks that compare log-likelihoods write "
            "nothing); score a task that generates"
        )


def _nothing_to_unload() -> None: ...


__all__ = ["CRITERION", "JudgeModel", "JudgePlan", "Judged", "judge_labels", "judge_pairs", "judge_run"]
