"""From an engine's settings to a function that loads it, and to the response cache of what it answers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from harness import registry
from harness.answers.cache import Answers
from harness.answers.keys import model_identity
from harness.engines.choice import ENDPOINT, answer_settings, settings_of
from harness.plan import EngineSpec
from harness.protocols import Engine, Progress
from harness.records import Checkpoint, Json


def loader(spec: EngineSpec, progress: Progress) -> Callable[[Checkpoint], Engine]:
    """A function that loads a checkpoint on the engine; nothing heavy is imported before it is called."""
    options = settings_of(spec)

    def load(checkpoint: Checkpoint) -> Engine:
        progress.say(f"loading {checkpoint.base}")
        engine: type[Engine] = registry.load("engine", spec.name)
        return engine.load(checkpoint, options)

    return load


def answers_of(runs: Path, engine: EngineSpec, checkpoint: Checkpoint, *, reads: bool) -> Answers:
    """The response cache of a checkpoint on an engine. Args: reads: answer from it, too."""
    spec = answer_settings(engine)
    device = "elsewhere" if spec.name == ENDPOINT else device_kind(spec.device)
    identity = model_identity(checkpoint, spec, registry.origin("engine", spec.name), device)
    return Answers(runs, checkpoint, identity, reads=reads)


def engine_identity(engine: EngineSpec) -> list[Json]:
    """What of the engine a run depends on."""
    if engine.name == ENDPOINT:
        return [engine.name, engine.options]
    found = [engine.name, engine.dtype, device_kind(engine.device)]
    return [*found, engine.options] if engine.options else found  # some cut prompts or change numbers


def device_kind(name: str) -> str:
    """cpu or cuda: decides the number type that 'auto' gives. Imports torch only where there may be a GPU."""
    if name != "auto":
        return name.partition(":")[0]
    if sys.platform == "linux" and not Path("/dev/nvidiactl").exists() and not Path("/dev/kfd").exists():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
