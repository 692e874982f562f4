"""What an evaluation would do, counted without loading a model."""

from __future__ import annotations

from typing import NamedTuple

from harness.binding import Binder, run_id
from harness.journal import SAMPLES, TABLE, Key, read_table, sample_from_json, whole_lines
from harness.plan import EvalPlan
from harness.protocols import SilentProgress
from harness.store import Store


class PlannedTask(NamedTuple):
    """One line of a dry run."""

    checkpoint: str
    suite: str
    task: str
    n_samples: int
    n_requests: int
    n_done: int
    """Samples that the journal already holds."""


def dry_run(plan: EvalPlan) -> list[PlannedTask]:
    """What evaluate() would do, without loading a model."""
    binder = Binder(plan, SilentProgress())
    planned = []
    for checkpoint in binder.checkpoints:
        for spec in binder.suites:
            bound = binder.bind(checkpoint, spec, binder.shared_engine(checkpoint))
            held = _held(binder.store, run_id(binder.store, bound))
            for label, task in bound.tasks.items():
                ids = list(task.sample_ids)
                done = sum((label, sample_id) in held for sample_id in ids)
                planned.append(
                    PlannedTask(checkpoint.name, spec.name, label, len(ids), task.n_requests, done)
                )
    return planned


def _held(store: Store, name: str) -> set[Key]:
    """Samples that a run already holds; reads without locking or repairing."""
    folder = store.runs_dir / name
    if (folder / TABLE).is_file():
        return {(s.task, s.sample_id) for s in read_table(folder / TABLE)}
    lines = whole_lines(folder / SAMPLES, sample_from_json)
    return {(line.value.task, line.value.sample_id) for line in lines}
