"""What a plug-in implements. Entry point groups are named after these: pareto_harness.<kind>s."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from harness.records import (
    Checkpoint,
    Completion,
    EnergyReading,
    Json,
    Metric,
    Phase,
    Request,
    Sample,
    Sampling,
)

ChatMode = Literal["auto", "on", "off"]
Row = Mapping[str, Json]


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that tasks and adapters use."""

    eos_token_id: int | None
    bos_token_id: int | None
    chat_template: str | None

    def encode(self, text: str, add_special_tokens: bool = ...) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = ...) -> str: ...

    def apply_chat_template(self, conversation: Sequence[Mapping[str, Any]], **kwargs: Any) -> Any: ...


@dataclass(frozen=True)
class EngineStats:
    """Counters since the engine was loaded."""

    busy_s: float
    """Seconds in which the engine was computing."""
    requests: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    peak_memory_bytes: int | None
    """GPU: allocator peak; CPU: peak resident set of the process."""


@runtime_checkable
class Engine(Protocol):
    """One loaded base model behind one queue; answers in any order, through futures.

    A future fails with EngineError when its request could not be answered; it never returns a made-up
    answer. submit() does not block on computing. Engines are safe to call from several threads.

    Optional attribute: `takes_first_draw` (True: it heeds GenerateRequest.first_draw, so that more draws of a prompt
    cost those draws alone).
    """

    # Optional attributes: `can_score` (False: log-likelihood requests are refused), `energy_elsewhere` (why this
    # machine's energy is not the model's; None: it is).

    @property
    def name(self) -> str: ...

    @property
    def tokenizer(self) -> Tokenizer:
        """That of the active checkpoint."""
        ...

    @property
    def max_length(self) -> int:
        """Longest prompt plus answer, tokens."""
        ...

    @classmethod
    def load(cls, checkpoint: Checkpoint, options: Mapping[str, Json]) -> Engine:
        """Load the checkpoint's base (and adapter, if it has one) and make it active.

        Raises: BadInput: an option it does not know. BadCheckpoint: weights that do not load.
        """
        ...

    def activate(self, checkpoint: Checkpoint) -> None:
        """Answer from now on as this checkpoint, which shares the loaded base. Waits for the queue to drain."""
        ...

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        """Queue requests; futures in the same order."""
        ...

    def stats(self) -> EngineStats: ...

    def describe(self) -> Mapping[str, Json]:
        """What goes into the run record: dtype, device, threads, attention, versions.

        `notes` (a list of sentences) is shown beside the scores.
        """
        ...

    def close(self) -> None: ...


class Strategy(Protocol):
    """How one request becomes one answer: directly, by majority vote, best of n, ..."""

    name: str

    def submit(self, engine: Engine, requests: Sequence[Request]) -> list[Future[Completion]]: ...

    def identity(self) -> Mapping[str, Json]:
        """What of its settings determines results."""
        ...


class Judge(Protocol):
    """The model of --judge, behind an engine of its own: loaded at the first question, cached, weighed apart."""

    name: str
    """Short label; part of the metrics' names and of notes."""
    judges_itself: bool
    """It is the checkpoint whose answers it judges."""

    def identity(self) -> Mapping[str, Json]:
        """What of it determines its verdicts: fingerprint, sampling."""
        ...

    def submit(
        self, conversations: Sequence[Sequence[Mapping[str, str]]], max_tokens: int = 256
    ) -> list[Future[str]]:
        """Ask each conversation (turns of role and content) greedily; the answers' text, in the same order.

        Called while grading, never while answering. Futures fail with EngineError.
        """
        ...


class DataSource(Protocol):
    """Where rows come from; harness.datasets.Datasets is the one that exists."""

    data_dir: Path | None

    def rows(
        self, dataset: str, config: str | None, split: str, columns: Sequence[str] = ()
    ) -> Sequence[Row]: ...

    def path_or_id(self, dataset: str, config: str | None = None) -> str: ...


@dataclass(frozen=True)
class TaskContext:
    """What a task is bound to when it is loaded."""

    engine: Engine | None
    """None in a dry run, where only counting happens; its tokenizer is then not known."""
    strategy: Strategy
    data: DataSource
    checkpoint: Checkpoint | None = None
    limit: int | None = None
    """First samples of every task (per subtask for groups, as lm-eval does)."""
    seed: int = 0
    chat: ChatMode = "auto"
    """auto: as the task says; on/off: the user's word."""
    num_fewshot: int | None = None
    sampling: Mapping[str, Json] = field(default_factory=dict)
    """Overrides of harness.records.Sampling by field name."""
    settings: Mapping[str, Json] = field(default_factory=dict)
    """detoxify_checkpoint, judge, trust_remote_code, ...: by name, from the plan."""
    judge: Judge | None = None
    """None: no --judge was named, or it is one that only inspect knows (settings["judge"])."""


Record = Callable[[Sample], None]
"""Journals one sample; safe to call from any thread."""


class Task(Protocol):
    """One benchmark, bound to a context: knows its samples, runs them, grades them, adds them up.

    Optional attributes: `metric_names` (what it will report, so that a wrong headline metric is refused early),
    `chat` (True: it cannot be asked without a chat template), `compares_likelihoods` (True: it asks log-likelihoods)
    and `generative_form` (what to ask of a model that gives none, as --tasks takes it) or `without_likelihoods` (the
    same in words), `preview` (sample id -> the sample as it would be asked, unanswered), `measures_speed` (True:
    threads and batch size are part of the run's identity, and its attribute `weigh` is set before run(): weigh(part) is
    a context that gives the energy readings of what is done inside, after leaving).
    """

    name: str
    version: str
    fingerprint: str
    """Hash of the data it reads and of how it is asked: part of the run's identity."""
    sample_ids: Sequence[str]
    n_requests: int
    notes: Sequence[str]
    """What a reader must know beside the score."""

    def run(self, todo: Sequence[str], record: Record) -> None:
        """Answer the samples named and journal each as it is done (inference window)."""
        ...

    def grade(self, samples: Sequence[Sample]) -> Iterable[Sample]:
        """Score samples journalled with graded=False (grading window). Most tasks have none."""
        ...

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        """Metrics over all samples of the task. Pure."""
        ...


class TaskRef(NamedTuple):
    """A task as a suite or the command line names it: provider:name, or a native name."""

    provider: str
    name: str
    options: Mapping[str, Json]
    label: str
    """Name in tables; the key in the suite file."""


TaskLoader = Callable[[TaskRef, TaskContext], Task]
"""Entry point group pareto_harness.tasks. Raises UnknownName, DatasetUnavailable, BadColumns, BadCheckpoint."""


class Window(Protocol):
    """An open energy window.

    Optional method: `stretch(part)`, a context that weighs what is done inside by itself and gives a list of its
    readings, filled on leaving.
    """

    def count(self, queries: int, output_tokens: int) -> None:
        """Book answered samples to the window; thread-safe."""
        ...


class Meter(Protocol):
    """Weighs energy. One window at a time in one process."""

    name: str

    def window(
        self, phase: Phase, label: str, write: Callable[[EnergyReading], None]
    ) -> AbstractContextManager[Window]:
        """Weigh what happens inside.

        Writes a line with closed=False at once, then a reading per segment (at most segment_s long), the last
        on leaving, also when leaving by an exception.
        """
        ...

    def describe(self) -> Mapping[str, Json]:
        """Provenance per component, idle watts, versions."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class TrainJob:
    """All a trainer needs; it reads no plan and no registry."""

    base: Checkpoint
    stage: Any
    """harness.plan.Stage"""
    rows: Sequence[Row]
    """Training rows with the method's columns, mapped, templated and mixed already."""
    rewards: Sequence[tuple[str, Callable[..., Any], float]]
    """(name, reward function with TRL's signature, weight)."""
    out_dir: Path
    """Where the checkpoint goes; trainer state for resuming lies in out_dir/'trainer'."""
    settings: Mapping[str, Json] = field(default_factory=dict)
    report: Callable[[int, int, Mapping[str, float]], None] | None = None
    """Called with (step, total steps, logs)."""


class TrainResult(NamedTuple):
    trainable_parameters: int
    total_parameters: int
    steps: int
    log: Sequence[Mapping[str, float]]
    """One mapping per logged step."""
    notes: Sequence[str] = ()
    """What a reader must know: rows that were cut or left out."""


class Trainer(Protocol):
    """A training method. Leaves a loadable checkpoint in job.out_dir; resumes from what a kill left there."""

    name: str
    columns: Sequence[str]
    """Columns that its rows must have. One that takes several forms of rows lists them all in an attribute
    column_sets, in order of preference; one that reads rewards has needs_rewards = True and gets every column."""

    def check(self, stage: Any) -> None:
        """Refuse settings it does not know before anything is loaded. Raises: BadPlan."""
        ...

    def train(self, job: TrainJob) -> TrainResult: ...


class Progress(Protocol):
    """Where work tells how far it is; the command line draws bars, tests keep lists."""

    def start(self, label: str, total: int, done: int = 0) -> None: ...

    def advance(self, n: int = 1) -> None: ...

    def say(self, message: str) -> None: ...

    def finish(self) -> None: ...


class SilentProgress:
    """Draws nothing."""

    def start(self, label: str, total: int, done: int = 0) -> None: ...

    def advance(self, n: int = 1) -> None: ...

    def say(self, message: str) -> None: ...

    def finish(self) -> None: ...


__all__ = [
    "ChatMode", "DataSource", "Engine", "EngineStats", "Judge", "Meter", "Progress", "Record", "Row", "Sampling",
    "SilentProgress", "Strategy", "Task", "TaskContext", "TaskLoader", "TaskRef", "Tokenizer", "TrainJob",
    "TrainResult", "Trainer", "Window",
]  # fmt: skip
