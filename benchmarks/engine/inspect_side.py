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


def ifeval(data_dir: Path, limit: int) -> Any:
    """inspect task over the first `limit` prompts of google/IFEval."""
    from inspect_ai import Task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.solver import generate

    lines = (data_dir / "google/IFEval/default/train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:limit]]
    samples = [Sample(id=str(row["key"]), input=row["prompt"], metadata={"doc": row}) for row in rows]
    return Task(
        dataset=MemoryDataset(samples), solver=generate(), scorer=strict_prompt(), name="ifeval_bench"
    )


def strict_prompt() -> Any:
    """1 where every instruction of a prompt is followed to the letter."""
    from inspect_ai.scorer import Score, Target, mean, scorer
    from inspect_ai.solver import TaskState
    from lm_eval.tasks.ifeval.utils import process_results

    @scorer(metrics=[mean()], name="prompt_level_strict_acc")
    def build() -> Any:
        async def score(state: TaskState, target: Target) -> Score:
            found = process_results(state.metadata["doc"], [state.output.completion])
            return Score(value=float(found["prompt_level_strict_acc"]))

        return score

    return build()


class Inspect:
    """One call of inspect_ai.eval, with the same arguments on both sides."""

    def __init__(self, job: dict[str, Any]) -> None:
        import langdetect

        langdetect.DetectorFactory.seed = 0  # unseeded, IFEval's language checks draw at random
        self.job = job
        self.load()

    def load(self) -> None:
        raise NotImplementedError

    def model(self) -> Any:
        raise NotImplementedError

    def warm(self) -> None:
        self._evaluate(limit=2, max_tokens=4)

    def run(self) -> dict[str, Any]:
        seconds, log = self._evaluate(self.job["limit"], self.job["max_tokens"])
        answers = {
            str(sample.id): {
                "prompt": sha256(str(sample.input).encode()).hexdigest()[:16],
                "scores": None,
                "text": sample.output.completion,
                "error": sample.error.message if sample.error else None,
            }
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

    def _evaluate(self, limit: int, max_tokens: int) -> tuple[float, Any]:
        import inspect_ai

        task = ifeval(Path(self.job["data_dir"]), limit)
        model = self.model()
        # kept: inspect reads the samples back from its log when they are asked for
        logs = Path(self.job["work"]) / "logs" / "inspect"
        start = time.perf_counter()
        (log,) = inspect_ai.eval(
            task,
            model=model,
            max_tokens=max_tokens,
            max_connections=self.job["batch_size"],
            max_samples=self.job["batch_size"],
            log_dir=str(logs),
            display="none",
        )
        seconds = time.perf_counter() - start
        if log.status != "success":
            raise RuntimeError(f"inspect: {log.status}: {log.error.message if log.error else ''}")
        return seconds, log


class OverHarness(Inspect):
    """The harness's provider on an engine that is loaded already."""

    def load(self) -> None:
        from harness_side import HarnessTasks

        self.engine = HarnessTasks({**self.job, "tasks": self.job["warm_tasks"]}).engine

    def model(self) -> Any:
        from inspect_ai.model import get_model

        import suites.inspect_model  # noqa: F401  registers the provider

        return get_model("harness/bench", engine=self.engine, memoize=False)


class OverTransformers(Inspect):
    """inspect's own `hf` provider: greedy, and without a second BOS before the one that the template writes."""

    def load(self) -> None:
        import torch

        torch.set_num_threads(self.job["threads"])

    def model(self) -> Any:
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
