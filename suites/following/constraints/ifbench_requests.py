"""IFBench's custom constraints: each is one request with one right shape of answer.

As in ifbench_words: the verdicts of https://github.com/allenai/IFBench/blob/db69a6f/instructions.py .
"""

from __future__ import annotations

import csv
import io
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise

from harness.records import Json
from suites.following.constraints.sentences import EDGES, bare_words, sentences

Arguments = Mapping[str, Json]
_CAPITALS = (
    "Reykjavik Helsinki Oslo Tallinn Stockholm Riga Moscow Copenhagen Vilnius Minsk Dublin Berlin Amsterdam Warsaw "
    "London Brussels Prague Luxembourg Paris Vienna Bratislava Budapest Vaduz Chisinau Bern Ljubljana Zagreb"
)
CAPITALS = _CAPITALS.split()
"""Capitals of Europe above 45 degrees, from north to south."""
MULTIPLES = [str(n) for n in range(14, 51, 7)]
CITY_COLUMNS = ["ID", "Country", "City", "Year", "Count"]
PRODUCT_COLUMNS = ("ProductID", "Category", "Brand", "Price", "Stock")
STUDENT_COLUMNS = ("StudentID", "Subject", "Grade", "Semester", "Score")
AFRICAN_LINES = 52
QUESTION = re.compile(r"Question \d+[\.|\):;]?\s*")
OPTION = re.compile(r"[A-Ea-e][\.|\)]\s*\w")
DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
NAPOLEON = range(1769, 1822)
LONG_MONTHS, SHORT_MONTHS = (1, 3, 5, 7, 8, 10, 12), (4, 6, 9, 11)


def multiples(answer: str, args: Arguments) -> bool:
    return re.findall(r"\d+", answer) == MULTIPLES


def multiple_choice(answer: str, args: Arguments) -> bool:
    """Four questions of five options and nothing before them, each question longer than the one before."""
    if not answer.startswith("Question"):
        return False
    questions = [part.strip() for part in QUESTION.split(answer) if part.strip()]
    read = [_question(question.split("\n")) for question in questions]
    if len(read) != 4 or any(options != 5 for _, options in read):
        return False
    return all(first < second for first, second in pairwise(length for length, _ in read))


def _question(lines: Sequence[str]) -> tuple[int, int]:
    """Characters of a question's text (its lines before the first option), and its options."""
    text, options = "", 0
    for line in lines:
        if OPTION.match(line.strip()):
            options += 1
        elif not options:
            text += " " + line.strip()
    return len(text.strip()), options


def africa_reversed(answer: str, args: Arguments) -> bool:
    """From Zimbabwe on, at least 52 lines in reverse alphabetical order."""
    lines = [line.strip(EDGES) for line in answer.split("\n") if line.strip(EDGES)]
    begin = next((i for i, line in enumerate(lines) if "Zimbabwe" in line), len(lines))
    listed = [_ascii(line) for line in lines[begin:]]
    return len(listed) >= AFRICAN_LINES and listed == sorted(listed, reverse=True)


def _ascii(text: str) -> str:
    """Letters without their accents; what has no ASCII form is left out."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def words_reversed(answer: str, args: Arguments) -> bool:
    """Read from its last word to its first, the answer names the bald eagle."""
    return "bald eagle" in " ".join(reversed(bare_words(answer.lower())))


def letters_reversed(answer: str, args: Arguments) -> bool:
    return "elgae dlab" in answer.lower()


def alphabet_story(answer: str, args: Arguments) -> bool:
    """26 sentences whose first letters are the alphabet."""
    found = sentences(answer)
    return len(found) == 26 and all(
        sentence.split()[0].lower()[0] == letter
        for sentence, letter in zip(found, string.ascii_lowercase, strict=True)
    )


def capitals_by_latitude(answer: str, args: Arguments) -> bool:
    return [part.strip() for part in _ascii(answer).split(",") if part.strip()] == CAPITALS


def city_csv(answer: str, args: Arguments) -> bool:
    """The header and seven rows of five fields."""
    rows = list(csv.reader(io.StringIO(answer)))
    return len(rows) == 8 and rows[0] == CITY_COLUMNS and all(len(row) == 5 for row in rows)


def special_character_csv(answer: str, args: Arguments) -> bool:
    """The header, 14 rows, and in one of them a quoted field with a special character.

    Upstream stops at the row that has it: rows after that may have any number of fields.
    """
    if not _has_header(answer, PRODUCT_COLUMNS, r",[ \t]*"):
        return False
    rows = list(csv.reader(io.StringIO(answer.replace('"', '"""'))))
    if len(rows) != 15:
        return False
    for row in rows[1:]:
        if len(row) != 5:
            return False
        if any(_quotes_special(field) for field in row):
            return True
    return False


def _quotes_special(field: str) -> bool:
    """Whether the field's first line begins with a quote that holds neither word nor space characters alone."""
    line = field.partition("\n")[0]
    return line.startswith('"') and re.search(r"[^\w\s]", line[1 : max(line.rfind('"'), 1)]) is not None


def quoted_csv(answer: str, args: Arguments) -> bool:
    """Tabs between fields, the header and three rows, every field in double quotes."""
    if not _has_header(answer, STUDENT_COLUMNS, r"\t *"):
        return False
    rows = list(csv.reader(io.StringIO(answer.replace('"', '"""')), delimiter="\t"))
    return len(rows) == 4 and all(
        len(row) == 5 and all(field.strip()[0] == field.strip()[-1] == '"' for field in row) for row in rows
    )


def _has_header(answer: str, columns: Sequence[str], separator: str) -> bool:
    pattern = separator.join(f'(?:{name}|"{name}")' for name in columns)
    return re.fullmatch(pattern, answer.split("\n")[0].strip()) is not None


def napoleon_dates(answer: str, args: Arguments) -> bool:
    """Dates of Napoleon's life time, with commas between."""
    return all(_is_date(part.strip()) for part in answer.split(","))


def _is_date(text: str) -> bool:
    found = DATE.fullmatch(text)
    if found is None:
        return False
    year, month, day = (int(part) for part in found.groups())
    longest = 31 if month in LONG_MONTHS else 30 if month in SHORT_MONTHS else 29 if month == 2 else 99
    return year in NAPOLEON and month <= 12 and day <= longest
