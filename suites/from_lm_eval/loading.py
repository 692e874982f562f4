"""Build lm-eval's own Task objects: from its YAML files, on the data at hand, with its errors in plain words."""

from __future__ import annotations

import io
import logging
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lm_eval.api.task
import lm_eval.utils
import numpy as np
from lm_eval.api.group import Group
from lm_eval.api.task import Task as LmTask
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml

from harness.datafiles import card_files, read_files
from harness.errors import BadInput, DatasetUnavailable, HarnessError, UserError
from harness.fingerprint import cache_dir
from harness.hashing import hash_json
from harness.protocols import DataSource
from suites.from_lm_eval import index

# Seeds that the lm_eval command sets by default; tasks shuffle choices and draw with them.
PYTHON_SEED, NUMPY_SEED = 0, 1234
# lm-eval compiles a template anew for every document and shot: most of the time that 25-shot prompts take.
lm_eval.utils.env.from_string = lru_cache(maxsize=256)(lm_eval.utils.env.from_string)
MULTIMODAL = ("doc_to_image", "doc_to_audio")


@dataclass(frozen=True)
class Loaded:
    """What a name of lm-eval stands for."""

    name: str
    tasks: Mapping[str, LmTask]
    """Leaf tasks in lm-eval's order."""
    groups: tuple[Group, ...]
    """The named group first, then those inside it; empty for a task or a tag."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the log lines, progress bars and prints of lm-eval and its task files off the terminal."""
    import datasets

    loggers = [logging.getLogger("lm_eval"), logging.getLogger("datasets")]
    levels = [logger.level for logger in loggers]
    bars = datasets.is_progress_bar_enabled()
    tqdm = lm_eval.api.task.tqdm
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        datasets.disable_progress_bars()
        lm_eval.api.task.tqdm = partial(tqdm, disable=True)
        # Task files print, and fetch with bars of their own; stdout is for results.
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        lm_eval.api.task.tqdm = tqdm
        if bars:
            datasets.enable_progress_bars()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def seeded() -> Iterator[None]:
    """Give lm-eval the global random state that its command gives it, and put ours back."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        random.seed(PYTHON_SEED)
        np.random.seed(NUMPY_SEED)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def load_tasks(name: str, data: DataSource, num_fewshot: int | None, *, allow_unsafe: bool) -> Loaded:
    """Build the task, or all tasks of the group or tag.

    Raises: UnknownName, DatasetUnavailable, BadInput (a missing package, a task that runs code or wants images).
    """
    named = index.find(name)
    registry = _registry()
    entry = registry.get(name) or Entry(name, Kind[named.kind], yaml_path=None, tags=set(named.tags))
    factory = HarnessFactory(data, num_fewshot, allow_unsafe=allow_unsafe)
    with quiet(), seeded():
        built = factory.build(entry, overrides=None, registry=registry)
    tops: list[LmTask | Group] = built if isinstance(built, list) else [built]
    tasks: dict[str, LmTask] = {}
    groups: list[Group] = []
    for top in tops:
        found = top.get_all_tasks() if isinstance(top, Group) else [top]
        tasks.update({task.task_name: task for task in found})
        groups += [top, *top.get_all_groups()] if isinstance(top, Group) else []
    for task in tasks.values():
        task.set_config(key="num_fewshot", value=shots(task.get_config("num_fewshot"), num_fewshot))
    return Loaded(name, tasks, tuple(groups))


@contextmanager
def split_by_split() -> Iterator[None]:
    """Where the splits of a folder differ in their types, datasets refuses them all: read each by itself.

    MGSM's test answers are null, those of its shots are texts.
    """
    import datasets

    load = datasets.load_dataset

    def tolerant(path: str, name: str | None = None, **more: Any) -> Any:
        try:
            return load(path, name, **more)
        except datasets.exceptions.DatasetGenerationError as exc:
            files = (card_files(Path(path)) or {}) if Path(path).is_dir() else {}
            splits = files.get(name or "default")
            if splits is None or "Couldn't cast" not in str(exc.__cause__):
                raise
            return datasets.DatasetDict(
                {split: datasets.Dataset.from_list(read_files(paths)) for split, paths in splits.items()}
            )

    with patch.object(datasets, "load_dataset", tolerant):
        yield


def folder_cache(place: str) -> str:
    """Where datasets may keep what it parses of a local folder: a place of its own for every state of it.

    datasets 5 names its cache after the folder's last name and card alone: two folders called gsm8k, or one
    whose files changed, would be served each other's rows.
    """
    root = Path(place).resolve()
    files = sorted((str(f.relative_to(root)), f.stat()) for f in root.rglob("*") if f.is_file())
    state = [str(root), [[name, stat.st_size, stat.st_mtime_ns] for name, stat in files]]
    return str(cache_dir() / "datasets" / hash_json(state))


def shots(own: int | None, wanted: int | None) -> int:
    """The shots a caller wants, but for a task that fixes zero; none wanted and none set: zero.

    Source: lm_eval.evaluator.simple_evaluate, 0.4.13.
    """
    if own == 0 or (wanted is None and own is None):
        return 0
    return int(own or 0) if wanted is None else wanted


@cache
def _registry() -> dict[str, Entry]:
    """Every task file as lm-eval's own index has it; 14,000 paths are made once."""
    folder = index.tasks_folder()
    return {
        name: Entry(
            name=name,
            kind=Kind[entry.kind],
            yaml_path=folder / entry.path if entry.path else None,
            tags=set(entry.tags),
        )
        for name, entry in index.index().items()
    }


class HarnessFactory(TaskFactory):
    """lm-eval's factory on the user's data: a local mirror, the hub's cache, or the hub."""

    def __init__(self, data: DataSource, num_fewshot: int | None, *, allow_unsafe: bool) -> None:
        super().__init__()
        self._data = data
        self._num_fewshot = num_fewshot
        self._allow_unsafe = allow_unsafe
        self._places: dict[str, str] = {}
        """dataset path as redirected -> id as the task file names it"""

    def _load_full_config(self, entry: Entry, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
        self._check(entry)
        try:
            config: dict[str, Any] = super()._load_full_config(entry, overrides)
        except ImportError as exc:
            raise missing_package(entry.name, exc) from exc
        except Exception as exc:  # the task's own Python files run here
            raise self._explain(entry.name, {}, exc) from exc
        self._redirect(config)
        for child in config["task"] if isinstance(config.get("task"), list) else []:
            if isinstance(child, dict):
                self._redirect(child)
        return config

    def _redirect(self, config: dict[str, Any]) -> None:
        """Point the config at the data at hand."""
        path = config.get("dataset_path")
        if isinstance(path, str) and path not in self._places and not config.get("custom_dataset"):
            place = self._place(path, config.get("dataset_name"))
            config["dataset_path"] = place
            if Path(place).is_dir():
                config["dataset_kwargs"] = {
                    "cache_dir": folder_cache(place),
                    **(config.get("dataset_kwargs") or {}),
                }

    def _place(self, dataset: str, name: str | None) -> str:
        if dataset in ("json", "csv", "parquet", "text", "arrow"):  # files named in dataset_kwargs
            return dataset
        place = self._data.path_or_id(dataset, name)
        self._places[place] = dataset
        return place

    def _build_task(self, entry: Entry, overrides: dict[str, Any] | None) -> LmTask:
        config = self._load_full_config(entry, overrides)
        try:
            task = self._construct(entry, config, dict(overrides or {}))
        except UserError:
            raise
        except ImportError as exc:
            raise missing_package(entry.name, exc) from exc
        except Exception as exc:
            raise self._explain(entry.name, config, exc) from exc
        task.harness_dataset = self._places.get(str(task.DATASET_PATH), str(task.DATASET_PATH))
        return task

    def _check(self, entry: Entry) -> None:
        """Refuse before any Python file of the task is imported."""
        plain = load_yaml(entry.yaml_path, resolve_func=False) if entry.yaml_path else {}
        if plain.get("unsafe_code") and not self._allow_unsafe:
            raise BadInput(
                f"lm-eval task {entry.name!r} runs code that the model writes; if this machine may be harmed, "
                f"allow it with lm_eval:{entry.name},allow_unsafe_code=true"
            )
        if any(plain.get(key) for key in MULTIMODAL):
            raise BadInput(
                f"lm-eval task {entry.name!r} shows images or sounds; the harness asks text models"
            )

    def _construct(self, entry: Entry, config: Mapping[str, Any], overrides: dict[str, Any]) -> LmTask:
        cls = config.get("class")
        with self._class_on_data(cls), split_by_split():
            try:
                return super()._build_task(entry, overrides)
            except KeyError as exc:
                unused = _unused_split(exc, config)
                if not unused or shots(config.get("num_fewshot"), self._num_fewshot):
                    raise
                return super()._build_task(entry, {**overrides, **unused})

    @contextmanager
    def _class_on_data(self, cls: Any) -> Iterator[None]:
        """A task written as a Python class names its data set in an attribute."""
        named = getattr(cls, "DATASET_PATH", None)
        if not isinstance(named, str) or named in self._places:
            yield
            return
        cls.DATASET_PATH = self._place(named, getattr(cls, "DATASET_NAME", None))
        try:
            yield
        finally:
            cls.DATASET_PATH = named

    def _explain(self, name: str, config: Mapping[str, Any], exc: Exception) -> HarnessError:
        place = config.get("dataset_path")
        dataset = self._places.get(str(place), str(place))
        if place is None and _is_about_data(exc):
            return DatasetUnavailable(
                f"lm-eval task {name!r} fetches something by itself that cannot be reached ({_first_line(exc)}); "
                "go online"
            )
        if isinstance(exc, KeyError):
            return DatasetUnavailable(
                f"dataset {dataset!r} has no split {exc.args[0]!r}, which lm-eval task {name!r} reads; "
                "use a copy that has it"
            )
        if type(exc).__name__ == "DatasetGenerationError":
            return DatasetUnavailable(
                f"dataset {dataset!r} of lm-eval task {name!r} is there and cannot be read: "
                f"{_first_line(exc.__cause__ or exc)}"
            )
        if _is_about_data(exc):
            return DatasetUnavailable(
                f"dataset {dataset!r} of lm-eval task {name!r} cannot be reached "
                f"({_first_line(exc)}); go online, fill the hub's cache on a machine that is, or give a folder "
                "of dataset folders with --data-dir FOLDER"
            )
        return HarnessError(f"lm-eval task {name!r} does not load: {type(exc).__name__}: {_first_line(exc)}")


def _unused_split(exc: KeyError, config: Mapping[str, Any]) -> dict[str, None]:
    """Splits that are there for few-shot examples alone: a zero-shot run never reads them.

    lm-eval opens the training split of every task that names one; mirrors often lack it.
    """
    split = exc.args[0] if exc.args else None
    return {key: None for key in ("training_split", "fewshot_split") if config.get(key) == split}


def missing_package(name: str, exc: ImportError) -> BadInput:
    """Name the pip command; lm-eval's own message often holds it."""
    extra = re.search(r"lm[-_]eval\[['\"]?([\w,-]+)['\"]?\]", str(exc))
    wanted = f"lm-eval[{extra.group(1)}]" if extra else (exc.name or "").split(".")[0]
    command = f"pip install '{wanted}'" if wanted else "see the task's README in lm-eval"
    return BadInput(f"lm-eval task {name!r} needs a package that is not installed: {command}")


def _is_about_data(exc: Exception) -> bool:
    import datasets

    if isinstance(exc, OSError | datasets.exceptions.DatasetsError):  # ConnectionError is an OSError
        return True
    text = str(exc)
    return any(hint in text for hint in ("find cache", "BuilderConfig", "Dataset scripts", "offline", "Hub"))


def _first_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0][:200] if lines else type(exc).__name__


def relative_source(path: str) -> str:
    """A task file's place inside lm-eval, so that fingerprints do not depend on where it is installed."""
    try:
        return str(Path(path).relative_to(index.tasks_folder()))
    except ValueError:
        return Path(path).name
