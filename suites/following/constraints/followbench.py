"""FollowBench's rules: which of its samples a program can check, and how.

They give the verdicts of https://github.com/YJiangcm/FollowBench/blob/6278f4c/code/rule_based_evaluation.py . Level N
holds the first N constraints of its group at once. Answers are taken as they are, outer white space included.
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Callable

Rule = Callable[[str, str, int], bool]
"""(answer, target, level 1..5) -> every constraint up to that level is satisfied."""

SENTENCE_END = re.compile(r"[.!?]")
POINT_END = re.compile(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=\.|\?)\s")
PUNCTUATION = frozenset(string.punctuation)
CLOSING_WORDS = "Those are suggestions"


def has_word(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text) is not None


def parts(text: str) -> list[str]:
    """Pieces between . ! and ?, white space after the last mark included: upstream counts them as sentences."""
    return [part for part in SENTENCE_END.split(text) if part]


def first(constraints: list[bool], level: int) -> bool:
    return all(constraints[:level])


# One right answer


def same(answer: str, target: str, level: int) -> bool:
    return answer == target


def lines_among(answer: str, target: str, level: int) -> bool:
    return set(answer.split("\n")) <= set(target.split("\n"))


def in_list(answer: str, target: str, level: int) -> bool:
    """The target is a Python list of strings."""
    return answer in ast.literal_eval(target)


def within(answer: str, target: str, level: int) -> bool:
    return target in answer


def last_found(pattern: str) -> Rule:
    """The last match in the answer is the target."""
    expression = re.compile(pattern)

    def check(answer: str, target: str, level: int) -> bool:
        found = expression.findall(answer)
        return bool(found) and found[-1] == target

    return check


def fits_template(answer: str, target: str) -> bool:
    """The form that the examples show: the template with anything but a line's end for {answer}."""
    template = target.replace("{instruction}\n", "").replace("{{", "{").replace("}}", "}")
    before, _, after = template.partition("{answer}")
    inside = answer[len(before) : len(answer) - len(after)]
    return (
        answer.startswith(before)
        and answer.endswith(after)
        and len(answer) >= len(before) + len(after)
        and "\n" not in inside
    )


# Summaries


def cnn_dailymail(answer: str, target: str, level: int) -> bool:
    pieces = parts(answer)
    three = len(pieces) == 3
    wanted = ("Potter", "actor", "films")
    return first(
        [
            three,
            all(len(piece.split()) < 15 for piece in pieces),
            three and all(has_word(piece, word) for piece, word in zip(pieces, wanted, strict=True)),
            not (len(pieces) > 1 and has_word(pieces[1], "lavish")),
            three and re.search(r"\b(has|have)\s+\w+", pieces[2]) is not None,
        ],
        level,
    )


def xsum(answer: str, target: str, level: int) -> bool:
    return first(
        [
            len(parts(answer)) == 1,
            len(answer.split(" ")) < 20,
            not has_word(answer, "Newton Stewart"),
            re.search(r"\b(am|is|are)\s+\w+ing\b", answer) is not None,
            has_word(answer, "operation"),
        ],
        level,
    )


def samsum(answer: str, target: str, level: int) -> bool:
    return first(
        [
            len(parts(answer)) == 1,
            len(answer.split(" ")) < 15,
            has_word(answer, "stuff"),
            "procrast" not in answer.lower(),
            sum(character in PUNCTUATION for character in answer) == 1,
        ],
        level,
    )


def gigaword(answer: str, target: str, level: int) -> bool:
    return first(
        [
            len(answer.split(" ")) == 8,
            PUNCTUATION.isdisjoint(answer),
            answer.islower(),
            not has_word(answer, "bus"),
            has_word(answer, "in"),
        ],
        level,
    )


def arxiv(answer: str, target: str, level: int) -> bool:
    return first(
        [
            len(parts(answer)) == 1,
            len(answer.split(" ")) <= 20,
            answer.startswith("We"),
            has_word(answer, "activations"),
            not has_word(answer, "transformer"),
        ],
        level,
    )


# Formats


def suggestions(answer: str, target: str, level: int) -> bool:
    """Format group 22: three paragraphs, and at level 5 a fourth, which is the closing words."""
    paragraphs = answer.split("\n\n")
    return first(
        [
            len(paragraphs) == (4 if level == 5 else 3),
            all(len(parts(paragraph)) < 3 for paragraph in paragraphs[:3]),
            all(len(piece.split()) > 20 for piece in parts(answer)),
            all(re.match(r"\d+\.", text) for text in map(str.lstrip, paragraphs) if text),
            answer.endswith(CLOSING_WORDS),
        ],
        level,
    )


def marked_points(answer: str, target: str, level: int) -> bool:
    """Format group 30: five points with a keyword in bold."""
    pieces = POINT_END.split(answer)
    numbered = [piece for piece in pieces if any(f"{n}." in piece for n in range(1, 6))]
    return first(
        [
            "**" in answer,
            sum(_bold_keywords(line) for line in answer.split("\n")) == 5,
            all(len(piece.split(".")) < 3 for piece in numbered),
            all(10 <= len(piece.split()) <= 15 for piece in pieces),
            not any(word.endswith("-ly") for piece in pieces for word in piece.split()),
        ],
        level,
    )


def _bold_keywords(line: str) -> int:
    """Places in a line where two asterisks, a digit and something more are followed by a colon."""
    count = place = 0
    while (begin := line.find("**", place)) >= 0:
        digit = line[begin + 2 : begin + 3]
        colon = line.find(":", begin + 4) if digit.isdecimal() else -1
        if digit.isdecimal() and colon < 0:
            return count
        place = colon + 1 if digit.isdecimal() else begin + 1
        count += digit.isdecimal()
    return count


BY_SOURCE: dict[str, Rule] = {
    "E2E": same,
    "WIKIEVENTS": lines_among,
    "CONLL2003": in_list,
    "text_editing": same,
    "cnn_dailymail": cnn_dailymail,
    "xsum": xsum,
    "samsum": samsum,
    "gigaword": gigaword,
    "arxiv": arxiv,
    "BBH_logical": last_found(r"\([A-Z]\)"),
    "BBH_time": last_found(r"\d{2}/\d{2}/\d{4}"),
    "self_made_space": within,
    "gsm_8k": last_found(r"\$\d+"),
}
BY_FORMAT: dict[int, Rule] = {22: suggestions, 30: marked_points}


def rule_of(family: str, source: str, example_id: int) -> Rule | None:
    """The rule of a group; None: only a judge can tell."""
    if family == "example":
        return lambda answer, target, level: fits_template(answer, target)
    return BY_SOURCE.get(source) or (BY_FORMAT.get(example_id) if family == "format" else None)
