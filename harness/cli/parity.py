"""harness parity: do two engines give the same answers?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.cli.fields import argument, comma_list, option, plan_data, takes
from harness.cli.options import Output, Settings

if TYPE_CHECKING:
    from harness.parity import Parity, TaskParity
    from harness.plan import EvalPlan

BEYOND = 1
FAILED = 3
COLUMNS = (
    "task", "requests", "failed", "max |d ll|", "mean |d ll|", "greedy flags equal", "answers equal", "metric",
    "A", "B", "samples changed", "within",
)  # fmt: skip
DIVERGENCES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Options(Output, Settings):
    checkpoint: str = argument(help="Folder, hub id, base+adapter, or bundled:starter", metavar="CHECKPOINT")
    engines: list[str] | None = option(
        "--engines",
        "-e",
        help="Two or more; each is held against the first. With settings: transformers:dtype=bfloat16",
        metavar="ENGINE,...",
    )
    suite: list[str] | None = option("--suite", "-s", help="Suites, comma separated", metavar="SUITE,...")
    tasks: list[str] | None = option("--tasks", "-t", help="Tasks, comma separated", metavar="TASK,...")
    limit: int | None = option("--limit", help="First samples of every task", plan="limit")
    tolerance: float | None = option(
        "--tolerance",
        help="Nats by which a loglikelihood may differ [default: 0.001 for float32, 0.05 for float16, "
        "0.4 for bfloat16]",
        metavar="NATS",
    )
    num_fewshot: int | None = option(
        "--num-fewshot", "--num_fewshot", help="Examples in the prompt", plan="num_fewshot"
    )
    profile: Literal["starter", "quick", "full"] | None = option(
        "--profile", help="Which part of a suite [default: quick]", plan="profile"
    )
    chat: Literal["auto", "on", "off"] | None = option(
        "--chat", help="Ask through the chat template [default: auto, as the task says]", plan="chat"
    )
    data_dir: Path | None = option(
        "--data-dir", help="Folder of dataset repositories, used before the hub", plan="data_dir"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = option(
        "--dtype", help="Number format of the weights, of every engine that sets none", plan="engine.dtype"
    )
    device: str | None = option(
        "--device", help="cpu, cuda, cuda:1, ... [default: auto]", plan="engine.device"
    )
    threads: int | None = option("--threads", help="CPU threads", plan="engine.threads")
    allow_pickle: bool = option(
        "--allow-pickle",
        help="Load .bin and .pt weights, which can run code",
        plan="allow_pickle",
        default=False,
    )
    trust_remote_code: bool = option(
        "--trust-remote-code",
        help="Run Python code that comes with a checkpoint",
        plan="trust_remote_code",
        default=False,
    )


@takes(Options)
def run(options: Options) -> int:
    """Hold engines against each other, sample by sample.

    The requests that the tasks make with the first engine go to the others as they are. Settings of an engine are
    those of a plan's engine (dtype, device, threads, batch_tokens), its own options, and checkpoint=PATH.

    Exit codes: 0 all within the tolerance, 1 beyond it, 3 within it but some requests failed, 2 your mistake.
    """
    from harness.cli import progress, tables
    from harness.parity import compare

    tolerance = checked_tolerance(options.tolerance)
    parity = compare(read_plan(options), comma_free(options.engines), tolerance, progress.make())
    print(tables.to_json(as_object(parity)) if options.json else text_of(parity))
    return exit_code(parity)


def exit_code(parity: Parity) -> int:
    """Failed requests are no difference, and no proof of equality either."""
    if parity.within:
        return 0
    beyond = any(is_apart(task, other.tolerance) for other in parity.others for task in other.tasks)
    return BEYOND if beyond else FAILED


def failed(task: TaskParity) -> int:
    return task.n_failed_a + task.n_failed_b


def is_apart(task: TaskParity, tolerance: float) -> bool:
    """Whether what both engines answered differs by more than the tolerance."""
    scoring, answers = task.loglikelihoods, task.answers
    if scoring is not None and (scoring.max_difference or 0.0) > tolerance:
        return True
    return answers is not None and any(not one.is_tie(tolerance) for one in answers.divergences)


def checked_tolerance(value: float | None) -> float | None:
    """Raises: BadInput: a tolerance that is no number of nats."""
    import math

    from harness.errors import BadInput

    if value is not None and not (math.isfinite(value) and value >= 0):
        raise BadInput(f"--tolerance {value}: give a number of nats, 0 or more, e.g. 0.001")
    return value


def comma_free(engines: list[str] | None) -> list[str]:
    """Raises: BadInput: none named."""
    from harness.errors import BadInput

    if not engines:
        raise BadInput("no engines given; write --engines transformers,vllm")
    return engines


def read_plan(options: Options) -> EvalPlan:
    """Raises: BadPlan, UnknownName."""
    from harness.plan import EvalPlan
    from harness.planfile import apply_settings, from_options
    from harness.suitefile import split_tasks

    data: dict[str, Any] = plan_data(options)
    data["checkpoints"] = [options.checkpoint]
    data["suites"] = comma_list(options.suite)
    data["tasks"] = [task for text in options.tasks or () for task in split_tasks(text)]
    return from_options(EvalPlan, apply_settings(data, options.set or ()))


def as_object(parity: Parity) -> dict[str, Any]:
    """The records, and what follows from them."""
    from harness.cli import tables

    plain: dict[str, Any] = tables.plain(parity)
    plain["within"], plain["n_failed"] = parity.within, parity.n_failed
    for row, other in zip(plain["others"], parity.others, strict=True):
        row["within"], row["n_failed"] = other.within, other.n_failed
    return plain


def text_of(parity: Parity) -> str:
    """A table per engine, the largest difference, the first divergences, and the verdict."""
    from harness.cli import tables

    lines = [f"checkpoint {parity.checkpoint}", f"A  {parity.engine}  {facts_of(parity.facts)}"]
    for other in parity.others:
        lines += ["", f"B  {other.engine}  {facts_of(other.facts)}"]
        lines += [tables.align(COLUMNS, [row_of(task) for task in other.tasks])]
        lines += [line for task in other.tasks for line in remarks(task, other.tolerance)]
        apart = any(is_apart(task, other.tolerance) for task in other.tasks)
        answered = " as far as both answered" if other.n_failed else ""
        lines.append(f"{'beyond' if apart else 'within'} the tolerance of {other.tolerance:g} nats{answered}")
        if other.n_failed:
            lines.append(f"{other.n_failed} requests failed; a failed request never counts as equal")
    return "\n".join(printable(line) for line in lines)


def facts_of(facts: Any) -> str:
    return ", ".join(str(facts[name]) for name in ("dtype", "device", "attention") if facts.get(name))


def row_of(task: TaskParity) -> tuple[str, ...]:
    from harness.cli.tables import UNKNOWN, number

    scoring, answers = task.loglikelihoods, task.answers
    name = task.headline_metric
    a, b = task.scores.get(name, (None, None)) if name else (None, None)
    return (
        task.task,
        str(task.n_requests),
        str(failed(task)),
        UNKNOWN if scoring is None else nats(scoring.max_difference),
        UNKNOWN if scoring is None else nats(scoring.mean_difference),
        UNKNOWN if scoring is None else share(scoring.share_greedy_equal),
        UNKNOWN if answers is None else share(answers.share_equal),
        name or UNKNOWN,
        number(a),
        number(b),
        f"{task.n_samples_changed} of {task.n_samples}",
        "yes" if task.within else "no",
    )


def nats(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def share(value: float) -> str:
    """Cut, not rounded: what is not all is never 100 %."""
    return f"{int(value * 1000) / 10:g} %"


def one_line(text: str, most: int = 300) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def remarks(task: TaskParity, tolerance: float) -> list[str]:
    """Where the largest difference is, and where the first answers part."""
    lines = [f"{task.task}: failed: {one_line(task.first_error)}"] if task.first_error else []
    worst = task.loglikelihoods.worst if task.loglikelihoods else None
    if worst is not None and worst.a != worst.b:
        lines.append(
            f"{task.task}: largest difference at request {worst.request}: {worst.a:.6f} and {worst.b:.6f} for "
            f"{worst.continuation!r} after {worst.context_end!r}"
        )
    parted = task.answers.divergences if task.answers else ()
    for one in parted[:DIVERGENCES_SHOWN]:
        gaps = [
            f"{side} by {gap:.2g}" for side, gap in (("A", one.gap_a), ("B", one.gap_b)) if gap is not None
        ]
        near = f"; each prefers its own: {', '.join(gaps)} nats" if gaps else "; how near is not known"
        tie = ", a tie" if one.is_tie(tolerance) else ""
        lines.append(
            f"{task.task}: request {one.request} parts at token {one.position}: {one.text_a!r} and "
            f"{one.text_b!r}{near}{tie}"
        )
    if len(parted) > DIVERGENCES_SHOWN:
        lines.append(
            f"{task.task}: {len(parted) - DIVERGENCES_SHOWN} more answers part (all of them in --json)"
        )
    if task.answers and task.answers.n_sampled:
        lines.append(f"{task.task}: {task.answers.n_sampled} sampled requests are asked and not compared")
    return lines


def printable(line: str) -> str:
    """What a model wrote must not reach the terminal as control characters."""
    return "\n".join("".join(c if c.isprintable() else "?" for c in part) for part in line.split("\n"))
