"""Where the judge and the model cannot lie in memory together, one goes before the other comes."""

from __future__ import annotations

import pytest

from harness.binding import Binder
from harness.evaluate import Evaluation
from harness.plan import EnergySpec, EvalPlan
from harness.protocols import SilentProgress
from tests.conftest import build_llama


class Said(SilentProgress):
    def __init__(self):
        self.lines = []

    def say(self, message):
        self.lines.append(message)


@pytest.fixture
def judge(tmp_path):
    return build_llama(tmp_path / "judge", seed=7)


@pytest.mark.parametrize("alone", [False, True])
def test_loads(plugin, tiny_llama, judge, tmp_path, alone):
    """Two models with bases of their own. Beside them the judge is loaded once; alone, once for each of them."""
    other = build_llama(tmp_path / "other", seed=8)
    said = Said()
    plan = EvalPlan(
        checkpoints=[str(tiny_llama), str(other)],
        tasks=["judged_sums"],
        judge=str(judge),
        limit=3,
        runs=tmp_path / "runs",
        energy=EnergySpec(idle_s=0),
    )
    evaluation = Evaluation(Binder(plan, said), None)
    seat = evaluation.binder.judge
    assert seat.alone is False, "on a CPU there is room for both"
    seat.alone = alone
    runs = evaluation.run()
    evaluation.close_meter()
    loads = [line.removeprefix("loading ").rsplit("/", 1)[-1] for line in said.lines if "loading" in line]
    again = ["judge"] if alone else []
    assert loads == [tiny_llama.name, "judge", "other", *again]
    assert [run.n_failed for run in runs] == [0, 0]
    assert [run.engine["judge"]["questions"] for run in runs] == [3, 3]
    assert seat.shared.loaded is None, "closed with the evaluation"
    # loading is in no window: what was weighed is the grading of three samples
    assert [run.energy["grading"].queries for run in runs] == [3, 3]
