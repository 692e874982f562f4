"""What is kept of an engine's answer, and the answer made of it again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from harness.answers.keys import draws_of, keys_of
from harness.records import Completion, GenerateRequest, Json, LoglikelihoodRequest, Output, Request

Entry = Mapping[str, Json]


def n_answers(request: Request) -> int:
    """Outputs of a request; 1 for a loglikelihood."""
    return request.sampling.n if isinstance(request, GenerateRequest) else 1


def rest_of(request: Request, held: int) -> Request | None:
    """What is left to compute once the first answers are held; None: nothing."""
    wanted = len(draws_of(request))
    if held == wanted:
        return None
    if not held or not isinstance(request, GenerateRequest):
        return request
    sampling = replace(request.sampling, n=wanted - held)
    return replace(request, sampling=sampling, first_draw=request.first_draw + held)


def entries_of(request: Request, completion: Completion, numbers: str = "") -> dict[bytes, Entry]:
    """What is kept of an answer, by key. Empty where it does not fit its request. Args: numbers: as keys_of has it."""
    draws = draws_of(request)
    keys = keys_of(request, draws, numbers)
    prompt = {
        "prompt_tokens": completion.prompt_tokens,
        "dropped_prompt_tokens": completion.dropped_prompt_tokens,
    }
    if isinstance(request, LoglikelihoodRequest):
        said = {"loglikelihood": completion.loglikelihood, "is_greedy": completion.is_greedy}
        return {next(keys): {**said, **prompt}} if completion.loglikelihood is not None else {}
    if len(completion.outputs) != n_answers(request):
        return {}
    tokens = shares(completion)
    return {
        key: {**_plain(output), "output_tokens": count, **prompt}
        for key, output, count in zip(keys, completion.outputs, tokens, strict=False)
    }


def shares(completion: Completion) -> list[int]:
    """Output tokens of each output; engines that do not see tokens are taken to have spread them evenly."""
    counts = [len(output.token_ids) for output in completion.outputs]
    if sum(counts) == completion.output_tokens:
        return counts
    each, rest = divmod(completion.output_tokens, len(counts))
    return [each + (place < rest) for place in range(len(counts))]


_OUTPUT = tuple(item.name for item in fields(Output) if item.name not in ("token_times_s", "chunks"))


def _plain(output: Output) -> dict[str, Json]:
    return {name: getattr(output, name) for name in _OUTPUT}


def fits(entry: Json, request: Request) -> bool:
    """Whether an entry has what a completion of the request is made of."""
    wanted = {"loglikelihood", "is_greedy"} if isinstance(request, LoglikelihoodRequest) else set(_OUTPUT)
    return isinstance(entry, dict) and wanted <= entry.keys()


def completion_of(request: Request, entries: Sequence[Entry], rest: Completion | None = None) -> Completion:
    """The answer that entries hold, gone on with what was computed. Times of what was read back say nothing."""
    now = time.perf_counter()
    head = entries[0]
    base = rest or Completion(
        prompt_tokens=head["prompt_tokens"],
        cached_tokens=head["prompt_tokens"],
        dropped_prompt_tokens=head["dropped_prompt_tokens"],
        queued_s=now,
        started_s=now,
        done_s=now,
    )
    if isinstance(request, LoglikelihoodRequest):
        said = {name: head[name] for name in ("loglikelihood", "is_greedy")}
        return replace(base, **said, reused=1)
    if len(draws_of(request)) < request.sampling.n:  # greedy: one draw stands for all
        entries = [head] * request.sampling.n
    held = tuple(_output(entry) for entry in entries)
    tokens = sum(entry["output_tokens"] for entry in entries)
    return replace(
        base,
        outputs=(*held, *base.outputs),
        output_tokens=base.output_tokens + tokens,
        reused=len(held),
        reused_tokens=tokens,
    )


def _output(entry: Entry) -> Output:
    given: dict[str, Any] = {
        name: tuple(entry[name]) if isinstance(entry[name], list) else entry[name] for name in _OUTPUT
    }
    return Output(**given)
