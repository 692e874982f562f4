"""Cut a text into sentences and words the way the graders of IFEval and IFBench do: by rule, without data files."""

from __future__ import annotations

import re
import string

DOT, STOP = "\ue000", "\ue001"
"""Stand for a full stop that ends nothing, and for the end of a sentence."""
WORD = re.compile(r"\w+")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
EDGES = string.punctuation + " "

_LETTER = "([A-Za-z])"
_SUFFIX = "(Inc|Ltd|Jr|Sr|Co)"
_OPENER = (
    r"(Mr|Mrs|Ms|Dr|Prof|Capt|Cpt|Lt|He\s|She\s|It\s|They\s|Their\s|Our\s|We\s|But\s|However\s|That\s|This\s"
    r"|Wherever)"
)
# The order matters. https://github.com/allenai/IFBench/blob/db69a6f/instructions_util.py (split_into_sentences)
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("(Mr|St|Mrs|Ms|Dr)[.]", rf"\1{DOT}"),
        ("[.](com|net|org|io|gov|edu|me)", rf"{DOT}\1"),
        ("([0-9])[.]([0-9])", rf"\1{DOT}\2"),
        (r"\.{2,}", lambda dots: DOT * len(dots[0]) + STOP),
        (r"Ph\.D\.", f"Ph{DOT}D{DOT}"),
        (rf"\s{_LETTER}[.] ", rf" \1{DOT} "),
        (rf"([A-Z][.][A-Z][.](?:[A-Z][.])?) {_OPENER}", rf"\1{STOP} \2"),
        (rf"{_LETTER}[.]{_LETTER}[.]{_LETTER}[.]", rf"\1{DOT}\2{DOT}\3{DOT}"),
        (rf"{_LETTER}[.]{_LETTER}[.]", rf"\1{DOT}\2{DOT}"),
        (rf" {_SUFFIX}[.] {_OPENER}", rf" \1{STOP} \2"),
        (rf" {_SUFFIX}[.]", rf" \1{DOT}"),
        (rf" {_LETTER}[.]", rf" \1{DOT}"),
        (r"\.”", "”."),
        (r'\."', '".'),
        ('!"', '"!'),
        (r'\?"', '"?'),
        (r"([.?!])", rf"\1{STOP}"),
    )
]


def sentences(text: str) -> list[str]:
    """Sentences with their closing marks. A text without a closing mark is one sentence; "" has none."""
    text = f" {text}  ".replace("\n", " ")
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    parts = [part.strip() for part in text.replace(DOT, ".").split(STOP)]
    return parts if parts[-1] else parts[:-1]


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores."""
    return WORD.findall(text)


def bare_words(text: str) -> list[str]:
    """Words between white space, after all ASCII punctuation is taken out of the text."""
    return text.translate(WITHOUT_PUNCTUATION).split()
