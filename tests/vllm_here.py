"""Whether vLLM is there to be tested with, and a model that it computes on a CPU."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import build_llama

HIDDEN = 128
"""Makes heads of 32, the narrowest that vLLM's kernels for a CPU take."""


def require_vllm() -> None:
    """Skip where vLLM is missing, unless it must be there."""
    if find_spec("vllm") is not None:
        return
    if os.environ.get("HARNESS_REQUIRE_VLLM") == "1":
        pytest.fail("HARNESS_REQUIRE_VLLM is set and vLLM is not installed (docs/vllm.md)")
    pytest.skip("vLLM is not installed; docs/vllm.md says how")


def build_wide_llama(folder: Path, **fields) -> Path:
    """A random Llama of one million parameters that vLLM computes on a CPU."""
    return build_llama(folder, hidden=HIDDEN, **fields)
