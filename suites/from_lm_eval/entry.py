"""Any task, group or tag of lm-evaluation-harness: `lm_eval:NAME[,option=value]`.

    harness eval --tasks lm_eval:arc_challenge,num_fewshot=25 ckpt/

Options: num_fewshot, chat (true, false, auto), fewshot_seed, system_instruction, allow_unsafe_code,
bootstrap_iters, and those of sampling (max_tokens, temperature, ...). Metrics carry lm-eval's names: 'acc',
'exact_match,strict-match'; parts of a group follow as 'acc/mmlu_anatomy'.

In a script of one's own, lm-eval's evaluator runs on a harness engine as well:

    lm_eval.simple_evaluate(model=suites.from_lm_eval.entry.HarnessLM(engine), tasks=["arc_challenge"])
"""

from __future__ import annotations

from typing import Any

from harness.protocols import Task, TaskContext, TaskRef
from suites.from_lm_eval import index
from suites.from_lm_eval.options import read_options


def load(ref: TaskRef, context: TaskContext) -> Task:
    """Entry point pareto_harness.tasks: lm_eval.

    Raises: UnknownName (before anything heavy is imported), DatasetUnavailable, BadInput, BadPlan.
    """
    index.find(ref.name)
    read_options(ref)
    from suites.from_lm_eval.task import LmEvalTask

    return LmEvalTask(ref, context)


def names() -> list[str]:
    """All tasks, groups and tags of the installed lm-eval."""
    return index.names()


def __getattr__(name: str) -> Any:
    """HarnessLM, without importing lm-eval for those who only want load()."""
    if name == "HarnessLM":
        from suites.from_lm_eval.model import HarnessLM

        return HarnessLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
