"""From a plan to bound runs: checkpoints, suites, tasks, and the identity that names a run."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import registry
from harness.adapters import adapter_specs
from harness.answers.cache import Answers
from harness.chat import check_template
from harness.checkpoints import resolve, tokenizer_folder, unique_names
from harness.datasets import Datasets
from harness.endpoints import is_endpoint
from harness.engines.choice import answer_settings, check_engines, engine_of
from harness.engines.lazy import LazyEngine, SharedEngine
from harness.engines.opening import answers_of, engine_identity, loader
from harness.errors import BadCheckpoint, BadInput, UnknownName
from harness.folders import has_chat_template
from harness.hashing import hash_json, slug
from harness.journal import Key
from harness.judging.choice import foreign_name
from harness.judging.opening import open_judge
from harness.plan import EvalPlan
from harness.protocols import Progress, Strategy, Task, TaskContext
from harness.records import Checkpoint, Json
from harness.store import Store
from harness.suitefile import adhoc_suite, load_suite
from harness.suitespec import SuiteSpec, TaskSpec
from harness.taskfiles import check_known, code_of, load_task


@dataclass(frozen=True)
class Bound:
    """One run before it starts: tasks bound to a checkpoint, and the identity that follows."""

    spec: SuiteSpec
    checkpoint: Checkpoint
    engine: LazyEngine
    tasks: Mapping[str, Task]
    identity: Mapping[str, Json]
    data_s: float
    """Seconds that reading the data and building the tasks took."""

    @property
    def keys(self) -> list[Key]:
        return [(label, sample_id) for label, task in self.tasks.items() for sample_id in task.sample_ids]


def resolve_all(plan: EvalPlan) -> list[Checkpoint]:
    """Checkpoints of the plan, then the adapters on the one of them, with names that tell them apart."""
    check_engines(plan)
    adapters = adapter_specs(plan.checkpoints[0], plan.adapters) if plan.adapters else []
    found = [
        resolve(spec, allow_pickle=plan.allow_pickle, trust_remote_code=plan.trust_remote_code)
        for spec in [*plan.checkpoints, *adapters]
    ]
    return unique_names(found)


def resolve_suites(plan: EvalPlan) -> list[SuiteSpec]:
    """Suites of the plan, the tasks named by hand as one more. Raises: UnknownName, BadPlan."""
    suites = [load_suite(name, plan.profile) for name in dict.fromkeys(plan.suites)]
    if plan.tasks:
        suites.append(adhoc_suite(plan.tasks))
    for suite in suites:
        for task in suite.tasks:
            check_known(task.ref)
    return suites


class Binder:
    """Resolves a plan once, and binds its tasks to one checkpoint after another."""

    def __init__(self, plan: EvalPlan, progress: Progress) -> None:
        self.plan = plan
        self.progress = progress
        self.suites = resolve_suites(plan)
        if plan.engine.name not in registry.names("engine"):
            raise UnknownName.of("engine", plan.engine.name, registry.names("engine"))
        self.strategy: Strategy = registry.load("strategy", plan.strategy)()
        self.data = Datasets(plan.data_dir)
        self.store = Store(plan.runs)
        self.checkpoints = resolve_all(plan)
        self.judge = open_judge(plan, progress)
        self._checked: dict[int, Bound] = {}

    def check(self) -> None:
        """Load every suite's data once and hold what it asks against every checkpoint, before any model is loaded.

        Raises: UserError: a dataset, an option or a metric that cannot be used; a chat without a chat template, or with
            one that refuses every chat.
        """
        shared = self.shared_engine(self.checkpoints[0])
        for number, spec in enumerate(self.suites):
            bound = self._checked[number] = self.bind(self.checkpoints[0], spec, shared)
            chats = [label for label, task in bound.tasks.items() if getattr(task, "chat", False) is True]
            may = any(getattr(task, "chat_where_possible", False) is True for task in bound.tasks.values())
            for checkpoint in self.checkpoints:
                if not (chats or may) or is_endpoint(checkpoint.spec):
                    continue  # the server's template: known when it is asked
                folder = Path(tokenizer_folder(checkpoint))
                if chats and not has_chat_template(folder):
                    raise BadCheckpoint(
                        f"task {chats[0]!r} of suite {spec.name!r} is a chat and {checkpoint.name!r} has no chat "
                        "template; give one (chat_template.jinja beside the tokenizer) or ask in plain text with "
                        "--chat off"
                    )
                check_template(folder, checkpoint.name)

    def under(self, strategy: Strategy) -> Binder:
        """The same plan, resolved already, for tasks that ask through another strategy."""
        other = copy.copy(self)
        other.strategy = strategy
        other._checked = {}
        return other

    def shared_engine(self, checkpoint: Checkpoint | None = None) -> SharedEngine:
        """The engine for a checkpoint and all that share its base; None: for the plan's first."""
        spec = engine_of(self.plan, checkpoint or self.checkpoints[0])
        return SharedEngine(spec.name, loader(spec, self.progress), self._open_answers)

    def _open_answers(self, checkpoint: Checkpoint) -> Answers | None:
        if self.plan.cache == "off":
            return None
        engine = engine_of(self.plan, checkpoint)
        return answers_of(self.plan.runs, engine, checkpoint, reads=self.plan.cache == "read")

    def bind(self, checkpoint: Checkpoint, spec: SuiteSpec, shared: SharedEngine) -> Bound:
        """Load a suite's tasks for a checkpoint; reads data, loads no model. What check() bound is not bound again."""
        checked = next((n for n, b in self._checked.items() if b.spec is spec), None)
        if checked is not None and self._checked[checked].checkpoint is checkpoint:
            self._checked[checked].engine.attach(shared)
            return self._checked.pop(checked)
        start = time.perf_counter()
        engine = LazyEngine(shared, checkpoint)
        tasks = {task.label: self._load_task(task, checkpoint, engine.for_task()) for task in spec.tasks}
        declared = {label: getattr(task, "metric_names", None) for label, task in tasks.items()}
        check_headline_metrics(spec, {label: names for label, names in declared.items() if names})
        identity = self._identity(spec, checkpoint, tasks)
        return Bound(spec, checkpoint, engine, tasks, identity, time.perf_counter() - start)

    def _load_task(self, spec: TaskSpec, checkpoint: Checkpoint, engine: LazyEngine) -> Task:
        plan = self.plan
        context = TaskContext(
            engine=engine,
            strategy=self.strategy,
            data=self.data,
            checkpoint=checkpoint,
            limit=spec.samples(plan.limit),
            seed=plan.seed,
            chat=plan.chat,
            num_fewshot=plan.num_fewshot,
            sampling=plan.sampling,
            settings={
                "detoxify_checkpoint": plan.detoxify_checkpoint,
                "judge": None if plan.judge is None else foreign_name(plan.judge),
                "allow_pickle": plan.allow_pickle,
                "trust_remote_code": plan.trust_remote_code,
            },
            judge=None if self.judge is None else self.judge.of(checkpoint),
        )
        task = load_task(spec.ref, context)
        if not task.sample_ids:
            raise BadInput(f"task {spec.label!r} has no samples: its split is empty")
        if measures_speed([task]):
            engine.bypass_cache()
        return task

    def _identity(
        self, spec: SuiteSpec, checkpoint: Checkpoint, tasks: Mapping[str, Task]
    ) -> dict[str, Json]:
        plan = self.plan
        engine = answer_settings(engine_of(plan, checkpoint))
        speed = [plan.engine.threads, plan.engine.batch_tokens]
        return {
            "checkpoint": checkpoint.fingerprint,
            "suite": spec.name,
            "suite_version": spec.version,
            "profile": spec.profile,
            "tasks": {
                t.label: [tasks[t.label].version, tasks[t.label].fingerprint, *code_of(t.ref)]
                for t in spec.tasks
            },
            "headline": [[t.label, t.metric, t.weight if t.headline else 0] for t in spec.tasks],
            "strategy": self.strategy.identity(),
            "engine": engine_identity(engine),
            "speed": speed if measures_speed(tasks.values()) else [],
            "limit": plan.limit,
            "seed": plan.seed,
            "chat": plan.chat,
            "num_fewshot": plan.num_fewshot,
            "sampling": plan.sampling,
            "judge": plan.judge if self.judge is None else self.judge.identity(),
            "detoxify": str(plan.detoxify_checkpoint) if plan.detoxify_checkpoint else None,
        }


def measures_speed(tasks: Iterable[Task]) -> bool:
    """Whether any of the tasks depends on how fast the engine is set to run."""
    return any(getattr(task, "measures_speed", False) for task in tasks)


def check_headline_metrics(spec: SuiteSpec, metrics: Mapping[str, Collection[str]]) -> None:
    """Raises: UnknownName: a headline metric that its task, as far as metrics tells, does not report."""
    for task in spec.tasks:
        names = metrics.get(task.label)
        if task.metric is not None and names is not None and task.metric not in names:
            raise UnknownName.of(f"metric of task {task.label!r} (suite {spec.name!r}):", task.metric, names)


def run_id(store: Store, bound: Bound) -> str:
    """Readable name ending in the identity's hash; an earlier run of the same identity keeps its name."""
    digest = hash_json(bound.identity)
    for folder in store.runs_dir.glob(f"*--{digest}"):
        return folder.name
    return f"{slug(bound.checkpoint.name)}--{slug(bound.spec.name)}--{digest}"


def by_base(checkpoints: Sequence[Checkpoint]) -> list[list[Checkpoint]]:
    """Checkpoints grouped by what is loaded once."""
    groups: dict[str, list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        groups.setdefault(checkpoint.base_fingerprint, []).append(checkpoint)
    return list(groups.values())
