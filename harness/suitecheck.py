"""A suite file before it is run: does it fit its data, what is asked, how much of it, and how long that takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from harness.binding import Binder, Bound, check_headline_metrics, resolve_suites
from harness.datasets import Datasets
from harness.engines.endpoint_texts import TextTokenizer
from harness.errors import BadInput
from harness.plan import EvalPlan
from harness.protocols import Progress, Task, TaskContext
from harness.records import Checkpoint, Sample
from harness.store import Store
from harness.strategies.direct import Direct
from harness.suitespec import SuiteSpec, headline_metric
from harness.taskfiles import load_task
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
    continuations: tuple[str, ...] = ()
    """Texts after the prompt whose likelihoods are compared; empty where an answer is written."""


class CheckedTask(NamedTuple):
    """One task that fits its data."""

    label: str
    n_samples: int
    n_requests: int
    metric: str | None
    """Enters the headline; None: only the answers tell its name."""
    previews: tuple[Preview, ...]
    notes: tuple[str, ...]
    unseen: str | None = None
    """Why there are no previews."""


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
    spec = resolve_suites(plan)[0]
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
    store = Store(plan.runs)
    duration = _earlier(store, spec.name, None, total) or _earlier(store, None, None, total)
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
        previews, unseen = _previews(task)
        counts = (len(task.sample_ids), task.n_requests)
        found.append(CheckedTask(entry.label, *counts, metric, previews, tuple(task.notes), unseen))
    return tuple(found)


def _previews(task: Task) -> tuple[tuple[Preview, ...], str | None]:
    """First prompts of a task, or why they cannot be shown."""
    if not hasattr(task, "preview"):
        return (), "it does not say what it asks before it is run"
    try:
        samples = [task.preview(sample_id) for sample_id in islice(task.sample_ids, SHOWN)]
    except NeedsTokens:
        return (), "its prompts are made of a checkpoint's tokens; give a checkpoint"
    return tuple(map(_preview, samples)), None


def _preview(sample: Sample) -> Preview:
    choices = tuple(dict.fromkeys(sample.metadata.get("choices") or ()))
    return Preview(sample.sample_id, sample.prompt, sample.target, choices)


def _earlier(
    store: Store, suite: str | None, checkpoint: Checkpoint | None, n_samples: int
) -> Duration | None:
    """From the newest run of the suite (None: of any) that computed its answers; of the checkpoint, if one is given."""
    if not store.runs_dir.is_dir():
        return None
    for run in reversed(store.runs()):
        seconds = run.phases_s.get("inference")
        if suite not in (None, run.suite) or not seconds or not run.n_samples:
            continue
        if checkpoint is not None and run.checkpoint.fingerprint != checkpoint.fingerprint:
            continue
        whose = "" if checkpoint is not None else f" of {run.checkpoint.name}"
        other = "" if suite is not None else f" on another suite, {run.suite}, so very roughly"
        basis = f"as the {run.n_samples} samples of the earlier run{whose}{other} took: {run.run_id}"
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


class NeedsTokens(BadInput):
    """A prompt of so many tokens, and nobody has named the tokenizer."""


class PlainTokenizer(TextTokenizer):
    """Stands for the tokenizer that nobody has named: its tokens are characters, enough to show a prompt."""

    is_text = False
    """What is counted in tokens is counted wrong here, and nothing comes of it."""

    def __init__(self) -> None:
        super().__init__("no checkpoint", chat=False)

    @property
    def all_special_ids(self) -> list[int]:
        raise NeedsTokens("no checkpoint is named; give one")

    def __len__(self) -> int:
        raise NeedsTokens("no checkpoint is named; give one")


class PlainEngine:
    """The same for an engine: it has a tokenizer and answers nothing."""

    max_length = 2**31
    """Nothing is too long."""

    def __init__(self) -> None:
        self.tokenizer = PlainTokenizer()
