"""What runs inside vLLM's engine process: forced continuations, and facts about the worker. Imports vLLM."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from typing import Any

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor, process_dict_updates

from harness.engines.vllm_scores import FORCED

WATCH_S = 1.0


class Forcing(LogitsProcessor):  # type: ignore[misc]
    """Makes given tokens certain, one a step. The logprobs that vLLM reports (raw) are taken before."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._paths: dict[int, tuple[list[int], list[int]]] = {}
        """Row of the batch -> (forced tokens, tokens drawn so far; vLLM appends to that list)."""
        die_with_parent()

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        process_dict_updates(self._paths, batch_update, _path_of)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        wanted = [(row, path[len(out)]) for row, (path, out) in self._paths.items() if len(out) < len(path)]
        if wanted:
            rows, tokens = torch.tensor(wanted, device=logits.device).unbind(1)
            logits[rows, tokens] = float("inf")
        return logits


def _path_of(params: Any, prompt_ids: Any, output_ids: list[int]) -> tuple[list[int], list[int]] | None:
    path = (params.extra_args or {}).get(FORCED)
    return (path, output_ids) if path else None


def die_with_parent() -> None:
    """End this process when the one that started it is gone: a killed harness must not leave a model behind."""
    if any(thread.name == "parent-watch" for thread in threading.enumerate()):
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


class WorkerFacts:
    """Methods that vLLM adds to its worker; called by name through collective_rpc."""

    def harness_facts(self) -> dict[str, Any]:
        """Device, number type, attention and threads as the worker has them."""
        die_with_parent()
        worker: Any = self
        layers = worker.vllm_config.compilation_config.static_forward_context.values()
        backends = {layer.attn_backend.get_name() for layer in layers if hasattr(layer, "attn_backend")}
        config = worker.model_config
        cuda = worker.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(worker.device) if cuda else worker.device.type,
            "dtype": str(config.dtype).removeprefix("torch."),
            "attention": ", ".join(sorted(backends)) or None,
            "threads": torch.get_num_threads(),
            "pid": os.getpid(),
        }

    def harness_peak_bytes(self) -> int:
        """GPU: peak of torch's allocator in the worker. CPU: its peak resident set."""
        worker: Any = self
        if worker.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(worker.device))
        unit = 1 if sys.platform == "darwin" else 1024
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
