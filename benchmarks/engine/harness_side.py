"""The harness's side: `harness eval`'s loop over lm-eval's tasks, and bare scoring for the share of the peak."""

from __future__ import annotations

import itertools
import random
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from models import costs_of, texts

from harness import registry
from harness.evaluate import evaluate
from harness.plan import EnergySpec, EngineSpec, EvalPlan
from harness.records import Checkpoint, LoglikelihoodRequest, RunRecord
from harness.store import Store


def plan_of(job: dict[str, Any], tasks: list[dict[str, Any]], runs: Path) -> EvalPlan:
    """The plan that `harness eval --tasks ...` would make of the job."""
    names = []
    for task in tasks:
        shots = task.get("shots")
        options = [f"num_fewshot={shots}"] if shots is not None else []
        options += [f"max_tokens={task['max_tokens']}"] if task.get("max_tokens") else []
        names.append(",".join([f"lm_eval:{task['name']}", *options]))
    return EvalPlan(
        checkpoints=job.get("checkpoints") or [job["model"]],
        tasks=names,
        limit=job["limit"],
        data_dir=Path(job["data_dir"]),
        runs=runs,
        engine=EngineSpec(
            name=job["engine"],
            dtype=job["dtype"],
            device=job["device"],
            threads=job["threads"],
            options=job.get("engine_options") or {},
        ),
        energy=EnergySpec(idle_s=0),
    )


class Kept:
    """Makes an engine's class load once in this process: evaluate() after evaluate() finds it as it was left.

    Loading is what the table leaves out, on both sides; the rest of evaluate() runs as it stands.
    """

    def __init__(self, engine_class: Any) -> None:
        self.engine: Any = None
        self.loaded = ""
        self._load = engine_class.load
        self.close = engine_class.close
        engine_class.load = self.load
        engine_class.close = lambda engine: None

    def load(self, checkpoint: Checkpoint, options: Any) -> Any:
        if self.engine is None:
            self.engine = self._load(checkpoint, options)
            self.loaded = checkpoint.fingerprint
        elif checkpoint.fingerprint != self.loaded:
            self.engine.activate(checkpoint)
            self.loaded = checkpoint.fingerprint
        return self.engine


class HarnessTasks:
    """evaluate(): binds, asks, scores, journals and weighs lm-eval's tasks, on an engine that is loaded already."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.runs = Path(job["work"]) / "runs" / f"{time.time_ns()}"
        self.counter = itertools.count()
        self.kept = Kept(registry.load("engine", job["engine"]))
        plan = self.plan(job["warm_tasks"])
        # starting the meter is part of the command, not of a run
        self.meter = registry.load("meter", plan.energy.meter)(plan.energy)
        evaluate(plan.model_copy(update={"limit": 1}), meter=self.meter)
        self.engine = self.kept.engine

    def plan(self, tasks: list[dict[str, Any]]) -> EvalPlan:
        return plan_of(self.job, tasks, self.runs / str(next(self.counter)))

    def warm(self) -> None:
        plan = self.plan(self.job["warm_tasks"])
        evaluate(plan.model_copy(update={"limit": 2}), meter=self.meter)

    def run(self) -> dict[str, Any]:
        from suites.from_lm_eval.build import build

        plan = self.plan(self.job["tasks"])
        build.cache_clear()  # a process builds a task's prompts once; every repeat pays for it, as the peer does
        start = time.perf_counter()
        (record,) = evaluate(plan, meter=self.meter)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, **read_back(plan, record), "facts": facts_of(record)}


def read_back(plan: EvalPlan, record: RunRecord) -> dict[str, Any]:
    """Answers and metrics of a run, in the form in which both sides are compared."""
    answers = {}
    for sample in Store(plan.runs).samples(record):
        given = sample.metadata.get("responses")
        answers[f"{sample.metadata['subtask']}/{sample.metadata['doc_id']}"] = {
            "prompt": sha256(sample.prompt.encode()).hexdigest()[:16],
            "scores": [group[0] for group in given] if given else None,
            "text": sample.outputs[0] if given is None and sample.outputs else None,
            "error": sample.error,
        }
    metrics = {
        f"{label}/{name}": metric.value
        for label, found in record.metrics.items()
        for name, metric in found.items()
    }
    return {"answers": answers, "metrics": metrics}


def facts_of(record: RunRecord) -> dict[str, Any]:
    named = ("threads", "dtype", "device", "attention", "busy_share", "requests", "prompt_tokens")
    more = ("cached_tokens", "output_tokens", "notes", "batch_tokens", "cache_tokens")
    facts = {name: record.engine.get(name) for name in (*named, *more) if name in record.engine}
    return {**facts, "phases_s": dict(record.phases_s), "failed": record.n_failed}


class Threads:
    """How many threads the engine picks for a model by its own measurement, on this machine and now."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.engine = HarnessTasks({**job, "tasks": job["warm_tasks"], "threads": None}).engine

    def warm(self) -> None:
        """The measurement warms up by itself."""

    def run(self) -> dict[str, Any]:
        return {"threads": self.engine.describe()["threads"]}


class Scoring:
    """Contexts that share nothing, scored by the engine alone: what share of the machine's peak is reached."""

    SHORTEST, LONGEST, SCORED = 256, 768, 32

    def __init__(self, job: dict[str, Any]) -> None:
        self.inner = HarnessTasks({**job, "tasks": job["warm_tasks"]})
        self.engine = self.inner.engine
        self.requests = self._requests(job)
        costs = costs_of(Path(job["model"]))
        pairs = [(len(r.context_ids), len(r.continuation_ids)) for r in self.requests]
        # the last token of a continuation is scored and never fed
        self.tokens = sum(context + tail - 1 for context, tail in pairs)
        self.flops = sum(costs.flops(0, context + tail - 1, tail) for context, tail in pairs)

    def _requests(self, job: dict[str, Any]) -> list[LoglikelihoodRequest]:
        """Cut from the mirror's text, one after the other; lengths are drawn."""
        draw = random.Random(0)
        encode = self.engine.tokenizer.encode
        stream = (
            token for text in texts(Path(job["data_dir"])) for token in encode(text, add_special_tokens=False)
        )
        found = []
        for _ in range(job["limit"]):
            ids = tuple(itertools.islice(stream, draw.randint(self.SHORTEST, self.LONGEST)))
            found.append(LoglikelihoodRequest(ids[: -self.SCORED], ids[-self.SCORED :]))
        return found

    def warm(self) -> None:
        self.inner.warm()

    def run(self) -> dict[str, Any]:
        before = self.engine.stats()
        start = time.perf_counter()
        done = [future.result() for future in self.engine.submit(self.requests)]
        seconds = time.perf_counter() - start
        after = self.engine.stats()
        facts = {
            "tokens": self.tokens,
            "flops": self.flops,
            "engine_prompt_tokens": after.prompt_tokens - before.prompt_tokens,
            "engine_cached_tokens": after.cached_tokens - before.cached_tokens,
            "busy_s": after.busy_s - before.busy_s,
        }
        total = sum(completion.loglikelihood or 0.0 for completion in done)
        return {
            "seconds": seconds,
            "flops_per_s": self.flops / seconds,
            "metrics": {"nats": total},
            "facts": facts,
        }
