"""harness list: what is installed, and who brings it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.cli.fields import argument, takes
from harness.cli.options import Output

if TYPE_CHECKING:
    from harness.registry import Kind

KINDS: Mapping[str, Kind] = {
    "suites": "suite",
    "tasks": "task",
    "trainers": "trainer",
    "rewards": "reward",
    "engines": "engine",
    "strategies": "strategy",
    "meters": "meter",
    "datasets": "dataset",
    "reports": "report",
}


@dataclass(frozen=True, kw_only=True)
class Options(Output):
    kind: str = argument(help=" | ".join(KINDS), metavar="KIND")


@takes(Options)
def run(options: Options) -> int:
    """List what is installed, and who brings it.

    Kinds: suites, tasks, trainers, rewards, engines, strategies, meters, datasets, reports.
    """
    from harness.cli import tables
    from harness.errors import UnknownName

    if options.kind not in KINDS:
        raise UnknownName.of("kind of plug-in", options.kind, KINDS)
    rows = rows_of(KINDS[options.kind])
    if options.json:
        print(tables.to_json({options.kind: rows}))
        return 0
    print(tables.align(("name", "from", "what it is"), [list(row.values()) for row in rows]))
    if options.kind == "tasks":
        print("lm_eval and inspect are libraries of tasks: name one as lm_eval:gsm8k or inspect:xstest")
    return 0


def rows_of(kind: Kind) -> list[dict[str, str]]:
    from harness import registry

    return [
        {"name": name, "origin": registry.origin(kind, name), "description": description(kind, name)}
        for name in registry.names(kind)
    ]


def description(kind: Kind, name: str) -> str:
    """First line of what a plug-in says of itself; why it does not load, where it does not."""
    from harness import registry
    from harness.errors import HarnessError

    try:
        plugin = registry.load(kind, name)
        if kind == "suite":
            from harness.suitefile import SuiteFile
            from harness.yamlfile import read_yaml, validate

            return first_line(validate(SuiteFile, read_yaml(plugin)).description)
        return first_line(own_words(plugin))
    except HarnessError as exc:
        return f"does not load: {exc}"


def own_words(plugin: object) -> str:
    """The docstring, or its module's where the plug-in itself says nothing of what it is."""
    import sys

    own = getattr(plugin, "__doc__", None) or ""
    if own and not own.lstrip().startswith(("Raises:", "Entry point")):
        return own
    return getattr(sys.modules.get(getattr(plugin, "__module__", "")), "__doc__", None) or own


SENTENCE_END = re.compile(r"(?<!\bal)(?<!\bcf)(?<!\bvs)(?<!e\.g)(?<!i\.e)\. ")
"""Not the dot of an abbreviation."""


def first_line(text: str) -> str:
    """First sentence of the first line."""
    line = text.strip().partition("\n")[0].strip()
    return SENTENCE_END.split(line, maxsplit=1)[0].rstrip(".")
