"""From a checkpoint's files and the options to the arguments that vLLM is started with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import transformers

from harness.engines import loading
from harness.engines.vllm_adapters import Room
from harness.engines.vllm_options import VllmOptions
from harness.errors import BadCheckpoint
from harness.protocols import Tokenizer
from harness.records import Checkpoint
from harness.threads import choose_threads

KV_GIB_AT_MOST = 4.0
"""KV cache on a CPU where nobody says how large: a quarter of what is free, and no more than this, nor more than
FULL_SEQUENCES of the longest sequences need. vLLM takes it whole at the start."""
FULL_SEQUENCES = 64
CPU_BLOCK = 32
"""Tokens of a KV block on a CPU: prefixes are shared in whole blocks, and its kernels want multiples of 32."""
MOST_LOGPROBS = 128
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Start(NamedTuple):
    """How to start vLLM."""

    arguments: Mapping[str, Any]
    """Of AsyncEngineArgs."""
    variables: Mapping[str, str]
    """What the engine process must find in its environment."""


@dataclass(frozen=True)
class Setup:
    """A base and how it is to be loaded."""

    checkpoint: Checkpoint
    options: VllmOptions
    device: str
    """cpu, cuda or cuda:N"""
    dtype: str
    config: Any
    """transformers' config."""
    generation: Any
    """transformers' generation config."""
    context: int
    """Longest sequence by the config, tokens."""
    max_length: int
    """Longest sequence here: less where the KV cache or the options hold less."""
    vocab: int
    threads: int | None
    """CPU only."""
    kv_bytes: int
    """KV cache on a CPU; 0 on a GPU, where vLLM takes its share of the memory."""

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu"

    def end_tokens(self, tokenizer: Tokenizer) -> frozenset[int]:
        """Tokens that end an answer, as the transformers engine has them."""
        return loading.end_tokens(SimpleNamespace(generation_config=self.generation), tokenizer)

    def notes(self) -> list[str]:
        """What a reader must know beside a score."""
        notes = []
        ignored = loading.ignored_settings(SimpleNamespace(generation_config=self.generation))
        if ignored:
            notes.append(
                f"the checkpoint's generation config asks for {', '.join(ignored)}, which is left out"
            )
        if self.max_length < self.context:
            notes.append(
                f"prompts are cut at {self.max_length} tokens, the model's context is {self.context}"
            )
        return notes


def read_setup(checkpoint: Checkpoint, options: VllmOptions, device: str, tokenizer: Tokenizer) -> Setup:
    """Raises: BadCheckpoint: config.json or generation_config.json cannot be read."""
    try:
        config = transformers.AutoConfig.from_pretrained(
            checkpoint.base, trust_remote_code=checkpoint.trust_remote_code
        )
        if (Path(checkpoint.base) / "generation_config.json").is_file():
            generation = transformers.GenerationConfig.from_pretrained(checkpoint.base)
        else:
            generation = transformers.GenerationConfig.from_model_config(config)
    except loading.UNREADABLE as exc:
        raise BadCheckpoint(f"{checkpoint.base!r} does not load: {loading.first_line(exc)}") from exc
    cpu = device == "cpu"
    dtype = "float32" if cpu and options.dtype == "auto" else options.dtype
    context = loading.context_length(SimpleNamespace(config=config), tokenizer)
    length = options.max_model_len or context
    kv = kv_bytes(options, length * token_bytes(config, dtype)) if cpu else 0
    return Setup(
        checkpoint=checkpoint,
        options=options,
        device=device,
        dtype=dtype,
        config=config,
        generation=generation,
        context=context,
        max_length=max(2, min(length, kv // token_bytes(config, dtype) - 2 * CPU_BLOCK)) if cpu else length,
        kv_bytes=kv,
        vocab=int(config.get_text_config().vocab_size),
        threads=choose_threads(checkpoint.parameters, options.threads) if cpu else None,
    )


def kv_bytes(options: VllmOptions, longest: int) -> int:
    """Size of the KV cache on a CPU: the option, VLLM_CPU_KVCACHE_SPACE (GiB), or by need and by what is free.

    Args: longest: bytes that one sequence of full length takes.
    """
    if options.kv_cache_gib is not None:
        return int(options.kv_cache_gib * 2**30)
    named = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "")
    if named.isdigit() and int(named) > 0:
        return int(named) * 2**30
    free = loading.free_bytes(torch.device("cpu"))
    return int(min(KV_GIB_AT_MOST * 2**30, free / 4, (FULL_SEQUENCES + 1) * longest))


def token_bytes(config: Any, dtype: str) -> int:
    """Bytes that one token takes in the KV cache. Raises: BadCheckpoint: a model that keeps a state instead."""
    held = SimpleNamespace(itemsize=ITEM_BYTES[dtype])
    return loading.cache_bytes_per_token(SimpleNamespace(config=config, dtype=held))


def start_of(setup: Setup, room: Room) -> Start:
    """Arguments of a load with room for adapters."""
    options, checkpoint = setup.options, setup.checkpoint
    arguments: dict[str, Any] = {
        "model": checkpoint.base,
        # ids go in and come out; stop strings are looked for with the harness's tokenizer
        "skip_tokenizer_init": True,
        "trust_remote_code": checkpoint.trust_remote_code,
        "load_format": "auto" if checkpoint.allow_pickle else "safetensors",
        "dtype": setup.dtype,
        # the last token of a continuation is only predicted, so a sequence may be one longer than the context
        "max_model_len": setup.max_length + 1,
        # greedy is greedy: no sampling settings that nobody asked for
        "generation_config": "vllm",
        "logprobs_mode": "raw_logprobs",
        "max_logprobs": MOST_LOGPROBS,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "tensor_parallel_size": options.tensor_parallel_size,
        "max_num_seqs": options.max_num_seqs,
        "max_num_batched_tokens": options.batch_tokens,
        "block_size": options.block_size,
        "worker_extension_cls": "harness.engines.vllm_worker.WorkerFacts",
    }
    if room.rank:
        arguments |= {
            "enable_lora": True,
            "max_loras": 1,
            "max_cpu_loras": 8,
            "max_lora_rank": room.rank,
            "lora_target_modules": sorted(room.modules),
        }
    more, variables = _on_cpu(setup) if setup.on_cpu else _on_gpu(setup)
    chosen = {key: value for key, value in (arguments | more).items() if value is not None}
    return Start(chosen, {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1", **variables})


def _on_cpu(setup: Setup) -> tuple[dict[str, Any], dict[str, str]]:
    """One process computes: vLLM would start a second one to set its OpenMP threads, which is done here."""
    alone = setup.options.tensor_parallel_size == 1
    arguments = {
        "kv_cache_memory_bytes": setup.kv_bytes,
        "block_size": setup.options.block_size or CPU_BLOCK,
        "enforce_eager": setup.options.enforce_eager is not False,
        "distributed_executor_backend": "uni" if alone else None,
    }
    variables = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(setup.threads)}
    return arguments, {**variables, "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if alone else "1"}


def _on_gpu(setup: Setup) -> tuple[dict[str, Any], dict[str, str]]:
    arguments = {
        "gpu_memory_utilization": setup.options.gpu_memory_utilization,
        "enforce_eager": bool(setup.options.enforce_eager),
    }
    index = setup.device.partition(":")[2]
    return arguments, {"CUDA_VISIBLE_DEVICES": index} if index else {}
