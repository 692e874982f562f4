"""harness compare: two runs on the same samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.fields import argument, takes
from harness.cli.options import Output, RunsFolder

if TYPE_CHECKING:
    from harness.compare import Comparison, MetricDifference

COLUMNS = ("task", "metric", "n", "A", "B", "lost", "won", "B - A", "95% interval", "p", "test", "better")


@dataclass(frozen=True, kw_only=True)
class Options(Output, RunsFolder):
    a: str = argument(help="Run id, its beginning, or a run folder", metavar="RUN_A")
    b: str = argument(help="The run that is held against it", metavar="RUN_B")


@takes(Options)
def run(options: Options) -> int:
    """Compare two runs sample by sample.

    Differences with 95 % intervals; exact McNemar test where scores are 0/1, sign-flip test and paired t otherwise.
    Where samples belong together (questions on one passage, of one subject), sign-flip test and intervals by their
    clusters.
    """
    from harness.cli import tables
    from harness.compare import compare
    from harness.store import Store

    comparison = compare(options.a, options.b, Store(options.runs or Path("runs")))
    print(tables.to_json(comparison) if options.json else text_of(comparison))
    return 0


def text_of(comparison: Comparison) -> str:
    """Both runs, a row per metric, energy, and what must be known beside it."""
    from harness.cli import tables

    lines = [
        f"A  {comparison.run_a}  ({comparison.checkpoint_a})",
        f"B  {comparison.run_b}  ({comparison.checkpoint_b})",
        f"suite {comparison.suite}, the same {comparison.n_samples} samples",
    ]
    if comparison.identical:
        lines.append("every score of every sample is the same")
    lines += ["", tables.align(COLUMNS, [row_of(row) for row in comparison.differences]), ""]
    lines.append("lost, won: share of samples on which B's score is the worse, the better one")
    if any(row.p_holm is not None for row in comparison.differences):
        lines.append(
            "p: two-sided; of headline metrics and their parts (*) adjusted for the number of tasks (Holm)"
        )
    if comparison.energy_ratio is not None:
        lines.append(
            f"energy per query: B uses {comparison.energy_ratio:.2f} times A's ({comparison.energy_basis})"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in comparison.notes)]).rstrip()


def row_of(row: MetricDifference) -> list[str]:
    from harness.cli.tables import UNKNOWN, paired_cells

    return [
        row.task,
        row.metric + (" *" if row.headline else f" (of {row.part_of}) *" if row.part_of else ""),
        *paired_cells(row),
        row.paired.test or UNKNOWN,
        {"a": "A", "b": "B", None: "no difference shown"}[row.better],
    ]
