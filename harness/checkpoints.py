"""Resolve what a user typed to a checkpoint on disk, fingerprint it, and refuse what is broken or unsafe.

A spec is a folder, a hub id (owner/name[@revision]), base+adapter, an adapter's folder, bundled:starter, or an
endpoint, http(s)://host[:port]/v1#model (harness.endpoints).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from harness.adapters import refuse_other_base
from harness.cards import CARD, Card, read_card, write_card
from harness.endpoints import checkpoint_of, is_endpoint
from harness.errors import BadCheckpoint
from harness.fingerprint import digest_of
from harness.folders import (
    TOKENIZER_FILES,
    Permissions,
    check_adapter,
    check_base,
    has_tokenizer,
    hash_files,
    is_adapter,
    is_unfinished,
    read_json,
    unfinished,
)
from harness.hub import find_folder, is_hub_id
from harness.records import Checkpoint


def resolve(
    spec: str, *, allow_pickle: bool = False, trust_remote_code: bool = False, name: str | None = None
) -> Checkpoint:
    """Find a checkpoint, check that it is whole and safe, and fingerprint it.

    Args:
        spec: folder, hub id, base+adapter, an adapter's folder alone, bundled:starter, or an endpoint.
        allow_pickle: unpickle weights where there are no safetensors.
        trust_remote_code: run Python code that comes with the checkpoint.
        name: label for tables; None: made from the spec.
    Raises:
        BadCheckpoint: nothing there, files missing, half-written weights, an adapter of another base.
        UnsafeCheckpoint: pickle weights or remote code without permission.
    """
    if is_endpoint(spec):
        return checkpoint_of(spec, name)
    allowed = Permissions(allow_pickle, trust_remote_code)
    base_spec, adapter_spec = split_spec(spec)
    first = find_folder(base_spec, allow_pickle=allow_pickle)
    adapter: Path | None = None
    if adapter_spec is not None:
        adapter = find_folder(adapter_spec, allow_pickle=allow_pickle)
        if not is_adapter(adapter):
            raise BadCheckpoint(f"{adapter_spec!r} (after the + of {spec!r}) has no adapter_config.json")
        if is_adapter(first):
            raise BadCheckpoint(
                f"{base_spec!r} (before the + of {spec!r}) is an adapter itself; give its base there"
            )
    elif is_adapter(first):
        adapter, first = first, _base_of(first, allow_pickle)
    found = _assemble(spec, first, adapter, allowed)
    return replace(found, name=name or _label(base_spec, adapter_spec))


def split_spec(spec: str) -> tuple[str, str | None]:
    """Split base+adapter at the right plus: folder names may hold one too.

    The plus that leaves two existing folders wins, then one that leaves an existing adapter, then the first.
    """
    if "+" not in spec or Path(spec).expanduser().exists():
        return spec, None
    places = [i for i, letter in enumerate(spec) if letter == "+"]
    pairs = [(spec[:i], spec[i + 1 :]) for i in places if spec[:i] and spec[i + 1 :]]
    if not pairs:
        raise BadCheckpoint(f"{spec!r} has nothing on one side of its +; give base+adapter")

    def rank(pair: tuple[str, str]) -> tuple[bool, bool]:
        left, right = (Path(part).expanduser() for part in pair)
        return not (right.is_dir() and left.is_dir()), not right.is_dir()

    return min(pairs, key=rank)


def tokenizer_folder(checkpoint: Checkpoint) -> str:
    """Where the checkpoint's tokenizer lies: with the adapter if it brings one, else with the base."""
    if checkpoint.adapter and has_tokenizer(Path(checkpoint.adapter)):
        return checkpoint.adapter
    return checkpoint.base


def unique_names(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Give checkpoints that share a name the name of their parent folder in front, or a number behind."""
    counts = _count(checkpoint.name for checkpoint in checkpoints)
    longer = [
        replace(c, name=f"{_parent_name(c)}/{c.name}") if counts[c.name] > 1 and _parent_name(c) else c
        for c in checkpoints
    ]
    seen: dict[str, int] = {}
    result = []
    for checkpoint in longer:
        number = seen[checkpoint.name] = seen.get(checkpoint.name, 0) + 1
        result.append(checkpoint if number == 1 else replace(checkpoint, name=f"{checkpoint.name}-{number}"))
    return result


def _count(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _parent_name(checkpoint: Checkpoint) -> str:
    return Path(checkpoint.adapter or checkpoint.base).parent.name


def _label(base_spec: str, adapter_spec: str | None) -> str:
    parts = [part for part in (base_spec, adapter_spec) if part is not None]
    return "+".join(_short(part) for part in parts)


def _short(spec: str) -> str:
    if spec.startswith("bundled:"):
        return spec.removeprefix("bundled:")
    if not Path(spec).expanduser().exists():
        return spec.rstrip("/").rsplit("/", 1)[-1]
    return Path(spec).expanduser().resolve().name or "checkpoint"


def _base_of(adapter: Path, allow_pickle: bool) -> Path:
    """Folder of the base that an adapter names: harness.json first, then adapter_config.json.

    harness.json's relative path starts at the adapter's folder; PEFT's by custom at the working directory.
    """
    card = read_card(adapter)
    named = read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
    candidates = [(card.base, (adapter, Path()))] if card and card.base else []
    if isinstance(named, str) and named:
        candidates.append((named, (Path(), adapter)))
    if not candidates:
        raise BadCheckpoint(f"adapter {adapter} does not name its base; give base+{adapter}")
    for base, starts in candidates:
        for start in starts:
            folder = (start / Path(base).expanduser()).resolve()
            if folder.is_dir():
                return folder
    elsewhere = [base for base, _ in candidates if base.startswith("bundled:") or is_hub_id(base)]
    if not elsewhere:
        raise BadCheckpoint(
            f"adapter {adapter} names the base {candidates[0][0]!r}, which is not there; give base+{adapter}"
        )
    return find_folder(elsewhere[0], allow_pickle=allow_pickle)


def _assemble(spec: str, base_path: Path, adapter_path: Path | None, allowed: Permissions) -> Checkpoint:
    """Check the folders and put the fingerprints together."""
    base = check_base(base_path, allowed)
    base_fingerprint = digest_of(base.parts)
    card = read_card(adapter_path or base_path)
    if card is None and is_unfinished(adapter_path or base_path):
        raise unfinished(adapter_path or base_path)
    adapter = check_adapter(adapter_path, card, base_fingerprint, allowed) if adapter_path else None
    if adapter is not None and not (card and card.base_fingerprint):
        refuse_other_base(adapter, base)
    has_own = adapter is not None and has_tokenizer(adapter.path)
    tokenizer = hash_files(adapter.path if adapter and has_own else base_path, TOKENIZER_FILES)
    generation = hash_files(base_path, ("generation_config.json",))
    parts = {
        "base": base_fingerprint,
        "tokenizer": digest_of(tokenizer),
        "generation": digest_of(generation),
        "adapter": digest_of(adapter.parts) if adapter else "",
    }
    counts = [base.parameters, adapter.parameters if adapter else 0]
    return Checkpoint(
        spec=spec,
        name="",
        base=str(base_path),
        adapter=str(adapter.path) if adapter else None,
        fingerprint=digest_of(parts),
        base_fingerprint=base_fingerprint,
        training=card.training if card else None,
        allow_pickle=allowed.allow_pickle,
        trust_remote_code=allowed.trust_remote_code,
        parameters=None if None in counts else sum(n for n in counts if n is not None),
    )


__all__ = [
    "CARD", "Card", "is_adapter", "read_card", "read_json", "resolve", "split_spec", "tokenizer_folder",
    "unique_names", "write_card",
]  # fmt: skip
