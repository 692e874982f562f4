"""harness judge: a judge on finished runs, or against a labelled set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.fields import argument, comma_list, option, plan_data, takes
from harness.cli.options import Machine, Output, Settings

if TYPE_CHECKING:
    from harness.judged import Judged, JudgePlan
    from harness.protocols import Progress

SOME_FAILED = 3
COLUMNS = ("task", "metric", "score", "95% interval", "interval", "n", "failed")


@dataclass(frozen=True, kw_only=True)
class Options(Output, Settings, Machine):
    runs_judged: list[str] | None = argument(
        help="Two runs to compare (the win rate is RUN_B's), or one to grade by --rubric: ids or folders",
        metavar="[RUN_A [RUN_B]]",
        default=None,
    )
    judge: str | None = option(
        "--judge",
        help="The judge: a folder, hub id, base+adapter, or server (https://host/v1#model)",
        metavar="MODEL",
        plan="judge",
    )
    judge_option: list[str] | None = option(
        "--judge-option",
        help="Setting of the judge's engine, e.g. engine=vllm, dtype=bfloat16, key_env=NAME (docs/judge.md)",
        metavar="KEY=VALUE",
    )
    rubric: Path | None = option("--rubric", help="YAML file: name, text, low, high, levels", metavar="FILE")
    labels: Path | None = option(
        "--labels",
        help="Labelled set (JSONL, CSV, Parquet) to hold the judge against: prompt, answer_a, answer_b, label "
        "(A, B, tie); with --rubric prompt, answer, label",
        metavar="FILE",
    )
    criterion: str | None = option(
        "--criterion", help="Question that two answers are compared by", metavar="TEXT", plan="criterion"
    )
    tasks: list[str] | None = option(
        "--tasks", "-t", help="Tasks of the runs [default: all]", metavar="TASK,..."
    )
    limit: int | None = option("--limit", help="First samples of every task", plan="limit")
    no_cache: bool = option("--no-cache", help="Ask anew what the judge has said already", default=False)


@takes(Options)
def run(options: Options) -> int:
    """Let a judge compare two runs, grade one, or be held against labels.

    Two runs: win rate with both orders of every pair, and the length-controlled one. --rubric: grades on a scale.
    --labels: Cohen's kappa; beside runs, too. What the judge has said is not asked again.
    """
    plan = read_plan(options)
    from harness.cli import progress, tables

    found = judged(options, plan, progress.make())
    if options.json:
        print(tables.to_json({"judged": found}))
    else:
        print("\n\n".join(text_of(one) for one in found))
    return SOME_FAILED if any(one.n_failed for one in found) else 0


def read_plan(options: Options) -> JudgePlan:
    """Raises: BadPlan, BadInput, UnknownName."""
    from harness.cli.check import check_machine
    from harness.errors import BadPlan
    from harness.judged import JudgePlan
    from harness.planfile import JUDGE_OPTION, apply_settings, from_options

    if options.judge is None:
        raise BadPlan("no judge named; give --judge FOLDER, a hub id, or http(s)://host/v1#model")
    data: dict[str, Any] = plan_data(options) | {"tasks": comma_list(options.tasks)}
    if options.no_cache:
        data["cache"] = "off"
    data = apply_settings(data, options.judge_option or (), JUDGE_OPTION)
    plan = from_options(JudgePlan, apply_settings(data, options.set or ()))
    check_machine(plan)
    return plan


def judged(options: Options, plan: JudgePlan, progress: Progress) -> list[Judged]:
    """What the options ask for. Raises: BadInput: nothing, or more than makes sense."""
    from harness.errors import BadInput
    from harness.judged import judge_labels, judge_pairs, judge_run
    from harness.judging.labels import read_labels
    from harness.judging.rubric import read_rubric

    runs = list(options.runs_judged or ())
    rubric = None if options.rubric is None else read_rubric(options.rubric)
    if len(runs) > 2 or not (runs or options.labels):
        raise BadInput("give two runs to compare, one run with --rubric FILE, or --labels FILE")
    if len(runs) == 1 and rubric is None:
        raise BadInput(
            f"one run, {runs[0]!r}: give --rubric FILE to grade it, or a second run to compare it with"
        )
    if len(runs) == 2 and rubric is not None:
        raise BadInput("--rubric grades one run; drop it to compare two, or give one run")
    rows = None if options.labels is None else read_labels(options.labels, rubric)
    found = []
    if len(runs) == 2:
        found.append(judge_pairs(plan, runs[0], runs[1], progress))
    elif rubric is not None and runs:
        found.append(judge_run(plan, runs[0], rubric, progress))
    if rows is not None:
        found.append(judge_labels(plan, rows, rubric, progress))
    return found


def text_of(found: Judged) -> str:
    """Who was judged by whom, a row per metric, what it cost, and what must be known beside it."""
    from harness.cli import tables

    lines = [f"judge  {found.judge}  ({found.judge_spec})"]
    letters = ("A", "B") if len(found.runs) == 2 else ("run",)
    lines += [
        f"{letter:<5}  {run}  ({name})"
        for letter, run, name in zip(letters, found.runs, found.checkpoints, strict=False)
    ]
    rows = [
        [
            task,
            name,
            tables.number(metric.value, metric.unit),
            tables.interval(metric.ci95),
            metric.interval or tables.UNKNOWN,
            str(metric.n),
            str(metric.n_failed),
        ]
        for task, metrics in found.metrics.items()
        for name, metric in metrics.items()
    ]
    lines += ["", tables.align(COLUMNS, rows), ""]
    if len(found.runs) == 2:
        lines.append(
            "win rates are B's over A, a tie counts half; lc: as if the answers were equally long (docs/judge.md)"
        )
    return "\n".join([*lines, *beside(found), f"verdicts: {found.folder / 'verdicts.jsonl'}"])


def beside(found: Judged) -> list[str]:
    """Questions, money, energy, notes."""
    from harness.cli import tables

    asked = found.asked
    lines = []
    if asked:
        cost = f", cost {tables.figure(asked['cost'])}" if "cost" in asked else ""
        tokens = f"{asked['prompt_tokens']} prompt and {asked['output_tokens']} answer tokens computed"
        lines.append(
            f"asked: {asked['questions']} questions, {asked['reused']} from the cache, {tokens}{cost}"
        )
    if found.energy is not None:
        basis = found.energy.basis or "not known"
        joules = (
            tables.UNKNOWN if found.energy.ranked_j is None else f"{tables.figure(found.energy.ranked_j)} J"
        )
        lines.append(f"energy of judging: {joules} ({basis})")
    if found.n_left_out:
        lines.append(f"note: {found.n_left_out} samples have no answer to judge and are left out")
    return lines + [f"note: {note}" for note in found.notes]
