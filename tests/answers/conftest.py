"""A tiny real engine, and caches of its answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.answers.cache import Answers
from harness.answers.keys import model_identity
from harness.checkpoints import resolve
from harness.plan import EngineSpec
from harness.records import Completion, GenerateRequest, LoglikelihoodRequest, Sampling

DRAWN = Sampling(max_tokens=12, temperature=1.0, seed=3, n=4)
PROMPT = tuple(range(40, 60))


def requests() -> list:
    """Every kind: loglikelihoods that share a context, greedy, several draws, a stop string, several greedy draws."""
    return [
        LoglikelihoodRequest(PROMPT, (61, 62, 63)),
        LoglikelihoodRequest(PROMPT, (99,)),
        LoglikelihoodRequest((*PROMPT, 61), (62, 63)),
        GenerateRequest(PROMPT, Sampling(max_tokens=16)),
        GenerateRequest(PROMPT, DRAWN),
        GenerateRequest(PROMPT[:5], replace(DRAWN, n=1, top_k=20, top_p=0.9, stop=("e", "\n"))),
        GenerateRequest(PROMPT[:7], Sampling(max_tokens=4, n=2)),
    ]


def told(completion: Completion) -> dict:
    """What of a completion must not depend on where it came from; floats as they are, bit for bit."""
    outputs = [(o.text, o.token_ids, o.finish_reason) for o in completion.outputs]
    names = ("loglikelihood", "is_greedy", "prompt_tokens", "output_tokens", "dropped_prompt_tokens")
    return {"outputs": outputs, **{name: getattr(completion, name) for name in names}}


def not_loaded():
    pytest.fail("the engine was asked for")


@pytest.fixture(scope="session")
def checkpoint(tiny_llama):
    return resolve(str(tiny_llama), name="tiny")


@pytest.fixture(scope="session")
def engine(checkpoint):
    from harness.engines.transformers import TransformersEngine

    loaded = TransformersEngine.load(checkpoint, {"threads": 1})
    yield loaded
    loaded.close()


@pytest.fixture
def open_answers(checkpoint, tmp_path):
    """Opens a cache under tmp_path; closes what is still open."""
    opened = []

    def open_one(*, reads: bool = True, runs: Path = tmp_path, spec: EngineSpec = EngineSpec()) -> Answers:  # noqa: B008
        identity = model_identity(checkpoint, spec, "pareto-harness 0", "cpu")
        opened.append(Answers(runs, checkpoint, identity, reads=reads))
        opened[-1].refresh()
        return opened[-1]

    yield open_one
    for answers in opened:
        answers.close()


def ask(answers: Answers, asked, load=not_loaded) -> list[Completion]:
    return [future.result(60) for future in answers.submit(asked, load)]
