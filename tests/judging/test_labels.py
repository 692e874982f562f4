"""Labelled sets: which cells are answers and labels."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.errors import BadColumns
from harness.judging.labels import Labelled, read_labels
from harness.judging.rubric import Rubric
from harness.protocols import TaskContext, TaskRef
from harness.strategies.direct import Direct
from suites.judged_pairs import JudgedPairs


def test_answers_that_are_numbers_are_answers(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(
        "prompt,answer_a,answer_b,label\nzip?,02134,2134,A\n6*7?,42,41.0,tie\n", "utf-8"
    )
    (tmp_path / "l.jsonl").write_text(
        '{"prompt": "6*7?", "answer_a": 42, "answer_b": 41.5, "label": "b"}\n', "utf-8"
    )
    assert read_labels(tmp_path / "l.csv", None) == [
        Labelled("zip?", ("02134", "2134"), "A"),
        Labelled("6*7?", ("42", "41.0"), "tie"),
    ]
    assert read_labels(tmp_path / "l.jsonl", None) == [Labelled("6*7?", ("42", "41.5"), "B")]


def test_a_grade_is_a_number_in_csv_too(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("prompt,answer,label\n6*7?,42,3\n6*7?,41,1.0\n", "utf-8")
    rubric = Rubric(name="r", text="Right?", low=1, high=3)
    assert [row.label for row in read_labels(tmp_path / "l.csv", rubric)] == [3, 1]


@pytest.mark.parametrize("answer", [None, True, [42], {"a": 42}, float("nan")])
def test_what_is_no_text_is_named_with_its_row(tmp_path: Path, answer: object) -> None:
    row = {"prompt": "6*7?", "answer_a": answer, "answer_b": "41", "label": "A"}
    (tmp_path / "l.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    with pytest.raises(BadColumns, match=r"row 1: 'answer_a' is .*, which is no text"):
        read_labels(tmp_path / "l.jsonl", None)


def test_references_that_are_numbers_are_references(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,reference\nzip?,02134\n", "utf-8")
    (tmp_path / "p.jsonl").write_text('{"prompt": "6*7?", "reference": 42}\n', "utf-8")
    named = SimpleNamespace(name="judge", judges_itself=False)
    found = []
    for name in ("p.csv", "p.jsonl"):
        ref = TaskRef("", "judged_pairs", {"data": str(tmp_path / name)}, "judged_pairs")
        context = TaskContext(engine=None, strategy=Direct(), data=None, judge=named)  # type: ignore[arg-type]
        found += [item.doc["reference"] for item in JudgedPairs(ref, context).items()]
    assert found == ["02134", "42"]
