"""IFBench's checks of words: which, how long, how often, in what order.

Every check takes the answer and the constraint's arguments, and says whether the answer follows it. They give
the verdicts of https://github.com/allenai/IFBench/blob/db69a6f/instructions.py , oddities included, on every answer
that it gives one on.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

from harness.records import Json
from suites.following.constraints.language import parts_of_speech, stop_words, syllables, tokens
from suites.following.constraints.sentences import EDGES, WITHOUT_PUNCTUATION, bare_words, sentences, words

Arguments = Mapping[str, Json]
CONJUNCTIONS = frozenset({"and", "but", "for", "nor", "or", "so", "yet"})
_PRONOUNS = (
    "i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself "
    "she her hers herself it its itself they them their theirs themselves"
)
PRONOUNS = frozenset(_PRONOUNS.split())
_NAMES = (
    "Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia Benjamin "
    "Harper Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan "
    "Victoria Elijah Layla Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph "
    "Claire Ryan Stella Jonathan"
)
NAMES = _NAMES.split()
CONSONANTS = frozenset("bcdfghjklmnpqrstvwxyz")
PRIMES = frozenset(n for n in range(2, 100) if all(n % d for d in range(2, n)))
KEYWORD_COUNTS = (1, 2, 3, 5, 7)


# How many


def word_count_range(answer: str, args: Arguments) -> bool:
    return args["min_words"] <= len(words(answer)) <= args["max_words"]


def unique_word_count(answer: str, args: Arguments) -> bool:
    """A lone punctuation mark strips down to the empty word, which counts."""
    return len({word.strip(EDGES) for word in answer.lower().split()}) >= args["N"]


def stop_word_share(answer: str, args: Arguments) -> bool:
    known, found = stop_words(), words(answer)
    return sum(word.lower() in known for word in found) / len(found) * 100 <= args["percentage"]


def conjunctions(answer: str, args: Arguments) -> bool:
    """Different ones as written: "And" and "and," are two."""
    found = {word for word in answer.split() if word.strip(EDGES).lower() in CONJUNCTIONS}
    return len(found) >= args["small_n"]


def person_names(answer: str, args: Arguments) -> bool:
    return sum(name in answer for name in NAMES) >= args["N"]


def pronouns(answer: str, args: Arguments) -> bool:
    found = bare_words(answer.replace("/", " ").lower())
    return sum(word in PRONOUNS for word in found) >= args["N"]


def keywords_multiple(answer: str, args: Arguments) -> bool:
    """Five keywords, once, twice, three, five and seven times."""
    text = answer.lower()
    wanted = ((args[f"keyword{i}"].strip().lower(), n) for i, n in enumerate(KEYWORD_COUNTS, start=1))
    return all(text.count(keyword) == n for keyword, n in wanted)


def limited_repeats(answer: str, args: Arguments) -> bool:
    return max(Counter(bare_words(answer.lower())).values(), default=0) <= args["small_n"]


def palindromes(answer: str, args: Arguments) -> bool:
    found = (word for word in bare_words(answer.lower()) if len(word) >= 5 and word == word[::-1])
    return sum(1 for _ in found) >= 10


# Of what form


def three_vowels(answer: str, args: Arguments) -> bool:
    """One paragraph with no more than three different vowels."""
    text = answer.strip()
    return "\n" not in text and len(set("aeiou") & set(text.lower())) <= 3


def consonant_clusters(answer: str, args: Arguments) -> bool:
    return all(
        any(first in CONSONANTS and second in CONSONANTS for first, second in pairwise(word))
        for word in answer.lower().split()
    )


def prime_lengths(answer: str, args: Arguments) -> bool:
    return all(len(word) in PRIMES for word in bare_words(answer))


def japanese(answer: str, args: Arguments) -> bool:
    """Every N-th word holds a kana or a kanji, digits and bare punctuation excepted."""
    every = int(args["N"])
    stripped = (word.strip(EDGES) for word in answer.split()[every - 1 :: every])
    return all(not word or word.isdigit() or any(map(_is_japanese, word)) for word in stripped)


def _is_japanese(character: str) -> bool:
    return "\u3040" <= character <= "\u30ff" or "\u4e00" <= character <= "\u9fff"


def odd_even_syllables(answer: str, args: Arguments) -> bool:
    parity = [syllables(word) % 2 for word in bare_words(answer.lower())]
    return all(first != second for first, second in pairwise(parity))


def title_case(answer: str, args: Arguments) -> bool:
    return all(_is_title(token) for token in tokens(answer))


def _is_title(token: str) -> bool:
    first, rest = token[0], token[1:]
    return not (first.islower() and (rest.isupper() or rest.islower()))


# In what order


def alphabet_loop(answer: str, args: Arguments) -> bool:
    letters = string.ascii_lowercase
    found = bare_words(answer)
    start = letters.find(found[0][0].lower())
    return start >= 0 and all(word[0].lower() == letters[(start + i) % 26] for i, word in enumerate(found))


def no_consecutive_first_letter(answer: str, args: Arguments) -> bool:
    return all(first[0] != second[0] for first, second in pairwise(bare_words(answer.lower())))


def start_verb(answer: str, args: Arguments) -> bool:
    found = tokens(answer)
    return bool(found) and "VB" in parts_of_speech(found)[0]


def last_word_first_next(answer: str, args: Arguments) -> bool:
    return all(
        first.rstrip(EDGES).split()[-1].lower() == second.lstrip(EDGES).split()[0].lower()
        for first, second in pairwise(sentences(answer))
    )


def paragraph_first_is_last(answer: str, args: Arguments) -> bool:
    for paragraph in answer.split("\n"):
        if not paragraph.strip():
            continue
        found = paragraph.strip().lower().strip(EDGES).split()
        if found[0] != found[-1]:
            return False
    return True


def keyword_in_sentence(answer: str, args: Arguments) -> bool:
    found, place = sentences(answer), int(args["N"])
    return len(found) >= place and args["word"].lower() in found[place - 1].lower()


def keyword_at_position(answer: str, args: Arguments) -> bool:
    """The n-th sentence has the keyword as its m-th token."""
    found, n, m = sentences(answer), int(args["n"]), int(args["m"])
    if len(found) < n:
        return False
    parts = tokens(found[n - 1])
    return len(parts) >= m and parts[m - 1] == args["keyword"].strip()


def second_and_second_to_last(answer: str, args: Arguments) -> bool:
    found = tokens(answer)
    return len(found) >= 2 and found[1] == found[-2] == args["keyword"].strip()


def alliteration_increment(answer: str, args: Arguments) -> bool:
    """Every sentence has more alliterating words than the one before."""
    counts = [_alliterating(sentence) for sentence in sentences(answer)]
    return all(first < second for first, second in pairwise(counts))


def _alliterating(sentence: str) -> int:
    """Words whose first letter is that of a neighbour; a run of k counts k."""
    found = [word.lstrip(EDGES) for word in sentence.lower().split()]
    same = [first[0] == second[0] for first, second in pairwise(word for word in found if word)]
    starts = sum(now and not before for before, now in pairwise([False, *same]))
    return sum(same) + starts


def incrementing_words(answer: str, args: Arguments) -> bool:
    """Every sentence has exactly small_n more words than the one before."""
    counts = [len(sentence.translate(WITHOUT_PUNCTUATION).split()) for sentence in sentences(answer)]
    return bool(counts) and all(second == first + args["small_n"] for first, second in pairwise(counts))
