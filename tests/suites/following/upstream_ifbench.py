"""lighteval's copy of the authors' IFBench graders, to hold ours against: installed for the test, without its needs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

LIGHTEVAL = "lighteval==0.13.0"


def install(target: Path) -> None:
    """Without its requirements: it pins an older nltk than lm-eval's. Skips where no registry can be reached."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), LIGHTEVAL]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{LIGHTEVAL} cannot be installed here: {done.stderr.strip()[-200:]}")


def small_nltk_data(folder: Path) -> Path:
    """A sentence model without parameters, twelve stop words, and a tagger that knows six words by heart."""
    punkt = folder / "tokenizers" / "punkt_tab" / "english"
    punkt.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (punkt / name).write_text("")
    words = folder / "corpora" / "stopwords"
    words.mkdir(parents=True)
    (words / "english").write_text("the\na\nan\nof\nto\nand\nin\nis\nit\nthat\nwas\nfor\n")
    tagger = folder / "taggers" / "averaged_perceptron_tagger_eng"
    tagger.mkdir(parents=True)
    known = {"Run": "VB", "Take": "VB", "Running": "VBG", "The": "DT", "Dogs": "NNS", "Was": "VBD"}
    parts: dict[str, Any] = {"weights": {}, "tagdict": known, "classes": sorted({*known.values(), "NN"})}
    for name, content in parts.items():
        (tagger / f"averaged_perceptron_tagger_eng.{name}.json").write_text(json.dumps(content))
    return folder


def load(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """lighteval's evaluation_lib. Nothing is fetched: no nltk data, no spaCy model (it never asks spaCy anything)."""
    import nltk

    monkeypatch.setattr(nltk, "download", lambda *args, **kwargs: True)
    imports = importlib.import_module("lighteval.utils.imports")
    monkeypatch.setattr(imports, "is_package_available", lambda package: package != "spacy")
    graders = importlib.import_module("lighteval.tasks.tasks.ifbench.instructions")
    monkeypatch.setattr(graders, "RESOURCES_DOWNLOADED", True)
    return importlib.import_module("lighteval.tasks.tasks.ifbench.evaluation_lib")


def verdict(library: ModuleType, constraint: str, answer: str, args: Mapping[str, Any]) -> bool | None:
    """What upstream says of one constraint; None where it dies of the answer."""
    checker = library.instructions_registry.INSTRUCTION_DICT[constraint](constraint)
    checker.build_description(**args)
    try:
        return bool(checker.check_following(answer))
    except (IndexError, ZeroDivisionError, ValueError):
        return None


Verdict = Callable[[str, str, Mapping[str, Any]], bool | None]
