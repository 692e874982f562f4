"""Options of an lm-eval task. Read before lm-eval is imported, so that a slip of the pen costs no seconds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.protocols import TaskRef
from harness.sampling import SAMPLING, SamplingSpec, check_names, read

FEWSHOT_SEED = 1234
"""What the lm_eval command takes by default."""
BOOTSTRAP_DRAWS = 1000
"""lm-eval draws 100,000 times, in minutes; its first 1000 draws are these."""


class Options(SamplingSpec):
    """What may stand behind the task's name, or under options: in a suite file."""

    chat: bool | Literal["auto"] = Field(
        default=False, description="auto: a chat where the tokenizer has a template; --chat goes before it"
    )
    num_fewshot: int | None = Field(default=None, ge=0)
    fewshot_seed: int = FEWSHOT_SEED
    system_instruction: str | None = None
    allow_unsafe_code: bool = False
    math_verify: bool = Field(
        default=False, description="Also score with math-verify, which reads the answer as mathematics"
    )
    bootstrap_iters: int = Field(default=BOOTSTRAP_DRAWS, ge=0)


OWN = tuple(name for name in Options.model_fields if name not in SAMPLING)
"""Options of the adapter; the others are those of sampling."""


def read_options(ref: TaskRef) -> Options:
    """Raises: UnknownName, BadPlan: an option that there is not, or a value that does not fit."""
    where = f"lm_eval:{ref.name}"
    check_names(ref.options, [*OWN, *SAMPLING], where)
    return read(Options, ref.options, where)
