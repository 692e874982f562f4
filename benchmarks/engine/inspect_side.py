"""IFEval's prompts as an inspect task, the same for both sides; only the model provider differs.

inspect_evals' own ifeval needs a package that is not on the registry under a free name; the checks are those that
lm-eval carries, which are the authors'.
"""

from __future__ import annotations

import json
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import Score, Target, mean, scorer
from inspect_ai.solver import TaskState, generate


@task
def ifeval_prompts(data_dir: str) -> Task:
    """google/IFEval as the mirror has it; the number of samples is the caller's limit."""
    lines = (Path(data_dir) / "google/IFEval/default/train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    samples = [Sample(id=str(row["key"]), input=row["prompt"], metadata={"doc": row}) for row in rows]
    return Task(dataset=MemoryDataset(samples), solver=generate(), scorer=prompt_level_strict_acc())


@scorer(metrics=[mean()])
def prompt_level_strict_acc() -> Any:
    """1 where every instruction of a prompt is followed to the letter."""
    from lm_eval.tasks.ifeval.utils import process_results

    async def score(state: TaskState, target: Target) -> Score:
        found = process_results(state.metadata["doc"], [state.output.completion])
        return Score(value=float(found["prompt_level_strict_acc"]))

    return score


def seed_language_checks() -> None:
    """Unseeded, IFEval's language checks draw at random."""
    import langdetect

    langdetect.DetectorFactory.seed = 0


class OverHarness:
    """`harness eval --tasks inspect:...` on an engine that is loaded already."""

    def __init__(self, job: dict[str, Any]) -> None:
        from harness_side import HarnessTasks

        seed_language_checks()
        self.job = job
        self.harness = HarnessTasks({**job, "tasks": job["warm_tasks"]})
        self.engine = self.harness.engine

    def warm(self) -> None:
        self._evaluate(limit=2, max_tokens=4)

    def run(self) -> dict[str, Any]:
        from harness_side import facts_of

        from harness.store import Store

        seconds, plan, record = self._evaluate(self.job["limit"], self.job["max_tokens"])
        answers = {
            sample.sample_id: answer(sample.prompt, sample.outputs[0] if sample.outputs else "", sample.error)
            for sample in Store(plan.runs).samples(record)
        }
        (metrics,) = record.metrics.values()
        (metric,) = metrics.values()
        found = {"prompt_level_strict_acc": metric.value}
        return {"seconds": seconds, "answers": answers, "metrics": found, "facts": facts_of(record)}

    def _evaluate(self, limit: int, max_tokens: int) -> tuple[float, Any, Any]:
        from harness.evaluate import evaluate

        name = f"inspect:ifeval_prompts,data_dir={self.job['data_dir']},max_tokens={max_tokens}"
        plan = self.harness.plan(self.job["warm_tasks"]).model_copy(update={"tasks": [name], "limit": limit})
        start = time.perf_counter()
        (record,) = evaluate(plan, meter=self.harness.meter)
        return time.perf_counter() - start, plan, record


class OverTransformers:
    """inspect_ai.eval with its own `hf` provider: greedy, and without a second BOS before the template's.

    It is spared its live log, a database for its viewer, which costs seconds; the log of all samples it writes.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        import torch

        seed_language_checks()
        torch.set_num_threads(job["threads"])
        self.job = job

    def warm(self) -> None:
        self._evaluate(limit=2, max_tokens=4)

    def run(self) -> dict[str, Any]:
        seconds, log = self._evaluate(self.job["limit"], self.job["max_tokens"])
        answers = {
            str(sample.id): answer(
                str(sample.input), sample.output.completion, sample.error.message if sample.error else None
            )
            for sample in log.samples
        }
        metrics = {"prompt_level_strict_acc": log.results.scores[0].metrics["mean"].value}
        output_tokens = sum(usage.output_tokens for usage in log.stats.model_usage.values())
        return {
            "seconds": seconds,
            "answers": answers,
            "metrics": metrics,
            "facts": {"output_tokens": output_tokens},
        }

    def _model(self) -> Any:
        from inspect_ai.model import get_model

        return get_model(
            "hf/bench",
            memoize=False,
            model_path=self.job["model"],
            device=self.job["device"],
            dtype=self.job["dtype"],
            do_sample=False,
            tokenizer_call_args={"add_special_tokens": False},
        )

    def _evaluate(self, limit: int, max_tokens: int) -> tuple[float, Any]:
        import inspect_ai

        model = self._model()
        # kept: inspect reads the samples back from its log when they are asked for
        logs = Path(self.job["work"]) / "logs" / "inspect"
        start = time.perf_counter()
        (log,) = inspect_ai.eval(
            ifeval_prompts(self.job["data_dir"]),
            model=model,
            limit=limit,
            max_tokens=max_tokens,
            max_connections=self.job["batch_size"],
            max_samples=self.job["batch_size"],
            log_dir=str(logs),
            log_realtime=False,
            display="none",
        )
        seconds = time.perf_counter() - start
        if log.status != "success":
            raise RuntimeError(f"inspect: {log.status}: {log.error.message if log.error else ''}")
        return seconds, log


def answer(prompt: str, text: str, error: str | None) -> dict[str, Any]:
    return {
        "prompt": sha256(prompt.encode()).hexdigest()[:16],
        "scores": None,
        "text": text,
        "error": error,
    }
