"""Find an inspect task by name, and make it with the options and the judge given."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from harness import registry
from harness.errors import BadInput, BadPlan, DatasetUnavailable, UnknownName, UserError
from harness.protocols import DataSource
from suites.from_inspect.data import Places, line, redirected
from suites.from_inspect.quiet import quiet

PACKAGE = "inspect_evals"
JUDGE = re.compile(r"^(\w+_)?(judge|grader|scorer|scoring|grading)(_model|_llm)?(s?)$")
"""Parameters of a task that name the model which grades."""


@cache
def evals_index() -> dict[str, str]:
    """Task name -> folder in inspect_evals, read from its eval.yaml files without importing them."""
    index: dict[str, str] = {}
    for folder in files(PACKAGE).iterdir():
        listing = folder / "eval.yaml"
        if listing.is_file():
            tasks = re.search(r"^tasks:\n((?:[ -].*\n?)+)", listing.read_text(encoding="utf-8"), re.M)
            names = re.findall(r"^ *- name: *['\"]?([\w-]+)", tasks[1], re.M) if tasks else []
            index |= dict.fromkeys(names, folder.name)
    return index


def find_task(name: str) -> tuple[str, Callable[..., Any]]:
    """(registered name, function that makes the task).

    Args: name: a task of inspect_evals, package/task of any installed package that registers with inspect, or the
        name of a task that was imported already.
    Raises: UnknownName: no such task. BadInput: its package lacks something to be imported.
    """
    from inspect_ai._util.registry import registry_lookup

    package, _, bare = name.rpartition("/")
    ours = package in ("", PACKAGE) and bare in evals_index()
    full = _evals_task(bare) if ours else name
    found = registry_lookup("task", full)
    if found is None:
        raise UnknownName.of("inspect task", name, [*evals_index(), *_registered()])
    return full, found  # type: ignore[return-value]


def _evals_task(name: str) -> str:
    from inspect_ai._util.registry import registry_lookup

    full = f"{PACKAGE}/{name}"
    _import(f"{PACKAGE}.{evals_index()[name]}", name)
    if registry_lookup("task", full) is None:
        _import(f"{PACKAGE}._registry", name)
    return full


def _import(module: str, task: str) -> None:
    try:
        with quiet():
            importlib.import_module(module)
    except ImportError as exc:
        raise BadInput(
            f"inspect task {task!r} needs more than is installed: {exc}; try pip install 'inspect-evals[{task}]'"
        ) from exc


def _registered() -> list[str]:
    from inspect_ai._util.registry import registry_find, registry_info

    return [registry_info(found).name for found in registry_find(lambda info: info.type == "task")]


def judge_parameters(task: Callable[..., Any]) -> dict[str, bool]:
    """Parameters whose default names a judge model -> whether they take a list of them."""
    found = {}
    for name, parameter in inspect.signature(task).parameters.items():
        match = JUDGE.match(name)
        default = parameter.default
        first = default[0] if isinstance(default, (list, tuple)) and default else default
        if match and isinstance(first, str) and "/" in first:
            found[name] = isinstance(default, (list, tuple))
    return found


def knows_judge(judge: str) -> bool:
    """Whether it is PROVIDER/MODEL of an installed model provider of inspect. Loads no model."""
    import inspect_ai.model  # noqa: F401  registers its providers
    from inspect_ai._util.registry import registry_find, registry_unqualified_name

    provider, _, model = judge.partition("/")
    # Asked by name, as inspect asks: it reads entry points only where a name is not there yet.
    return bool(model) and bool(
        registry_find(lambda info: info.type == "modelapi" and registry_unqualified_name(info) == provider)
    )


def check_judge(judge: str) -> None:
    """Raises: BadInput: a name that no installed model provider of inspect answers to. Loads no model."""
    from inspect_ai._util.registry import registry_find, registry_unqualified_name

    if knows_judge(judge):
        return
    provider, _, model = judge.partition("/")
    providers = sorted(
        {registry_unqualified_name(found) for found in registry_find(lambda info: info.type == "modelapi")}
    )
    near = get_close_matches(provider, providers, n=1)
    hint = f"did you mean {near[0]}/{model or 'MODEL'}? " if near else ""
    raise BadInput(
        f"--judge {judge!r} is no PROVIDER/MODEL that inspect knows; {hint}"
        f"write e.g. openai/gpt-4o or hf/FOLDER; providers: {', '.join(providers)}"
    )


def check_options(name: str, task: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raises: BadPlan: an option that the task does not take."""
    parameters = inspect.signature(task).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    unknown = sorted(set(options) - set(parameters))
    if unknown:
        raise BadPlan(
            f"inspect task {name!r} has no option {unknown[0]!r}; known: {', '.join(parameters) or 'none'}"
        )


def make_task(name: str, options: Mapping[str, Any], data: DataSource) -> Any:
    """Build the inspect Task, its data included.

    Raises: DatasetUnavailable: its data cannot be reached. BadInput: it wants a sandbox, or fails to be built.
    """
    from inspect_ai._eval.registry import task_create

    places = Places(data)
    try:
        with quiet(), redirected(places):
            task = task_create(name, **options)
    except DatasetUnavailable as exc:
        raise unreachable(name, exc) from exc
    except UserError:
        raise
    except Exception as exc:  # tasks are plug-in code, and read their data by any library
        # what it raises may be that it stumbled over a gap
        problem = places.missing or places.network_problem(exc)
        if problem is not None:
            raise unreachable(name, problem) from exc
        raise BadInput(f"inspect task {name!r} could not be built: {line(exc)}") from exc
    if places.missing is not None and not len(task.dataset):
        raise unreachable(name, places.missing)
    if task.sandbox is not None or any(sample.sandbox is not None for sample in task.dataset):
        raise BadInput(
            f"inspect task {name!r} runs code in a sandbox, which the harness does not offer; drop it"
        )
    return task


def unreachable(name: str, problem: DatasetUnavailable | str) -> DatasetUnavailable:
    """The error for a task without its data; where the harness has a task of that name, it is a way out too."""
    bare = name.rpartition("/")[2]
    own = (
        f"; the harness has a task {bare!r} of its own (without inspect:)"
        if bare in registry.names("task")
        else ""
    )
    return DatasetUnavailable(f"data of inspect task {name!r}: {problem}{own}")
