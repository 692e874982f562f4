"""Prompt templates over the columns of a row: {column}, or Jinja in a sandbox. Data are never read as templates."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any, NamedTuple

from harness.errors import BadColumns, BadPlan
from harness.records import Json

FIELD = re.compile(r"\{([^\W\d][\w .-]*)\}")
"""A column in braces. Other braces, as in JSON or LaTeX's \\boxed{}, stay what they are."""
NEARLY = re.compile(r"\{\s{0,9}([^\W\d]\w*)\s{0,9}(?:![rsa])?(?::[^{}\s]*)?(?:\}|[^{}]*$)")
JINJA_SIGNS = ("{{", "{%", "{#")
MOST_CHARS = 5_000_000
"""Of one filled template: more than any model reads."""
MOST_S = 5.0
"""For filling one template."""
MOST_POWER = 64


class Template(NamedTuple):
    """A template that was read: which columns it needs, and how it is filled."""

    text: str
    columns: tuple[str, ...]
    """In the order of their first appearance."""
    fill: Callable[[Mapping[str, Json]], str]
    """Raises: BadColumns: a value that the row does not have, or that is no text or number."""


@cache
def template(text: str) -> Template:
    """Read a template: Jinja where it holds {{, {% or {#, else text with columns in braces.

    Raises: BadPlan: no valid Jinja.
    """
    if any(sign in text for sign in JINJA_SIGNS):
        return _jinja(text)
    return Template(text, tuple(dict.fromkeys(FIELD.findall(text))), lambda row: _filled(text, row))


def misspelt(text: str, columns: Collection[str]) -> str | None:
    """What looks like one of the columns in braces and is none: '{country', '{ country }', '{country!r}'."""
    if any(sign in text for sign in JINJA_SIGNS):
        return None
    found = (match for match in NEARLY.finditer(FIELD.sub("", text)) if match[1] in columns)
    return next((match[0].strip()[:40] for match in found), None)


def _filled(text: str, row: Mapping[str, Json]) -> str:
    return FIELD.sub(lambda match: shown(row.get(match[1]), match[1]), text)


def shown(value: Json, column: str) -> str:
    """A cell as it stands in a prompt.

    Raises: BadColumns: it is empty, or a list or mapping, of which only the user can say how it looks.
    """
    if is_empty(value):
        what = "is missing or empty" if value is None else f"holds {value}"
        raise BadColumns(f"column {column!r} {what}; fill it in, or leave the row out")
    if isinstance(value, list | dict):
        raise BadColumns(
            f"column {column!r} holds a {type(value).__name__}; say in Jinja how it looks, e.g. "
            f"{{{{ {column} | join(', ') }}}}"
        )
    if isinstance(value, bytes):
        raise BadColumns(f"column {column!r} holds bytes; store text")
    return str(value)


def is_empty(value: Json) -> bool:
    """Whether a cell holds nothing that could be shown: null, or a number that is none (NaN, Infinity)."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _jinja(text: str) -> Template:
    """Jinja without access to Python: attributes that begin with an underscore are out of reach."""
    from jinja2 import TemplateError, meta

    environment = _environment()
    try:
        compiled = environment.from_string(text)
        columns = meta.find_undeclared_variables(environment.parse(text)) - set(environment.globals)
    except (TemplateError, MemoryError, RecursionError) as exc:
        raise BadPlan(f"no valid Jinja: {_why(exc)}; columns stand as {{{{ column }}}}") from exc

    def fill(row: Mapping[str, Json]) -> str:
        # an empty cell is undefined: `{% if hint %}` may ask for it, `{{ hint }}` may not print it
        cells = {name: value for name, value in row.items() if not is_empty(value)}
        try:
            return _rendered(compiled, cells, loops="{%" in text)
        except (TemplateError, TypeError, AttributeError, ValueError, ArithmeticError, LookupError) as exc:
            raise BadColumns(f"the template cannot be filled: {_why(exc)}") from exc
        except (MemoryError, RecursionError) as exc:
            raise BadColumns(f"the template cannot be filled: {_why(exc)}; make it simpler") from exc

    return Template(text, tuple(sorted(columns, key=text.find)), fill)


def _why(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200] or type(exc).__name__


def _rendered(compiled: Any, cells: Mapping[str, Json], *, loops: bool) -> str:
    """Args: loops: whether it may take long. Raises: TemplateError: it takes too long, or writes too much."""
    from jinja2 import TemplateRuntimeError

    deadline = time.monotonic() + MOST_S

    def watch(frame: Any, event: str, argument: Any) -> Any:
        if time.monotonic() > deadline:
            raise TemplateRuntimeError(f"it takes over {MOST_S:g} s; is there a loop that does not end?")
        return watch

    parts: list[str] = []
    size = 0
    watched = loops and sys.gettrace() is None  # a debugger or a coverage tool stays in its place
    if watched:
        sys.settrace(watch)
    try:
        for part in compiled.generate(cells):
            parts.append(part)
            size += len(part)
            if size > MOST_CHARS:
                raise TemplateRuntimeError(f"it writes over {MOST_CHARS:,} characters")
    finally:
        if watched:
            sys.settrace(None)
    return "".join(parts)


@cache
def _environment() -> Any:
    from jinja2 import TemplateRuntimeError, Undefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Missing(Undefined):
        """May be asked whether it is there, and nothing else."""

        __str__ = __iter__ = __len__ = Undefined._fail_with_undefined_error

    class Bounded(ImmutableSandboxedEnvironment):
        """Without the sums that take for ever: powers of powers, texts repeated without end."""

        intercepted_binops = frozenset(["**", "*", "%"])

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            numbers = isinstance(left, int | float) and isinstance(right, int | float)
            if not numbers and operator == "*" and _size(left) * _size(right) > MOST_CHARS:
                raise TemplateRuntimeError(f"it writes over {MOST_CHARS:,} characters")
            if numbers and operator == "**" and abs(right) > MOST_POWER:
                raise TemplateRuntimeError(f"a power of {right} is too large")
            if operator == "%" and isinstance(left, str):
                raise TemplateRuntimeError("text % values is not allowed; write {{ column }}")
            return super().call_binop(context, operator, left, right)

    environment = Bounded(undefined=Missing, keep_trailing_newline=True, autoescape=False)
    for drawn, where in (("random", environment.filters), ("lipsum", environment.globals)):
        del where[drawn]  # the same row must make the same prompt
    return environment


def _size(value: Any) -> int:
    """Length of a text or list, a number itself."""
    return len(value) if hasattr(value, "__len__") else abs(int(value)) if isinstance(value, int) else 1
