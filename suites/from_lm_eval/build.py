"""What an lm-eval task asks: documents, prompts and requests, built once per process and without a model.

Chat prompts are built with a placeholder where the template goes; it is filled in when a checkpoint asks. So one
build serves all checkpoints, a dry run needs no tokenizer, and the fingerprint does not depend on the template.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from inspect import getsource
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task as LmTask

from harness.errors import BadInput, HarnessError, UserError
from harness.hashing import canonical_json
from harness.protocols import DataSource
from suites.from_lm_eval.loading import Loaded, load_tasks, quiet, relative_source, seeded

KEPT = 16
"""Builds kept in memory, so that many checkpoints on one suite build it once."""
OPEN, CLOSE = "\x02", "\x03"
"""Around a placeholder; JSON escapes both, so neither occurs inside one."""
PLACEHOLDER = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")


@dataclass(frozen=True)
class Wanted:
    """Everything that determines a build."""

    name: str
    limit: int | None
    num_fewshot: int | None
    chat: bool
    fewshot_seed: int
    system_instruction: str | None
    allow_unsafe: bool
    source: str
    """Where the data comes from; tells sources apart in the cache."""
    data: DataSource = field(compare=False, hash=False, repr=False)


@dataclass(frozen=True)
class Built:
    """A build: what the task is, and its requests by sample."""

    loaded: Loaded
    instances: Mapping[str, tuple[Instance, ...]]
    """sample id -> lm-eval's requests for that document, in lm-eval's order."""
    subtask: Mapping[str, str]
    """sample id -> name of the leaf task."""
    total: Mapping[str, int]
    """leaf task -> documents before the limit."""
    fingerprint: str

    def task(self, sample_id: str) -> LmTask:
        return self.loaded.tasks[self.subtask[sample_id]]


@lru_cache(maxsize=KEPT)
def build(wanted: Wanted) -> Built:
    """Load the task and build all its requests, exactly as lm_eval.evaluator.evaluate does.

    Raises: UnknownName, DatasetUnavailable, BadInput.
    """
    loaded = load_tasks(wanted.name, wanted.data, wanted.num_fewshot, allow_unsafe=wanted.allow_unsafe)
    instances: dict[str, tuple[Instance, ...]] = {}
    subtask: dict[str, str] = {}
    for name, task in loaded.tasks.items():
        for doc_id, group in _requests(task, wanted).items():
            sample_id = str(doc_id) if len(loaded.tasks) == 1 else f"{name}/{doc_id}"
            instances[sample_id] = group
            subtask[sample_id] = name
    total = {name: len(task.eval_docs) for name, task in loaded.tasks.items()}
    return Built(loaded, instances, subtask, total, _fingerprint(loaded, instances, wanted))


def _requests(task: LmTask, wanted: Wanted) -> dict[int, tuple[Instance, ...]]:
    """Requests by document, each document's sorted as process_results wants them."""
    task.set_fewshot_seed(seed=wanted.fewshot_seed)
    try:
        with quiet(), seeded():
            task.build_all_requests(
                limit=wanted.limit,
                system_instruction=wanted.system_instruction,
                apply_chat_template=wanted.chat,
                fewshot_as_multiturn=wanted.chat,
                chat_template=placeholder if wanted.chat else None,
            )
    except UserError:
        raise
    except (AssertionError, ValueError) as exc:  # e.g. more shots than the split has rows
        shots = task.get_config("num_fewshot")
        raise BadInput(f"lm-eval task {task.task_name!r} cannot be asked with {shots} shots: {exc}") from exc
    except Exception as exc:
        raise HarnessError(
            f"lm-eval task {task.task_name!r} builds no requests: {type(exc).__name__}: {exc}"
        ) from exc
    groups: dict[int, list[Instance]] = {}
    for instance in task.instances:
        groups.setdefault(int(instance.doc_id or 0), []).append(instance)
    return {doc_id: tuple(sorted(group, key=lambda i: i.idx)) for doc_id, group in groups.items()}


# Chat placeholders


def placeholder(history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
    """Stands where the rendered conversation will stand; lm-eval calls it as the model's chat template."""
    return OPEN + json.dumps([list(history), add_generation_prompt]) + CLOSE


def as_turns(history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
    """A conversation for a reader, where no template is known."""
    return "\n\n".join(f"[{turn['role']}] {turn['content']}" for turn in history)


def filled(instance: Instance, template: Callable[..., str]) -> Instance:
    """A fresh copy of a request with its placeholders rendered, ready for responses."""

    def render(match: re.Match[str]) -> str:
        history, add_generation_prompt = json.loads(match.group(1))
        return template(history, add_generation_prompt=add_generation_prompt)

    arguments = tuple(
        PLACEHOLDER.sub(render, part) if isinstance(part, str) and OPEN in part else part
        for part in instance.args
    )
    return replace(instance, arguments=arguments, resps=[], filtered_resps={})


# Fingerprint


def _fingerprint(loaded: Loaded, instances: Mapping[str, tuple[Instance, ...]], wanted: Wanted) -> str:
    """Hash of the data and of how it is asked and scored; no path of this machine enters it."""
    digest = hashlib.sha256()
    digest.update(canonical_json([importlib.metadata.version("lm-eval"), wanted.name, wanted.chat]).encode())
    for name, task in loaded.tasks.items():
        digest.update(canonical_json([name, str(task.VERSION), _plain_config(task)]).encode())
    for group in loaded.groups:
        digest.update(canonical_json([group.name, _plain(group.aggregate_metric_list)]).encode())
    for text in _asked(instances):
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def _asked(instances: Mapping[str, tuple[Instance, ...]]) -> Iterator[str]:
    for sample_id, group in instances.items():
        yield sample_id
        yield canonical_json(_plain(group[0].doc))
        last = None
        for instance in group:
            context, *rest = instance.args
            if context != last:  # choices share their context: hash it once
                yield str(context)
            yield canonical_json(_plain(rest))
            last = context


def _plain_config(task: LmTask) -> Any:
    config = dict(task.config.to_dict(keep_callable=True)) if hasattr(task, "config") else {}
    config["dataset_path"] = getattr(task, "harness_dataset", None)
    kwargs = {k: v for k, v in (config.get("dataset_kwargs") or {}).items() if k != "cache_dir"}
    metadata = dict(config.get("metadata") or {})
    if "config_source" in metadata:
        metadata["config_source"] = relative_source(str(metadata["config_source"]))
    return _plain({**config, "metadata": metadata, "dataset_kwargs": kwargs})


def _plain(value: Any) -> Any:
    """JSON without memory addresses: functions become their source, other objects their type."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(part) for part in value), key=str)
    if callable(value):
        try:
            return getsource(value)
        except (OSError, TypeError):
            return getattr(value, "__qualname__", type(value).__qualname__)
    if hasattr(value, "__dict__"):
        return [type(value).__qualname__, _plain(vars(value))]
    return str(value)
