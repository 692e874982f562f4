"""What some checks know of English beyond rules: stop words, tokens, parts of speech, syllables, emoji.

Nothing is fetched. Where nltk's data is not installed the check cannot be made, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

from harness.errors import HarnessError

P = ParamSpec("P")
T = TypeVar("T")

NLTK_DATA = {
    "punkt_tab": "tokenizers/punkt_tab",
    "stopwords": "corpora/stopwords",
    "averaged_perceptron_tagger_eng": "taggers/averaged_perceptron_tagger_eng",
}
"""Package of nltk's downloader -> where it lies in nltk's data."""


def missing(packages: Iterable[str]) -> list[str]:
    """Which of these packages of nltk's data are not installed."""
    return [name for name in packages if not _installed(name)]


def _installed(package: str) -> bool:
    import nltk

    place = NLTK_DATA[package]
    for path in (place, f"{place}.zip"):
        try:
            nltk.data.find(path)
        except LookupError:
            continue
        return True
    return False


def how_to_install(packages: Iterable[str]) -> str:
    names = " ".join(packages)
    return f"nltk's {names} is not installed: python -m nltk.downloader {names}, or NLTK_DATA=FOLDER that holds it"


def needs(*packages: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A function that raises HarnessError, with the way out, where nltk's data is not there."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            absent = missing(packages)
            if absent:
                raise HarnessError(how_to_install(absent))
            return function(*args, **kwargs)

        return checked

    return decorate


@needs("stopwords")
def stop_words() -> frozenset[str]:
    """English words that carry little meaning, lower case."""
    return _stop_words()


@cache
def _stop_words() -> frozenset[str]:
    from nltk.corpus import stopwords

    return frozenset(stopwords.words("english"))


@needs("punkt_tab")
def tokens(text: str) -> list[str]:
    """Penn Treebank tokens: words, clitics and punctuation marks apart."""
    from nltk import word_tokenize

    found: list[str] = word_tokenize(text)
    return found


@needs("averaged_perceptron_tagger_eng")
def parts_of_speech(found: list[str]) -> list[str]:
    """Penn Treebank tag of each token."""
    from nltk import pos_tag

    return [tag for _, tag in pos_tag(found)]


def syllables(word: str) -> int:
    """Syllables of an English word: a dictionary, then rules; 0 for what is no word."""
    import syllapy

    return int(syllapy.count(word))


def is_emoji(character: str) -> bool:
    import emoji

    return bool(emoji.is_emoji(character))
