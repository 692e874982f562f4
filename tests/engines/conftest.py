"""A server on loopback, engines on it, and sums to ask."""

from __future__ import annotations

import pytest

from harness.endpoints import checkpoint_of
from harness.engines.endpoint import EndpointEngine
from harness.errors import EngineError
from harness.records import GenerateRequest, Sampling
from tests.engines.endpoint_server import running

WAIT_S = 30
SECRET = "tests-secret-4f1d9c2b7a"
QUICK = {"backoff_s": 0.02, "deadline_s": 20}


@pytest.fixture
def server():
    with running() as found:
        yield found


@pytest.fixture
def engine_on():
    """Load an engine on a server; every one is closed again."""
    made = []

    def load(server, **options):
        engine = EndpointEngine.load(checkpoint_of(server.spec), {**QUICK, **options})
        made.append(engine)
        server.arm()
        return engine

    yield load
    for engine in made:
        engine.close()


def sums(engine, n, sampling=None, start=0):
    """Ask for n sums; futures in their order."""
    sampling = sampling or Sampling(max_tokens=8)
    texts = [f"What is {i} + {2 * i}?" for i in range(start, start + n)]
    return engine.submit([GenerateRequest(tuple(engine.tokenizer.encode(t)), sampling) for t in texts])


def texts_of(futures):
    return [future.result(WAIT_S).outputs[0].text for future in futures]


def failure(future) -> str:
    problem = future.exception(WAIT_S)
    assert isinstance(problem, EngineError), problem
    return str(problem)
