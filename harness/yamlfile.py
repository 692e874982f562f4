"""Read a YAML file that a person wrote, and say by path and line what is wrong with it."""

from __future__ import annotations

import reprlib
from collections.abc import Hashable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import yaml

from harness.errors import BadPlan

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

    Model = TypeVar("Model", bound=BaseModel)

Loc = tuple[str | int, ...]
"""Where a value stands: ('tasks', 'gsm8k', 'metric'), as pydantic writes it."""

MERGE = "tag:yaml.org,2002:merge"


class YamlFile(NamedTuple):
    """A file as read: plain values, and the line of each."""

    path: Path
    data: Any
    lines: Mapping[Loc, int]
    """Line, from 1, of every key (mappings) and item (lists)."""

    def at(self, loc: Sequence[str | int]) -> str:
        """'path:line' of a value, or of the nearest thing above it that is in the file."""
        place = tuple(loc)
        while place:
            # a key that YAML reads as a number stands there as text
            line = self.lines.get(place, self.lines.get(tuple(map(str, place))))
            if line is not None:
                return f"{self.path}:{line}"
            place = place[:-1]
        return f"{self.path}:1"


def read_yaml(path: Path) -> YamlFile:
    """Read one document of plain values; nothing is constructed but str, numbers, bool, None, list, dict.

    Raises: BadPlan: no such file, no YAML, or a key twice (path and line).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise BadPlan(f"no file {str(path)!r}; check the path") from exc
    except IsADirectoryError as exc:
        raise BadPlan(f"{path} is a folder; name a file in it") from exc
    except UnicodeDecodeError as exc:
        raise BadPlan(f"{path} is no UTF-8 text (byte {exc.start} is wrong); save it as UTF-8") from exc
    except (OSError, ValueError) as exc:  # ValueError: a name with a NUL
        raise BadPlan(f"{str(path)!r} cannot be read: {exc}; name a file that can") from exc
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> YamlFile:
    """The same from text that is already in memory; path is for messages alone."""
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        lines: dict[Loc, int] = {}
        if root is not None:
            _note_lines(root, (), lines, _Walk(path, set()))
        data = loader.construct_document(root) if root is not None else None
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise BadPlan(f"{path}:{line}: no valid YAML: {exc.problem or exc.context}") from exc
    except yaml.reader.ReaderError as exc:  # of a text, so its position is in characters
        line = text.count("\n", 0, exc.position) + 1
        raise BadPlan(
            f"{path}:{line}: no valid YAML: the character {chr(exc.character)!r} may not stand in it; take it out"
        ) from exc
    except (ValueError, RecursionError) as exc:  # e.g. the date 2024-13-45, an alias that holds itself
        raise BadPlan(f"{path}: a value cannot be read: {exc}") from exc
    finally:
        if loader is not None:
            loader.dispose()
    return YamlFile(path, data, lines)


class _Walk(NamedTuple):
    path: Path
    visited: set[int]


def _note_lines(node: yaml.Node, loc: Loc, lines: dict[Loc, int], walk: _Walk) -> None:
    if id(node) in walk.visited:  # an alias: its lines are those of its anchor, and a loop must end
        return
    walk.visited.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*loc, index)] = item.start_mark.line + 1
            _note_lines(item, (*loc, index), lines, walk)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[Hashable, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
            continue
        if key.value in seen:
            raise BadPlan(
                f"{walk.path}:{line}: key {key.value!r} stands twice (first on line {seen[key.value]}); drop one"
            )
        seen[key.value] = line
        lines[(*loc, key.value)] = line
        _note_lines(value, (*loc, key.value), lines, walk)


def validate(model: type[Model], file: YamlFile) -> Model:
    """Turn a file into a pydantic model.

    Raises: BadPlan: the first thing that does not fit, with path, line and the nearest known key.
    """
    from pydantic import ValidationError

    if file.data is None:
        raise BadPlan(f"{file.path}:1: the file is empty; {_keys_wanted(model)}")
    if not isinstance(file.data, dict):
        raise BadPlan(f"{file.path}:1: expected a mapping of keys to values, found {_kind(file.data)}")
    try:
        return model.model_validate(file.data)
    except ValidationError as exc:
        raise BadPlan(describe(exc, model, file)) from exc


def describe(error: ValidationError, model: type[BaseModel], file: YamlFile) -> str:
    """The first error of a validation in one line: where, what, and the nearest key."""
    return f"{file.at(_first(error)['loc'])}: {problem(error, model)}"


def problem(error: ValidationError, model: type[BaseModel]) -> str:
    """The same without the place, for what stands in no file."""
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{_problem(_first(error), model)}{more}"


def _first(error: ValidationError) -> ErrorDetails:
    """A misspelt key is the cause of the 'field required' that comes with it."""
    errors = error.errors(include_url=False)
    return next((item for item in errors if item["type"] == "extra_forbidden"), errors[0])


def _problem(error: ErrorDetails, model: type[BaseModel]) -> str:
    loc = error["loc"]
    where = ".".join(str(part) for part in loc)
    if error["type"] == "extra_forbidden":
        known = known_keys(model, loc[:-1])
        near = get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return f"unknown key {where!r}; {hint}"
    if error["type"] == "missing":
        return f"{where!r} is missing; add it"
    if loc and loc[-1] == "[key]" and not isinstance(error["input"], str):
        return f"{where}: the key is read as {_kind(error['input'])}; put it in quotes"
    if error["type"] in NO_MAPPING:
        return f"{where}: expected keys and values below it, found {_shown(error['input'])}"
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if error["type"] == "value_error" or not where else f", found {_shown(error['input'])}"
    return (f"{where}: " if where else "") + message[:1].lower() + message[1:] + shown


NO_MAPPING = ("dict_type", "model_type", "model_attributes_type")


def _shown(value: Any) -> str:
    """A value in an error: short, also where aliases make it huge."""
    return "nothing" if value is None else reprlib.repr(value)


def _kind(value: Any) -> str:
    names = {
        "dict": "a mapping",
        "list": "a list",
        "str": "text",
        "bool": "true or false",
        "NoneType": "nothing",
        "int": "a number",
        "float": "a number",
    }
    kind = type(value).__name__
    return names.get(kind, f"a {kind}")


def _keys_wanted(model: type[BaseModel]) -> str:
    return f"write e.g. {', '.join(f'{key}: ...' for key in list(model.model_fields)[:3])}"


def known_keys(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Keys that a model takes at a place inside it; empty where that cannot be told."""
    from pydantic import BaseModel

    current: Any = model
    for part in loc:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            current = _inner_model(current)
            continue
        fields = {(field.alias or name): field for name, field in current.model_fields.items()}
        if part not in fields:
            return []
        annotation = fields[str(part)].annotation
        current = annotation
    current = _inner_model(current)
    if current is None:
        return []
    return [field.alias or name for name, field in current.model_fields.items()]


def _inner_model(annotation: Any) -> Any:
    """The pydantic model inside list[M], dict[str, M], M | None; None where there is none."""
    from typing import get_args

    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _inner_model(arg)) is not None), None)
