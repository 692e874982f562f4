"""Numbers of answers: ours against the official grader of GSM8K, lm-eval's filters against the patterns they state."""

from __future__ import annotations

import re
from concurrent.futures import Future
from fractions import Fraction

import pytest

from harness.records import Completion, Output
from suites.from_lm_eval.entry import load
from suites.gsm8k import data as gsm8k
from tests.suites.awkward import BOXED, DRESSED, EMPTY, MARKED, NUMBERS, SHORT
from tests.suites.conftest import ref, run_whole
from tests.suites.from_lm_eval.test_entry import Reciter, bind, gold, last_question, run

LAXER = {
    "####18": 18, "####  18": 18, "####\n18": 18, "#### $18": 18, "#### −18": -18, "#### 18.": 18,
    "#### 18\n\nQuestion: 2 + 2?\nAnswer: 4\n#### 4": 18, "# # # # 18": None,
}  # fmt: skip
"""Answers that the official grader calls wrong for their form. What they mean is not in doubt."""


WELL_FORMED = re.compile(r"-?\d[\d,]*(\.\d+)?", re.ASCII)


def official(answer: str) -> str | None:
    """What stands behind the first mark, as github.com/openai/grade-school-math reads it (dataset.py, at 3101c7d).

    It is on no package registry: this is the rule in words of our own. One blank, a sign, then digits, full stops and
    commas; commas are dropped afterwards, and the rest is compared as text.
    """
    for mark in re.finditer("#### ", answer):
        sign = "-" if answer[mark.end() : mark.end() + 1] == "-" else ""
        tail = answer[mark.end() + len(sign) :]
        digits = tail[: len(tail) - len(tail.lstrip("0123456789.,"))]
        if digits:
            return sign + digits
    return None


def test_numbers_behind_the_mark_are_those_of_the_official_grader():
    """Wherever it reads a number, so do we, and the same; where it reads none, we do in the cases of LAXER alone."""
    leads = ("", "2 + 3 = 5", "#")
    read = 0
    for answer in (*SHORT, *(f"{lead}\n#### {number}" for lead in leads for number in NUMBERS)):
        ours, theirs = gsm8k.strict(answer), official(answer)
        if theirs is not None and WELL_FORMED.fullmatch(theirs):
            assert ours == Fraction(theirs.replace(",", "")), answer
            read += 1
        elif theirs is None and ours is not None and not {"$", "−"} & set(answer):
            assert LAXER[answer] == ours
    assert read >= 60


@pytest.mark.parametrize("answer", LAXER)
def test_forms_that_the_official_grader_does_not_read(answer):
    assert gsm8k.strict(answer) == LAXER[answer]


@pytest.mark.parametrize(
    ("answer", "strict", "last"),
    [
        ("", None, None),
        ("１８", None, None),  # ASCII digits alone, as in the official grader
        ("#### ١٨", None, None),
        ("−18", None, -18),
        ("10-18", None, 18),
        ("20 - 2", None, 2),
        ("-$18", None, -18),
        ("-0", None, 0),
        ("#### -0", 0, 0),
        ("#### 17\n#### 18", 17, 18),
        ("**18**", None, 18),
        ("18%", None, 18),
        ("\\boxed{17} \\boxed{18}", None, 18),
        ("\\boxed{18", None, 18),
        ("<think>#### 17</think>#### 18", 18, 18),
        ("<think>#### 17", None, None),
        ("```\n18\n```\n", None, 18),
        ("1,080.50 dollars.", None, Fraction(2161, 2)),
    ],
)
def test_edges(answer, strict, last):
    assert gsm8k.strict(answer) == strict
    assert gsm8k.last(answer) == last


# lm-eval's readers, through the adapter

FLEXIBLE = r"(-?[$0-9.,]{2,})|(-?[0-9]+)"


def strict_by_pattern(answer: str, pattern: str) -> str | None:
    found = re.search(pattern, answer)
    return found and found[1]


def last_by_pattern(answer: str) -> str | None:
    found = [first or second for first, second in re.findall(FLEXIBLE, answer)]
    return found[-1].strip() if found else None


def plain(text: str) -> str:
    """What GSM8K's exact match looks past: commas, dollars, what stands before ####, one full stop, case."""
    for pattern in (",", r"\$", r"(?s).*#### ", r"\.$"):
        text = re.sub(pattern, "", text)
    return text.lower()


@pytest.mark.mirror
def test_gsm8k_through_lm_eval_reads_by_the_patterns_of_its_task(mirror):
    """80 problems, each with another awkward answer, and each with the right number put into it."""
    answers = [*EMPTY[:6], *NUMBERS[::2], *MARKED, *BOXED[::3], *DRESSED[::4]][:80]
    given: dict[str, str] = {}

    solutions = gold(mirror)

    def say(prompt: str, draw: int) -> str:
        answer = answers[len(given) % len(answers)]
        if len(given) % 3:  # two of three have the right number in it
            answer = answer.replace("18", solutions[last_question(prompt)].split("#### ")[1])
        return given.setdefault(prompt, answer)

    task = bind("lm_eval:gsm8k,num_fewshot=0", mirror, Reciter(say), limit=80)
    samples = run(task)
    assert len(given) == len(samples) == 80
    right = 0
    for sample in samples:
        answer, wanted = sample.outputs[0], plain(str(sample.target))
        for name, found in (
            ("exact_match,strict-match", strict_by_pattern(answer, r"#### (\-?[0-9\.\,]+)")),
            ("exact_match,flexible-extract", last_by_pattern(answer)),
        ):
            expected = found is not None and plain(found) == wanted
            assert sample.scores[name].value == float(expected), (answer, wanted)
            right += expected
    assert 30 <= right <= 130


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("language", "words"), [("en", "The answer is"), ("de", "Die Antwort lautet"), ("te", "సమాధానం")]
)
def test_mgsm_through_lm_eval_reads_by_the_patterns_of_its_task(mirror, language, words):
    forms = [
        "{words} {n}", "{words} {n}.", "{words} {n},", "{n}", "{words} -{n}", "**{n}**", "", "{words} １８",
        "{words}: {n}", "{n} {words}", "{words} {n} {words} 7", "{words} 7 {words} {n}", "{words} ${n}",
        "\\boxed{{{n}}}",
        "no number",
    ]  # fmt: skip
    golds = [str(row["answer_number"]) for row in rows_of(mirror, language)[:30]]
    said = [form.format(words=words, n=n) for form, n in zip(forms * 2, golds, strict=True)]
    given: dict[str, str] = {}
    task = bind(
        f"lm_eval:mgsm_native_cot_{language},num_fewshot=0", mirror,
        Reciter(lambda prompt, draw: given.setdefault(prompt, said[len(given)])), limit=30,
    )  # fmt: skip
    samples = run(task)
    right = 0
    for sample in samples:
        answer, wanted = sample.outputs[0], str(sample.target)
        for name, found in (
            ("exact_match,strict-match", strict_by_pattern(answer, rf"{words} (\-?[0-9\.\,]+)")),
            ("exact_match,flexible-extract", last_by_pattern(answer)),
        ):
            bare = "".join(c for c in found or "[invalid]" if c not in ".,$[]-")
            assert sample.scores[name].value == float(bare == wanted.replace(",", "")), (
                answer,
                wanted,
                found,
            )
            right += bare == wanted
    assert right >= 15


def rows_of(mirror, language):
    from harness.datasets import Datasets

    return list(Datasets(mirror).rows("juletxara/mgsm", language, "test"))


@pytest.mark.mirror
def test_gsm8k_is_read_in_three_ways_and_says_where_they_differ(context, mirror, monkeypatch) -> None:
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
