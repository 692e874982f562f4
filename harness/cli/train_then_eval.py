"""harness train-then-eval: stages, their scores, the report. Without a plan: the starter plan."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.evaluate import SOME_FAILED, failures
from harness.cli.fields import argument, option, plan_data, takes
from harness.cli.options import Cache, Machine, Output, Settings, cache_data

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from harness.plan import Plan
    from harness.records import RunRecord
    from harness.workflow import WorkflowResult


@dataclass(frozen=True, kw_only=True)
class Options(Output, Settings, Cache, Machine):
    plan: Path | None = argument(
        help="Plan file; without one, the starter plan (offline, CPU)", metavar="[PLAN.YAML]", default=None
    )
    out: Path | None = option("--out", help="Folder of the checkpoints [default: checkpoints]", plan="out")
    report: Path | None = option("--report", help="Folder of the report [default: report]", plan="report")
    limit: int | None = option("--limit", help="First samples of every task", plan="evaluate.limit")
    dry_run: bool = option(
        "--dry-run", help="Print the resolved plan and how many requests it makes", default=False
    )


@takes(Options)
def run(options: Options) -> int:
    """Train a plan's stages, score them, write the report.

    A stage or a run that is done already is not done again; repeat the command to go on after a stop.
    """
    from harness.planfile import dump

    plan = read_plan(options)
    if options.dry_run:
        from harness.workflow import amount

        found = amount(plan)
        print(dump(plan), end="")
        print(
            f"# {found.checkpoints} checkpoints to score: {found.samples} samples, {found.requests} requests"
        )
        return 0
    from harness.cli import progress
    from harness.workflow import train_then_eval

    result = train_then_eval(plan, progress.make())
    print(text_of(result, plan, as_json=options.json))
    return SOME_FAILED if any(run.n_failed for run in result.runs) else 0


def starter_plan() -> Path:
    """The plan that ships with the package."""
    return Path(__file__).resolve().parent.parent / "starter" / "plan.yaml"


def read_plan(options: Options) -> Plan:
    """The file, then options, then --set. Raises: BadPlan, UnknownName, BadInput."""
    from harness.cli.check import check_machine
    from harness.planfile import load_plan

    path = options.plan
    if path is None:
        path = starter_plan()
        print(
            "no plan given: running the starter plan (a small bundled model; SFT, DPO and GRPO on generated "
            f"data; offline; a few minutes). It is {path}; copy it to make your own.",
            file=sys.stderr,
        )
    given = [f"{key}={_yaml(value)}" for key, value in _flat(plan_data(options) | cache_data(options))]
    plan = load_plan(path, [*given, *(options.set or ())])
    check_machine(plan, plan.evaluate.strategy)
    return plan


def _flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in data.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs


def _yaml(value: Any) -> str:
    import json

    return json.dumps(str(value) if isinstance(value, Path) else value)  # JSON is YAML


def text_of(result: WorkflowResult, plan: Plan, *, as_json: bool) -> str:
    """Scores, members of the front, and where the report is."""
    from harness.cli import tables
    from harness.cli.forgetting import brief
    from harness.forgetting import steps
    from harness.store import Store

    if as_json:
        return tables.to_json(
            {
                "runs": [tables.run_object(run) for run in result.runs],
                "checkpoints": result.checkpoints,
                "front": result.front,
                "forgetting": steps(result.runs, Store(plan.runs)),
                "report": result.report,
            }
        )
    lines = [headline_table(result.runs)]
    lines += tables.notes(result.runs)
    lines += failures(result.runs, plan.runs)
    lines += brief(steps(result.runs, Store(plan.runs)))
    lines.append(f"front: {front_text(result.front)}")
    if result.report is not None:
        lines.append(f"report: {result.report}")
    return "\n".join(lines)


def headline_table(runs: Sequence[RunRecord]) -> str:
    """A row per checkpoint, a column per suite: the headline with its interval; then energy."""
    from harness.cli import tables

    lower = {run.suite: not run.headline.higher_is_better for run in runs}
    by_checkpoint: dict[str, dict[str, RunRecord]] = {}
    for run in runs:
        by_checkpoint.setdefault(run.checkpoint.name, {})[run.suite] = run
    roots = {run.checkpoint.training.root for run in runs if run.checkpoint.training is not None}
    rows = [
        [
            name,
            *(_cell(found.get(suite)) for suite in lower),
            _training_cell(next(iter(found.values())), roots),
            _inference_cell(found.values()),
        ]
        for name, found in by_checkpoint.items()
    ]
    suites = [f"{suite} (lower is better)" if flag else suite for suite, flag in lower.items()]
    return tables.align(["checkpoint", *suites, "training", "inference"], rows)


def _cell(run: RunRecord | None) -> str:
    from harness.cli import tables

    if run is None:
        return tables.UNKNOWN
    head = run.headline
    units = {metric.unit for _, metric in tables.entering(run).values()}
    score = tables.number(head.value, units.pop() if len(units) == 1 else None)
    failed = f" ({run.n_failed} failed)" if run.n_failed else ""
    return score + tables.spread(head.value, head.ci95) + failed


def _inference_cell(runs: Iterable[RunRecord]) -> str:
    """Mean energy per query over the suites; unknown where one of them is, or bases differ."""
    from harness.cli import tables

    summaries = [run.energy.get("inference") for run in runs]
    rates = [s.wh_per_1000_queries for s in summaries if s is not None and s.wh_per_1000_queries is not None]
    if len(rates) < len(summaries) or len({s.basis for s in summaries if s is not None}) != 1:
        return tables.UNKNOWN
    return f"{tables.figure(sum(rates) / len(rates))} Wh/1000"


def _training_cell(run: RunRecord, roots: Collection[str]) -> str:
    """Energy of the lineage; the root of the others shown costs nothing by definition."""
    from harness.cli import tables

    training = run.checkpoint.training
    if training is None and run.checkpoint.fingerprint in roots:
        return "0 Wh"
    energy = None if training is None else training.lineage_energy
    if energy is None or energy.ranked_j is None:
        return tables.UNKNOWN
    return f"{tables.figure(energy.ranked_j / 3600)} Wh"


def front_text(front: Sequence[str]) -> str:
    return ", ".join(front) or "none (energy or score is not known)"
