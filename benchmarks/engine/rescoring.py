"""Re-scoring cached answers against generating them: GSM8K's questions, 8 fixed shots, another extractor.

    python benchmarks/engine/rescoring.py --data-dir DATA [--samples 10000] [--model-size 4m] [--json out.json]

Both sides are harness.evaluate.evaluate(), what `harness eval` calls, in one process, in turns, after a warm-up of both
on a few samples. Generating writes the cache, as it does by default. Re-scoring is a suite of the same questions whose
headline is another extractor, run with --cache: prompts are built and tokenised, answers looked up, scored,
journalled, added up and written, and no weights are loaded. Generating loads the model; that stands in its time and is
printed beside.

The first 8,792 questions are GSM8K's own (test, then train), the others MGSM's in German, French, Spanish, Russian and
Chinese, as rows of the same form: prompts that are all different.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from mirror import read_lines
from models import SIZES, model_folder

from harness.answers.folders import find
from harness.evaluate import evaluate
from harness.plan import EnergySpec, EngineSpec, EvalPlan
from harness.records import RunRecord
from harness.store import Store

GOAL = 50.0
LANGUAGES = ("de", "fr", "es", "ru", "zh")
METRICS = {"generate": "exact_match,strict-match", "rescore": "exact_match,flexible-extract"}
WARM = 16


@dataclass(frozen=True)
class Turn:
    """One generating and one re-scoring of the same samples."""

    generate_s: float
    rescore_s: float
    generate_cpu_s: float
    """Processor seconds of all threads: they do not grow with what else runs on the machine."""
    rescore_cpu_s: float
    load_s: float
    """Of the generating side; part of its seconds."""
    scores: tuple[float | None, float | None]
    """flexible-extract as the generating run has it, and the re-scored one."""
    equal: bool
    """All metrics of both runs, and every answer and its scores."""
    computed: tuple[int, int]
    """Requests and output tokens that the engine computed while re-scoring."""
    cache_bytes: int


def questions(mirror: Path, count: int) -> list[str]:
    """Rows of GSM8K's form, as JSON lines."""
    rows = [
        line
        for split in ("test", "train")
        for line in read_lines(mirror / f"openai/gsm8k/main/{split}.jsonl")
    ]
    for language in LANGUAGES:
        for line in read_lines(mirror / f"juletxara/mgsm/{language}/test.jsonl"):
            row = json.loads(line)
            made = {"question": row["question"], "answer": f"#### {row['answer_number']}"}
            rows.append(json.dumps(made, ensure_ascii=False) + "\n")
    if len(rows) < count:
        raise SystemExit(f"{len(rows)} questions are there, and {count} were asked for")
    return rows[:count]


def write_data(folder: Path, mirror: Path, count: int) -> None:
    """A dataset folder in which GSM8K's test split has that many questions."""
    rows = questions(mirror, count)
    own = folder / "openai" / "gsm8k"
    (own / "main").mkdir(parents=True, exist_ok=True)
    for split, lines in {"test": rows, "train": rows[:WARM]}.items():
        (own / "main" / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    files = "\n".join(f"  - split: {split}\n    path: main/{split}.jsonl" for split in ("test", "train"))
    (own / "README.md").write_text(f"---\nconfigs:\n- config_name: main\n  data_files:\n{files}\n---\n")


def plan_of(args: argparse.Namespace, work: Path, *, limit: int | None) -> EvalPlan:
    return EvalPlan(
        checkpoints=[str(args.model)],
        suites=["set below"],
        profile="full",
        limit=limit,
        data_dir=work / "data",
        engine=EngineSpec(dtype=args.dtype, device=args.device, threads=args.threads),
        energy=EnergySpec(idle_s=0),
        sampling={"max_tokens": args.max_tokens},
    )


def suite(work: Path, name: str, metric: str) -> str:
    file = work / f"{name}.yaml"
    task = f"{{task: 'lm_eval:gsm8k_cot', metric: '{metric}'}}"
    file.write_text(f"name: {name}\nheadline: {{name: a}}\ntasks:\n  gsm8k_cot: {task}\n")
    return str(file)


class Timed(NamedTuple):
    wall_s: float
    cpu_s: float
    run: RunRecord


def timed(plan: EvalPlan) -> Timed:
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    (run,) = evaluate(plan)
    return Timed(time.perf_counter() - wall_s, time.process_time() - cpu_s, run)


def take_turn(plan: EvalPlan, work: Path, number: int) -> Turn:
    runs = work / f"runs-{number}"
    sides = {
        side: plan.model_copy(
            update={
                "suites": [suite(work, f"{side}-{number}", metric)],
                "runs": runs,
                "cache": "write" if side == "generate" else "read",
            }
        )
        for side, metric in METRICS.items()
    }
    generated, rescored = timed(sides["generate"]), timed(sides["rescore"])
    first, again = generated.run, rescored.run
    metric = METRICS["rescore"]
    found = [run.metrics["gsm8k_cot"][metric].value for run in (first, again)]
    return Turn(
        generate_s=generated.wall_s,
        rescore_s=rescored.wall_s,
        generate_cpu_s=generated.cpu_s,
        rescore_cpu_s=rescored.cpu_s,
        load_s=first.phases_s["load"],
        scores=(found[0], found[1]),
        equal=first.metrics == again.metrics and answers(runs, first) == answers(runs, again),
        computed=(again.engine["requests"], again.engine["output_tokens"]),
        cache_bytes=sum(cache.size_bytes for cache in find(runs)),
    )


def answers(runs: Path, run: RunRecord) -> list[tuple[object, ...]]:
    return [(s.sample_id, s.prompt, s.outputs, s.scores) for s in Store(runs).samples(run)]


def said(turns: Sequence[Turn], samples: int) -> str:
    """Medians with their range, the ratio, and whether both sides agree."""
    sides = {
        "wall": ([turn.generate_s for turn in turns], [turn.rescore_s for turn in turns]),
        "processor": ([turn.generate_cpu_s for turn in turns], [turn.rescore_cpu_s for turn in turns]),
    }
    lines = [
        f"{kind:<9} generating {spread(generate)}, re-scoring {spread(rescore)}: ratio of the medians of {len(turns)} "
        f"{statistics.median(generate) / statistics.median(rescore):.1f}x"
        for kind, (generate, rescore) in sides.items()
    ]
    equal = "EQUAL" if all(turn.equal for turn in turns) else "NOT EQUAL"
    scores = sorted({turn.scores for turn in turns}, key=str)
    kept = turns[-1].cache_bytes
    return "\n".join(
        [
            *lines,
            f"goal, wall: {GOAL:.0f}x for 10,000 samples",
            f"flexible-extract, both sides: {scores}; all metrics, answers and scores: {equal}",
            f"the engine computed (requests, tokens) while re-scoring: {sorted({turn.computed for turn in turns})}",
            f"loading, in the time of generating: {statistics.median(turn.load_s for turn in turns):.2f} s; "
            f"cache: {kept / 1e6:.1f} MB, {kept / samples:.0f} bytes a sample",
        ]
    )


def spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


def measure(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(args.work or temporary).resolve()
        write_data(work / "data", args.data_dir, args.samples)
        args.model = args.model or model_folder(work, args.model_size, args.data_dir)
        take_turn(plan_of(args, work, limit=WARM), work, 0)
        plan = plan_of(args, work, limit=None)
        turns = [take_turn(plan, work, number) for number in range(1, args.repeats + 1)]
    print(f"{args.samples} samples, {args.max_tokens} new tokens, model {args.model}")
    print(said(turns, args.samples))
    if args.json:
        args.json.write_text(
            json.dumps({"samples": args.samples, "turns": [asdict(turn) for turn in turns]}, indent=1)
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", type=Path, help="a checkpoint; without it, one of --model-size is made")
    parser.add_argument("--model-size", choices=sorted(SIZES), default="4m")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--work", type=Path, help="folder that keeps models, data and runs")
    parser.add_argument("--json", type=Path)
    measure(parser.parse_args())
