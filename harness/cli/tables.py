"""Results as an aligned table and as JSON. Rows are computed apart from how they are written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records import EnergySummary, Metric, RunRecord

if TYPE_CHECKING:
    from harness.compare import MetricDifference

UNKNOWN = "-"
_TAKEN = re.compile(r"\d+ of \d+ samples")
RESULT_COLUMNS = (
    "checkpoint",
    "suite",
    "task",
    "metric",
    "score",
    "95% interval",
    "n",
    "failed",
    "cut",
    "energy",
)


def align(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; columns of numbers to the right. No trailing spaces."""
    cells = [list(columns), *[[_printable(cell) for cell in row] for row in rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(columns))]
    right = [bool(rows) and all(_is_number(row[k]) for row in cells[1:]) for k in range(len(columns))]
    lines = [
        "  ".join(
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def _printable(text: str) -> str:
    """Names come from files: control characters must not reach the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _is_number(text: str) -> bool:
    return text.lstrip("+-").replace(".", "", 1).isdigit() or text in ("", UNKNOWN)


def paired_cells(row: MetricDifference) -> list[str]:
    """n, value before and after, shares lost and won, difference, its interval, p: corrected where it was."""
    paired = row.paired
    p = paired.p_value if row.p_holm is None else row.p_holm
    return [
        str(paired.n) + (f" ({row.n_left_out} failed)" if row.n_left_out else ""),
        number(paired.value_a),
        number(paired.value_b),
        number(row.share_lost),
        number(row.share_won),
        f"{paired.difference:+.3f}",
        UNKNOWN if paired.ci95 is None else f"{paired.ci95[0]:+.3f} to {paired.ci95[1]:+.3f}",
        UNKNOWN if p is None else f"{p:.3g}",
    ]


def number(value: float | None, unit: str | None = None) -> str:
    """Shares with three decimals, large figures with none; '-' for what is not known."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
    return f"{text} {unit}" if unit else text


def interval(ci95: tuple[float, float] | None) -> str:
    return UNKNOWN if ci95 is None else f"{number(ci95[0])} to {number(ci95[1])}"


def energy_cell(summary: EnergySummary | None) -> str:
    """Wh per 1000 queries where known; '>=' marks a lower bound, '~' an estimate."""
    if summary is None or summary.ranked_j is None:
        return UNKNOWN
    mark = "" if (summary.basis or "").startswith("measured") else "~"
    if summary.wh_per_1000_queries is not None:
        return f"{mark}{figure(summary.wh_per_1000_queries)} Wh/1000"
    bound = "" if summary.complete else ">="
    return f"{bound}{mark}{figure(summary.ranked_j)} J"


def figure(value: float) -> str:
    """Three significant figures without an exponent where that can be read."""
    return (
        f"{value:.3g}"
        if 1e-3 <= abs(value) < 1000 or value == 0
        else f"{value:.0f}"
        if abs(value) >= 1000
        else f"{value:.2e}"
    )


def result_rows(runs: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """A row per run for its headline, then one per task for its main metric; one row for one task.

    Tasks that do not enter the headline stand last, and say so.
    """
    rows: list[tuple[str, ...]] = []
    for run in runs:
        enters = entering(run)
        beside = main_metrics(run, run.other_metrics)
        alone = [(task, name, metric) for task, (name, metric) in enters.items()] if len(enters) == 1 else []
        if alone and alone[0][2].value == run.headline.value:  # and not turned round by its suite
            ((task, name, metric),) = alone
            rows.append(_run_row(run, task, name, metric.unit))
        else:
            rows.append(_run_row(run, "(all)", run.headline.name, None))
            rows += [_task_row(task, name, metric) for task, (name, metric) in enters.items()]
        rows += [_task_row(f"{task} (beside)", name, metric) for task, (name, metric) in beside.items()]
    return rows


def entering(run: RunRecord) -> dict[str, tuple[str, Metric]]:
    """Per task, the metric that enters the headline."""
    return main_metrics(run, run.headline_metrics)


def main_metrics(run: RunRecord, chosen: Mapping[str, str]) -> dict[str, tuple[str, Metric]]:
    """Task -> the metric named for it, with its value, where it was reported. Args: chosen: task -> metric."""
    return {
        task: (name, run.metrics[task][name])
        for task, name in chosen.items()
        if name in run.metrics.get(task, {})
    }


def spread(value: float | None, ci95: tuple[float, float] | None) -> str:
    """Half the interval's width, with as many decimals as the value deserves; '' where there is none."""
    if value is None or ci95 is None:
        return ""
    half = (ci95[1] - ci95[0]) / 2
    return f" ±{half:.3f}" if abs(value) < 100 else f" ±{half:.1f}"


def _run_row(run: RunRecord, task: str, metric: str, unit: str | None) -> tuple[str, ...]:
    head = run.headline
    counts = (str(head.n), str(run.n_failed), str(run.n_truncated))
    score = (_arrow(metric, head.higher_is_better), number(head.value, unit), interval(head.ci95))
    return (run.checkpoint.name, run.suite, task, *score, *counts, energy_cell(run.energy.get("inference")))


def _task_row(task: str, name: str, metric: Metric) -> tuple[str, ...]:
    return ("", "", task, _arrow(name, metric.higher_is_better), number(metric.value, metric.unit),
            interval(metric.ci95), str(metric.n), str(metric.n_failed), "", "")  # fmt: skip


def _arrow(name: str, higher_is_better: bool) -> str:
    return name if higher_is_better else f"{name} (lower is better)"


def results(runs: Sequence[RunRecord]) -> str:
    """The table, then what a reader must know beside it."""
    lines = [align(RESULT_COLUMNS, result_rows(runs)), *notes(runs)]
    if any(run.n_truncated for run in runs):
        lines.append("cut: answers that ran into the token limit")
    return "\n".join(lines)


def notes(runs: Sequence[RunRecord]) -> list[str]:
    """What must be known beside the scores: notes of the runs, failures, how energy was weighed."""
    lines = [f"note: {_printable(text)}" for text in _notes_of(runs)]
    bases = dict.fromkeys(s.basis for run in runs if (s := run.energy.get("inference")) and s.basis)
    for basis in bases:
        lines.append(
            f"energy: Wh per 1000 samples, gross, {basis}"
            + (" (~ marks estimates)" if basis.startswith("est") else "")
        )
    if any(s.shared for run in runs for s in run.energy.values()):
        lines.append("energy: another harness process was running here; the joules hold both")
    n_prompts = sum(run.n_prompt_truncated for run in runs)
    if n_prompts:
        lines.append(f"note: {n_prompts} prompts were longer than the context and were cut from the left")
    return lines


def _notes_of(runs: Sequence[RunRecord]) -> list[str]:
    """Notes of the runs, then headlines that could not be told, and why.

    What is said of several tasks or suites is said once, with all of their names; how many samples were taken
    goes on one line per suite.
    """
    about: dict[str, list[str]] = {}
    taken: dict[str, list[str]] = {}
    for run in runs:
        for note in run.notes:
            task, _, text = note.partition(": ")
            if task in run.metrics and _TAKEN.fullmatch(text):
                taken.setdefault(run.suite, []).append(f"{task} {text.removesuffix(' samples')}")
            elif task in run.metrics:
                about.setdefault(text, []).append(task)
            else:
                about.setdefault(note, []).append(run.suite)
    lines = [f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in about.items()]
    lines += [f"{suite}: samples: {', '.join(dict.fromkeys(parts))}" for suite, parts in taken.items()]
    unknown = [run for run in runs if run.headline.value is None and run.headline.reason]
    return lines + [
        f"{run.checkpoint.name}, {run.suite}: no headline: {run.headline.reason}" for run in unknown
    ]


def run_object(run: RunRecord) -> dict[str, Any]:
    """One entry of the `runs` list of --json."""
    return {
        "run_id": run.run_id,
        "path": None if run.path is None else str(run.path),
        "checkpoint": run.checkpoint.name,
        "suite": run.suite,
        "headline": plain(run.headline),
        "metrics": {
            task: {name: metric_object(metric) for name, metric in metrics.items()}
            for task, metrics in run.metrics.items()
        },
        "energy": {phase: plain(summary) for phase, summary in run.energy.items()},
        "notes": list(run.notes),
    }


def metric_object(metric: Metric) -> dict[str, Any]:
    names = ("value", "stderr", "ci95", "n", "n_failed", "higher_is_better")
    return {name: plain(getattr(metric, name)) for name in names}


def plain(value: Any) -> Any:
    """Records, paths and tuples as JSON types; NaN and infinities as null, for JSON has neither."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def to_json(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=2)
