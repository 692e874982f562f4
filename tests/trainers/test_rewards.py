"""Rewards on answers whose worth is known."""

from __future__ import annotations

from typing import Any

import pytest

from harness.errors import BadColumns
from trainers.rewards import exact_match, format_reward, math_verify, toxicity


def call(reward: Any, completions: list[Any], **columns: Any) -> list[float | None]:
    return list(
        reward(prompts=["p"] * len(completions), completions=completions, trainer_state=None, **columns)
    )


def turn(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_exact_match() -> None:
    answers = ["12", "Paris", None, "12"]
    assert call(exact_match, [" 12\n", turn("paris"), "x", "120"], answer=answers) == [1.0, 0.0, None, 0.0]


@pytest.mark.parametrize(
    ("completion", "gold", "value"),
    [
        ("so it is \\boxed{\\frac{1}{2}}", "0.5", 1.0),
        ("12 + 6 = 18\n#### 18", "Natalia sold 12, then 6.\n#### 18", 1.0),
        ("#### 17", "#### 18", 0.0),
        ("I do not know", "#### 18", 0.0),
        ("the answer is 1,000", "#### 1,000", 1.0),
        ("$x = 3$", "$\\{3\\}$", 1.0),
        ("7", "", None),
        ("$\\sqrt{8}$", "2\\sqrt{2}", 1.0),
        ("2", "2\\sqrt{2}", 0.0),  # no 2 is read of bare LaTeX
        ("#### $\\frac{3}{4}$", "#### \\frac{3}{4}", 1.0),
        ("4", "\\frac{3}{4}", 0.0),
        ("\\boxed{x+1}", "so $\\boxed{1 + x}$", 1.0),
        ("18", "18 dollars", 1.0),
        ("", "18", 0.0),
        ("１８", "18", 0.0),
        ("\\boxed{17} \\boxed{18}", "18", 0.0),  # two boxes are a set of two, to the library
        ("\\boxed{17}, no:\n#### 18", "18", 1.0),
        ("<answer>17</answer> <answer>$18$</answer> of 20", "18", 1.0),
        ("<answer>18</answer>", "18", 1.0),
        ("9" * 6000, "18", 0.0),
    ],
)
def test_math_verify(completion: str, gold: str, value: float | None) -> None:
    assert call(math_verify, [completion], answer=[gold]) == [value]


def test_an_expression_that_never_ends_is_wrong_in_time() -> None:
    assert call(math_verify, ["$9^{9^{9^{9^{9}}}}$"], answer=["$1$"]) == [0.0]


def test_format() -> None:
    completions = [
        "\\boxed{4}",
        "#### 4",
        "<answer>4</answer>",
        "4",
        "\\boxed{4} \\boxed{5}",
        turn("a\n#### 4"),
    ]
    assert call(format_reward, completions) == [1.0, 1.0, 1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("\\boxed{\\frac{1}{2}}", 1.0),  # braces inside
        ("\\boxed{\\{1, 2\\}}", 1.0),
        ("\\boxed{}", 0.0),
        ("\\boxed{4", 0.0),
        ("\\boxed{\\boxed{4}}", 0.0),  # two
        ("so {4} is \\boxed{4}}", 1.0),
        ("<answer>x < 3</answer>", 1.0),
        ("<answer> </answer>", 0.0),
        ("<answer>4", 0.0),
        ("<answer>4</answer> <answer>5</answer>", 0.0),
        ("\\boxed{4}\n#### 4", 0.0),
        ("####", 0.0),
        ("#### １８", 1.0),
        ("", 0.0),
    ],
)
def test_one_final_answer_in_its_form(completion: str, value: float) -> None:
    assert call(format_reward, [completion]) == [value]


def test_a_missing_answer_column_is_named() -> None:
    with pytest.raises(
        BadColumns, match="'exact_match' needs one of the columns answer, target, solution, label"
    ):
        call(exact_match, ["x"], level=[1])


def test_toxicity_prefers_the_polite_and_never_silence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # no Detoxify weights: the stand-in grades
    reward = toxicity.configured({})
    polite, rude, silent = call(reward, ["thank you kindly", turn("you fucking idiot"), "  "])
    assert polite is not None
    assert rude is not None
    assert polite > rude
    assert -1.0 <= rude < -0.5
    assert silent == -1.0
