"""GSM8K as native tasks read it: rows, shots, and the number that an answer gives.

Cobbe et al. 2021, arXiv:2110.14168. Questions and shots are worded as lm-evaluation-harness words them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from harness.protocols import DataSource
from harness.records import Json
from harness.thoughts import final_answer

DATASET, CONFIG = "openai/gsm8k", "main"
COLUMNS = ("question", "answer")
STOP = ("Question:", "</s>", "<|im_end|>")
"""Ends an answer to a prompt with shots, as in lm-eval's task."""
MARKED = re.compile(r"####\s{0,3}\$?([-−]?\$?[0-9][0-9,]{0,40}(?:\.[0-9]{1,40})?)")
LAST = re.compile(r"(?:(?<![0-9])[-−])?\$?[0-9][0-9,]{0,40}(?:\.[0-9]{1,40})?")
"""A hyphen behind a digit is a range or a difference and no sign. ASCII digits alone, as in the official grader."""


def problems(data: DataSource) -> Sequence[Mapping[str, Json]]:
    return data.rows(DATASET, CONFIG, "test", columns=COLUMNS)


def shots(data: DataSource, n: int) -> str:
    """The first problems of the training split with their solutions; '' for none."""
    rows = data.rows(DATASET, CONFIG, "train", columns=COLUMNS)[:n] if n else []
    return "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in rows)


def asked(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def strict(answer: str) -> Fraction | None:
    """The number behind the first ####, as the authors ask for it; None: there is none.

    Laxer than theirs in form, never in value: a missing or second blank, a currency sign, a trailing full stop and
    18.0 for 18 are read, a true minus sign is one. Thoughts before the answer are not read.
    Source: https://github.com/openai/grade-school-math/blob/3101c7d/grade_school_math/dataset.py (extract_answer)
    """
    found = MARKED.search(final_answer(answer))
    return as_number(found.group(1)) if found else None


def last(answer: str) -> Fraction | None:
    """The last number of the answer, whatever stands around it; None: it has none."""
    found = LAST.findall(final_answer(answer))
    return as_number(found[-1]) if found else None


def given(answer: str) -> Fraction | None:
    """The number behind ####, or else the last one."""
    marked = strict(answer)
    return last(answer) if marked is None else marked


def as_number(text: str) -> Fraction | None:
    """ASCII digits, with commas between thousands; None: anything else."""
    try:
        return Fraction(text.replace(",", "").replace("$", "").replace("−", "-").rstrip("."))
    except ValueError:
        return None
