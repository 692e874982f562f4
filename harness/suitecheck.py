"""A suite file before it is run: does it fit its data, what is asked, how much of it, and how long that takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from harness.binding import Binder, Bound, check_headline_metrics
from harness.datasets import Datasets
from harness.errors import BadInput
from harness.plan import EvalPlan
from harness.protocols import Progress, Task, TaskContext
from harness.records import Checkpoint, Sample
from harness.store import Store
from harness.strategies.direct import Direct
from harness.suitefile import load_suite
from harness.suitespec import SuiteSpec, headline_metric
from harness.taskfiles import check_known, load_task
from harness.tasks import RequestTask

SHOWN = 3
"""Prompts shown of each task."""
MEASURED = 8
"""Samples asked of each task to learn how long one takes; the first of them warms up."""


class Preview(NamedTuple):
    """A sample as it would be asked."""

    sample_id: str
    prompt: str
    target: str | None


class CheckedTask(NamedTuple):
    """One task that fits its data."""

    label: str
    n_samples: int
    n_requests: int
    metric: str | None
    """Enters the headline; None: only the answers tell its name."""
    previews: tuple[Preview, ...]
    notes: tuple[str, ...]


class Duration(NamedTuple):
    """How long the answering takes, and whence that is known."""

    seconds: float | None
    basis: str


class Checked(NamedTuple):
    """A suite that fits."""

    spec: SuiteSpec
    tasks: tuple[CheckedTask, ...]
    duration: Duration
    with_model: bool
    """The prompts are those of a checkpoint."""

    @property
    def n_samples(self) -> int:
        return sum(task.n_samples for task in self.tasks)

    @property
    def n_requests(self) -> int:
        return sum(task.n_requests for task in self.tasks)


def check_without_model(plan: EvalPlan) -> Checked:
    """Check the plan's one suite; its checkpoints are not looked at.

    Raises: UserError: whatever does not fit, in one line.
    """
    spec = load_suite(plan.suites[0], plan.profile)
    for entry in spec.tasks:
        check_known(entry.ref)
    data = Datasets(plan.data_dir)
    tasks = {}
    for entry in spec.tasks:
        limit = entry.samples(plan.limit)
        context = TaskContext(engine=None, strategy=Direct(), data=data, limit=limit, chat=plan.chat)
        tasks[entry.label] = _with_samples(entry.label, load_task(entry.ref, context))
    declared = {label: getattr(task, "metric_names", None) for label, task in tasks.items()}
    check_headline_metrics(spec, {label: names for label, names in declared.items() if names})
    for task in tasks.values():
        if isinstance(task, RequestTask):  # in plain text: nobody knows of a chat template yet
            task.context = replace(task.context, engine=PlainEngine(), chat="off")
    total = sum(len(task.sample_ids) for task in tasks.values())
    duration = _earlier(Store(plan.runs), spec.name, None, total)
    unknown = "not known: no earlier run of this suite; give a checkpoint, and a few samples are measured"
    return Checked(spec, _checked(spec, tasks), duration or Duration(None, unknown), False)


def check_with_model(plan: EvalPlan, progress: Progress) -> Checked:
    """The same for the plan's one checkpoint and one suite, through its tokenizer.

    Raises: UserError: whatever does not fit. EngineError: the model does not answer.
    """
    binder = Binder(plan, progress)
    binder.check()
    spec, checkpoint = binder.suites[0], binder.checkpoints[0]
    shared = binder.shared_engine(checkpoint)
    try:
        bound = binder.bind(checkpoint, spec, shared)
        tasks = _checked(spec, bound.tasks)
        total = sum(task.n_samples for task in tasks)
        duration = _earlier(binder.store, spec.name, checkpoint, total) or _measured(bound)
    finally:
        shared.close()
    return Checked(spec, tasks, duration, True)


def _with_samples(label: str, task: Task) -> Task:
    if not task.sample_ids:
        raise BadInput(f"task {label!r} has no samples: its split is empty")
    return task


def _checked(spec: SuiteSpec, tasks: Mapping[str, Task]) -> tuple[CheckedTask, ...]:
    found = []
    for entry in spec.tasks:
        task = tasks[entry.label]
        names = dict.fromkeys(getattr(task, "metric_names", None) or ())
        metric = headline_metric(entry, names)  # type: ignore[arg-type]
        previews = tuple(_previews(task))
        notes = tuple(task.notes)
        found.append(CheckedTask(entry.label, len(task.sample_ids), task.n_requests, metric, previews, notes))
    return tuple(found)


def _previews(task: Task) -> Sequence[Preview]:
    """First prompts of a task; none of one whose library builds them as it goes."""
    if not hasattr(task, "preview"):
        return ()
    shown = (task.preview(sample_id) for sample_id in islice(task.sample_ids, SHOWN))
    return [Preview(sample.sample_id, sample.prompt, sample.target) for sample in shown]


def _earlier(store: Store, suite: str, checkpoint: Checkpoint | None, n_samples: int) -> Duration | None:
    """From the newest run of the suite that computed its answers; of this checkpoint, where one is given."""
    if not store.runs_dir.is_dir():
        return None
    for run in reversed(store.runs()):
        seconds = run.phases_s.get("inference")
        if run.suite != suite or not seconds or not run.n_samples:
            continue
        if checkpoint is not None and run.checkpoint.fingerprint != checkpoint.fingerprint:
            continue
        whose = "" if checkpoint is not None else f" of {run.checkpoint.name}"
        basis = f"as the {run.n_samples} samples of the earlier run{whose} took: {run.run_id}"
        return Duration(seconds / run.n_samples * n_samples, basis)
    return None


def _measured(bound: Bound) -> Duration:
    """Ask a few samples of each task, one of them before the clock starts."""
    seconds, failed = 0.0, 0
    _ = bound.engine.loaded
    for task in bound.tasks.values():
        ids = list(islice(task.sample_ids, MEASURED))
        samples: list[Sample] = []
        task.run(ids[:1], lambda sample: None)
        start = time.perf_counter()
        task.run(ids, samples.append)
        seconds += (time.perf_counter() - start) / len(ids) * len(task.sample_ids)
        failed += sum(sample.error is not None for sample in samples)
    most = f"at most about that: measured on up to {MEASURED} samples of each task; larger batches take less each"
    return Duration(seconds, most + (f"; {failed} answers failed" if failed else ""))


class PlainTokenizer:
    """Stands for the tokenizer that nobody has named: prompts are shown, never asked."""

    eos_token_id: int | None = None
    bos_token_id: int | None = None
    chat_template: str | None = None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [0]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return ""

    def apply_chat_template(self, conversation: Sequence[Mapping[str, Any]], **kwargs: Any) -> str:
        return ""


class PlainEngine:
    """The same for an engine: it has a tokenizer and answers nothing."""

    def __init__(self) -> None:
        self.tokenizer = PlainTokenizer()
