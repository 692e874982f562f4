"""train-then-eval: train a plan's stages, score every checkpoint and the base, report, name the front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness import registry
from harness.binding import Binder
from harness.checkpoints import resolve
from harness.datasets import Datasets, parse
from harness.dryrun import dry_run
from harness.endpoints import refuse_training
from harness.errors import UnknownName
from harness.evaluate import check_writable, evaluate
from harness.front.boards import boards
from harness.front.fronts import DEFAULT_QUERIES, front, selections, views
from harness.journal import write_atomically
from harness.methods import rewards_of, trainer_of
from harness.plan import PLAN_FILE, EvalPlan, Plan, Stage, order_stages
from harness.planfile import dump
from harness.protocols import Meter, Progress, SilentProgress
from harness.records import Checkpoint, RunRecord
from harness.train import Surroundings, train_stage


class WorkflowResult(NamedTuple):
    """What a plan gave."""

    checkpoints: list[Checkpoint]
    """The base, if it was scored, then one per stage in their order."""
    runs: list[RunRecord]
    report: Path | None
    front: list[str]
    """Names of the checkpoints on the front of mean score against energy."""


def eval_plan(plan: Plan, checkpoints: Sequence[str]) -> EvalPlan:
    """The evaluate part of a plan, for some checkpoints."""
    shared = {name: getattr(plan, name) for name in ("data_dir", "runs", "engine", "energy", "cache")}
    allowed = {name: getattr(plan, name) for name in ("allow_pickle", "trust_remote_code")}
    asked = {
        name: getattr(plan.evaluate, name) for name in type(plan.evaluate).model_fields if name != "base"
    }
    return EvalPlan(checkpoints=list(checkpoints), group=plan.name, **shared, **allowed, **asked)


def train_then_eval(plan: Plan, progress: Progress | None = None) -> WorkflowResult:
    """Carry out a plan; stages and runs that are done are not done again.

    Raises: UserError: before anything is trained, wherever the plan alone shows it. Interrupted: Ctrl-C;
        the same call goes on.
    """
    shown = progress or SilentProgress()
    stages = order_stages(plan.stages)
    check(plan, stages)
    folder = plan.out / plan.name
    check_writable(folder)
    meter: Meter = registry.load("meter", plan.energy.meter)(plan.energy)
    try:
        trained = train_all(plan, stages, meter, shown)
        write_atomically(folder / PLAN_FILE, dump(plan).encode())
        scored = ([plan.base] if plan.evaluate.base or not stages else []) + [str(c.spec) for c in trained]
        runs = evaluate(eval_plan(plan, scored), shown, meter)
    finally:
        meter.close()
    report = None
    if plan.report is not None:
        report = Path(registry.load("report", "html")(plan.runs, plan.report))
    checkpoints = list({run.checkpoint.fingerprint: run.checkpoint for run in runs}.values())
    return WorkflowResult(checkpoints, runs, report, front_of(runs))


class Amount(NamedTuple):
    """How much a plan scores."""

    checkpoints: int
    samples: int
    requests: int


def amount(plan: Plan) -> Amount:
    """Samples and requests over all checkpoints, trained or not yet; loads no model and trains nothing."""
    check(plan, order_stages(plan.stages))
    each = dry_run(eval_plan(plan, [plan.base]))
    count = len(plan.stages) + int(plan.evaluate.base or not plan.stages)
    return Amount(count, count * sum(t.n_samples for t in each), count * sum(t.n_requests for t in each))


def check(plan: Plan, stages: Sequence[Stage]) -> None:
    """Find in the plan what would otherwise stop it hours later. Raises: UserError."""
    data = Datasets(plan.data_dir)
    if stages:
        refuse_training(plan.base)
    for stage in stages:
        trainer_of(stage)
        rewards_of(stage, settings(plan))
        for source in stage.data:
            data.rows(*parse(source.dataset))
    if plan.energy.meter not in registry.names("meter"):
        raise UnknownName.of("meter", plan.energy.meter, registry.names("meter"))
    registry.load("strategy", plan.evaluate.strategy)
    if plan.engine.name not in registry.names("engine"):
        raise UnknownName.of("engine", plan.engine.name, registry.names("engine"))
    # trained checkpoints keep the base's tokenizer, so what it can be asked, they can
    Binder(eval_plan(plan, [plan.base]), SilentProgress()).check()


def train_all(plan: Plan, stages: Sequence[Stage], meter: Meter, progress: Progress) -> list[Checkpoint]:
    """Train the stages in order; each starts from what its parent left."""
    around = Surroundings(
        data=Datasets(plan.data_dir),
        meter=meter,
        energy=plan.energy,
        progress=progress,
        group=plan.name,
        settings=settings(plan),
    )
    base = resolve(plan.base, allow_pickle=plan.allow_pickle, trust_remote_code=plan.trust_remote_code)
    done: dict[str, Checkpoint] = {"base": base}
    for stage in stages:
        done[stage.name] = train_stage(stage, done[stage.from_], plan.out / plan.name / stage.name, around)
    return [done[stage.name] for stage in stages]


def settings(plan: Plan) -> dict[str, Any]:
    """What trainers and rewards may read of the plan."""
    return {
        "threads": plan.engine.threads,
        "detoxify_checkpoint": plan.evaluate.detoxify_checkpoint,
        "allow_pickle": plan.allow_pickle,
        "trust_remote_code": plan.trust_remote_code,
    }


def front_of(runs: Sequence[RunRecord]) -> list[str]:
    """Checkpoints on the front of mean quality against energy, at the report's default number of queries."""
    latest = next(iter(boards(runs)), None)
    if latest is None:
        return []
    view = views(latest)[0]
    choice = next(iter(selections(view)), None)
    return [place.point.name for place in front(view, choice, DEFAULT_QUERIES).members] if choice else []
