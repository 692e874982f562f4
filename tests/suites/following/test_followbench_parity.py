"""FollowBench's rules against a second form of them, on answers of every kind and on answers made to satisfy them.

FollowBench is on no package registry. What stands here is written from its own script,
https://github.com/YJiangcm/FollowBench/blob/6278f4c/code/rule_based_evaluation.py , in another way than in
suites/following/constraints/followbench.py: level by level, and by regular expressions where that one counts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

import pytest

from suites.following.constraints.followbench import rule_of
from tests.suites.awkward import SHORT, long_answers
from tests.suites.following.test_followbench import FORMATS, PARAGRAPH, POINTS, SUMMARY, TEMPLATES, VERDICTS

MARKS = re.escape("""!"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~""")


def pieces(text: str) -> list[str]:
    return re.findall(r"[^.!?]+", text)


def blanks(text: str) -> int:
    return text.count(" ") + 1


def word(text: str, wanted: str) -> bool:
    return re.search(r"(?<!\w)" + re.escape(wanted) + r"(?!\w)", text) is not None


def news(text: str, level: int) -> bool:
    found = pieces(text)
    if len(found) != 3 or (level > 1 and max(len(one.split()) for one in found) > 14):
        return False
    if level > 2 and not all(map(word, found, ("Potter", "actor", "films"))):
        return False
    if level > 3 and word(found[1], "lavish"):
        return False
    return level < 5 or re.search(r"\bha(?:s|ve)\s+\w", found[2]) is not None


def one_sentence(limit: int, *later: Callable[[str], bool]) -> Callable[[str, int], bool]:
    tests = (lambda t: len(pieces(t)) == 1, lambda t: blanks(t) <= limit, *later)
    return lambda text, level: all(test(text) for test in tests[:level])


def headline(text: str, level: int) -> bool:
    tests = (
        lambda t: blanks(t) == 8,
        lambda t: not re.search(f"[{MARKS}]", t),
        lambda t: t == t.lower() and t != t.upper(),
        lambda t: not word(t, "bus"),
        lambda t: word(t, "in"),
    )
    return all(test(text) for test in tests[:level])


def last(pattern: str, text: str, target: str) -> bool:
    return re.findall(f"(?s)^.*({pattern})", text) == [target]


OTHERS: dict[str, Callable[[str, str, int], bool]] = {
    "E2E": lambda a, t, n: a == t,
    "text_editing": lambda a, t, n: a == t,
    "WIKIEVENTS": lambda a, t, n: not set(a.split("\n")).difference(t.split("\n")),
    "CONLL2003": lambda a, t, n: any(a == one for one in ast.literal_eval(t)),
    "cnn_dailymail": lambda a, t, n: news(a, n),
    "xsum": lambda a, t, n: one_sentence(
        19,
        lambda x: not word(x, "Newton Stewart"),
        lambda x: re.search(r"\b(?:am|is|are)\s+\w+ing\b", x) is not None,
        lambda x: word(x, "operation"),
    )(a, n),
    "samsum": lambda a, t, n: one_sentence(
        14,
        lambda x: word(x, "stuff"),
        lambda x: re.search("(?i)procrast", x) is None,
        lambda x: len(re.findall(f"[{MARKS}]", x)) == 1,
    )(a, n),
    "gigaword": lambda a, t, n: headline(a, n),
    "arxiv": lambda a, t, n: one_sentence(
        20,
        lambda x: x[:2] == "We",
        lambda x: word(x, "activations"),
        lambda x: not word(x, "transformer"),
    )(a, n),
    "BBH_logical": lambda a, t, n: last(r"\([A-Z]\)", a, t),
    "BBH_time": lambda a, t, n: (
        last(r"\d{2}/\d{2}/\d{4}", a, t) if re.search(r"\d\d/\d\d/\d{4}", a) else False
    ),
    "self_made_space": lambda a, t, n: len(a.split(t)) > 1,
    "gsm_8k": lambda a, t, n: bool(re.findall(r"\$\d+", a)) and re.findall(r"\$\d+", a)[-1] == t,
}
TARGETS = {
    "BBH_logical": "(B)",
    "BBH_time": "01/09/1938",
    "gsm_8k": "$18",
    "self_made_space": "18",
    "CONLL2003": "['18', 'B']",
}
MADE = [answer for _, answer, *_ in VERDICTS] + [
    *(SUMMARY.replace(" ", "  "), SUMMARY.replace(". ", "! "), "Potter. actor. films have it"),
    *("Police are searching in an operation in Newton Stewart", "He is doing stuff, procrastinating."),
    "We use activations.",
    *("in the bus we all go home at", "IN THE BUS WE ALL GO HOME", "in 1 2 3 4 5 6 7", "in the ｂus we all go home"),
    *("(A) (B)", "(B) (a)", "(Ｂ)", "on 01/09/1938, not 02/09/1938", "$17 then $18", "$18 then $17", "＄18", "$１８"),
]  # fmt: skip


@pytest.mark.parametrize("source", sorted(OTHERS))
def test_a_rule_says_what_the_script_says(source):
    target = TARGETS.get(source, "18")
    verdicts = []
    for answer in (*SHORT, *MADE, *(text[:400] for text in long_answers(400)), target):
        for level in range(1, 6):
            ours = rule_of("content", source, 1)(answer, target, level)
            assert ours == OTHERS[source](answer, target, level), (answer, level)
            verdicts.append(ours)
    assert len(verdicts) >= 1500
    assert {True, False} == set(verdicts)


# The two formats and the examples


def suggestions(text: str, level: int) -> bool:
    blocks = re.split("\n\n", text)
    if len(blocks) != 3 + (level == 5) or (level > 1 and any(len(pieces(one)) > 2 for one in blocks[:3])):
        return False
    if level > 2 and any(len(one.split()) < 21 for one in pieces(text)):
        return False
    if level > 3 and any(one.strip() and not re.match(r"\s*\d+\.", one) for one in blocks):
        return False
    return level < 5 or re.search(r"Those are suggestions\Z", text) is not None


def points(text: str, level: int) -> bool:
    sentences = re.split(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=\.|\?)\s", text)
    numbered = [one for one in sentences if re.search(r"[1-5]\.", one)]
    tests = (
        "**" in text,
        len(re.findall(r"\*\*\d.+?:", text)) == 5,
        all(one.count(".") < 2 for one in numbered),
        all(10 <= len(one.split()) <= 15 for one in sentences),
        not any(re.search(r"-ly(?:\s|\Z)", one) for one in sentences),
    )
    return all(tests[:level])


def test_the_two_formats_say_what_the_script_says():
    made = [answer for _, answer, *_ in FORMATS] + [
        POINTS, POINTS.replace("eight", "eight-ly"), POINTS.replace("\n", " "), POINTS.replace("Word", "Wört"),
        "\n\n".join([PARAGRAPH.replace("1. ", "1.")] * 3), "\n\n".join([PARAGRAPH] * 3 + ["Those are suggestions"]),
        "\n\n".join(["5 " + "word " * 25] * 3), "**１. a:**2. b:**3. c:**4. d:**5. e:", "**1**1 a:" * 5,
    ]  # fmt: skip
    for answer in (*SHORT, *made, *(text[:600] for text in long_answers(600))):
        for level in range(1, 6):
            assert rule_of("format", "", 22)(answer, "", level) == suggestions(answer, level), (answer, level)
            assert rule_of("format", "", 30)(answer, "", level) == points(answer, level), (answer, level)


def test_examples_fit_their_template_as_in_the_script():
    targets = sorted({target for target, *_ in TEMPLATES})
    fitting = 0
    for target in targets:
        shown = target.replace("{instruction}\n", "").replace("{{", "{").replace("}}", "}")
        pattern = ".*".join(map(re.escape, shown.split("{answer}")))
        for inside in (*SHORT, "a\nb"):
            for answer in (shown.replace("{answer}", inside), inside):
                ours = rule_of("example", "", 1)(answer, target, 1)
                assert ours == (re.fullmatch(pattern, answer) is not None), (target, answer)
                fitting += ours
    assert fitting >= 30 * len(targets)
