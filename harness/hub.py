"""Find a checkpoint's folder: on disk, bundled with this package, or a snapshot of a hub repository."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from harness.errors import BadCheckpoint, UnsafeCheckpoint

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[\w./-]+)?$")
WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.py"]
PICKLE_WANTED = ["*.bin"]
BUNDLED = {"starter": ("harness.starter", "base", "python -m trainers.starter_base")}


def is_hub_id(spec: str) -> bool:
    """Whether a spec has the form of owner/name[@revision] (or a bare name), not of a path."""
    return bool(HUB_ID.match(spec)) and ".." not in spec and "--" not in spec


def find_folder(spec: str, *, allow_pickle: bool = False) -> Path:
    """Folder of a path, a bundled checkpoint, or a hub id, in this order.

    Raises: BadCheckpoint: nothing of that name, with what to do about it.
    """
    if not spec.strip():
        raise BadCheckpoint(f"{spec!r} names no model; give a folder or a hub id (owner/name)")
    if spec.startswith("bundled:"):
        return _bundled(spec)
    path = Path(spec).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.exists():
        raise BadCheckpoint(f"{spec!r} is a file; give the folder it lies in")
    if not is_hub_id(spec):
        raise BadCheckpoint(f"no folder {spec!r}{_near(path)}; give a folder or a hub id (owner/name)")
    return _snapshot(spec, path, allow_pickle)


def _bundled(spec: str) -> Path:
    name = spec.removeprefix("bundled:")
    if name not in BUNDLED:
        raise BadCheckpoint(f"nothing bundled is called {name!r}; known: {', '.join(BUNDLED)}")
    package, folder, rebuild = BUNDLED[name]
    found = find_spec(package)
    places = list(found.submodule_search_locations or []) if found else []
    for place in places:
        if (Path(place) / folder / "config.json").is_file():
            return Path(place) / folder
    raise BadCheckpoint(f"{spec!r} is not in this installation; install again, or build it: {rebuild}")


def _near(path: Path) -> str:
    """Folders beside the wanted one whose names are close."""
    parent = path.parent
    if not parent.is_dir():
        return f" (nor {str(parent)!r})"
    near = get_close_matches(path.name, [p.name for p in parent.iterdir() if p.is_dir()], n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(str(parent / name) for name in near)}?" if near else ""


def _snapshot(spec: str, path: Path, allow_pickle: bool) -> Path:
    """Folder of a hub repository in the local cache, downloaded first where the hub is reachable."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    repository, _, revision = spec.partition("@")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
    patterns = WANTED + (PICKLE_WANTED if allow_pickle else [])
    try:
        folder = Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=patterns,
                ignore_patterns=[
                    "*/*",
                    "consolidated*",
                ],  # the root holds the weights that transformers reads
                local_files_only=offline,
            )
        )
        if not offline and not allow_pickle and not any(folder.glob("*.safetensors")):
            _refuse_pickles(repository, revision)
        return folder
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as exc:
        why = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        raise BadCheckpoint(
            f"{spec!r} is no folder{_near(path)} and not in the hub's cache, and {why}; give a local folder, "
            f"go online, or fetch it elsewhere with 'hf download {repository}' and copy it here"
        ) from exc
    except HfHubHTTPError as exc:
        status = exc.response.status_code if exc.response is not None else "no answer"
        raise BadCheckpoint(
            f"{spec!r} is no folder{_near(path)} and the hub does not give it ({status}); check the name, "
            "or log in with 'hf auth login' if it is gated"
        ) from exc


def _refuse_pickles(repository: str, revision: str) -> None:
    """Say that a hub repository without safetensors has pickles, which were not downloaded."""
    from huggingface_hub import list_repo_files

    pickles = [
        name for name in list_repo_files(repository, revision=revision or None) if name.endswith(".bin")
    ]
    if pickles:
        raise UnsafeCheckpoint(
            f"{repository!r} has pickle weights only ({pickles[0]}), and unpickling runs code; "
            "use a revision with safetensors, or allow it with --allow-pickle"
        )
