"""The rows of the table: what is asked, of whom, and the figure to reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Task:
    """A task of lm-eval, as both sides ask it."""

    name: str
    file: str
    shots: int | None = None
    max_tokens: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "file": self.file, "shots": self.shots, "max_tokens": self.max_tokens}


@dataclass(frozen=True)
class Row:
    """One line: the same work done by two sides."""

    name: str
    work: str
    peer: str
    """What it is held against, in words."""
    goal: float
    ours: str
    """Side of worker.SIDES."""
    theirs: str
    measure: Literal["speedup", "time", "rate", "memory"] = "speedup"
    """speedup: their seconds / ours; time: ours / theirs; rate: our FLOP/s / theirs; memory: our peak / theirs."""
    tasks: tuple[Task, ...] = ()
    limit: int = 1
    model: str = "88m"
    engine: str = "transformers"
    batch_size: int = 8
    max_tokens: int | None = None
    adapters: int = 0
    fresh: bool = False
    """A new process for every repeat: where an engine keeps prefixes between calls, or peaks are compared."""
    compared: bool = True
    """Whether both sides give answers that must be equal."""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def at_least(self) -> bool:
        return self.measure in ("speedup", "rate")

    def reached(self, ratio: float) -> bool:
        return ratio >= self.goal if self.at_least else ratio <= self.goal


MMLU = tuple(
    Task(f"mmlu_{subject}", f"mmlu/default/mmlu_{subject}.yaml", shots=5)
    for subject in ("econometrics", "sociology")
)
HELLASWAG = (Task("hellaswag", "hellaswag/hellaswag.yaml", shots=5),)
GSM8K = (Task("gsm8k_cot", "gsm8k/gsm8k-cot.yaml", max_tokens=128),)
TRUTHFULQA = tuple(
    Task(f"truthfulqa_{kind}", f"truthfulqa/truthfulqa_{kind}.yaml") for kind in ("mc1", "mc2")
)
ARC_AND_IFEVAL = (
    Task("arc_challenge", "arc/arc_challenge.yaml", shots=5),
    Task("ifeval", "ifeval/ifeval.yaml", max_tokens=32),
)
WARM = (
    Task("piqa", "piqa/piqa.yaml"),
    Task("gsm8k", "gsm8k/gsm8k.yaml", shots=0, max_tokens=8),
)
"""Both kinds of requests on other prompts than any row's."""

KV_CACHE_GIB = 2
"""On a CPU, for either side."""
VLLM: dict[str, dict[str, Any]] = {
    "cpu": {"max_model_len": 2048, "enforce_eager": True},
    "cuda": {"max_model_len": 2048, "gpu_memory_utilization": 0.4},
}
"""Settings of vLLM by device that both sides get. Compiling takes a minute of every load on a CPU."""


def _lm_eval(name: str, work: str, tasks: tuple[Task, ...], **more: Any) -> Row:
    batch = more.get("batch_size", 8)
    return Row(
        name,
        work,
        f"lm-eval hf, batch {batch}",
        more.pop("goal"),
        "harness",
        "lm_eval_hf",
        tasks=tasks,
        **more,
    )


def _vllm(name: str, work: str, tasks: tuple[Task, ...], **more: Any) -> Row:
    theirs = more.pop("theirs", "lm_eval_vllm")
    peer = more.pop("peer", "lm-eval vllm backend")
    return Row(
        name, work, peer, more.pop("goal"), "harness", theirs, tasks=tasks, engine="vllm", fresh=True, **more
    )


ROWS: tuple[Row, ...] = (
    _lm_eval("mmlu", "MMLU, 5 fixed shots", MMLU, goal=5.0, limit=32),
    _lm_eval("hellaswag", "HellaSwag, 5 shots per question", HELLASWAG, goal=3.5, limit=10),
    _lm_eval("gsm8k", "GSM8K (gsm8k_cot), 128 new tokens", GSM8K, goal=2.5, limit=32, batch_size=16),
    _lm_eval("truthfulqa", "TruthfulQA mc1+mc2", TRUTHFULQA, goal=8.0, limit=48),
    Row(
        "ifeval", "IFEval through inspect, 256 samples", "inspect hf, max_connections 256", 10.0,
        "harness_inspect", "inspect_hf", limit=256, model="4m", batch_size=256, max_tokens=32,
    ),
    _vllm("vllm_mmlu", "MMLU on vLLM", MMLU, goal=4.0, limit=8),
    _vllm("vllm_hellaswag", "HellaSwag on vLLM", HELLASWAG, goal=4.0, limit=8),
    _vllm(
        "vllm_gsm8k", "GSM8K on vLLM, 128 new tokens", GSM8K, goal=1.05, limit=32,
        theirs="raw_vllm", peer="raw LLM.generate", measure="time",
    ),
    Row(
        "adapters", "8 LoRA adapters x (ARC + IFEval), whole commands", "8 lm_eval commands with peft=", 6.0,
        "harness_command", "lm_eval_commands", tasks=ARC_AND_IFEVAL, limit=8, adapters=8,
    ),
    Row(
        "adapters_in_process", "the same without starting Python and importing",
        "lm-eval hf with peft=, loaded 8 times", 6.0,
        "harness_adapters", "lm_eval_adapters", tasks=ARC_AND_IFEVAL, limit=8, adapters=8,
    ),
    Row(
        "prefill", "prefill-bound scoring, nothing shared", "measured matmul peak", 0.6,
        "harness_scoring", "matmul", measure="rate", limit=24, compared=False,
    ),
    _lm_eval("memory", "peak memory of the MMLU work", MMLU, goal=1.0, limit=32, measure="memory", fresh=True),
)  # fmt: skip
BY_NAME = {row.name: row for row in ROWS}
