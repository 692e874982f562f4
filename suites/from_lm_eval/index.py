"""Which tasks lm-eval has: its own index, built once per installation and kept as JSON.

lm-eval parses its 14,000 YAML files at every start (10 s). The index needs names, kinds, files and tags alone,
and reading those back needs neither lm-eval nor datasets to be imported.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import BadInput, UnknownName
from harness.fingerprint import cache_dir, write_atomically
from harness.hashing import hash_json


class IndexEntry(NamedTuple):
    """One name that lm-eval knows."""

    kind: str
    """TASK, PY_TASK, GROUP or TAG, as lm_eval.tasks._index.Kind names them."""
    path: str | None
    """YAML file, relative to the folder of tasks; None for a tag."""
    tags: tuple[str, ...]
    """Of a tag: the tasks that carry it. Of a task: its tags."""


@cache
def tasks_folder() -> Path:
    """Folder of lm-eval's task files, found without importing it.

    Raises: BadInput: lm-eval is not installed.
    """
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise BadInput("lm-eval is not installed; pip install 'lm-eval>=0.4.13,<0.5'")
    return Path(next(iter(spec.submodule_search_locations))) / "tasks"


@cache
def index() -> dict[str, IndexEntry]:
    """Every name lm-eval knows: read from the cache, or built (about 10 s) and kept."""
    stamp = _stamp()
    path = cache_dir() / f"lm_eval_tasks_{stamp}.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {name: IndexEntry(kind, file, tuple(tags)) for name, (kind, file, tags) in stored.items()}
    except (OSError, ValueError, TypeError):
        built = _build()
    with contextlib.suppress(OSError):  # a read-only home: the index is built anew next time
        write_atomically(path, json.dumps(built))
    return built


def names() -> list[str]:
    """Names of all tasks, groups and tags, sorted."""
    return sorted(index())


def find(name: str) -> IndexEntry:
    """Look a name up; 'mgsm_direct_*', or several such patterns joined by |, stands like a tag for the tasks it fits.

    Raises: UnknownName: lm-eval has no such task, group or tag; the nearest names are in the message.
    """
    entries = index()
    if any(sign in name for sign in "*?[|"):
        fitting = [one for pattern in name.split("|") for one in fnmatch.filter(entries, pattern)]
        tasks = tuple(one for one in dict.fromkeys(fitting) if entries[one].kind.endswith("TASK"))
        if tasks:
            return IndexEntry("TAG", None, tasks)
    if name not in entries:
        raise unknown(name, entries)
    return entries[name]


def unknown(name: str, known: Iterable[str]) -> UnknownName:
    """One line with the nearest names; the full list is thousands long."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "names: lm-eval ls tasks"
    return UnknownName(f"lm-eval has no task, group or tag {name!r}; {hint}")


def _stamp() -> str:
    """Changes when a task file is added to or removed from the installation, or lm-eval is upgraded."""
    folder = tasks_folder()
    times = sorted(
        (str(Path(where).relative_to(folder)), os.stat(where).st_mtime_ns)
        for where, _, _ in os.walk(folder)
        if not where.endswith("__pycache__")
    )
    return hash_json([importlib.metadata.version("lm-eval"), str(folder), times])


def _build() -> dict[str, IndexEntry]:
    from suites.from_lm_eval.loading import quiet

    with quiet():
        from lm_eval.tasks._index import TaskIndex

        folder = tasks_folder()
        found: dict[str, Any] = TaskIndex.build([folder])
    return {
        name: IndexEntry(
            entry.kind.name,
            str(Path(entry.yaml_path).relative_to(folder)) if entry.yaml_path else None,
            tuple(sorted(entry.tags)),
        )
        for name, entry in found.items()
    }
