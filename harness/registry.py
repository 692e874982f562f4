"""Find plug-ins through entry points: names without importing anything, objects one at a time."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from harness.errors import HarnessError, UnknownName

Kind = Literal[
    "suite", "task", "trainer", "reward", "engine", "strategy", "meter", "dataset", "report", "judge"
]


@cache
def _entries(kind: Kind) -> dict[str, EntryPoint]:
    """Entry points of a kind by name; two distributions with one name are an error, not a race."""
    found: dict[str, EntryPoint] = {}
    plural = "strategies" if kind == "strategy" else f"{kind}s"
    for entry in entry_points(group=f"pareto_harness.{plural}"):
        earlier = found.get(entry.name)
        if earlier is not None and earlier.value != entry.value:
            raise HarnessError(
                f"two plug-ins are called {kind} {entry.name!r}: {earlier.value} and {entry.value}; uninstall one"
            )
        found[entry.name] = entry
    return found


def names(kind: Kind) -> list[str]:
    """Names of the installed plug-ins of a kind, sorted. Imports none of them."""
    return sorted(_entries(kind))


def origin(kind: Kind, name: str) -> str:
    """Distribution that brings a plug-in, e.g. 'pareto-harness 0.1.0'."""
    dist = _entries(kind)[name].dist
    return f"{dist.name} {dist.version}" if dist else "unknown"


def load(kind: Kind, name: str) -> Any:
    """Import a plug-in.

    Raises:
        UnknownName: nothing of that name is installed.
        HarnessError: it is installed and fails to import.
    """
    entries = _entries(kind)
    if name not in entries:
        raise UnknownName.of(kind, name, entries)
    try:
        return entries[name].load()
    except Exception as exc:
        raise HarnessError(
            f"{kind} {name!r} ({entries[name].value}) is installed but does not load: {type(exc).__name__}: {exc}"
        ) from exc
