"""Many adapters on one base: what `--adapters` names, and whether an adapter made elsewhere belongs to its base."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import BadCheckpoint, BadInput
from harness.fingerprint import file_sha256, safetensors_shapes
from harness.folders import ADAPTER_CONFIG, SAFETENSORS, Folder, is_adapter, read_json
from harness.hub import is_hub_id

Shape = tuple[int, ...]
FACTOR = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<factor>[AB])\.weight$")
NAMED_MOST = 5


def adapter_specs(base: str, patterns: Sequence[str]) -> list[str]:
    """base+adapter for every adapter that the patterns name: folders, globs (expanded here or by the shell), hub ids.

    Raises: BadInput: a pattern that nothing matches. BadCheckpoint: folders that are no adapters, by their names.
    """
    if Path(base).expanduser().is_dir() and is_adapter(Path(base).expanduser()):
        raise BadCheckpoint(
            f"--adapters go on a base, and {base!r} is an adapter itself; name the base first"
        )
    folders = list(dict.fromkeys(place for pattern in patterns for place in _places(pattern)))
    # a glob over a folder of checkpoints also catches the plan or the notes that lie there
    kept = [place for place in folders if not Path(place).expanduser().is_file()]
    if not kept:
        raise BadInput(f"--adapters {' '.join(patterns)!r} names files only; give folders of adapters")
    wrong = [place for place in kept if not _is_adapter(place)]
    if wrong:
        listed = ", ".join(repr(place) for place in wrong[:NAMED_MOST])
        more = f" and {len(wrong) - NAMED_MOST} more" if len(wrong) > NAMED_MOST else ""
        verb = "are no adapters" if len(wrong) > 1 else "is no adapter"
        raise BadCheckpoint(
            f"--adapters: {listed}{more} {verb} (no {ADAPTER_CONFIG}); leave it out, or score whole weights as a "
            "checkpoint of their own"
        )
    return [f"{base}+{place}" for place in kept]


def _places(pattern: str) -> list[str]:
    if Path(pattern).expanduser().exists() or not glob.has_magic(pattern):
        return [pattern]
    found = sorted(glob.glob(str(Path(pattern).expanduser())))
    if not found:
        raise BadInput(
            f"--adapters {pattern!r} matches nothing; give folders of adapters, or a glob over them"
        )
    return found


def _is_adapter(place: str) -> bool:
    folder = Path(place).expanduser()
    if not folder.exists():
        if is_hub_id(place):
            return True  # resolving finds out
        raise BadCheckpoint(f"--adapters: no folder {place!r}; give folders of adapters, or a quoted glob")
    return is_adapter(folder)


# Whether an adapter belongs to a base


def refuse_other_base(adapter: Folder, base: Folder) -> None:
    """Refuse an adapter made elsewhere that shows another base than the one given.

    PEFT writes no fingerprint. Two things can prove it wrong before anything is loaded: the base it names is on
    this disk with other weights, or its matrices do not have the shapes of the base's layers.

    Raises: BadCheckpoint: one of the two.
    """
    named = read_json(adapter.path / ADAPTER_CONFIG).get("base_model_name_or_path")
    other = _named_folder(named, adapter.path) if isinstance(named, str) and named else None
    if other is not None and other.resolve() != base.path.resolve():
        _refuse_other_weights(adapter, base, other)
    if "quantization_config" in read_json(base.path / "config.json"):
        return  # packed weights have shapes of their own
    misfit = misfit_of(_shapes(adapter.path, "adapter"), _shapes(base.path, "model"))
    if misfit is not None:
        raise BadCheckpoint(
            f"adapter {adapter.path} does not fit the base {base.path}: {misfit}; give the base that it was trained on"
        )


def _named_folder(named: str, adapter: Path) -> Path | None:
    """The base that an adapter names, where it is a folder here; PEFT's path starts at the working directory."""
    for start in (Path(), adapter):
        folder = start / Path(named).expanduser()
        if (folder / "config.json").is_file():
            return folder
    return None


def _refuse_other_weights(adapter: Folder, base: Folder, other: Path) -> None:
    """Weights alone are held together: a config is written anew by every version of transformers."""
    ours = {name: digest for name, digest in base.parts.items() if name.endswith(".safetensors")}
    if not ours or not all((other / name).is_file() for name in ours):
        return  # cut into other files: bytes prove nothing
    changed = next((name for name, digest in ours.items() if file_sha256(other / name) != digest), None)
    if changed is not None:
        raise BadCheckpoint(
            f"adapter {adapter.path} was trained on another base: it names {str(other)!r}, whose {changed} hashes to "
            f"{file_sha256(other / changed)[:12]}, and that of {base.path} to {ours[changed][:12]}; give the base it "
            f"names, or mend base_model_name_or_path in its {ADAPTER_CONFIG}"
        )


def _shapes(folder: Path, kind: str) -> dict[str, Shape]:
    """Shapes of all tensors of a folder; empty where they are pickled."""
    name = SAFETENSORS[kind]
    files = [folder / name] if (folder / name).is_file() else _shards(folder / f"{name}.index.json")
    return {key: shape for path in files for key, shape in safetensors_shapes(path).items()}


def _shards(index: Path) -> list[Path]:
    if not index.is_file():
        return []
    return [
        index.parent / name for name in sorted(set(dict(read_json(index).get("weight_map") or {}).values()))
    ]


def misfit_of(adapter: Mapping[str, Shape], base: Mapping[str, Shape]) -> str | None:
    """What of a LoRA's matrices contradicts the shapes of a base's layers, or None.

    Args:
        adapter: names as PEFT saves them; A is (r, in), B is (out, r).
        base: names as transformers saves them, (out, in), or (in, out) for GPT-2's Conv1D. A base saved without
            its head lacks the first part of every name, and some layers are renamed as they load: a layer that is
            not found is evidence only where others of the same stack are.
    """
    layers = {name.removesuffix(".weight"): shape for name, shape in base.items() if len(shape) == 2}
    missing: list[str] = []
    found = 0
    for module, (wide, out) in _factors(adapter).items():
        shape = layers.get(module) or layers.get(module.partition(".")[2])
        if shape is None:
            missing += [module] if _in_stack(module) else []
            continue
        found += _in_stack(module)
        if sorted(shape) != sorted((wide, out)):
            return f"{module} takes {wide} and gives {out} numbers in the adapter, and is {shape[0]} x {shape[1]} there"
    return f"it holds {missing[0]}, which the base does not have" if found and missing else None


def _factors(adapter: Mapping[str, Shape]) -> dict[str, tuple[int, int]]:
    """Module -> (in, out) for the modules of which both matrices are there."""
    sizes: dict[str, dict[str, int]] = {}
    for name, shape in adapter.items():
        match = FACTOR.match(name)
        if match and len(shape) == 2:
            sizes.setdefault(match["module"], {})[match["factor"]] = shape[match["factor"] == "A"]
    return {name: (both["A"], both["B"]) for name, both in sizes.items() if len(both) == 2}


def _in_stack(module: str) -> bool:
    return any(part.isdigit() for part in module.split("."))
