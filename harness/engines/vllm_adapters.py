"""LoRA adapters for vLLM: held against the base before vLLM sees them, since a bad one can end the whole engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.engines.vllm_options import RANKS
from harness.errors import BadCheckpoint
from harness.fingerprint import safetensors_shapes
from harness.folders import read_json
from harness.records import Checkpoint

WEIGHTS = "adapter_model.safetensors"
ELSEWHERE = "score it with --engine transformers"


class Adapters:
    """The adapters that one load has been given, by fingerprint."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def request(self, checkpoint: Checkpoint) -> Any:
        """vLLM's name for an adapter; the number also keeps prefixes in its cache apart."""
        from vllm.lora.request import LoRARequest

        number = self._numbers.setdefault(checkpoint.fingerprint, len(self._numbers) + 1)
        return LoRARequest(f"adapter{number}", number, str(checkpoint.adapter))


def rank_of(checkpoint: Checkpoint) -> int:
    """Room that an adapter needs, one of vLLM's values for max_lora_rank; 0 where there is no adapter.

    Raises: BadCheckpoint: a kind of adapter that vLLM does not compute as PEFT does.
    """
    if checkpoint.adapter is None:
        return 0
    folder = Path(checkpoint.adapter)
    config = read_json(folder / "adapter_config.json")
    kind = config.get("peft_type")
    if kind != "LORA":
        raise BadCheckpoint(f"adapter {folder} is of type {kind}, and vLLM computes LoRA only; {ELSEWHERE}")
    needed = _checked_rank(folder, config)
    _refuse_whole_weights(folder)
    if needed > RANKS[-1]:
        raise BadCheckpoint(
            f"adapter {folder} has rank {needed}, and vLLM takes at most {RANKS[-1]}; {ELSEWHERE}"
        )
    return room_for(needed)


def room_for(rank: int) -> int:
    """The smallest value that vLLM takes for max_lora_rank and that holds this rank; 0 for 0."""
    return next(size for size in (0, *RANKS) if size >= rank)


def _checked_rank(folder: Path, config: Mapping[str, Any]) -> int:
    """Largest rank of any layer, after vLLM's own look at the settings."""
    from vllm.config.lora import LoRAConfig
    from vllm.lora.peft_helper import PEFTHelper

    try:
        helper = PEFTHelper.from_dict(dict(config))
        helper.validate_legal(LoRAConfig(max_lora_rank=RANKS[-1]))
    except (ValueError, TypeError) as exc:
        raise BadCheckpoint(
            f"adapter {folder} is none that vLLM computes: {str(exc).strip()} {ELSEWHERE}"
        ) from exc
    if config.get("trainable_token_indices") or config.get("target_parameters"):
        raise BadCheckpoint(
            f"adapter {folder} trains single tokens or bare parameters, which vLLM leaves out; {ELSEWHERE}"
        )
    return int(max([helper.r, *helper.rank_pattern.values()]))


def _refuse_whole_weights(folder: Path) -> None:
    """Weights that are no low-rank factors replace layers of the base, which vLLM does not do."""
    if not (folder / WEIGHTS).is_file():
        raise BadCheckpoint(
            f"adapter {folder} has no {WEIGHTS}, and vLLM gets no pickled weights; convert it to safetensors"
        )
    whole = sorted(key for key in safetensors_shapes(folder / WEIGHTS) if ".lora_" not in key)
    if whole:
        raise BadCheckpoint(
            f"adapter {folder} replaces whole weights of the base ({whole[0]}), which vLLM does not do; {ELSEWHERE}"
        )
