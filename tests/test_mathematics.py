"""math-verify as a reader of answers, held against the library and against lm-eval's use of it."""

from __future__ import annotations

import threading

import pytest

from harness.mathematics import READ_CHARS, after_mark, same_value
from tests.suites.awkward import BOXED, MARKED, NUMBERS

CASES = [
    # answer, right answer, whether they are the same (None: the library's word alone)
    ("", "18", False),
    ("   \n", "18", False),
    ("I don't know.", "18", False),
    ("18", "18", True),
    ("#### 18", "18", True),
    ("She has 9 * 2 = $18 left.\n#### 18", "18", True),
    ("The answer is 18.", "18", True),
    ("The answer is 18.0", "18", True),
    ("The answer is -18", "18", False),
    ("\\boxed{18}", "18", True),
    ("$\\boxed{17}$, no: $\\boxed{18}$", "18", None),
    ("$\\boxed{18}$, no: $\\boxed{17}$", "18", None),
    ("\\boxed{18} apples and 7 pears", "18", True),
    ("Either \\boxed{1}, \\boxed{2}", "2", None),
    ("\\boxed{}", "18", None),
    ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", True),
    ("$0.5$", "\\frac{1}{2}", True),
    ("$\\frac{2}{4}$", "\\frac{1}{2}", True),
    ("1/2", "0.5", True),
    ("50%", "0.5", None),
    ("1,080", "1080", True),
    ("$1{,}080$", "1080", True),
    ("1.080", "1080", False),
    ("1 080", "1080", None),
    ("１８", "18", None),
    ("١٨", "18", None),
    ("¹⁸", "18", None),
    ("$x = 18$", "18", True),
    ("$18 = x$", "18", None),
    ("$\\sqrt{8}$", "2\\sqrt{2}", True),
    ("$(x+1)^2$", "x^2+2x+1", True),
    ("$\\{1, 2\\}$", "\\{2, 1\\}", True),
    ("$[2,5)$", "[2,5)", True),
    ("$(2,5)$", "[2,5)", None),
    ("$\\pi$", "3.14159", None),
    ("eighteen", "18", False),
    ("$18", "18", True),
    ("18 dollars, and 20 cents", "18", None),
    ("18\n" * 400, "18", True),
    ("no no no " * 500, "18", False),
]


AWKWARD = [answer for answer in (*NUMBERS, *MARKED, *BOXED) if "9^{9" not in answer]
"""Several boxes, nested braces, fractions, thousands, negative zero, percent signs, units, digits of other scripts."""


def by_the_library(answer: str, gold: str) -> bool:
    from math_verify import parse, verify

    return bool(verify(parse(f"${gold}$"), parse(answer)))


@pytest.mark.parametrize(("answer", "gold", "expected"), CASES)
def test_the_verdict_is_the_librarys(answer: str, gold: str, expected: bool | None) -> None:
    upstream = by_the_library(answer, gold)
    assert same_value(answer, gold) is upstream
    assert expected in (None, upstream)


@pytest.mark.parametrize("gold", ["18", "1080", "\\frac{1}{2}", "2\\sqrt{2}"])
def test_awkward_answers_get_the_librarys_verdict(gold: str) -> None:
    assert len(AWKWARD) > 100
    for answer in AWKWARD:
        assert same_value(answer, gold) is by_the_library(answer, gold), answer


def test_the_verdicts_are_those_of_lm_evals_minerva_task() -> None:
    """lm-eval hands the whole solution and the whole answer to the same library."""
    from lm_eval.tasks.minerva_math.utils import process_results

    for answer, gold, _ in CASES:
        doc = {"solution": f"So it is $\\boxed{{{gold}}}$.", "answer": gold}
        assert process_results(doc, [answer])["math_verify"] == same_value(answer, f"$\\boxed{{{gold}}}$")


def test_a_right_answer_counts_from_its_mark() -> None:
    assert same_value("6", "He has 3 + 4 = <<3+4=7>>7, less one.\n#### 6")
    assert not same_value("7", "He has 3 + 4 = <<3+4=7>>7, less one.\n#### 6")
    with pytest.raises(ValueError, match="the right answer '' cannot be read"):
        same_value("7", "#### ")


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("2\\sqrt{2}", "$\\sqrt{8}$", "2"),  # bare LaTeX: no 2 is read of it
        ("\\frac{3}{4}", "0.75", "4"),
        ("x^2 + 1", "$1 + x^2$", "1"),
        ("$\\frac{3}{4}$", "0.75", "4"),
        ("so it is $\\boxed{7}$.", "7", "8"),
        ("18 dollars", "18", "17"),
        ("The answer is 1/2", "0.5", "2"),
        ("5 + 2 = <<5+2=7>>7\n#### 7", "7", "5"),
        ("#### 2\\sqrt{2}", "$\\sqrt{8}$", "2"),
    ],
)
def test_right_answers_in_their_forms(gold: str, right: str, wrong: str) -> None:
    assert same_value(right, gold)
    assert not same_value(wrong, gold)


def test_of_a_long_answer_the_end_is_read() -> None:
    assert same_value("so not 17, " * READ_CHARS + "but 18", "18")
    assert after_mark("a #### 1 #### 2 ") == "2"


def test_a_tower_of_powers_is_given_up_and_threads_have_no_alarm() -> None:
    assert not same_value("$9^{9^{9^{9^{9}}}}$", "1")
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(same_value("\\boxed{18}", "18")))
    thread.start()
    thread.join()
    assert found == [True]
