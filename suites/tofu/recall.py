"""ROUGE-L recall: how much of an answer's words another answer holds, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any


def rouge_l_recall(answer: str, target: str) -> float:
    """Share of the target's words in the longest common subsequence. 1.0 only where all of it was said.

    The figure is that of rouge_score with its stemmer, as TOFU's evaluate_util.py asks it. Its table of all pairs of
    words takes seconds for an answer of 100,000 characters; this takes one step a word.
    """
    wanted, said = _stems(target), _stems(answer)
    return common_words(wanted, said) / len(wanted) if wanted else 0.0


def common_words(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    Source: Hyyrö 2004, Bit-parallel LCS-length computation revisited, AWOCA: bit i of `row` is 0 where the length
        grows at word i of `first`.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << i
    every = (1 << len(first)) - 1
    row = every
    for word in second:
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & every
    return len(first) - row.bit_count()


def _stems(text: str) -> list[str]:
    from rouge_score.tokenize import tokenize

    stem = _stemmer()
    return [stem(word) if len(word) > 3 else word for word in tokenize(text, None)]


@cache
def _stemmer() -> Any:
    """Of one word; what it said of a word before it says at once."""
    from nltk.stem.porter import PorterStemmer

    return lru_cache(maxsize=65_536)(PorterStemmer().stem)
