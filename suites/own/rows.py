"""Rows of a user's data file as items: columns checked before anything is asked, prompts filled in, with the line
of the suite file in every error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from harness.datafiles import is_data_file, read_texts
from harness.datasets import parse
from harness.errors import BadColumns, BadInput, UserError
from harness.groups import MACRO
from harness.owntask import OwnFields
from harness.protocols import DataSource, Row
from harness.records import Json
from harness.tasks import Item
from harness.templates import JINJA_SIGNS, misspelt, shown, template
from suites.own.choices import lettered, read_choices, right_choice
from suites.own.scorers import numbers

CHOICES = "choices"
"""In a template, the choices: lettered lines in braces, a list in Jinja."""
GROUP, CLUSTER = "group", "cluster"
"""Keys of a sample's metadata."""


class Needed(NamedTuple):
    """A column that a key of the suite file names."""

    key: str
    column: str


class OwnRows:
    """The rows of one task."""

    def __init__(self, entry: OwnFields, lines: Mapping[str, str], data: DataSource) -> None:
        """Args: lines: key of the entry -> path:line in the suite file."""
        self.entry = entry
        self._lines = lines
        self._source = data
        self.file = str(entry.data)

    def items(self, *, with_row: bool) -> list[Item]:
        """Raises: BadColumns, BadInput, DatasetUnavailable: with the line of the suite file and the row."""
        self._check_columns()
        self._check_ids()
        return [self._item(number, row, with_row=with_row) for number, row in enumerate(self._rows)]

    @cached_property
    def _rows(self) -> Sequence[Row]:
        try:
            if is_data_file(self.file):
                return _read(self.file)
            ref = parse(self.file)
            return self._source.rows(ref.dataset, ref.config, ref.split)
        except UserError as exc:
            raise type(exc)(f"{self._at('data')}{exc}") from exc

    def _at(self, key: str) -> str:
        return f"{self._lines[key]}: " if key in self._lines else ""

    # Columns

    def _needed(self) -> Iterator[Needed]:
        entry = self.entry
        for key in ("prompt", "system"):
            for column in template(getattr(entry, key) or "").columns:
                if column != CHOICES or entry.choices is None:
                    yield Needed(key, column)
        target = entry.target or ""
        for column in template(target).columns if is_template(target) else filter(None, [target]):
            yield Needed("target", column)
        texts = [] if entry.choices is None or isinstance(entry.choices, str) else entry.choices
        for text in texts:
            yield from (Needed(CHOICES, column) for column in template(text).columns)
        named = {"id": entry.id, CLUSTER: entry.cluster, GROUP: entry.group}
        if isinstance(entry.choices, str):
            named[CHOICES] = entry.choices
        yield from (Needed(key, column) for key, column in named.items() if column is not None)

    def _check_columns(self) -> None:
        columns = list(self._rows[0])
        for key, column in self._needed():
            if column not in columns:
                raise BadColumns(
                    f"{self._at(key)}{key}: {self.file} has no column {column!r}; {_hint(column, columns)}"
                )
        for key in ("prompt", "system", "target"):
            wrong = misspelt(getattr(self.entry, key) or "", columns)
            if wrong is not None:
                raise BadColumns(
                    f"{self._at(key)}{key}: {wrong!r} is no column in braces; write {{column}}, no more"
                )

    def _check_ids(self) -> None:
        """Raises: BadColumns: two rows of one name, of which the journal could hold one."""
        column = self.entry.id
        first: dict[str, int] = {}
        for number, row in enumerate(self._rows if column is not None else (), start=1):
            name = str(row[column])
            if isinstance(row[column], str | int | float) and first.setdefault(name, number) != number:
                raise BadColumns(
                    f"{self._at('id')}id: {self.file} has {name[:40]!r} in column {column!r} twice, in row "
                    f"{first[name]} and row {number}; name a column whose values differ, or drop id"
                )

    # Rows

    def _item(self, number: int, row: Row, *, with_row: bool) -> Item:
        entry, key = self.entry, "prompt"
        try:
            key = CHOICES
            choices = [] if entry.choices is None else read_choices(entry.choices, row)
            key = "prompt"
            prompt = self._filled(str(entry.prompt), row, choices)
            if not prompt.strip():
                raise BadColumns("the prompt is blank; fill the row's columns in, or leave the row out")
            key = "system"
            system = None if entry.system is None else self._filled(entry.system, row, choices)
            key = "target"
            targets = self._targets(row, choices)
            named = {GROUP: entry.group, CLUSTER: entry.cluster, "id": entry.id}
            cells = {}
            for key, column in named.items():
                cells.update({} if column is None else {key: _name(row[column], column)})
            key = GROUP
            _check_group(cells.get(GROUP))
        except BadColumns as exc:
            raise BadColumns(f"{self._at(key)}{key}: row {number + 1} of {self.file}: {exc}") from exc
        doc: dict[str, Json] = {"prompt": prompt, "system": system, "targets": targets, "choices": choices}
        if with_row:
            doc["row"] = dict(row)
        name = cells.pop("id", str(number))
        metadata: dict[str, Json] = dict(cells)
        return Item(name, doc, " | ".join(targets) if targets else None, metadata)

    def _filled(self, text: str, row: Row, choices: Sequence[str]) -> str:
        if not choices:
            return template(text).fill(row)
        in_jinja = any(sign in text for sign in JINJA_SIGNS)
        return template(text).fill({**row, CHOICES: list(choices) if in_jinja else lettered(choices)})

    def _targets(self, row: Row, choices: Sequence[str]) -> list[str]:
        """Right answers; of a question with choices the right one alone."""
        target = self.entry.target
        if target is None:
            return []
        cell = template(target).fill(row) if is_template(target) else row[target]
        if choices:
            return [choices[right_choice(cell, choices)]]
        found = [shown(one, target) for one in (cell if isinstance(cell, list) else [cell])]
        if not found:
            raise BadColumns(f"column {target!r} holds an empty list; give one right answer or several")
        self._check_targets(found)
        return found

    def _check_targets(self, targets: Sequence[str]) -> None:
        """Raises: BadColumns: one that every answer or none would match."""
        blank = any(not target.strip() for target in targets)
        if blank and self.entry.scorer_names != ["judge"]:
            raise BadColumns("the right answer is blank; fill it in, or leave the row out")
        wrong = next((one for one in targets if not numbers(one)), None)
        if "number" in self.entry.scorer_names and wrong is not None:
            raise BadColumns(f"the right answer {wrong[:40]!r} holds no number; scorer 'number' needs one")


def _read(file: str) -> Sequence[Row]:
    rows = read_texts(Path(file).expanduser())
    if not rows:
        raise BadInput(f"{file} holds no rows; fill the file")
    return rows


def _hint(column: str, columns: Sequence[str]) -> str:
    """Which column may be meant, and which there are."""
    if len(columns) == 1 and any(sign in columns[0] for sign in (";", "\t")):
        return f"its one column is {columns[0]!r}: separate columns by commas"
    near = [one for one in columns if one.strip().lower() == column.strip().lower()]
    near = near or get_close_matches(column, columns, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}it has: {', '.join(columns) or 'none'}"


def _name(cell: Json, column: str) -> str:
    """A cell that names or sorts its row. Raises: BadColumns: empty, or no text or number."""
    if isinstance(cell, list | dict):
        raise BadColumns(f"column {column!r} holds a {type(cell).__name__} where a text or number is wanted")
    return shown(cell, column)


def _check_group(name: str | None) -> None:
    """Raises: BadColumns: the mean over groups has that name."""
    if name == MACRO:
        raise BadColumns(f"no group may be called {MACRO!r}: NAME/{MACRO} is the mean over groups; rename it")


def is_template(text: str) -> bool:
    """Whether a target is a template and not the name of a column."""
    return "{" in text
