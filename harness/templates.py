"""Prompt templates over the columns of a row: {column}, or Jinja in a sandbox. Data are never read as templates."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from harness.errors import BadColumns, BadPlan
from harness.records import Json

FIELD = re.compile(r"\{([^\W\d][\w .-]*)\}")
"""A column in braces. Other braces, as in JSON or LaTeX's \\boxed{}, stay what they are."""
JINJA_SIGNS = ("{{", "{%", "{#")


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


def _filled(text: str, row: Mapping[str, Json]) -> str:
    return FIELD.sub(lambda match: shown(row.get(match[1]), match[1]), text)


def shown(value: Json, column: str) -> str:
    """A cell as it stands in a prompt.

    Raises: BadColumns: it is empty, or a list or mapping, of which only the user can say how it looks.
    """
    if value is None:
        raise BadColumns(f"column {column!r} is empty; fill it in, or leave the row out")
    if isinstance(value, list | dict):
        raise BadColumns(
            f"column {column!r} holds a {type(value).__name__}; say in Jinja how it looks, e.g. "
            f"{{{{ {column} | join(', ') }}}}"
        )
    return str(value)


def _jinja(text: str) -> Template:
    """Jinja without access to Python: attributes that begin with an underscore are out of reach."""
    from jinja2 import TemplateError, meta

    environment = _environment()
    try:
        compiled = environment.from_string(text)
        columns = meta.find_undeclared_variables(environment.parse(text)) - set(environment.globals)
    except TemplateError as exc:
        raise BadPlan(f"no valid Jinja: {exc}; columns stand as {{{{ column }}}}") from exc

    def fill(row: Mapping[str, Json]) -> str:
        try:
            # an empty cell is undefined: `{% if hint %}` may ask for it, `{{ hint }}` may not print it
            return str(compiled.render({name: value for name, value in row.items() if value is not None}))
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as exc:
            raise BadColumns(f"the template cannot be filled: {exc}") from exc

    return Template(text, tuple(sorted(columns, key=text.find)), fill)


@cache
def _environment() -> Any:
    from jinja2 import Undefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Missing(Undefined):
        """May be asked whether it is there, and nothing else."""

        __str__ = __iter__ = __len__ = Undefined._fail_with_undefined_error

    return ImmutableSandboxedEnvironment(undefined=Missing, keep_trailing_newline=True, autoescape=False)
