"""Engines held against each other: real ones, on a tiny model, whole, perturbed and broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.errors import BadInput, NotComparable, UnknownName
from harness.parity import Divergence, Pair, compare
from harness.parity.pairs import answers_of, divergence, loglikelihoods_of
from harness.parity.sides import parse_sides
from harness.plan import EngineSpec, EvalPlan
from harness.records import Completion, GenerateRequest, LoglikelihoodRequest, Output, Sampling
from tests.cli.test_commands import harness
from tests.vllm_here import build_wide_llama, require_vllm

SUITE = """
name: both
headline: {name: mean}
tasks:
  choices: {task: sum_choices}
  reasoning: {task: starter_reasoning, options: {max_tokens: 12}}
"""


@pytest.fixture
def plan(plugin: Path, tiny_llama: Path, tmp_path: Path) -> EvalPlan:
    suite = tmp_path / "both.yaml"
    suite.write_text(SUITE)
    return EvalPlan(
        checkpoints=[str(tiny_llama)], suites=[str(suite)], limit=5, runs=tmp_path / "runs",
        engine=EngineSpec(threads=1),
    )  # fmt: skip


def changed(folder: Path, to: Path, change) -> Path:
    """A copy of a checkpoint with its weights changed in place."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, to)
    weights = load_file(to / "model.safetensors")
    change(weights)
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.fixture
def perturbed(tiny_llama: Path, tmp_path: Path) -> Path:
    def change(weights) -> None:
        weights["model.layers.1.mlp.down_proj.weight"] *= 1.5

    return changed(tiny_llama, tmp_path / "perturbed", change)


@pytest.fixture
def broken(tiny_llama: Path, tmp_path: Path) -> Path:
    def change(weights) -> None:
        weights["model.norm.weight"][:] = float("nan")

    return changed(tiny_llama, tmp_path / "broken", change)


class TestEngines:
    def test_an_engine_agrees_with_itself_under_another_batch_plan(self, plan: EvalPlan) -> None:
        parity = compare(plan, ["transformers", "transformers:batch_tokens=48"])
        (other,) = parity.others
        assert (parity.within, parity.n_failed, other.tolerance) == (True, 0, 1e-3)
        choices, reasoning = other.tasks
        assert choices.loglikelihoods is not None
        assert choices.loglikelihoods.n == choices.n_requests > 0
        assert choices.loglikelihoods.max_difference < 1e-4
        assert choices.loglikelihoods.share_greedy_equal == 1
        assert reasoning.answers is not None
        assert (reasoning.answers.n, reasoning.answers.share_equal) == (5, 1)
        for task in other.tasks:
            assert (task.n_samples, task.n_samples_changed, task.n_own_requests) == (5, 0, 0)
            assert all(a == b for a, b in task.scores.values())
        assert not plan.runs.exists(), "a comparison writes nothing"

    def test_another_checkpoint_is_found_out(self, plan: EvalPlan, perturbed: Path) -> None:
        (other,) = compare(plan, ["transformers", f"transformers:checkpoint={perturbed}"]).others
        choices, reasoning = other.tasks
        assert not other.within
        assert choices.loglikelihoods.max_difference > 0.01
        assert choices.loglikelihoods.worst.a != choices.loglikelihoods.worst.b
        assert reasoning.answers.share_equal < 1
        first = reasoning.answers.divergences[0]
        assert first.token_a != first.token_b
        assert min(first.gap_a, first.gap_b) >= 0, "each engine prefers the token that it wrote"
        assert max(first.gap_a, first.gap_b) > 1e-3

    def test_a_wide_tolerance_lets_it_pass(self, plan: EvalPlan, perturbed: Path) -> None:
        engines = ["transformers", f"transformers:checkpoint={perturbed}"]
        assert compare(plan, engines, tolerance=1e3).within

    def test_the_tolerance_is_that_of_the_coarser_number_type(self, plan: EvalPlan) -> None:
        (other,) = compare(plan, ["transformers", "transformers:dtype=bfloat16"]).others
        assert other.tolerance == 0.4
        assert other.tasks[0].loglikelihoods.max_difference > 1e-4

    def test_failed_requests_never_count_as_equal(self, plan: EvalPlan, broken: Path) -> None:
        engines = [f"transformers:checkpoint={broken}", f"transformers:checkpoint={broken}"]
        (other,) = compare(plan, engines).others
        choices, reasoning = other.tasks
        assert (choices.n_failed_a, choices.n_failed_b) == (choices.n_requests, choices.n_requests)
        assert (choices.loglikelihoods.max_difference, choices.loglikelihoods.share_greedy_equal) == (None, 0)
        assert reasoning.answers.share_equal == 0
        assert (choices.within, choices.n_samples_changed) == (False, 5)

    def test_other_tokenizers_are_not_comparable(
        self, plan: EvalPlan, tiny_llama: Path, tmp_path: Path
    ) -> None:
        other = Path(shutil.copytree(tiny_llama, tmp_path / "other"))
        tokenizer = json.loads((other / "tokenizer.json").read_text())
        vocab = tokenizer["model"]["vocab"]
        vocab["Q"], vocab["R"] = vocab["R"], vocab["Q"]
        (other / "tokenizer.json").write_text(json.dumps(tokenizer))
        with pytest.raises(NotComparable, match="other tokens for the same text"):
            compare(plan, ["transformers", f"transformers:checkpoint={other}"])

    def test_speed_is_nothing_to_compare(self, plan: EvalPlan) -> None:
        speed = plan.model_copy(update={"suites": ["latency"], "profile": "starter"})
        with pytest.raises(BadInput, match="measures speed"):
            compare(speed, ["transformers", "transformers"])

    @pytest.mark.vllm
    def test_vllm_agrees_with_transformers(self, plan: EvalPlan, tmp_path: Path) -> None:
        require_vllm()
        wider = build_wide_llama(tmp_path / "wider")
        (other,) = compare(
            plan.model_copy(update={"checkpoints": [str(wider)]}), ["transformers", "vllm"]
        ).others
        assert other.within, other
        assert other.tasks[0].loglikelihoods.share_greedy_equal == 1


class TestNames:
    def test_settings_belong_to_the_engine_before_them(self) -> None:
        given = ["transformers:dtype=bfloat16,batch_tokens=64,vllm", "vllm:max_loras=3,checkpoint=a/b"]
        sides = parse_sides(given, EngineSpec(threads=2))
        assert [s.label for s in sides] == ["transformers:dtype=bfloat16,batch_tokens=64", "vllm", given[1]]
        first, _, third = sides
        assert (first.spec.name, first.spec.dtype, first.spec.batch_tokens, first.spec.threads) == (
            "transformers", "bfloat16", 64, 2,
        )  # fmt: skip
        assert (third.spec.options, third.checkpoint) == ({"max_loras": 3}, "a/b")

    @pytest.mark.parametrize(
        ("engines", "problem"),
        [
            (["transformers"], "name two or more"),
            ([""], "name two or more"),
            (["transformers:dtype", "transformers"], "is no setting"),
            (["transformers:dtype=int3", "transformers"], "dtype"),
            (["transformers:batch_tokens=0", "transformers"], "batch_tokens"),
        ],
    )
    def test_what_cannot_be_used(self, engines: list[str], problem: str) -> None:
        with pytest.raises(BadInput, match=problem):
            parse_sides(engines, EngineSpec())

    def test_an_unknown_engine(self, plan: EvalPlan) -> None:
        with pytest.raises(UnknownName, match="no engine 'transformer'; did you mean transformers"):
            compare(plan, ["transformers", "transformer"])


def scored(value: float, greedy: bool = True) -> Completion:
    return Completion(loglikelihood=value, is_greedy=greedy)


def written(*ids: int) -> Completion:
    return Completion(outputs=(Output("".join(map(chr, ids)), ids, "stop"),))


class Letters:
    def decode(self, ids, skip_special_tokens: bool = False) -> str:
        return "".join(map(chr, ids))


class TestFigures:
    def test_loglikelihoods(self) -> None:
        request = LoglikelihoodRequest((65,), (66, 67))
        pairs = [
            Pair(request, scored(-1.0), scored(-1.5)),
            Pair(request, scored(-2.0), scored(-2.1, greedy=False)),
            Pair(request, scored(float("-inf")), scored(float("-inf"))),
            Pair(request, None, scored(-1.0), "out of memory"),
        ]
        found = loglikelihoods_of(pairs, Letters())
        assert (found.n, found.n_failed, found.max_difference) == (4, 1, 0.5)
        assert found.mean_difference == pytest.approx(0.6 / 3)
        assert found.share_greedy_equal == 2 / 4
        assert (found.worst.request, found.worst.context_end, found.worst.continuation) == (0, "A", "BC")

    def test_answers(self) -> None:
        greedy, drawn = GenerateRequest((1,)), GenerateRequest((1,), Sampling(temperature=1.0))
        pairs = [
            Pair(greedy, written(65, 66), written(65, 66)),
            Pair(greedy, written(65, 66), written(65, 67)),
            Pair(greedy, written(65), None, None, "gone"),
            Pair(drawn, written(65), written(66)),
        ]
        found = answers_of(pairs, Letters())
        assert (found.n, found.n_failed, found.n_sampled, found.share_equal) == (3, 1, 1, 1 / 3)
        assert found.divergences == (Divergence(1, 1, 66, 67, "B", "C"),)

    def test_an_end_token_more_is_no_difference_and_an_answer_that_stops_early_is(self) -> None:
        whole = Completion(outputs=(Output("A", (65, 0), "stop"),))
        assert divergence(0, written(65), whole, Letters()) is None
        assert divergence(0, written(65), written(65, 66), Letters()) == Divergence(0, 1, None, 66, "", "B")

    @pytest.mark.parametrize(
        ("gaps", "tie"),
        [((None, None), False), ((None, 0.001), True), ((0.003, 0.001), False), ((0, 0), True)],
    )
    def test_a_tie_is_what_two_tolerances_explain(self, gaps, tie: bool) -> None:
        assert Divergence(0, 0, 1, 2, "a", "b", *gaps).is_tie(0.001) == tie


class TestCommand:
    @pytest.fixture
    def parity(self, plan: EvalPlan, tiny_llama: Path, tmp_path: Path):
        def run(*arguments):
            suite = ("--suite", plan.suites[0], "--limit", "3", "--threads", "1")
            return harness("parity", tiny_llama, *suite, *arguments, cwd=tmp_path)

        return run

    def test_within_beyond_and_failed(self, parity, perturbed: Path, broken: Path) -> None:
        same = parity("--engines", "transformers,transformers:batch_tokens=64", "--json")
        assert same.returncode == 0, same.stderr
        found = json.loads(same.stdout)
        assert (found["within"], found["n_failed"], found["others"][0]["tolerance"]) == (True, 0, 0.001)
        assert {"loglikelihoods", "answers", "scores", "n_samples_changed"} <= set(
            found["others"][0]["tasks"][0]
        )

        apart = parity("--engines", f"transformers,transformers:checkpoint={perturbed}")
        assert apart.returncode == 1
        assert "beyond the tolerance of 0.001 nats" in apart.stdout
        assert "parts at token" in apart.stdout

        lost = parity("--engines", f"transformers,transformers:checkpoint={broken}")
        assert lost.returncode == 3
        assert "a failed request never counts as equal" in lost.stdout
        assert "choices: failed: the model gave NaN" in lost.stdout

    def test_bad_input_is_one_line(self, parity) -> None:
        for arguments in (
            ("--engines", "transformers"), (), ("--engines", "transformers,nosuch"),
            ("--engines", "transformers,transformers", "--tolerance", "-1"),
        ):  # fmt: skip
            done = parity(*arguments)
            assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
