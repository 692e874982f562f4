"""harness eval: score checkpoints on suites and tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.cli.fields import argument, comma_list, merge, option, plan_data, takes
from harness.cli.options import Cache, Machine, Output, Settings, cache_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.plan import EvalPlan
    from harness.records import RunRecord

SOME_FAILED = 3


@dataclass(frozen=True, kw_only=True)
class Options(Output, Settings, Cache, Machine):
    checkpoints: list[str] | None = argument(
        help="Folders, hub ids, base+adapter, bundled:starter, or servers (https://host/v1#model)",
        metavar="CHECKPOINT",
        default=None,
    )
    adapters: list[str] | None = option(
        "--adapters",
        help="Score these adapters of the one CHECKPOINT too, on the same load: folders, or a glob",
        metavar="ADAPTER ...",
    )
    suite: list[str] | None = option(
        "--suite", "-s", help="Suites, comma separated: names or YAML files", metavar="SUITE,..."
    )
    tasks: list[str] | None = option(
        "--tasks",
        "-t",
        help="Tasks, comma separated: lm_eval:NAME, inspect:NAME, a native NAME or path/to/file.py:CLASS",
        metavar="TASK,...",
    )
    limit: int | None = option(
        "--limit",
        help="First samples of every task (or subtask), up to the profile's own limit of it",
        plan="limit",
    )
    num_fewshot: int | None = option(
        "--num-fewshot", "--num_fewshot", help="Examples in the prompt", plan="num_fewshot"
    )
    profile: Literal["starter", "quick", "full"] | None = option(
        "--profile",
        help="starter: generated, offline; quick: minutes [default]; full: as published",
        plan="profile",
    )
    seed: int | None = option("--seed", help="Seed of sampling and of shuffles", plan="seed")
    chat: Literal["auto", "on", "off"] | None = option(
        "--chat", help="Ask through the chat template [default: auto, as the task says]", plan="chat"
    )
    apply_chat_template: bool = option(
        "--apply-chat-template", "--apply_chat_template", help="Same as --chat on", default=False
    )
    strategy: str | None = option("--strategy", help="How one request becomes one answer", plan="strategy")
    detoxify_checkpoint: Path | None = option(
        "--detoxify-checkpoint",
        help="Detoxify's weights, for use without the hub",
        plan="detoxify_checkpoint",
    )
    engine_option: list[str] | None = option(
        "--engine-option", help="Option of the engine, e.g. rpm=60 (docs/endpoints.md)", metavar="KEY=VALUE"
    )
    judge: str | None = option(
        "--judge",
        help="Model that grades where a task wants one: like CHECKPOINT, or PROVIDER/MODEL that inspect knows",
        metavar="MODEL",
        plan="judge",
    )
    judge_option: list[str] | None = option(
        "--judge-option",
        help="Setting of the judge's engine, e.g. engine=vllm, dtype=bfloat16, key_env=NAME (docs/judge.md)",
        metavar="KEY=VALUE",
    )
    jitter: int | None = option(
        "--jitter",
        help="Answer all samples under N batch plans and record how much scores move",
        metavar="N",
        plan="jitter",
    )
    plan: Path | None = option("--plan", help="YAML file with any of these settings; options override it")
    dry_run: bool = option("--dry-run", help="Print the plan and the number of requests", default=False)


@takes(Options)
def run(options: Options) -> int:
    """Score checkpoints on suites and tasks.

    What is already in the runs folder is not computed again; repeat the command to go on after a stop.
    """
    plan = read_plan(options)
    if options.dry_run:
        print(dry_run_text(plan, as_json=options.json))
        return 0
    from harness.cli import progress, tables
    from harness.evaluate import evaluate

    runs = evaluate(plan, progress.make())
    if options.json:
        print(tables.to_json({"runs": [tables.run_object(run) for run in runs]}))
    else:
        print(tables.results(runs))
        for line in failures(runs, plan.runs):
            print(line)
        print(f"runs: {plan.runs}; `harness report{_runs_flag(plan)}` draws the front")
    return SOME_FAILED if any(run.n_failed for run in runs) else 0


def failures(runs: Sequence[RunRecord], folder: Path) -> list[str]:
    """Per run with failed samples: how many, and why the first of them failed."""
    from harness.store import Store

    lines = []
    for run in runs:
        if not run.n_failed:
            continue
        sample = next((s for s in Store(folder).samples(run) if s.failed), None)
        reasons = [] if sample is None else [sample.error, *(s.error for s in sample.scores.values())]
        why = next((reason for reason in reasons if reason), "no reason was recorded")
        name = "" if sample is None else f"; the first, {sample.task} {sample.sample_id}"
        lines.append(
            f"failed: {run.checkpoint.name}, {run.suite}: {run.n_failed} samples{name}: {one_line(why)}"
        )
    return lines


def one_line(text: str, most: int = 200) -> str:
    """A message that may come from a library or a model, fit for one line of a terminal."""
    plain = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def _runs_flag(plan: EvalPlan) -> str:
    return "" if plan.runs == Path("runs") else f" --runs {plan.runs}"


def read_plan(options: Options) -> EvalPlan:
    """Plan file, then options, then --set. Raises: BadPlan, UnknownName, BadInput."""
    from harness.cli.check import check_machine
    from harness.errors import BadPlan
    from harness.plan import EvalPlan
    from harness.planfile import ENGINE_OPTION, JUDGE_OPTION, apply_settings, from_options
    from harness.suitefile import split_tasks
    from harness.yamlfile import read_yaml, validate

    data: dict[str, Any] = plan_data(options) | cache_data(options)
    checkpoints, adapters = named_checkpoints(options)
    lists = {
        "checkpoints": checkpoints,
        "adapters": adapters,
        "suites": comma_list(options.suite),
        "tasks": [task for text in options.tasks or () for task in split_tasks(text)],
    }
    data |= {key: value for key, value in lists.items() if value}

    def set_over(data: dict[str, Any]) -> dict[str, Any]:
        data = apply_settings(data, options.engine_option or (), ENGINE_OPTION)
        data = apply_settings(data, options.judge_option or (), JUDGE_OPTION)
        return apply_settings(data, options.set or ())

    if options.apply_chat_template:
        data["chat"] = "on"
    if options.plan is None and not data.get("checkpoints"):
        raise BadPlan("no checkpoint given; name a folder, a hub id, base+adapter, or bundled:starter")
    if options.plan is None:
        plan = from_options(EvalPlan, set_over(data))
    else:
        file = read_yaml(options.plan)
        below = file.data if isinstance(file.data, dict) else {}
        plan = validate(EvalPlan, file._replace(data=set_over(merge(below, data))))
    check_machine(plan, plan.strategy)
    return plan


def named_checkpoints(options: Options) -> tuple[list[str], list[str]]:
    """Checkpoints and adapters; behind the adapters that a shell's glob gave, the last word is their base.

    Raises: BadPlan: adapters alone.
    """
    from harness.errors import BadPlan

    checkpoints, adapters = list(options.checkpoints or ()), list(options.adapters or ())
    if checkpoints or not adapters or options.plan is not None:
        return checkpoints, adapters
    if len(adapters) == 1:
        raise BadPlan(f"--adapters {adapters[0]!r}: on which base? write harness eval BASE --adapters ...")
    return [adapters[-1]], adapters[:-1]


def dry_run_text(plan: EvalPlan, *, as_json: bool) -> str:
    """The resolved plan, then what would be asked."""
    from harness.cli import tables
    from harness.dryrun import dry_run
    from harness.planfile import dump

    planned = dry_run(plan)
    total = sum(row.n_requests for row in planned)
    if as_json:
        rows = [row._asdict() for row in planned]
        return tables.to_json({"plan": plan.model_dump(mode="json"), "tasks": rows, "requests": total})
    columns = ("checkpoint", "suite", "task", "samples", "requests", "done")
    table = tables.align(columns, [[str(cell) for cell in row] for row in planned])
    return f"{dump(plan)}\n{table}\n{total} requests in all; nothing was run"
