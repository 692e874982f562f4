"""The loop over checkpoint x suite: bind tasks, run what the journal lacks, weigh it, add it up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from harness import registry
from harness.binding import Binder, Bound, by_base, check_headline_metrics, measures_speed, run_id
from harness.clock import Clock, timed_without_load
from harness.endpoints import is_endpoint
from harness.energy import summarise
from harness.engines.choice import check_scoring
from harness.engines.lazy import LazyEngine, SharedEngine
from harness.errors import Interrupted, NotWritable, UnknownName
from harness.feeding import prepare, run_tasks
from harness.grading import Grading, Where, waiting
from harness.inference import Inference, cache_notes
from harness.jitter import Noted, Pass, Passes, with_jitter
from harness.journal import Journal, Key
from harness.kept import SamplesOf
from harness.meters.elsewhere import unweighed
from harness.plan import EvalPlan
from harness.protocols import Meter, Progress, SilentProgress, Task, Window
from harness.records import Checkpoint, EnergySummary, Json, Phase, RunRecord, Sample, Score
from harness.stats.averages import without_spread
from harness.suitespec import SuiteSpec, headline, headline_metric, headline_name, with_chance
from harness.versions import installed

VERSIONED = (
    "pareto-harness",
    "torch",
    "transformers",
    "peft",
    "lm-eval",
    "inspect-ai",
    "detoxify",
    "codecarbon",
)


def evaluate(plan: EvalPlan, progress: Progress | None = None, meter: Meter | None = None) -> list[RunRecord]:
    """Score every checkpoint on every suite; what is already done is not done again.

    Returns: one record per checkpoint and suite, in that order.
    Raises: UserError: anything in the plan that cannot be used; found before the first model is loaded
        wherever that is possible. Interrupted: Ctrl-C; the journal is whole.
    """
    evaluation = Evaluation(Binder(plan, progress or SilentProgress()), meter)
    try:
        return evaluation.run()
    finally:
        if meter is None:
            evaluation.close_meter()


class Evaluation:
    """The loop, with one meter for all its windows."""

    def __init__(self, binder: Binder, meter: Meter | None) -> None:
        self.binder = binder
        self.plan = binder.plan
        self.progress = binder.progress
        if self.plan.energy.meter not in registry.names("meter"):
            raise UnknownName.of("meter", self.plan.energy.meter, registry.names("meter"))
        self._meter = meter
        if self.plan.jitter is not None:
            binder.strategy = Noted(binder.strategy)

    def run(self) -> list[RunRecord]:
        try:
            return self._run()
        finally:
            if self.binder.judge is not None:
                self.binder.judge.close()

    def _run(self) -> list[RunRecord]:
        self.binder.check()
        check_writable(self.plan.runs)
        records: dict[str, list[RunRecord]] = {}
        groups = by_base(self.binder.checkpoints)
        # endpoints first: what a server cannot be asked is found before hours go into a model
        for group in sorted(groups, key=lambda group: not is_endpoint(group[0].spec)):
            shared = self.binder.shared_engine(group[0])
            try:
                for checkpoint in group:
                    suites = self.binder.suites
                    records[checkpoint.name] = [self.run_one(checkpoint, spec, shared) for spec in suites]
            finally:
                shared.close()
        return [record for checkpoint in self.binder.checkpoints for record in records[checkpoint.name]]

    def close_meter(self) -> None:
        if self._meter is not None:
            self._meter.close()

    @property
    def meter(self) -> Meter:
        if self._meter is None:
            self._meter = registry.load("meter", self.plan.energy.meter)(self.plan.energy)
        return self._meter

    def run_one(self, checkpoint: Checkpoint, spec: SuiteSpec, shared: SharedEngine) -> RunRecord:
        """Score one checkpoint on one suite, or read back that it is done."""
        clock = Clock()
        started = now()
        bound = self.binder.bind(checkpoint, spec, shared)
        clock.seconds["data"] = bound.data_s
        name = run_id(self.binder.store, bound)
        with self.binder.store.open(name, self.progress.say) as journal:
            if journal.record is not None and journal.record.n_failed == 0:
                self.progress.say(f"{name} is done already")
                record = self._priced(journal, journal.record)
                if self.plan.jitter in (None, record.jitter and record.jitter.plans):
                    return record
                return journal.amend(self._jittered(record, bound, shared, None))
            if journal.record is not None:
                if any(map(_open, journal.samples.values())):
                    _ = bound.engine.loaded  # a model that does not load must not unmake a finished run
                self.progress.say(f"{name}: trying its {journal.record.n_failed} failed samples again")
                journal.reopen()
            before = shared.load_s
            fresh = not journal.samples and self.plan.cache != "read"
            stats = self._work(bound, journal, clock, shared)
            clock.seconds["load"] = shared.load_s - before
            self._tell_of_cache(bound.engine)
            record = self._record(bound, journal, Finished(name, started, clock, stats))
            record = self._jittered(record, bound, shared, journal.samples if fresh else None)
            return journal.finish(record, bound.keys)

    def _jittered(
        self, record: RunRecord, bound: Bound, shared: SharedEngine, samples: Mapping[Key, Sample] | None
    ) -> RunRecord:
        """The record with its jitter, where that is wanted. Args: samples: answered just now; None: some were not."""
        noted = self.binder.strategy
        if self.plan.jitter is None or not isinstance(noted, Noted):
            return record
        values = noted.taken()
        own = None if samples is None else Pass(dict(samples), values)
        passes = Passes(self.binder, bound, shared, self.progress)
        try:
            return with_jitter(record, passes, self.plan.jitter, own)
        except KeyboardInterrupt as exc:
            raise Interrupted(
                f"interrupted while measuring jitter: all {record.n_samples} samples are safe in "
                f"{self.plan.runs / record.run_id}; repeat the command to go on"
            ) from exc

    def _tell_of_cache(self, engine: LazyEngine) -> None:
        """Damage, or a disk that takes no more answers: said once, and no reason to stop."""
        if engine.answers is not None:
            engine.answers.settle()
            for problem in engine.answers.problems():
                self.progress.say(problem)

    def _priced(self, journal: Journal, record: RunRecord) -> RunRecord:
        """A finished run's energy under a price or a grid that the plan names now."""
        spec = self.plan.energy
        if spec.price_per_kwh is None and spec.country is None and spec.grid_g_per_kwh is None:
            return record
        energy = self._energy(journal)
        return record if energy == record.energy else journal.amend(replace(record, energy=energy))

    def _work(self, bound: Bound, journal: Journal, clock: Clock, shared: SharedEngine) -> Mapping[str, Json]:
        """Run and grade what the journal lacks; returns what the engine says of itself."""
        todo = {
            label: [i for i in task.sample_ids if _open(journal.samples.get((label, i)))]
            for label, task in bound.tasks.items()
        }
        total = sum(len(task.sample_ids) for task in bound.tasks.values())
        label = f"{bound.checkpoint.name} · {bound.spec.name}"
        self.progress.start(label, total, total - sum(map(len, todo.values())))
        facts: dict[str, Json] = {"name": bound.engine.name}
        try:
            if any(todo.values()):
                work = [(task, todo[name]) for name, task in bound.tasks.items() if todo[name]]
                with timed_without_load(clock, "data", bound.engine):
                    prepare(task for task, _ in work)
                inference = Inference(bound.engine, lambda: self._inference_window(bound, label, journal))
                with timed_without_load(clock, "inference", bound.engine), inference.open():
                    give_scales(work, inference)
                    run_tasks(work, self._recorder(journal, inference))
                facts |= inference.facts(clock.seconds["inference"])
            self._grade(bound, journal, clock, shared)
        except KeyboardInterrupt as exc:
            done = sum(key in journal.samples for key in bound.keys)
            raise Interrupted(
                f"interrupted: {done} of {total} samples are safe in {journal.path}; repeat the command to go on"
            ) from exc
        finally:
            self.progress.finish()
        return facts | self._judge_facts()

    def _judge_facts(self) -> dict[str, Json]:
        """What was asked of the judge, and what must be known of it."""
        judge = self.binder.judge
        if judge is None or not (facts := judge.take_facts()):
            return {}
        for problem in judge.problems():
            self.progress.say(problem)
        return {"judge": facts | {"notes": judge.notes(facts)}}

    def _window(self, phase: Phase, label: str, journal: Journal) -> AbstractContextManager[Window]:
        return self.meter.window(phase, label, journal.append_reading)

    def _inference_window(self, bound: Bound, label: str, journal: Journal) -> AbstractContextManager[Window]:
        """Opened when the engine is loaded and about to compute. Raises: BadInput: it cannot be asked this."""
        engine = bound.engine.loaded
        check_scoring(engine, bound.tasks)
        if getattr(engine, "energy_elsewhere", None) is not None:
            return unweighed("inference", label, journal.append_reading)
        return self._window("inference", label, journal)

    def _recorder(self, journal: Journal, inference: Inference) -> Callable[[Sample], None]:
        def record(sample: Sample) -> None:
            journal.append(refuse_nan(sample))
            inference.count(sample)
            self.progress.advance()

        return record

    def _grade(self, bound: Bound, journal: Journal, clock: Clock, shared: SharedEngine) -> None:
        todo = waiting(bound, journal.samples)
        if not todo:
            return
        label = f"{bound.checkpoint.name} · {bound.spec.name} · grading"
        self.progress.start(label, sum(map(len, todo.values())))

        def window(where: Where) -> AbstractContextManager[Window]:
            if where == "elsewhere":
                return unweighed("grading", label, journal.append_reading)
            return self._window("grading", label, journal)

        judge = self.binder.judge
        timed = (
            clock.phase("grading") if judge is None else timed_without_load(clock, "grading", judge.engine)
        )
        with timed, Grading(judge, window, shared.unload) as grading:
            for graded in grading.graded(todo, bound):
                journal.append(refuse_nan(graded))
                self.progress.advance()

    def _record(self, bound: Bound, journal: Journal, finished: Finished) -> RunRecord:
        spec, samples = bound.spec, SamplesOf(journal.samples, bound.keys)
        by_task = {
            label: SamplesOf(journal.samples, [(label, sample_id) for sample_id in task.sample_ids])
            for label, task in bound.tasks.items()
        }
        metrics = with_chance(
            spec, {label: task.aggregate(by_task[label]) for label, task in bound.tasks.items()}
        )
        check_headline_metrics(spec, metrics)
        main = {
            t.label: name for t in spec.tasks if (name := headline_metric(t, metrics[t.label])) is not None
        }
        chosen = {t.label: main[t.label] for t in spec.tasks if t.headline and t.label in main}
        notes = [
            *spec.said_sizes(self.plan.limit),
            *spec.notes,
            *finished.engine.get("notes", ()),
            *finished.engine.get("judge", {}).get("notes", ()),
            *cache_notes(samples, remote="://" in bound.checkpoint.base),
            *(f"{label}: {n}" for label, task in bound.tasks.items() for n in task.notes),
            *without_spread(metrics),
        ]
        return RunRecord(
            run_id=finished.run_id,
            suite=spec.name,
            suite_version=spec.version,
            profile=spec.profile,
            strategy=self.binder.strategy.name,
            checkpoint=bound.checkpoint,
            headline=replace(headline(spec, metrics), name=headline_name(spec, chosen)),
            metrics=metrics,
            headline_metrics=chosen,
            other_metrics={label: name for label, name in main.items() if label not in chosen},
            n_samples=len(samples),
            n_failed=sum(s.failed for s in samples),
            n_truncated=sum("length" in s.finish_reasons for s in samples),
            n_prompt_truncated=sum(s.dropped_prompt_tokens > 0 for s in samples),
            energy=self._energy(journal),
            engine=finished.engine,
            identity=bound.identity,
            phases_s={name: round(seconds, 3) for name, seconds in finished.clock.seconds.items()},
            notes=tuple(dict.fromkeys(notes)),
            started_at=finished.started_at,
            finished_at=now(),
            versions=installed(VERSIONED),
            group=self.plan.group,
        )

    def _energy(self, journal: Journal) -> dict[str, EnergySummary]:
        phases = dict.fromkeys(reading.phase for reading in journal.readings)
        if journal.samples and all(sample.all_reused for sample in journal.samples.values()):
            phases.pop("inference", None)  # nothing that was weighed went into these answers
        return {
            phase: summarise([r for r in journal.readings if r.phase == phase], self.plan.energy)
            for phase in phases
        }


class Finished(NamedTuple):
    """What is known of a run once its samples are scored."""

    run_id: str
    started_at: str
    clock: Clock
    engine: Mapping[str, Json]


def give_scales(work: Sequence[tuple[Task, Sequence[str]]], inference: Inference) -> None:
    """Let tasks that measure speed weigh each of their loads by itself."""
    for task, _ in work:
        if measures_speed([task]):
            task.weigh = inference.weigh  # type: ignore[attr-defined]


def _open(sample: Sample | None) -> bool:
    """Whether a sample must be asked (again): not there, or failed for want of an answer or a score.

    One that was answered and could not be graded is graded again, not asked.
    """
    return sample is None or (sample.failed and (sample.graded or sample.error is not None))


def refuse_nan(sample: Sample) -> Sample:
    """A score that is no finite number is a failed score, not a number to average."""
    bad = {
        name: Score(None, error=f"the scorer returned {score.value}", detail=score.detail)
        for name, score in sample.scores.items()
        if score.value is not None and not math.isfinite(score.value)
    }
    return replace(sample, scores={**sample.scores, **bad}) if bad else sample


def check_writable(folder: Path) -> None:
    """Raises: NotWritable: nothing can be written there; found before hours of work."""
    probe = folder / f".write-test-{time.time_ns()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as exc:
        raise NotWritable.of(folder, exc) from exc


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
