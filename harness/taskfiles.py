"""A task's loader: that of an installed plug-in, or a class in a Python file that the user named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from harness import registry
from harness.errors import BadInput, HarnessError, UnknownName
from harness.fingerprint import file_sha256
from harness.protocols import Task, TaskContext, TaskRef
from harness.tasks import Asked, Item, MetricSpec, RequestTask
from harness.userfiles import blame, load_object

WRITE = "write --tasks path/to/file.py:Class"


def is_task_file(ref: TaskRef) -> bool:
    """Whether the task is named as path/to/file.py:Class."""
    return ref.provider.endswith(".py")


def loader_name(ref: TaskRef) -> str:
    """Plug-in that loads a task: its provider, or itself where it is native."""
    return ref.provider or ref.name


def check_known(ref: TaskRef) -> None:
    """Raises: UnknownName: no such plug-in. BadInput: no such file, or a file without a class."""
    name = loader_name(ref)
    if is_task_file(ref):
        if not Path(ref.provider).expanduser().is_file():
            raise BadInput(f"no task file {ref.provider!r}; {WRITE}")
        return
    if name.endswith(".py"):
        raise BadInput(f"{name!r} names a file and no class in it; {WRITE}")
    if name not in registry.names("task"):
        raise UnknownName.of("task provider" if ref.provider else "task", name, registry.names("task"))


def load_task(ref: TaskRef, context: TaskContext) -> Task:
    """Bind a task to its context.

    Raises: UserError: what the task says of its data or options; BadInput also for a user's file that fails, with
        the line in it.
    """
    if not is_task_file(ref):
        task: Task = registry.load("task", loader_name(ref))(ref, context)
        return task
    path = Path(ref.provider).expanduser()
    make = load_object(path, ref.name, "task")
    try:
        task = make(ref, context)
        _check_task(task, ref)
        _ = task.sample_ids  # the user's items() runs here, where an error still has its line
    except HarnessError:
        raise
    except (Exception, SystemExit) as exc:
        raise BadInput(f"task {ref.name!r} cannot be used: {blame(exc, path)}") from exc
    if isinstance(task, RequestTask):
        task.requests = _watched(task.requests, path)
    return task


def _check_task(task: Task, ref: TaskRef) -> None:
    """Raises: BadInput: no task, or one whose metrics cannot be reported."""
    where = f"{ref.provider}:{ref.name}"
    if not callable(getattr(task, "aggregate", None)):
        raise BadInput(f"{where} is no task; make it a subclass of harness.tasks.RequestTask")
    if not isinstance(task, RequestTask):
        return
    if not isinstance(task.metrics, Mapping) or not all(
        isinstance(m, MetricSpec) for m in task.metrics.values()
    ):
        raise BadInput(f"{where}: metrics is no mapping; write metrics = {{'accuracy': MetricSpec()}}")
    if not task.metrics and type(task).aggregate is RequestTask.aggregate:
        raise BadInput(f"{where} reports no metric; write metrics = {{'accuracy': MetricSpec()}}")
    for name, metric in task.metrics.items():
        if metric.chance is not None and metric.unit is None and not 0 <= metric.chance <= 1:
            raise BadInput(f"{where}: metric {name!r} has chance={metric.chance}; give a share, 0 to 1")


def _watched(ask: Callable[[Item], Asked], path: Path) -> Callable[[Item], Asked]:
    """A user's requests(), whose errors have the line in the file."""

    def requests(item: Item) -> Asked:
        try:
            asked: object = ask(item)
        except HarnessError:
            raise
        except Exception as exc:
            raise BadInput(f"item {item.id!r} cannot be asked: {blame(exc, path)}") from exc
        if not isinstance(asked, Asked):
            raise BadInput(f"{path}: requests() returned {asked!r:.40}; return self.ask(prompt)")
        return asked

    return requests


def code_of(ref: TaskRef) -> list[str]:
    """Hash of a user's file: other code is another run. Empty for what is installed; that has a version."""
    return [file_sha256(Path(ref.provider).expanduser())] if is_task_file(ref) else []
