"""The data of the benchmarks: a mirror of dataset folders, and lm-eval's task files pointed at it for the peers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SHOTS_FROM = 500
"""HellaSwag's mirror has a validation split alone: rows from here on serve as the training split (shots)."""

NEED_NLTK = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
"""Instructions of IFEval whose checkers cut text with a model that is downloaded apart: their prompts are left out."""
CHANGED = {"Rowan", "google"}


def bench_data(work: Path, mirror: Path) -> Path:
    """A folder of links into the mirror, but for HellaSwag (split, so that shots can be drawn) and IFEval."""
    root = work / "data"
    if (root / "done").exists():
        return root
    root.mkdir(parents=True, exist_ok=True)
    for owner in mirror.iterdir():
        link = root / owner.name
        if owner.is_dir() and owner.name not in CHANGED and not link.exists():
            link.symlink_to(owner.resolve())
    lines = read_lines(mirror / "Rowan/hellaswag/default/validation.jsonl")
    parts = {"validation": lines[:SHOTS_FROM], "train": lines[SHOTS_FROM:]}
    write_dataset(root / "Rowan/hellaswag", parts)
    prompts = read_lines(mirror / "google/IFEval/default/train.jsonl")
    kept = [line for line in prompts if not NEED_NLTK & set(json.loads(line)["instruction_id_list"])]
    write_dataset(root / "google/IFEval", {"train": kept})
    (root / "done").touch()
    return root


def read_lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines(keepends=True)


def write_dataset(folder: Path, parts: dict[str, list[str]]) -> None:
    """A folder that datasets.load_dataset reads: JSON lines by split, and the card that names them."""
    (folder / "default").mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        (folder / f"default/{name}.jsonl").write_text("".join(rows), encoding="utf-8")
    files = "\n".join(f"  - split: {name}\n    path: default/{name}.jsonl" for name in parts)
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}\n---\n"
    (folder / "README.md").write_text(card, encoding="utf-8")


def task_config(task: dict[str, Any], data_dir: Path, cache: Path) -> dict[str, Any]:
    """lm-eval's own config of a task, on the mirror's folder.

    Args: task: {name, file (inside lm_eval/tasks), shots, max_tokens}; the last two may be None.
    """
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    place = Path(lm_eval.tasks.__file__).parent / task["file"]
    config = load_yaml(place, resolve_func=True)
    config |= changes(config, task, data_dir, cache)
    return {key: value for key, value in config.items() if key != "tag"}


def changes(config: dict[str, Any], task: dict[str, Any], data_dir: Path, cache: Path) -> dict[str, Any]:
    """What differs from the published config: where the data is, and the row's shots and answer length."""
    # Without a cache of its own, datasets may serve another folder of the same name.
    new: dict[str, Any] = {
        "dataset_path": str(data_dir / config["dataset_path"]),
        "dataset_kwargs": {"cache_dir": str(cache)},
    }
    if task.get("shots") is not None:
        new["num_fewshot"] = task["shots"]
    if task.get("max_tokens"):
        new["generation_kwargs"] = {**config["generation_kwargs"], "max_gen_toks": task["max_tokens"]}
    return new


def write_task_file(task: dict[str, Any], data_dir: Path, folder: Path) -> str:
    """A task file for the lm_eval command's --include_path; returns the task's name in it."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    place = Path(lm_eval.tasks.__file__).parent / task["file"]
    plain = load_yaml(place, resolve_func=False)
    name = f"bench_{task['name']}"
    body = {"include": str(place), "task": name, **changes(plain, task, data_dir, folder / "cache")}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(json.dumps(body, indent=1), encoding="utf-8")  # JSON is YAML
    return name
