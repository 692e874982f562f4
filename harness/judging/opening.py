"""The judge that a plan names, on its engine and with its response cache. Nothing is loaded yet."""

from __future__ import annotations

from harness.engines.choice import ENDPOINT, TRANSFORMERS, answer_settings
from harness.engines.opening import answers_of, device_kind, engine_identity, loader
from harness.judging.choice import NamesJudge, judge_engine, resolve_judge
from harness.judging.model import JudgeModel
from harness.protocols import Progress


def open_judge(plan: NamesJudge, progress: Progress) -> JudgeModel | None:
    """None: no judge is named, or one that another library knows.

    Raises: BadCheckpoint, UnsafeCheckpoint, BadPlan, BadInput: it cannot be used.
    """
    judge = resolve_judge(plan)
    if judge is None:
        return None
    spec = judge_engine(plan, judge)
    identity = {
        "fingerprint": judge.fingerprint,
        "engine": engine_identity(answer_settings(spec)),
        "sampling": "greedy",
    }
    beside = spec.name == ENDPOINT or (spec.name == TRANSFORMERS and device_kind(spec.device) == "cpu")
    # a verdict once paid for is read back, also where the model's own answers are to be weighed anew
    return JudgeModel(
        judge,
        loader(spec, progress),
        lambda checkpoint: (
            None if plan.cache == "off" else answers_of(plan.runs, spec, checkpoint, reads=True)
        ),
        identity,
        alone=not beside,
    )
