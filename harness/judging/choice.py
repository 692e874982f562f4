"""Whose judge `--judge` names, and which engine answers for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from harness import registry
from harness.checkpoints import resolve
from harness.endpoints import is_endpoint, parse
from harness.engines.choice import ENDPOINT, OF_WEIGHTS
from harness.engines.endpoint_options import EndpointOptions, find_key, read_options
from harness.errors import BadCheckpoint, BadPlan
from harness.plan import EngineSpec
from harness.records import Checkpoint
from harness.yamlfile import problem

PREFIX = re.compile(r"^([a-z_]+):(?!//)(.+)$")
SLASHED = re.compile(r"^[\w.-]+/[^@]+$")
"""A hub id without a revision; also the form of inspect's PROVIDER/MODEL."""
OF_THE_ENGINE = ("dtype", "device", "threads", "batch_tokens")


class NamesJudge(Protocol):
    """The part of a plan that says who judges, and where what it says is kept."""

    @property
    def judge(self) -> str | None: ...

    @property
    def judge_options(self) -> Mapping[str, Any]: ...

    @property
    def engine(self) -> EngineSpec: ...

    @property
    def checkpoints(self) -> Sequence[str]:
        """The models that are judged."""
        ...

    @property
    def runs(self) -> Path: ...

    @property
    def cache(self) -> str: ...

    @property
    def allow_pickle(self) -> bool: ...

    @property
    def trust_remote_code(self) -> bool: ...


def foreign_name(spec: str) -> str | None:
    """The judge's name for the library that alone knows it; None: it is a checkpoint, for the harness's engines.

    `inspect:PROVIDER/MODEL` is inspect's, and so is PROVIDER/MODEL where inspect has a provider of that name and no
    such folder is there. A hub id whose owner is called like a provider takes its revision: openai/gpt-oss-20b@main.
    """
    prefix = PREFIX.match(spec)
    if prefix and prefix[1] in registry.names("judge"):
        return prefix[2]
    if not SLASHED.match(spec) or "+" in spec or Path(spec).expanduser().exists():
        return None
    return spec if any(registry.load("judge", name)(spec) for name in registry.names("judge")) else None


def resolve_judge(plan: NamesJudge) -> Checkpoint | None:
    """The checkpoint that judges; None: no judge is named, or one that another library knows.

    Raises: BadCheckpoint, UnsafeCheckpoint, BadPlan, BadInput: it cannot be used.
    """
    if plan.judge is None or foreign_name(plan.judge) is not None:
        if plan.judge_options:
            raise BadPlan(
                "judge_options (--judge-option) are for a judge on an engine here; name one with --judge"
            )
        return None
    try:
        found = resolve(plan.judge, allow_pickle=plan.allow_pickle, trust_remote_code=plan.trust_remote_code)
    except BadCheckpoint as exc:
        libraries = ", ".join(registry.names("judge"))
        hint = f"; nor does {libraries} have such a model" if SLASHED.match(plan.judge) else ""
        raise type(exc)(f"--judge {plan.judge!r}: {exc}{hint}") from exc
    engine = judge_engine(plan, found)
    if engine.name == ENDPOINT:
        find_key(parse(found.spec), read_options(engine.options).key_env)
    return found


def judge_engine(plan: NamesJudge, judge: Checkpoint) -> EngineSpec:
    """The engine that answers for the judge: the plan's for weights, the endpoint engine for a server.

    judge_options go over it: engine, dtype, device, threads, batch_tokens, and the engine's own. Options of an
    endpoint that the plan sets for the models hold for the judge where it is on the same server: a key named for one
    server is not sent to another.

    Raises: BadPlan: an option there is not.
    """
    given = dict(plan.judge_options)
    name = given.pop("engine", None)
    if is_endpoint(judge.spec):
        if name not in (None, ENDPOINT) and name in OF_WEIGHTS:
            raise BadPlan(f"judge option engine={name} loads weights, and {judge.spec} is a server; drop it")
        options = {**_of_same_server(plan, judge), **given}
        if name in (None, ENDPOINT):
            read_options(options)
        return EngineSpec(name=name or ENDPOINT, options=options)
    base = plan.engine if plan.engine.name != ENDPOINT else EngineSpec()
    kept = (
        {k: v for k, v in base.options.items() if k not in EndpointOptions.model_fields}
        if _mixed(plan)
        else base.options
    )
    settings = {"name": name or base.name, **{key: given.pop(key) for key in OF_THE_ENGINE if key in given}}
    if settings["name"] not in registry.names("engine") or settings["name"] == ENDPOINT:
        known = ", ".join(n for n in registry.names("engine") if n != ENDPOINT)
        raise BadPlan(f"judge option engine={settings['name']}: no engine that loads weights; known: {known}")
    own = kept if settings["name"] == base.name else {}
    return _validated({**base.model_dump(), **settings, "options": {**own, **given}})


def _mixed(plan: NamesJudge) -> bool:
    return any(map(is_endpoint, plan.checkpoints))


def _of_same_server(plan: NamesJudge, judge: Checkpoint) -> dict[str, Any]:
    servers = [parse(spec).url for spec in plan.checkpoints if is_endpoint(spec)]
    if judge.base not in servers:
        return {}
    return {k: v for k, v in plan.engine.options.items() if k in EndpointOptions.model_fields}


def _validated(data: Mapping[str, Any]) -> EngineSpec:
    try:
        return EngineSpec.model_validate(data)
    except ValidationError as exc:
        raise BadPlan(f"judge_options: {problem(exc, EngineSpec)}") from exc
