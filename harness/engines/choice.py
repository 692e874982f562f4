"""Which engine answers for which checkpoint: weights go to the plan's engine, servers to the endpoint engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.endpoints import is_endpoint, parse
from harness.errors import BadCheckpoint, BadInput
from harness.fingerprint import digest_of
from harness.folders import TOKENIZER_FILES, hash_files
from harness.plan import EngineSpec, EvalPlan
from harness.protocols import Task
from harness.records import Checkpoint

ENDPOINT = "endpoint"
TRANSFORMERS = "transformers"
VLLM = "vllm"
OF_WEIGHTS = (TRANSFORMERS, VLLM)
"""Engines that load weights, and therefore cannot ask a server."""
OF_THE_MACHINE = ("dtype", "device", "threads", "batch_tokens")


def check_engines(plan: EvalPlan) -> None:
    """Raises: BadCheckpoint, BadInput, BadPlan: an engine, or a setting of one, that no checkpoint can use."""
    servers = [spec for spec in plan.checkpoints if is_endpoint(spec)]
    folders = [spec for spec in plan.checkpoints if not is_endpoint(spec)]
    engine = plan.engine
    if engine.name == ENDPOINT and folders:
        raise BadCheckpoint(
            f"{folders[0]!r} is no endpoint; give http(s)://host[:port]/v1#model, or drop --engine {ENDPOINT}"
        )
    if folders:
        _check_weights(engine_of_weights(plan))
    if not servers:
        return
    for spec in servers:
        parse(spec)
    if getattr(plan, "adapters", None) and is_endpoint(plan.checkpoints[0]):
        raise BadInput(
            "a server's adapters are models of its own: give http(s)://host[:port]/v1#ADAPTER for each"
        )
    if not folders and engine.name in OF_WEIGHTS and "name" in engine.model_fields_set:
        raise BadInput(
            f"engine {engine.name} loads weights, and {servers[0]} is a server; drop --engine {engine.name}"
        )
    given = [name for name in OF_THE_MACHINE if getattr(engine, name) not in (None, "auto")]
    if given and not folders:
        raise BadInput(f"{given[0]} is set where the server runs; drop it for {servers[0]}")
    _read(_endpoint_options(plan))


def engine_of(plan: EvalPlan, checkpoint: Checkpoint) -> EngineSpec:
    """The engine and its options for one checkpoint. A plan that mixes weights and servers may set both kinds."""
    engine = plan.engine
    own = engine.name not in (*OF_WEIGHTS, ENDPOINT) and "name" in engine.model_fields_set
    if not is_endpoint(checkpoint.spec):
        return engine_of_weights(plan)
    return engine if own else EngineSpec(name=ENDPOINT, options=_endpoint_options(plan))


def engine_of_weights(plan: EvalPlan) -> EngineSpec:
    """The plan's engine, without the options that are for its servers."""
    if not any(map(is_endpoint, plan.checkpoints)):
        return plan.engine
    known = _known()
    kept = {name: value for name, value in plan.engine.options.items() if name not in known}
    return plan.engine.model_copy(update={"options": kept})


def settings_of(engine: EngineSpec) -> dict[str, Any]:
    """What an engine is loaded with: the plan's settings that are given, and its own options."""
    given = {name: getattr(engine, name) for name in OF_THE_MACHINE}
    return {name: value for name, value in given.items() if value not in (None, "auto")} | engine.options


def _check_weights(engine: EngineSpec) -> None:
    """Raises: BadInput: an option that the engine does not have, before its libraries are imported."""
    if engine.name == TRANSFORMERS:
        from harness.engines.transformers_options import check_options

        check_options(settings_of(engine))
    elif engine.name == VLLM:
        from harness.engines import vllm_options

        vllm_options.read_options(settings_of(engine))


def _endpoint_options(plan: EvalPlan) -> dict[str, Any]:
    """All options where only servers are asked; else those that the endpoint engine knows."""
    if all(map(is_endpoint, plan.checkpoints)):
        return plan.engine.options
    return {name: value for name, value in plan.engine.options.items() if name in _known()}


def _known() -> set[str]:
    from harness.engines.endpoint_options import EndpointOptions

    return set(EndpointOptions.model_fields)


def _read(options: Mapping[str, Any]) -> None:
    from harness.engines.endpoint_options import read_options

    read_options(options)


def answer_settings(engine: EngineSpec) -> EngineSpec:
    """The engine with those options alone that answers depend on, a tokenizer's folder by its content.

    Limits, prices and the key's name may change between two commands of one run.
    """
    if engine.name != ENDPOINT:
        return engine
    from harness.engines.endpoint_options import RESULT

    kept = {name: engine.options[name] for name in RESULT if engine.options.get(name) is not None}
    if "tokenizer" in kept:
        files = hash_files(Path(str(kept["tokenizer"])).expanduser(), TOKENIZER_FILES)
        kept["tokenizer"] = digest_of(files)
    return engine.model_copy(update={"options": kept})


def check_scoring(engine: Any, tasks: Mapping[str, Task]) -> None:
    """Raises: BadInput: a task compares log-likelihoods and the engine gives none; names the form to ask instead."""
    if getattr(engine, "can_score", True):
        return
    for label, task in tasks.items():
        if getattr(task, "compares_likelihoods", False):
            form = getattr(task, "generative_form", None)
            advice = f"ask its generative form: --tasks {form}" if form else "ask other tasks of it"
            advice = getattr(task, "without_likelihoods", advice)
            raise BadInput(
                f"task {label!r} compares log-likelihoods, and this server gives none (neither prompt_logprobs nor "
                f"echo with logprobs); {advice}"
            )
