"""Resolve a dataset: a file, bundled rows, a folder of dataset repositories (--data-dir), the hub or its cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from harness import registry
from harness.datafiles import SUFFIXES, Files, card_files, is_data_file, read_files
from harness.errors import BadColumns, BadInput, DatasetUnavailable, UnknownName
from harness.hashing import canonical_json
from harness.hubdata import cached_place, from_hub, hub_reachable
from harness.protocols import Row


class DatasetRef(NamedTuple):
    """A dataset as a plan or the command line names it."""

    dataset: str
    """Hub id, bundled id, path of a dataset folder, or path of a data file."""
    config: str | None = None
    split: str = "train"
    """Of no meaning for a data file."""


def parse(ref: str) -> DatasetRef:
    """Split `id[:config[:split]]`; the path of a data file stays whole.

    Raises: BadInput: empty, or more than three parts.
    """
    if is_data_file(ref):
        return DatasetRef(ref)
    parts = ref.split(":")
    if not parts[0] or len(parts) > 3:
        raise BadInput(f"{ref!r} is no dataset; write id[:config[:split]] or the path of a JSONL file")
    config = parts[1] if len(parts) > 1 and parts[1] else None
    split = parts[2] if len(parts) > 2 and parts[2] else "train"
    return DatasetRef(parts[0], config, split)


def fingerprint(rows: Iterable[Row]) -> str:
    """sha256 over the canonical JSON of the rows in their order; one row per line."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(canonical_json(dict(row)).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


class Datasets:
    """Finds rows. Order: data file, bundled rows, data_dir, a folder given as path, the hub or its cache."""

    def __init__(self, data_dir: Path | None = None) -> None:
        """
        Raises: DatasetUnavailable: data_dir is given and is no folder.
        """
        if data_dir is not None and not Path(data_dir).is_dir():
            raise DatasetUnavailable(
                f"--data-dir {str(data_dir)!r} is no folder; give one of dataset folders"
            )
        self.data_dir = None if data_dir is None else Path(data_dir)

    def path_or_id(self, dataset: str, config: str | None = None) -> str:
        """What datasets.load_dataset takes for this dataset: a folder on disk, else the hub id.

        Bundled ids come back unchanged; only rows() reads them.

        Raises:
            DatasetUnavailable: neither in data_dir nor in the hub's cache, and the hub is out of reach.
            UnknownName: the folder's card names no such config.
        """
        if is_data_file(dataset) or bundled_by(dataset) is not None:
            return dataset
        folder = self._folder(dataset)
        if folder is None:
            return self._hub_place(dataset)
        files = card_files(folder)
        if files is not None and config is not None:
            pick(files, config, f"config of {dataset}")
        return str(folder)

    def rows(
        self, dataset: str, config: str | None, split: str, columns: Sequence[str] = ()
    ) -> Sequence[Row]:
        """All rows of a split; each has all columns of the data.

        Args:
            config: None where the dataset has one only, or one called default.
            columns: names that must be among the data's columns, with a value in every row.
        Raises:
            DatasetUnavailable: it cannot be reached. UnknownName: no such config or split.
            BadColumns: a wanted column is not there, or a row has no value in it. BadInput: unreadable, or empty.
        """
        rows = self._read(dataset, config, split)
        where = (
            ":".join(part for part in (dataset, config, split) if part and not is_data_file(dataset))
            or dataset
        )
        if not rows:
            raise BadInput(f"{where} holds no rows; choose another split or fill the file")
        missing = [name for name in columns if name not in rows[0]]
        if missing:
            raise BadColumns(
                f"{where} has no column {missing[0]!r}; it has: {', '.join(rows[0])} "
                "(map them with columns: {wanted: existing})"
            )
        for name in columns:
            lacking = next((index for index, row in enumerate(rows) if row.get(name) is None), None)
            if lacking is not None:
                raise BadColumns(f"row {lacking} of {where} has no {name!r}; fill it in or take the row out")
        return rows

    def _read(self, dataset: str, config: str | None, split: str) -> Sequence[Row]:
        if is_data_file(dataset):
            return read_files([Path(dataset).expanduser()])
        plugin = bundled_by(dataset)
        if plugin is not None:
            bundled: Sequence[Row] = registry.load("dataset", plugin)(dataset, config, split)
            return bundled
        folder = self._folder(dataset)
        return (
            from_hub(self._hub_place(dataset), config, split)
            if folder is None
            else read_folder(folder, dataset, config, split)
        )

    def _folder(self, dataset: str) -> Path | None:
        """Where the dataset lies on disk: under data_dir, or as a path of the user's."""
        if (
            self.data_dir is not None
            and ".." not in Path(dataset).parts
            and (self.data_dir / dataset).is_dir()
        ):
            return self.data_dir / dataset
        explicit = dataset.startswith((".", "~", os.sep))
        path = Path(dataset).expanduser()
        if explicit and path.is_file():
            raise BadInput(f"{str(path)!r} is no {', '.join(SUFFIXES)} file; convert it to JSONL")
        if explicit and not path.is_dir():
            raise DatasetUnavailable(f"no dataset folder {dataset!r}; give one that is there, or a hub id")
        return path.resolve() if explicit else None

    def _hub_place(self, dataset: str) -> str:
        """The id where load_dataset will find it, or the folder of its snapshot in the hub's cache.

        Raises: DatasetUnavailable: naming the three ways out.
        """
        if hub_reachable():
            return dataset
        cached = cached_place(dataset)
        if cached is None:
            beside = "" if self.data_dir is None else f", nor in --data-dir {self.data_dir}"
            raise DatasetUnavailable(
                f"dataset {dataset!r} is not in the hub's cache{beside}, and the hub cannot be reached; go online, "
                "fill the hub's cache on a machine that is, or give a folder of dataset folders with --data-dir FOLDER"
            )
        return cached


def bundled_by(dataset: str) -> str | None:
    """Name of the plug-in that brings a dataset id like starter/sft, or None."""
    prefix, slash, _ = dataset.partition("/")
    return prefix if slash and prefix in registry.names("dataset") else None


def read_folder(folder: Path, dataset: str, config: str | None, split: str) -> Sequence[Row]:
    """Rows of a dataset folder: straight from its files where its card names files that read_files reads.

    Raises: UnknownName: no such config or split. BadInput: a file cannot be understood.
    """
    files = card_files(folder)
    if files is None:
        return from_hub(str(folder), config, split)
    splits = pick(files, config, f"config of {dataset}")
    chosen = splits.get(split)
    if chosen is None:
        raise UnknownName.of(f"split of {dataset}", split, splits)
    if not all(is_data_file(path.name) for path in chosen):
        return from_hub(str(folder), config, split)
    return read_files(chosen)


def pick(files: Files, config: str | None, kind: str) -> dict[str, Sequence[Path]]:
    """Splits of a config; without a name the only one, or the one called default.

    Raises: UnknownName: no such config, or several and none named.
    """
    if config is None:
        only = next(iter(files)) if len(files) == 1 else "default"
        if only not in files:
            raise UnknownName(f"no {kind} given and it has several; name one: {', '.join(sorted(files))}")
        return dict(files[only])
    if config not in files:
        raise UnknownName.of(kind, config, files)
    return dict(files[config])
