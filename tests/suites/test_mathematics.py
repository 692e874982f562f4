"""math-verify as a reader of answers: held against the library, and among the extractors of GSM8K."""

from __future__ import annotations

import threading

import pytest

from harness.records import Completion, Output
from suites.mathematics import same_value
from tests.suites.conftest import ref, run_whole

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


def by_the_library(answer: str, gold: str) -> bool:
    from math_verify import parse, verify

    return bool(verify(parse(f"${gold}$"), parse(answer)))


@pytest.mark.parametrize(("answer", "gold", "expected"), CASES)
def test_the_verdict_is_the_librarys(answer: str, gold: str, expected: bool | None) -> None:
    upstream = by_the_library(answer, gold)
    assert same_value(answer, gold) is upstream
    assert expected in (None, upstream)


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


def test_a_tower_of_powers_is_given_up_and_threads_have_no_alarm() -> None:
    assert not same_value("$9^{9^{9^{9^{9}}}}$", "1")
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(same_value("\\boxed{18}", "18")))
    thread.start()
    thread.join()
    assert found == [True]


@pytest.mark.mirror
def test_gsm8k_is_read_in_three_ways_and_says_where_they_differ(context, mirror, monkeypatch) -> None:
    from suites.from_lm_eval.entry import load

    task = load(ref("gsm8k", "lm_eval", math_verify=True, num_fewshot=0), context(mirror, limit=5))
    names = ["exact_match,strict-match", "exact_match,flexible-extract", "math_verify"]
    assert task.metric_names == [*names, "extractors_disagree"]
    rows = context(mirror).data.rows("openai/gsm8k", "main", "test")[:5]
    right = [row["answer"].rsplit("#### ", 1)[1] for row in rows]
    said = [
        f"#### {right[0]}",  # all three
        f"It is {right[1]}",  # not the strict one
        f"\\boxed{{{right[2]}}} of 999",  # math-verify alone: the last number is 999
        "",  # none
        f"#### {right[4]}\nand then 999",  # the strict one alone: math-verify takes the last number, too
    ]

    def answer(requests):
        from concurrent.futures import Future

        futures: list[Future] = []
        for text in said:
            futures.append(Future())
            futures[-1].set_result(Completion((Output(text, (1,), "stop"),), output_tokens=1))
        assert len(requests) == len(said)
        return futures

    monkeypatch.setattr(task, "submit", answer)
    metrics = task.aggregate(run_whole(task))
    assert list(metrics) == task.metric_names
    assert [metrics[name].value for name in names] == [0.4, 0.4, 0.6]
    assert metrics["extractors_disagree"].value == 0.6
    assert metrics["extractors_disagree"].interval == "wilson"
