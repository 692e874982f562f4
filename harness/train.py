"""Train one stage: rows in, a checkpoint with its harness.json out. Skips what is done, goes on after a stop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from harness import energy, registry
from harness.cards import Card, read_card, write_card
from harness.checkpoints import resolve, split_spec
from harness.datasets import Datasets, fingerprint
from harness.endpoints import refuse_training
from harness.errors import Interrupted, NotWritable, TrainingFailed, UnknownName
from harness.hub import is_hub_id
from harness.methods import Reward, named_files, rewards_of, trainer_of
from harness.plan import Common, EnergySpec, Stage
from harness.protocols import DataSource, Meter, Progress, SilentProgress, TrainJob, TrainResult
from harness.records import Checkpoint, EnergySummary, Json, Training
from harness.threads import training_threads
from harness.traindata import Lesson, check_same_data
from harness.trainfolder import (
    STATE,
    Claim,
    EnergyFile,
    Identity,
    begin,
    claimed,
    finished,
    plan_fingerprint,
    settings_of,
)
from harness.versions import installed

VERSIONS = ("pareto-harness", "torch", "transformers", "trl", "peft", "accelerate")


@dataclass(frozen=True)
class Surroundings:
    """What the stages of a plan share."""

    data: DataSource
    meter: Meter
    energy: EnergySpec = field(default_factory=EnergySpec)
    progress: Progress = field(default_factory=SilentProgress)
    group: str = ""
    """Name of the plan."""
    settings: Mapping[str, Json] = field(default_factory=dict)
    """threads, detoxify_checkpoint, allow_pickle, ...: what trainers and rewards may read."""


class _Start(NamedTuple):
    """What is known before the rows are read."""

    rewards: list[Reward]
    identity: Identity
    claim: Claim


class _Made(NamedTuple):
    """Everything of one training run that its card tells."""

    result: TrainResult
    identity: Identity
    data_files: Mapping[str, str]
    n_rows: int
    wall_s: float


def train_one(base: str, stage: Stage, out: Path, common: Common, progress: Progress) -> Checkpoint:
    """Train one checkpoint from another: the one call behind `harness train`.

    Args:
        base: checkpoint to start from, as a spec.
        out: folder of the new checkpoint.
    Raises: UserError: with one line that says what to change. TrainingFailed, Interrupted.
    """
    trainer_of(stage)
    refuse_training(base)
    start = resolve(base, allow_pickle=common.allow_pickle, trust_remote_code=common.trust_remote_code)
    if common.energy.meter not in registry.names("meter"):
        raise UnknownName.of("meter", common.energy.meter, registry.names("meter"))
    data = Datasets(common.data_dir)
    meter = registry.load("meter", common.energy.meter)(common.energy)
    settings = {"threads": common.engine.threads, "allow_pickle": common.allow_pickle}
    try:
        return train_stage(
            stage, start, out, Surroundings(data, meter, common.energy, progress, settings=settings)
        )
    finally:
        meter.close()


def train_stage(stage: Stage, base: Checkpoint, out_dir: Path, around: Surroundings) -> Checkpoint:
    """Train a stage into a folder, unless it is done already.

    Returns: the new checkpoint, as resolve() gives it, under the stage's name.
    Raises:
        UserError: settings, data, rewards, parent or folder that cannot be used; nothing was trained.
        TrainingFailed: it stopped before its last step. Interrupted: Ctrl-C; the same call goes on.
    """
    out_dir = Path(out_dir)
    trainer = trainer_of(stage)
    identity = Identity(plan_fingerprint(stage, named_files(stage)), base.fingerprint)
    lesson = Lesson(stage, base, trainer, around.data)
    card = finished(out_dir, identity, stage)
    if card is not None:
        remark = check_same_data(card, lesson, out_dir)
        around.progress.say(f"{stage.name}: done already in {out_dir}{remark}")
        return _resolved(out_dir, base, stage)
    rewards = rewards_of(stage, around.settings)
    with claimed(out_dir) as claim:
        made = _train(lesson, out_dir, around, _Start(rewards, identity, claim))
        write_card(out_dir, _card(stage, base, out_dir, around, made))
    return _resolved(out_dir, base, stage)


def _resolved(out_dir: Path, base: Checkpoint, stage: Stage) -> Checkpoint:
    return resolve(
        str(out_dir),
        allow_pickle=base.allow_pickle,
        trust_remote_code=base.trust_remote_code,
        name=stage.name,
    )


def _train(lesson: Lesson, out_dir: Path, around: Surroundings, start: _Start) -> _Made:
    """Load the rows and train, weighed. The checkpoint is in out_dir afterwards, without its card."""
    stage, base = lesson.stage, lesson.base
    files = lesson.files()  # before the rows: where one changes in between, the rows are compared next time
    rows = lesson.rows(around.progress)
    identity = replace(start.identity, data=fingerprint(rows))
    if begin(out_dir, identity):
        around.progress.say(
            f"{stage.name}: going on from the state that an earlier attempt left in {out_dir}"
        )
    base_name = _base_name(base, out_dir)
    shown = base_name if is_hub_id(base_name) and not Path(base_name).exists() else os.path.abspath(base.base)
    job = TrainJob(
        base=base,
        stage=stage,
        rows=rows,
        rewards=start.rewards,
        out_dir=out_dir,
        settings={**around.settings, "base_name": shown},
        report=_reporter(stage, around.progress, start.claim),
    )
    readings = EnergyFile(out_dir, identity)
    start_s = time.perf_counter()
    with (
        _mapped_errors(stage, out_dir),
        training_threads(base.parameters, around.settings.get("threads")),
        around.meter.window("training", f"train {stage.name}", readings.append),
    ):
        result = lesson.trainer.train(job)
    around.progress.finish()
    for note in result.notes:
        around.progress.say(f"{stage.name}: {note}")
    return _Made(result, identity, files, len(rows), time.perf_counter() - start_s)


def _base_name(base: Checkpoint, out_dir: Path) -> str:
    """How a new adapter's card names its base: as the user did, or relative, so that both can be moved together."""
    named = split_spec(base.spec)[0]
    if base.adapter is not None and split_spec(base.spec)[1] is None:
        card = read_card(base.adapter)
        named = card.base if card else ""
    if named.startswith("bundled:") or (is_hub_id(named) and not Path(named).exists()):
        return named
    return os.path.relpath(base.base, out_dir)


def _reporter(
    stage: Stage, progress: Progress, claim: Claim
) -> Callable[[int, int, Mapping[str, float]], None]:
    """A job's report that draws one bar over the steps, and notes the first."""
    seen: list[int] = []

    def report(step: int, total: int, logs: Mapping[str, float]) -> None:
        claim.trained = claim.trained or step > 0
        if not seen:
            progress.start(f"{stage.name} ({stage.method})", total, step)
        elif step > seen[-1]:
            progress.advance(step - seen[-1])
        seen[:] = [step]

    return report


@contextmanager
def _mapped_errors(stage: Stage, out_dir: Path) -> Iterator[None]:
    """Turn what libraries raise on Ctrl-C, a full disk and a full memory into one line each."""
    try:
        yield
    except KeyboardInterrupt as exc:
        kept = any((out_dir / STATE).glob("checkpoint-*"))
        state = "the same command goes on from there" if kept else "it had not saved a state; start again"
        raise Interrupted(f"stage {stage.name!r} stopped; {state}") from exc
    except OSError as exc:
        raise NotWritable.of(out_dir, exc) from exc
    except MemoryError as exc:
        raise _too_large(stage) from exc
    except RuntimeError as exc:
        text = " ".join(str(exc).split())
        if "out of memory" in text.lower() or "can't allocate memory" in text.lower():
            raise _too_large(stage) from exc
        if "No space left" in text or "file write failed" in text or "unexpected pos" in text:
            raise NotWritable.of(out_dir, OSError(28, "No space left on device")) from exc
        raise TrainingFailed(f"stage {stage.name!r} failed: {text[:300]}") from exc


def _too_large(stage: Stage) -> TrainingFailed:
    return TrainingFailed(
        f"stage {stage.name!r} ran out of memory; lower batch_size ({stage.batch_size}) or max_length "
        f"({stage.max_length}), or raise gradient_accumulation"
    )


def _card(stage: Stage, base: Checkpoint, out_dir: Path, around: Surroundings, made: _Made) -> Card:
    """All that harness.json says."""
    own = _own_energy(EnergyFile(out_dir, made.identity), around.energy)
    result = made.result
    parent = base.training
    training = Training(
        method=stage.method,
        stage=stage.name,
        parent=base.fingerprint,
        root=parent.root if parent else base.fingerprint,
        energy=own,
        lineage_energy=energy.add([parent.lineage_energy, own]) if parent else own,
        trainable_parameters=result.trainable_parameters,
        total_parameters=result.total_parameters,
        plan_fingerprint=made.identity.plan,
        group=around.group,
        settings=search_settings(stage),
    )
    is_adapter = (out_dir / "adapter_config.json").is_file()
    return Card(
        training=training,
        kind="lora" if is_adapter else "full",
        base=_base_name(base, out_dir) if is_adapter else "",
        base_fingerprint=base.base_fingerprint if is_adapter else "",
        data_fingerprint=made.identity.data,
        data_files=made.data_files,
        n_rows=made.n_rows,
        plan=settings_of(stage),
        steps=result.steps,
        seconds=own.duration_s if own and own.duration_s else made.wall_s,
        log=tuple(dict(entry) for entry in result.log),
        notes=tuple(result.notes),
        trainable_share=result.trainable_parameters / max(result.total_parameters, 1),
        parent_spec=base.spec,
        parent_plan_fingerprint=parent.plan_fingerprint if parent else "",
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=installed(VERSIONS),
    )


def _own_energy(file: EnergyFile, spec: EnergySpec) -> EnergySummary | None:
    readings = [reading for reading in file.read() if reading.phase == "training"]
    return energy.summarise(readings, spec) if readings else None


def search_settings(stage: Stage) -> dict[str, Json]:
    """The stage's settings under dotted names: learning_rate, lora.r, data.0.weight, options.beta, ..."""
    flat: dict[str, Json] = {}

    def walk(value: Any, prefix: str) -> None:
        if isinstance(value, dict):
            for key, entry in value.items():
                walk(entry, f"{prefix}.{key}" if prefix else str(key))
        elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
            for index, entry in enumerate(value):
                walk(entry, f"{prefix}.{index}")
        else:
            flat[prefix] = value

    walk(settings_of(stage), "")
    return {key: value for key, value in flat.items() if key not in ("name", "from")}
