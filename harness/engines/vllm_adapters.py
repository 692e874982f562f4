"""LoRA adapters for vLLM: held against the base before vLLM sees them, since a bad one can end the whole engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.adapters import misfit_of
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


class Room(NamedTuple):
    """What a load keeps free for adapters; vLLM has to know it before it loads."""

    rank: int
    """Largest rank, one of vLLM's values for max_lora_rank; 0: no adapters."""
    modules: frozenset[str] = frozenset()
    """Last part of the names of the layers that may have one. The output matrix is among them only where an adapter
    trains it: it costs a product over the vocabulary at every step."""

    def holds(self, other: Room) -> bool:
        return other.rank <= self.rank and other.modules <= self.modules

    def joined(self, other: Room) -> Room:
        return Room(max(self.rank, other.rank), self.modules | other.modules)


NONE = Room(0)


def room_of(checkpoint: Checkpoint) -> Room:
    """Room that a checkpoint's adapter needs.

    Raises: BadCheckpoint: a kind of adapter that vLLM does not compute as PEFT does.
    """
    if checkpoint.adapter is None:
        return NONE
    folder = Path(checkpoint.adapter)
    config = read_json(folder / "adapter_config.json")
    kind = config.get("peft_type")
    if kind != "LORA":
        raise BadCheckpoint(f"adapter {folder} is of type {kind}, and vLLM computes LoRA only; {ELSEWHERE}")
    needed = _checked_rank(folder, config)
    if needed > RANKS[-1]:
        raise BadCheckpoint(
            f"adapter {folder} has rank {needed}, and vLLM takes at most {RANKS[-1]}; {ELSEWHERE}"
        )
    return Room(rounded(needed), _modules(folder, Path(checkpoint.base)))


def room_for_all(checkpoint: Checkpoint, rank: int) -> Room:
    """Room for adapters on every layer of a base's stack, by the names of its weights."""
    shapes = _base_shapes(Path(checkpoint.base))
    stacked = (name.removesuffix(".weight").split(".") for name, shape in shapes.items() if len(shape) == 2)
    return Room(
        rounded(rank), frozenset(parts[-1] for parts in stacked if any(part.isdigit() for part in parts))
    )


def _base_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a base's weights; empty where they are pickled, or packed in shapes of their own."""
    if "quantization_config" in read_json(folder / "config.json"):
        return {}
    files = sorted(folder.glob("*.safetensors"))
    return {name: shape for file in files for name, shape in safetensors_shapes(file).items()}


def rounded(rank: int) -> int:
    """The smallest value that vLLM takes for max_lora_rank and that holds this rank."""
    return next(size for size in RANKS if size >= rank)


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


def _modules(folder: Path, base: Path) -> frozenset[str]:
    """Layers that an adapter has factors for; refuses whole weights, and factors for layers that the base lacks."""
    if not (folder / WEIGHTS).is_file():
        raise BadCheckpoint(
            f"adapter {folder} has no {WEIGHTS}, and vLLM gets no pickled weights; convert it to safetensors"
        )
    shapes = safetensors_shapes(folder / WEIGHTS)
    keys = sorted(shapes)
    whole = [key for key in keys if ".lora_" not in key]
    if whole:
        raise BadCheckpoint(
            f"adapter {folder} replaces whole weights of the base ({whole[0]}), which vLLM does not do; {ELSEWHERE}"
        )
    misfit = misfit_of(shapes, _base_shapes(base))
    if misfit is not None:
        raise BadCheckpoint(
            f"adapter {folder} does not fit the base {base}: {misfit}; give the base that it was trained on"
        )
    return frozenset(key.partition(".lora_")[0].rpartition(".")[2] for key in keys)
