"""What training lost and won, as rows of plain values: one table per step of a lineage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from harness.compare import MetricDifference
from harness.forgetting import Step
from reports.text import number

VERDICTS = {"a": "worse", "b": "better", None: "no difference shown"}


class Row(NamedTuple):
    """One task before and after."""

    suite: str
    task: str
    metric: str
    n: int
    before: str
    after: str
    lost: str
    won: str
    change: str
    interval: str
    p: str
    verdict: str


class Table(NamedTuple):
    """One step."""

    before: str
    after: str
    stages: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def tables(steps: Sequence[Step]) -> list[Table]:
    return [
        Table(
            step.before,
            step.after,
            ", ".join(step.stages),
            tuple(_row(suite, row) for suite, row in step.headlines),
            step.notes,
        )
        for step in steps
    ]


def _row(suite: str, row: MetricDifference) -> Row:
    paired = row.paired
    p = paired.p_value if row.p_holm is None else row.p_holm
    return Row(
        suite,
        row.task,
        row.title,
        paired.n,
        number(paired.value_a),
        number(paired.value_b),
        number(row.share_lost),
        number(row.share_won),
        f"{paired.difference:+.3f}",
        "" if paired.ci95 is None else f"{paired.ci95[0]:+.3f} to {paired.ci95[1]:+.3f}",
        "–" if p is None else f"{p:.3g}",
        VERDICTS[row.better],
    )
