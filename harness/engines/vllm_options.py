"""What the vLLM engine can be told, and the kind of vLLM that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Literal

from pydantic import Field, ValidationError

from harness.engines.vllm_quiet import quiet
from harness.errors import BadInput
from harness.plan import Strict
from harness.records import Json
from harness.yamlfile import problem

INSTALL = (
    "engine vllm needs vLLM, which is not installed: pip install 'pareto-harness[vllm]' on a machine with a GPU; "
    "docs/vllm.md says how on a CPU"
)
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for max_lora_rank."""


class VllmOptions(Strict):
    """Settings by name; `auto` and None are chosen by the engine or by vLLM."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="float32 on a CPU, the checkpoint's own on a GPU"
    )
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    threads: int | None = Field(default=None, ge=1, description="CPU only; None: by a short measurement")
    batch_tokens: int | None = Field(default=None, ge=32, description="Tokens of one step of the scheduler")
    max_model_len: int | None = Field(
        default=None,
        ge=2,
        description="Longest prompt plus answer; None: the checkpoint's, as far as the KV cache holds it",
    )
    max_num_seqs: int | None = Field(default=None, ge=1, description="Sequences of one step")
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1, description="Share of the GPU's memory")
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs that share the model")
    kv_cache_gib: float | None = Field(
        default=None, gt=0, description="CPU only; None: VLLM_CPU_KVCACHE_SPACE, or by what is free"
    )
    block_size: int | None = Field(default=None, ge=1, description="Tokens of a block of the KV cache")
    enforce_eager: bool | None = Field(
        default=None, description="None: eager on a CPU, where compiling costs a minute of every load"
    )
    max_lora_rank: int | None = Field(
        default=None,
        ge=1,
        le=RANKS[-1],
        description="Make room for adapters up to this rank; None: learnt from them, a larger one reloads the base",
    )


def read_options(given: Mapping[str, Json]) -> VllmOptions:
    """Raises: BadInput: an unknown option, or a value that cannot be."""
    known = sorted(VllmOptions.model_fields)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise BadInput(f"engine vllm has no option {unknown[0]!r}; known: {', '.join(known)}")
    try:
        return VllmOptions.model_validate(dict(given))
    except ValidationError as exc:
        raise BadInput(f"engine vllm: {problem(exc, VllmOptions)}") from exc


def platform(wanted: str) -> str:
    """cpu, cuda or cuda:N, as this build of vLLM computes. Raises: BadInput: it is missing, or the other kind."""
    if find_spec("vllm") is None:
        raise BadInput(INSTALL)
    with quiet():
        from vllm.platforms import current_platform

        kind = str(current_platform.device_type)
    if kind not in ("cpu", "cuda"):
        raise BadInput(
            f"this vLLM finds neither an NVIDIA GPU nor is it built for a CPU (it says {kind or 'nothing'!r}); "
            "docs/vllm.md says which build is for which machine"
        )
    if wanted != "auto" and wanted.partition(":")[0] != kind:
        raise BadInput(
            f"device {wanted!r} is not what this vLLM computes on ({kind}); leave it out, or install the other build "
            "(docs/vllm.md)"
        )
    return kind if wanted == "auto" else wanted
