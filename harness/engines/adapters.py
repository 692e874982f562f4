"""PEFT adapters on a loaded base: one active at a time, checked against the base they are put on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.engines.loading import first_line
from harness.errors import BadCheckpoint
from harness.folders import read_json
from harness.records import Checkpoint

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
HARMLESS_STARTS = ("gaussian", "orthogonal")
"""Ways to draw a LoRA's first weights that leave the base as it is; PiSSA, OLoRA, CorDA and others rewrite it."""


class Adapters:
    """The adapters that one base model carries.

    Args:
        model: the base; PEFT puts adapters into it in place.
        reload: loads the base afresh, after an adapter that did not fit has changed it.
    """

    def __init__(self, model: Any, reload: Callable[[], Any]) -> None:
        self.model = model
        self._reload = reload
        self._names: dict[str, str] = {}
        self._peft: Any = None
        self._base_names = frozenset(name for name, _ in model.named_parameters())
        self._spoiled = False
        """The adapter that is loaded has changed the base: nothing else may be answered with it."""

    def activate(self, checkpoint: Checkpoint) -> None:
        """Make the model answer as this checkpoint. Raises: BadCheckpoint: the adapter does not fit."""
        if self._spoiled and checkpoint.fingerprint not in self._names:
            self._start_over()
        if checkpoint.adapter is None:
            if self._peft is not None:
                self._peft.base_model.disable_adapter_layers()
            return
        if checkpoint.fingerprint not in self._names:
            self._add(checkpoint)
        self._peft.base_model.enable_adapter_layers()
        self._peft.set_adapter(self._names[checkpoint.fingerprint])
        self._peft.eval()

    def discard(self) -> None:
        """Take all adapters off, with what they have changed: the base is loaded afresh."""
        self._start_over()

    def _add(self, checkpoint: Checkpoint) -> None:
        rewrites = rewrites_base(Path(str(checkpoint.adapter)), self._base_names)
        if rewrites and self._names:
            self._start_over()
        others = bool(self._names)
        self._spoiled = rewrites
        try:
            self._load(checkpoint)
        except BadCheckpoint:
            self._start_over()
            if not others:
                raise
            # adapters of different kinds can stand in each other's way: alone it may load
            try:
                self._load(checkpoint)
            except BadCheckpoint:
                self._start_over()
                raise

    def _start_over(self) -> None:
        self.model = self._reload()
        self._names.clear()
        self._peft = None
        self._spoiled = False

    def _load(self, checkpoint: Checkpoint) -> None:
        import pickle

        from peft import PeftModel

        folder = str(checkpoint.adapter)
        name = f"adapter{len(self._names)}"
        try:
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(self.model, folder, adapter_name=name).eval()
            else:
                self._peft.load_adapter(folder, adapter_name=name)
        except (
            OSError,
            ValueError,
            RuntimeError,
            KeyError,
            TypeError,
            AttributeError,
            pickle.UnpicklingError,
        ) as exc:
            raise BadCheckpoint(
                f"adapter {folder!r} does not load on {checkpoint.base!r}: {first_line(exc)}"
            ) from exc
        if self._peft.peft_config[name].is_prompt_learning:
            raise BadCheckpoint(f"adapter {folder!r} is a soft prompt; LoRA and its kin are supported")
        check_keys(self._peft, name, checkpoint)
        self._names[checkpoint.fingerprint] = name


def rewrites_base(folder: Path, base: frozenset[str]) -> bool:
    """Whether loading an adapter changes weights of the base itself, for good: biases, embeddings, PiSSA and its kin.

    Args: base: names of the base's parameters.
    """
    from safetensors import safe_open

    config = read_json(folder / CONFIG)
    start = config.get("init_lora_weights", True)
    if config.get("bias") not in (None, "none") or (isinstance(start, str) and start not in HARMLESS_STARTS):
        return True
    if not (folder / WEIGHTS).is_file():
        return False
    copied = [str(name) for name in config.get("modules_to_save") or ()]
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        held = [key.removeprefix("base_model.model.") for key in file.keys()]  # noqa: SIM118  no mapping
    return any(key in base and not any(name in key.split(".") for name in copied) for key in held)


def check_keys(peft_model: Any, name: str, checkpoint: Checkpoint) -> None:
    """Refuse an adapter whose tensors are not those that the base takes: PEFT would leave them random or out.

    Raises: BadCheckpoint: names the first tensor that is missing or has no place.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    path = Path(str(checkpoint.adapter)) / WEIGHTS
    if not path.is_file():
        return
    with safe_open(path, framework="pt") as file:
        held = set(file.keys())
    wanted = set(get_peft_model_state_dict(peft_model, adapter_name=name, save_embedding_layers=False))
    missing = sorted(wanted - held)
    homeless = sorted(key for key in held - wanted if "lora_" in key)
    if missing or homeless:
        problem = f"lacks {missing[0]}" if missing else f"holds {homeless[0]}, which has no place there"
        raise BadCheckpoint(
            f"adapter {str(checkpoint.adapter)!r} does not fit {checkpoint.base!r}: it {problem}; "
            "give the base that it was trained on"
        )
