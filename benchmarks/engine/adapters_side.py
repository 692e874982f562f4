"""Many adapters of one base: the harness in one command against one lm_eval command per adapter.

Two forms. Commands: whole processes from start to exit, as a user types them. In process: loading of weights counts,
starting Python and importing do not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mirror

BOOTSTRAP_NOTE = (
    "lm_eval's command draws its 100,000 bootstrap samples for IFEval's instruction-level metrics"
)


def environment(job: dict[str, Any]) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": str(job["threads"])}


def under(adapter: str, found: dict[str, Any]) -> dict[str, Any]:
    """Answers and metrics, told apart by adapter."""
    name = Path(adapter).name
    return {
        part: {f"{name}/{key}": value for key, value in found[part].items()}
        for part in ("answers", "metrics")
    }


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        kind: {key: value for part in parts for key, value in part[kind].items()}
        for kind in ("answers", "metrics")
    }


class HarnessAdapters:
    """One load of the base, in process: evaluate() on all adapters."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = {**job, "checkpoints": [f"{job['model']}+{adapter}" for adapter in job["adapters"]]}
        self.round = 0

    def warm(self) -> None:
        from harness_side import plan_of

        from harness.evaluate import evaluate

        evaluate(plan_of({**self.job, "limit": 1, "checkpoints": None}, self.job["warm_tasks"], self._runs()))

    def _runs(self) -> Path:
        self.round += 1
        return Path(self.job["work"]) / "runs" / f"adapters-{time.time_ns()}"

    def run(self) -> dict[str, Any]:
        from harness_side import facts_of, plan_of, read_back

        from harness.evaluate import evaluate
        from suites.from_lm_eval.build import build

        plan = plan_of(self.job, self.job["tasks"], self._runs())
        build.cache_clear()
        start = time.perf_counter()
        records = evaluate(plan)
        seconds = time.perf_counter() - start
        parts = [under(str(record.checkpoint.adapter), read_back(plan, record)) for record in records]
        return {
            "seconds": seconds,
            **merged(parts),
            "facts": {"runs": [facts_of(record) for record in records]},
        }


class HarnessCommand(HarnessAdapters):
    """The same as one `harness eval` command, from start to exit."""

    def warm(self) -> None:
        """A process of its own pays for its first call every time."""

    def run(self) -> dict[str, Any]:
        from harness_side import facts_of, plan_of, read_back

        from harness.planfile import dump
        from harness.store import Store

        plan = plan_of(self.job, self.job["tasks"], self._runs())
        file = Path(self.job["work"]) / "plan.yaml"
        file.write_text(dump(plan), encoding="utf-8")
        command = [sys.executable, "-m", "harness", "eval", "--plan", str(file)]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=sys.stderr, env=environment(self.job))
        seconds = time.perf_counter() - start
        records = Store(plan.runs).runs()
        parts = [under(str(record.checkpoint.adapter), read_back(plan, record)) for record in records]
        return {
            "seconds": seconds,
            **merged(parts),
            "facts": {"runs": [facts_of(record) for record in records]},
        }


class LmEvalAdapters:
    """lm-eval's `hf` backend, loaded anew with peft= for every adapter, in one process."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job

    def warm(self) -> None:
        from lm_eval_side import OnTransformers

        OnTransformers(self.job).warm()

    def run(self) -> dict[str, Any]:
        from lm_eval_side import OnTransformers, evaluate, read_back

        results = []
        start = time.perf_counter()
        for adapter in self.job["adapters"]:
            peer = OnTransformers({**self.job, "peft": adapter})
            results.append((adapter, evaluate(peer.lm, self.job["tasks"], self.job["limit"], self.job)[1]))
        seconds = time.perf_counter() - start
        parts = [under(adapter, read_back(result)) for adapter, result in results]
        return {"seconds": seconds, **merged(parts), "facts": {"batch_size": self.job["batch_size"]}}


class LmEvalCommands:
    """One `lm_eval` command per adapter, one after the other, from start to exit."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.tasks = Path(job["work"]) / "task_files"
        shutil.rmtree(self.tasks, ignore_errors=True)
        data = Path(job["data_dir"])
        self.names = [mirror.write_task_file(task, data, self.tasks) for task in job["tasks"]]

    def warm(self) -> None:
        """A process of its own pays for its first call every time."""

    def run(self) -> dict[str, Any]:
        seconds, parts = 0.0, []
        for adapter in self.job["adapters"]:
            out = Path(self.job["work"]) / "lm_eval_out" / f"{time.time_ns()}"
            start = time.perf_counter()
            subprocess.run(
                self._command(adapter, out), check=True, stdout=sys.stderr, env=environment(self.job)
            )
            seconds += time.perf_counter() - start
            parts.append(under(adapter, self._read(out)))
        return {"seconds": seconds, **merged(parts), "facts": {"note": BOOTSTRAP_NOTE}}

    def _command(self, adapter: str, out: Path) -> list[str]:
        job = self.job
        model = f"pretrained={job['model']},peft={adapter},dtype={job['dtype']}"
        options = {
            "--model": "hf",
            "--model_args": model,
            "--tasks": ",".join(self.names),
            "--include_path": str(self.tasks),
            "--device": job["device"],
            "--batch_size": str(job["batch_size"]),
            "--limit": str(job["limit"]),
            "--output_path": str(out),
        }
        return [
            sys.executable,
            "-m",
            "lm_eval",
            *(part for pair in options.items() for part in pair),
            "--log_samples",
        ]

    def _read(self, out: Path) -> dict[str, Any]:
        from lm_eval_side import read_back

        result = json.loads(next(out.rglob("results_*.json")).read_text(encoding="utf-8"))
        samples = {}
        for name in self.names:
            file = next(out.rglob(f"samples_{name}_*.jsonl"))
            samples[name.removeprefix("bench_")] = [
                read_row(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()
            ]
        results = {name.removeprefix("bench_"): result["results"][name] for name in self.names}
        return read_back({"samples": samples, "results": results})


def read_row(row: dict[str, Any]) -> dict[str, Any]:
    """A line of the command's sample file, where numbers and flags are written as text."""

    def value(given: Any) -> Any:
        if isinstance(given, str):
            return given
        nats, greedy = given
        return [float(nats), str(greedy) == "True"]

    row["resps"] = [[value(one) for one in group] for group in row["resps"]]
    arguments = row["arguments"]
    if isinstance(arguments, dict):
        row["arguments"] = [list(one.values()) for one in arguments.values()]
    return row
