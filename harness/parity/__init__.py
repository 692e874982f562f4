"""Whether engines agree: the same requests, sample by sample.

from harness.parity import compare
parity = compare(plan, ["transformers", "vllm"])
"""

from harness.parity.compare import compare
from harness.parity.records import (
    TOLERANCE,
    Answers,
    Divergence,
    EngineParity,
    Loglikelihoods,
    Pair,
    Parity,
    TaskParity,
    Worst,
)

__all__ = [
    "TOLERANCE", "Answers", "Divergence", "EngineParity", "Loglikelihoods", "Pair", "Parity", "TaskParity", "Worst",
    "compare",
]  # fmt: skip
