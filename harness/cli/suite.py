"""harness suite check: a suite file before it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.cli.fields import argument, option, plan_data, takes
from harness.cli.options import Machine, Output, Settings

if TYPE_CHECKING:
    from harness.suitecheck import Checked, CheckedTask

COLUMNS = ("task", "samples", "requests", "enters the headline")
PROMPT_CHARS = 1200
"""Of a longer prompt its beginning and its end are shown."""


@dataclass(frozen=True, kw_only=True)
class Options(Output, Settings, Machine):
    action: Literal["check"] = argument(help="check", metavar="check")
    suite: str = argument(
        help="A suite file, the name of an installed suite, or tasks as --tasks takes them", metavar="SUITE"
    )
    checkpoint: str | None = argument(
        help="Show the prompts through its chat template, and measure the time",
        metavar="[CHECKPOINT]",
        default=None,
    )
    profile: Literal["starter", "quick", "full"] | None = option(
        "--profile", help="starter, quick [default] or full", plan="profile"
    )
    limit: int | None = option("--limit", help="First samples of every task", plan="limit")
    chat: Literal["auto", "on", "off"] | None = option(
        "--chat", help="Ask through the chat template [default: auto, as the task says]", plan="chat"
    )


@takes(Options)
def run(options: Options) -> int:
    """Check a suite file: prompts, requests, time.

    Whether it fits its data, three prompts of each task as the model would see them, and what it would cost.

    Exit code 2 and one line with path, line and the nearest name where something does not fit. The time is that of
    an earlier run in the runs folder; else, with a checkpoint, a few samples of each task are measured.
    """
    from harness.cli import tables

    checked = _check(options)
    print(tables.to_json(as_object(checked)) if options.json else as_text(checked))
    return 0


def _check(options: Options) -> Checked:
    from harness.cli import progress
    from harness.plan import EvalPlan
    from harness.planfile import apply_settings, from_options
    from harness.suitecheck import check_with_model, check_without_model

    data: dict[str, Any] = {**plan_data(options), **_asked(options.suite), "cache": "off"}
    data["checkpoints"] = ["none" if options.checkpoint is None else options.checkpoint]
    plan = from_options(EvalPlan, apply_settings(data, list(options.set or ())))
    if options.checkpoint is None:
        return check_without_model(plan)
    return check_with_model(plan, progress.make())


def _asked(suite: str) -> dict[str, list[str]]:
    """A suite, or tasks: these have a colon and are no file."""
    from harness.suitefile import split_tasks

    if ":" in suite and not suite.endswith((".yaml", ".yml")):
        return {"tasks": split_tasks(suite)}
    return {"suites": [suite]}


def as_text(checked: Checked) -> str:
    """What was found, then the prompts, then what it costs."""
    from harness.cli import tables

    spec = checked.spec
    rows = [
        (task.label, str(task.n_samples), str(task.n_requests), task.metric or "(its first metric)")
        for task in checked.tasks
    ]
    lines = [f"suite {spec.name!r} fits its data (profile {spec.profile})", "", tables.align(COLUMNS, rows)]
    lines += [f"note: {task.label}: {note}" for task in checked.tasks for note in task.notes]
    for task in checked.tasks:
        lines += _previews(task, checked)
    lines += [
        "",
        f"requests: {checked.n_requests} for {checked.n_samples} samples",
        f"time: {duration(checked)}",
    ]
    return "\n".join(lines)


def _previews(task: CheckedTask, checked: Checked) -> list[str]:
    how = "through the chat template where it is a chat" if checked.with_model else "without a chat template"
    if not task.previews:
        return ["", f"--- {task.label}: no prompts are shown: {task.unseen}"]
    lines = []
    for number, preview in enumerate(task.previews, 1):
        lines += [
            "",
            f"--- {task.label}, prompt {number} of {len(task.previews)} shown ({preview.sample_id}), {how}",
        ]
        lines.append(printable(shortened(preview.prompt)))
        lines += [f"--- compared: {printable(shortened(text))}" for text in preview.continuations]
        if preview.target is not None:
            lines.append(f"--- target: {printable(shortened(preview.target))}")
    return lines


def duration(checked: Checked) -> str:
    """'about 3 min (why)', or why it is not known."""
    seconds, basis = checked.duration
    return basis if seconds is None else f"about {rounded(seconds)} ({basis})"


def rounded(seconds: float) -> str:
    """Two significant figures in the unit that reads best."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def shortened(text: str) -> str:
    """The beginning and the end of a long text."""
    if len(text) <= PROMPT_CHARS:
        return text
    half = PROMPT_CHARS // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"


def printable(text: str) -> str:
    """Text of a data set, fit for a terminal: lines stay, other control characters do not."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def as_object(checked: Checked) -> dict[str, Any]:
    """The object of --json."""
    tasks = [
        {**task._asdict(), "previews": [preview._asdict() for preview in task.previews]}
        for task in checked.tasks
    ]
    return {
        "suite": checked.spec.name,
        "profile": checked.spec.profile,
        "tasks": tasks,
        "samples": checked.n_samples,
        "requests": checked.n_requests,
        "time_s": checked.duration.seconds,
        "time_basis": checked.duration.basis,
    }
