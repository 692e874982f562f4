"""harness forgetting: trained checkpoints against those they came from, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.fields import option, takes
from harness.cli.options import Output, RunsFolder

if TYPE_CHECKING:
    from harness.compare import MetricDifference
    from harness.forgetting import Step

COLUMNS = (
    "suite",
    "task",
    "metric",
    "n",
    "before",
    "after",
    "lost",
    "won",
    "change",
    "95% interval",
    "p",
    "test",
    "",
)
VERDICTS = {"a": "worse", "b": "better", None: "no difference shown"}


@dataclass(frozen=True, kw_only=True)
class Options(Output, RunsFolder):
    suite: list[str] | None = option(
        "--suite", help="Only these suites; may be given several times", default=None
    )


@takes(Options)
def run(options: Options) -> int:
    """Show what training lost, sample by sample.

    Every trained checkpoint is held against the one it came from.

    Reads finished runs; of several of one checkpoint on one suite the newest counts.
    """
    from harness.cli import tables
    from harness.errors import UnknownName
    from harness.forgetting import steps
    from harness.store import Store

    store = Store(options.runs or Path("runs"))
    runs = store.runs()
    known = {run.suite for run in runs}
    for name in options.suite or ():
        if name not in known:
            raise UnknownName.of("scored suite", name, sorted(known))
    found = steps([run for run in runs if not options.suite or run.suite in options.suite], store)
    print(tables.to_json({"steps": found}) if options.json else text_of(found))
    return 0


def text_of(found: Sequence[Step]) -> str:
    """A table per step, headline metrics and what stands for them."""
    from harness.cli import tables

    if not found:
        return (
            "no trained checkpoint among the finished runs has an ancestor that was scored on the same suite; score "
            "the base too, with the same suites, profile and limit"
        )
    lines: list[str] = []
    for step in found:
        lines.append(f"{step.before} -> {step.after}: {', '.join(step.stages)}")
        rows = [row_of(suite, row) for suite, row in step.headlines]
        lines += [tables.align(COLUMNS, rows)] if rows else ["no headline metric has a value per sample"]
        lines += [f"note: {text}" for text in step.notes]
        lines.append("")
    lines.append(
        "lost, won: share of samples with a worse, a better score; p: two-sided, adjusted for a step's tasks (Holm)"
    )
    return "\n".join(lines)


def brief(found: Sequence[Step]) -> list[str]:
    """A line per step: the tasks that were shown to be worse, how much was lost and won on them."""
    lines = []
    for step in found:
        worse = [
            f"{suite}/{row.task}{f' {row.metric}' if row.part_of else ''} {row.paired.difference:+.3f} "
            f"(lost {row.share_lost:.3f}, won {row.share_won:.3f})"
            for suite, row in step.headlines
            if row.better == "a"
        ]
        said = (
            f"worse on {', '.join(worse)}"
            if worse
            else f"none of {len({(suite, row.task) for suite, row in step.headlines})} tasks shown to be worse"
        )
        lines.append(f"{step.before} -> {step.after}: {said}")
    return [*lines, "all of it, with tests: harness forgetting"] if lines else []


def row_of(suite: str, row: MetricDifference) -> list[str]:
    from harness.cli.tables import UNKNOWN, paired_cells

    return [
        suite,
        row.task,
        row.title,
        *paired_cells(row),
        row.paired.test or UNKNOWN,
        VERDICTS[row.better],
    ]
