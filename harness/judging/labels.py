"""A labelled set: what people said of answers, to hold a judge against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.datafiles import as_text, read_texts
from harness.errors import BadColumns, BadInput
from harness.judging.pairwise import CHOICES
from harness.judging.rubric import Rubric
from harness.records import Json

OF_PAIRS = ("prompt", "answer_a", "answer_b", "label")
OF_GRADES = ("prompt", "answer", "label")
CHOICE_OF = {choice.lower(): choice for choice in CHOICES}


class Labelled(NamedTuple):
    """One row: a pair of answers where there are two, else one answer."""

    request: str
    answers: tuple[str, ...]
    label: str | int


def read_labels(path: Path, rubric: Rubric | None) -> list[Labelled]:
    """Rows of a JSONL, CSV or Parquet file with the columns prompt, answer_a, answer_b and label (A, B or tie), or,
    for a rubric, prompt, answer and label (a grade of its scale).

    Raises: DatasetUnavailable: no such file. BadInput: one that cannot be read, or without rows. BadColumns: a column
        is missing, or a label is none (row and value).
    """
    rows = read_texts(path)
    if not rows:
        raise BadInput(f"{path} has no rows; give labelled answers")
    columns = OF_PAIRS if rubric is None else OF_GRADES
    missing = [name for name in columns if name not in rows[0]]
    if missing:
        other = "; for single answers give --rubric FILE" if rubric is None and "answer" in rows[0] else ""
        raise BadColumns(
            f"{path} has no column {missing[0]!r} (it has {', '.join(rows[0])}); needed: {', '.join(columns)}{other}"
        )
    return [_labelled(path, number, row, columns, rubric) for number, row in enumerate(rows, 1)]


def _labelled(
    path: Path, number: int, row: Mapping[str, Json], columns: Sequence[str], rubric: Rubric | None
) -> Labelled:
    texts: list[str] = []
    for name in columns[:-1]:
        text = as_text(row[name])
        if text is None:
            raise BadColumns(f"{path}, row {number}: {name!r} is {row[name]!r}, which is no text")
        texts.append(text)
    label = _choice(row["label"]) if rubric is None else _grade(row["label"], rubric)
    if label is None:
        wanted = "A, B or tie" if rubric is None else f"a whole number of {rubric.low}..{rubric.high}"
        raise BadColumns(f"{path}, row {number}: label {row['label']!r} is not {wanted}")
    return Labelled(texts[0], tuple(texts[1:]), label)


def _choice(value: Json) -> str | None:
    return CHOICE_OF.get(value.strip().lower()) if isinstance(value, str) else None


def _grade(value: Json, rubric: Rubric) -> int | None:
    try:
        number = float(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError):
        return None
    return int(number) if number is not None and number in rubric.grades else None
