"""A suite is a YAML file: which tasks, which metric of each is the headline, and how much of it to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, model_validator

from harness import registry
from harness.errors import BadInput, BadPlan, UnknownName
from harness.owntask import OWN, OwnFields, beside, own_options
from harness.plan import Strict
from harness.protocols import TaskRef
from harness.records import Json
from harness.suitespec import SuiteSpec, TaskSpec, headline, headline_metric
from harness.yamlfile import YamlFile, read_yaml, validate

Profile = Literal["starter", "quick", "full"]
PROFILES: tuple[Profile, ...] = ("starter", "quick", "full")
NATIVE = ""
"""Provider of a task that is named without one."""

__all__ = [
    "NATIVE", "PROFILES", "SuiteFile", "SuiteSpec", "TaskSpec", "adhoc_suite", "find_suite", "headline",
    "headline_metric", "load_suite", "parse_task", "split_tasks",
]  # fmt: skip


# The file's schema


class TaskEntry(OwnFields):
    """One task of a suite: `task` names one that is installed or in a Python file, `data` one that is written here."""

    task: str | None = Field(
        default=None, description="provider:name, the name of a native task, or path/to/file.py:Class"
    )
    metric: str | None = Field(default=None, description="Enters the headline; None: the task's first")
    higher_is_better: bool | None = Field(default=None, description="None: as the task says")
    chance: float | None = Field(default=None, ge=0, le=1, description="Score of guessing, 0 to 1")
    weight: float = Field(default=1.0, gt=0, description="Share of the headline, relative to the other tasks")
    limit: int | None = Field(default=None, ge=1, description="First samples (per subtask of a group)")
    headline: bool = Field(default=True, description="False: run and reported beside the headline")
    options: dict[str, Any] = Field(default_factory=dict, description="Passed to the task")

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.task is None) == (self.data is None):
            raise ValueError("give task: NAME or data: FILE, " + ("not both" if self.task else "one of them"))
        return self


class HeadlineEntry(Strict):
    """The suite's one number: the weighted mean of its tasks' headline metrics."""

    name: str
    higher_is_better: bool | None = Field(
        default=None, description="Left out: as the metrics of its tasks say"
    )


def _named(value: Any) -> Any:
    """A bare name for a headline that goes the way of its metrics."""
    return {"name": value} if isinstance(value, str) else value


class ProfileEntry(Strict):
    """What one profile changes."""

    limit: int | None = Field(default=None, ge=1, description="First samples of every task")
    limits: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="task label -> its own limit, which --limit may lower"
    )
    tasks: dict[str, TaskEntry] | None = Field(default=None, description="Instead of the suite's tasks")
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="task label -> options to add"
    )
    notes: list[str] = Field(default_factory=list, description="Printed beside the score")


class SuiteFile(Strict):
    """A suite as it is written."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = "1"
    description: str = ""
    headline: Annotated[
        HeadlineEntry, BeforeValidator(_named, json_schema_input_type=str | HeadlineEntry)
    ] = HeadlineEntry(name="score")
    tasks: dict[str, TaskEntry] = Field(default_factory=dict)
    includes: list[str] = Field(default_factory=list, description="Other suites; each counts like one suite")
    profiles: dict[Profile, ProfileEntry] = Field(default_factory=dict)


def load_suite(name_or_path: str, profile: str = "quick") -> SuiteSpec:
    """Read an installed suite by name, or a user's file by path (it holds a slash, or ends in .yaml or .yml).

    Raises: UnknownName: no such suite. BadPlan: the file does not validate (path and line).
    """
    return _resolve(find_suite(name_or_path), profile, ())


def find_suite(name_or_path: str, beside: Path | None = None) -> Path:
    """The suite's file; a relative path is looked up beside the file that includes it, if there is one."""
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path).expanduser()
        return path if path.is_absolute() or beside is None else beside.parent / path
    if name_or_path in registry.names("suite"):
        return Path(registry.load("suite", name_or_path))
    for file in (name_or_path, f"{name_or_path}.yaml", f"{name_or_path}.yml"):
        if name_or_path.strip() and Path(file).is_file():
            named = (
                f"did you mean {file}?"
                if file != name_or_path
                else "a suite file ends in .yaml or .yml: rename it"
            )
            raise UnknownName(f"no suite {name_or_path!r}; {named}")
    raise UnknownName.of("suite", name_or_path, registry.names("suite"))


def adhoc_suite(tasks: Sequence[str]) -> SuiteSpec:
    """The suite of `--tasks`: what was named, nothing left out, first metric of each as headline.

    Raises: BadPlan: a task twice, or none.
    """
    refs = [parse_task(task) for task in tasks]
    if not refs:
        raise BadPlan("no task named; write --tasks lm_eval:arc_challenge,inspect:xstest")
    specs = tuple(TaskSpec(ref.label, ref) for ref in refs)
    twice = [spec.label for spec in specs if sum(other.label == spec.label for other in specs) > 1]
    if twice:
        raise BadPlan(f"task {twice[0]!r} is named twice; tell them apart in a suite file")
    return SuiteSpec("tasks", "1", "Tasks named by hand", "full", "mean", None, specs)


def split_tasks(text: str) -> list[str]:
    """Cut a comma list into tasks; a piece that holds '=' is an option of the task before it.

    'lm_eval:arc_challenge,num_fewshot=0,inspect:xstest' -> two tasks. No task name holds '='.
    """
    tasks: list[str] = []
    for piece in (part.strip() for part in text.split(",")):
        if "=" in piece and tasks:
            tasks[-1] += f",{piece}"
        elif piece:
            tasks.append(piece)
    return tasks


def parse_task(ref: str, label: str | None = None, options: Mapping[str, Json] | None = None) -> TaskRef:
    """'provider:name,key=value' -> TaskRef; values are YAML scalars. Without a provider the task is native.

    Raises: BadPlan: no name, or an option that is not key=value.
    """
    head, *pieces = [part.strip() for part in ref.split(",")]
    found: dict[str, Json] = {}
    for piece in pieces:
        key, equals, value = piece.partition("=")
        if not equals or not key:
            raise BadPlan(f"task {ref!r}: option {piece!r} is not key=value")
        found[key.strip()] = _scalar(value)
    provider, colon, name = head.partition(":")
    if not colon:
        provider, name = NATIVE, head
    if not name or (colon and not provider):
        raise BadPlan(f"task {ref!r} names nothing; write provider:name, e.g. lm_eval:arc_challenge")
    return TaskRef(provider, name, {**found, **(options or {})}, label or name)


# From file to spec


def _resolve(path: Path, profile: str, above: tuple[Path, ...]) -> SuiteSpec:
    file = read_yaml(path)
    suite = validate(SuiteFile, file)
    key = path.resolve()
    if key in above:
        chain = " -> ".join(step.name for step in (*above, key))
        raise BadPlan(f"{file.at(('includes',))}: suites include each other: {chain}; drop one")
    chosen = _profile(suite, profile, file)
    own = _own_tasks(suite, chosen, profile, file)
    parts = [
        _resolve(_included(name, file, number), profile, (*above, key))
        for number, name in enumerate(suite.includes)
    ]
    tasks = _union([own, *(part.tasks for part in parts)], file, equal_shares=bool(parts))
    if not tasks:
        raise BadPlan(
            f"{path}: profile {profile!r} of suite {suite.name!r} has no tasks; add some under tasks:"
        )
    if not any(task.headline for task in tasks):
        raise BadPlan(
            f"{path}: every task of suite {suite.name!r} in profile {profile!r} has headline: false, so there is "
            "nothing to make its one number of; leave the field out at one task"
        )
    return SuiteSpec(
        name=suite.name,
        version=", ".join([suite.version, *(f"{part.name} {part.version}" for part in parts)]),
        description=" ".join(suite.description.split()),
        profile=profile,
        headline=suite.headline.name,
        higher_is_better=suite.headline.higher_is_better,
        tasks=tasks,
        limit=chosen.limit,
        sizes=tuple(
            dict.fromkeys([*_sizes(chosen, profile), *(size for part in parts for size in part.sizes)])
        ),
        notes=tuple(dict.fromkeys([*chosen.notes, *(note for part in parts for note in part.notes)])),
    )


def _included(name: str, file: YamlFile, number: int) -> Path:
    """The file of an included suite. Raises: BadPlan: there is none."""
    where = file.at(("includes", number))
    try:
        found = find_suite(name, beside=file.path)
    except UnknownName as exc:
        raise BadPlan(f"{where}: {exc}") from exc
    if not found.is_file():
        raise BadPlan(f"{where}: no file {str(found)!r}; check the path, which is seen from this file")
    return found


def _profile(suite: SuiteFile, profile: str, file: YamlFile) -> ProfileEntry:
    """A profile that the file does not name is the suite unchanged, but for starter: that is other tasks."""
    if profile not in PROFILES:
        raise UnknownName.of("profile", profile, PROFILES)
    named: dict[str, ProfileEntry] = {str(name): entry for name, entry in suite.profiles.items()}
    if profile == "starter" and suite.tasks and profile not in named:
        where = file.at(("profiles",))
        raise BadPlan(f"{where}: suite {suite.name!r} has no starter profile; use --profile quick or full")
    return named.get(profile, ProfileEntry())


def _own_tasks(suite: SuiteFile, chosen: ProfileEntry, profile: str, file: YamlFile) -> tuple[TaskSpec, ...]:
    entries = suite.tasks if chosen.tasks is None else chosen.tasks
    for label in entries:
        if not label.strip() or any(not sign.isprintable() for sign in label):
            raise BadPlan(
                f"{file.at(('tasks', label))}: a task named {label!r}; give it a name that can be read"
            )
    for section, labels in (("limits", chosen.limits), ("options", chosen.options)):
        for label in labels:
            if label not in entries:
                known = UnknownName.of("task", label, entries)
                raise BadPlan(f"{file.at(('profiles', profile, section, label))}: {known}")
    return tuple(_task_spec(label, entry, chosen, file) for label, entry in entries.items())


def _task_spec(label: str, entry: TaskEntry, chosen: ProfileEntry, file: YamlFile) -> TaskSpec:
    options = {**entry.options, **chosen.options.get(label, {})}
    if entry.task is None:
        return _spec_of(label, own_ref(label, entry, options, file), entry, chosen)
    try:
        ref = parse_task(beside(entry.task, file.path.parent), label, options)
    except BadPlan as exc:
        raise BadPlan(f"{file.at(('tasks', label, 'task'))}: {exc}") from exc
    return _spec_of(label, ref, entry, chosen)


def own_ref(label: str, entry: TaskEntry, options: Mapping[str, Json], file: YamlFile) -> TaskRef:
    """A task that is written in the file; it knows the lines of its keys, to say where an error stands."""
    section = "tasks" if ("tasks", label) in file.lines else "profiles"
    lines = {key: file.at((section, label, key)) for key in OwnFields.model_fields}
    try:
        own = {**own_options(entry, file.path.parent), **options, "lines": lines}
    except BadInput as exc:
        raise BadInput(f"{file.at((section, label))}: {exc}") from exc
    return TaskRef(NATIVE, OWN, own, label)


def _spec_of(label: str, ref: TaskRef, entry: TaskEntry, chosen: ProfileEntry) -> TaskSpec:
    return TaskSpec(
        label=label,
        ref=ref,
        metric=entry.metric,
        higher_is_better=entry.higher_is_better,
        chance=entry.chance,
        weight=entry.weight,
        limit=chosen.limits.get(label, entry.limit or chosen.limit),
        most=chosen.limits.get(label),
        headline=entry.headline,
    )


def _union(
    parts: Iterable[Sequence[TaskSpec]], file: YamlFile, *, equal_shares: bool
) -> tuple[TaskSpec, ...]:
    """Tasks of all parts; with equal_shares the weights of every part add up to 1."""
    tasks: dict[str, TaskSpec] = {}
    for part in parts:
        total = sum(task.weight for task in part if task.headline) if equal_shares else 1.0
        for task in part:
            if task.label in tasks:
                raise BadPlan(
                    f"{file.at(('includes',))}: task {task.label!r} comes from two suites; rename one"
                )
            tasks[task.label] = replace(task, weight=task.weight / total)
    return tuple(tasks.values())


def _sizes(chosen: ProfileEntry, profile: str) -> list[str]:
    """What a profile's limits amount to, in words."""
    parts = [] if chosen.limit is None else [f"first {chosen.limit} samples per task"]
    parts += [f"{limit} of {label}" for label, limit in chosen.limits.items()]
    if not parts:
        return []
    return [f"{profile} profile: {', '.join(parts)} (of each subtask, where a task has some)"]


def _scalar(text: str) -> Json:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text.strip()
    return value if isinstance(value, str | int | float | bool | None) else text.strip()
