"""Plan files: YAML -> Plan or EvalPlan with errors by path and line, `--set key=value`, and back to YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from harness.errors import BadPlan
from harness.plan import EvalPlan, Plan, Stage, Strict
from harness.yamlfile import YamlFile, problem, read_yaml, validate

Spec = TypeVar("Spec", bound=Strict)


class Typed(NamedTuple):
    """The option that settings were typed behind, for messages, and where in the plan they go."""

    flag: str = "--set"
    below: tuple[str, ...] = ()
    example: str = "lora.r=8"


SET = Typed()
ENGINE_OPTION = Typed("--engine-option", ("engine", "options"), "rpm=60")
JUDGE_OPTION = Typed("--judge-option", ("judge_options",), "dtype=bfloat16")


def load_plan(path: Path, settings: Sequence[str] = ()) -> Plan:
    """Read a training plan. Paths inside it are relative to the current folder, not to the file.

    Args: settings: 'dotted.key=value', applied over the file.
    Raises: BadPlan: unknown key, wrong type, cycle of stages, missing parent, ... with path and line.
    """
    return _load(Plan, path, settings)


def load_eval_plan(path: Path, settings: Sequence[str] = ()) -> EvalPlan:
    """Read an evaluation plan. Raises: BadPlan: with path and line."""
    return _load(EvalPlan, path, settings)


def _load(model: type[Spec], path: Path, settings: Sequence[str]) -> Spec:
    file = read_yaml(path)
    if isinstance(file.data, dict):
        file = file._replace(data=apply_settings(file.data, settings))
        _check_stages(file)
    return validate(model, file)


def from_options(model: type[Spec], data: Mapping[str, Any]) -> Spec:
    """Validate what the command line alone says. Raises: BadPlan: one line without a path."""
    from pydantic import ValidationError

    try:
        return model.model_validate(data)
    except ValidationError as exc:
        raise BadPlan(problem(exc, model)) from exc


def _check_stages(file: YamlFile) -> None:
    """Say on which line a parent is missing or a cycle closes; the model alone would name no line.

    Raises: BadPlan
    """
    stages = file.data.get("stages")
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        return
    parents = {str(stage.get("name")): str(stage.get("from", "base")) for stage in stages}
    for index, stage in enumerate(stages):
        name = str(stage.get("name"))
        where = file.at(("stages", index, "from"))
        if parents[name] not in {"base", *parents}:
            known = ", ".join(["base", *(other for other in parents if other != name)])
            raise BadPlan(
                f"{where}: stage {name!r} is from {parents[name]!r}, which is no stage; known: {known}"
            )
        chain = _chain(name, parents)
        if chain.count(name) > 1:
            raise BadPlan(f"{where}: stages form a cycle: {' -> '.join(chain)}; start one of them from base")


def _chain(name: str, parents: Mapping[str, str]) -> list[str]:
    """A stage, its parent, and so on, up to the base or to a stage met before."""
    chain = [name]
    while chain[-1] in parents and chain.count(chain[-1]) == 1:
        chain.append(parents[chain[-1]])
    return chain


def apply_settings(data: Mapping[str, Any], settings: Sequence[str], typed: Typed = SET) -> dict[str, Any]:
    """Put 'dotted.key=value' over plan data; values are YAML, items of a list go by name or by number.

    apply_settings({'lora': {'r': 4}}, ['lora.r=8', 'epochs=2']) -> {'lora': {'r': 8}, 'epochs': 2}

    Raises: BadPlan: no '=', an item that a list does not hold, or a key below a plain value.
    """
    result: dict[str, Any] = deepcopy(dict(data))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not all(key.split(".")):
            raise BadPlan(
                f"{typed.flag} {setting!r} is not key=value; write e.g. {typed.flag} {typed.example}"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as exc:
            raise BadPlan(f"{typed.flag} {setting!r}: {text!r} is no YAML value; quote it") from exc
        _put(result, [*typed.below, *key.split(".")], value, f"{typed.flag} {setting!r}")
    return result


def _put(data: dict[str, Any], path: Sequence[str], value: Any, setting: str) -> None:
    current: Any = data
    for part in path[:-1]:
        key = _key(current, part, setting)
        if isinstance(current, dict) and current.get(key) is None:
            current[key] = {}
        current = current[key]
    current[_key(current, path[-1], setting)] = value


def _key(container: Any, part: str, setting: str) -> str | int:
    """The index or key that a part of a dotted path means in a list or mapping."""
    if isinstance(container, dict):
        return part
    if not isinstance(container, list):
        raise BadPlan(f"{setting}: there is nothing below a plain value; shorten the key before {part!r}")
    names = [str(item.get("name")) if isinstance(item, dict) else str(item) for item in container]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(container):
        return int(part)
    raise BadPlan(f"{setting}: no item {part!r}; known: {', '.join(names) or 'none'}, or a number from 0")


def dump(plan: Plan | EvalPlan | Stage) -> str:
    """Write a plan as YAML that loads back to an equal plan; what has its default value is left out."""
    data = plan.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def schema(model: type[Strict]) -> dict[str, Any]:
    """JSON Schema of a plan, for editors and other programs."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(by_alias=True),
    }
