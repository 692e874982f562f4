"""IFBench's 58 constraints by their names, and how an answer is held against several of them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence

from harness.records import Json
from suites.following.constraints import ifbench_forms as forms
from suites.following.constraints import ifbench_requests as requests
from suites.following.constraints import ifbench_words as words

Check = Callable[[str, Mapping[str, Json]], bool]

CHECKS: Mapping[str, Check] = {
    "count:conjunctions": words.conjunctions,
    "count:keywords_multiple": words.keywords_multiple,
    "count:numbers": forms.numbers,
    "count:person_names": words.person_names,
    "count:pronouns": words.pronouns,
    "count:punctuation": forms.all_punctuation,
    "count:unique_word_count": words.unique_word_count,
    "count:word_count_range": words.word_count_range,
    "count:words_japanese": words.japanese,
    "custom:character_reverse": requests.letters_reversed,
    "custom:csv_city": requests.city_csv,
    "custom:csv_quotes": requests.quoted_csv,
    "custom:csv_special_character": requests.special_character_csv,
    "custom:date_format_list": requests.napoleon_dates,
    "custom:european_capitals_sort": requests.capitals_by_latitude,
    "custom:mcq_count_length": requests.multiple_choice,
    "custom:multiples": requests.multiples,
    "custom:reverse_newline": requests.africa_reversed,
    "custom:sentence_alphabet": requests.alphabet_story,
    "custom:word_reverse": requests.words_reversed,
    "format:emoji": forms.emoji_ends,
    "format:line_indent": forms.stairs,
    "format:list": forms.separators,
    "format:newline": forms.word_per_line,
    "format:no_bullets_bullets": forms.sentences_then_bullets,
    "format:no_whitespace": forms.no_whitespace,
    "format:options": forms.one_of_options,
    "format:output_template": forms.output_template,
    "format:parentheses": forms.nested_brackets,
    "format:quote_unquote": forms.quotes_explained,
    "format:quotes": forms.nested_quotes,
    "format:sub-bullets": forms.sub_bullets,
    "format:thesis": forms.italic_thesis,
    "format:title_case": words.title_case,
    "ratio:overlap": forms.overlap,
    "ratio:sentence_balance": forms.balanced_sentences,
    "ratio:sentence_type": forms.two_to_one,
    "ratio:sentence_words": forms.equal_sentences,
    "ratio:stop_words": words.stop_word_share,
    "repeat:repeat_change": forms.repeat_changed,
    "repeat:repeat_simple": forms.repeat_sentence,
    "repeat:repeat_span": forms.repeat_span,
    "sentence:alliteration_increment": words.alliteration_increment,
    "sentence:increment": words.incrementing_words,
    "sentence:keyword": words.keyword_in_sentence,
    "words:alphabet": words.alphabet_loop,
    "words:consonants": words.consonant_clusters,
    "words:keywords_specific_position": words.keyword_at_position,
    "words:last_first": words.last_word_first_next,
    "words:no_consecutive": words.no_consecutive_first_letter,
    "words:odd_even_syllables": words.odd_even_syllables,
    "words:palindrome": words.palindromes,
    "words:paragraph_last_first": words.paragraph_first_is_last,
    "words:prime_lengths": words.prime_lengths,
    "words:repeats": words.limited_repeats,
    "words:start_verb": words.start_verb,
    "words:vowel": words.three_vowels,
    "words:words_position": words.second_and_second_to_last,
}

NEEDS: Mapping[str, tuple[str, ...]] = {
    "format:title_case": ("punkt_tab",),
    "ratio:stop_words": ("stopwords",),
    "words:keywords_specific_position": ("punkt_tab",),
    "words:start_verb": ("punkt_tab", "averaged_perceptron_tagger_eng"),
    "words:words_position": ("punkt_tab",),
}
"""Packages of nltk's data without which a constraint cannot be checked."""


def follows(constraint: str, answer: str, args: Mapping[str, Json]) -> bool:
    """Whether a non-blank answer follows a constraint.

    Upstream dies of some answers (no word to begin with, no sentence to look at, a field too long for a CSV
    reader): they do not follow.

    Raises: HarnessError: nltk's data is needed and not installed. KeyError: an unknown constraint or argument.
    """
    try:
        return bool(CHECKS[constraint](answer, args))
    except (IndexError, ZeroDivisionError, csv.Error):
        return False


def loosened(answer: str) -> list[str]:
    """The answer and its variants without the first line, the last, both, and each without asterisks.

    https://github.com/allenai/IFBench/blob/db69a6f/evaluation_lib.py (test_instruction_following_loose)
    """
    lines = answer.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    variants = [answer, *cut]
    return variants + [variant.replace("*", "") for variant in variants]


def strict_and_loose(
    answer: str, constraints: Sequence[tuple[str, Mapping[str, Json]]], check: Callable[..., bool] = follows
) -> tuple[list[bool], list[bool]]:
    """Which of the constraints an answer follows as it is, and which in any of its variants; a blank one none."""
    variants = [variant for variant in loosened(answer) if variant.strip()]
    strict = [bool(answer.strip()) and check(name, answer, args) for name, args in constraints]
    loose = [
        followed or any(check(name, variant, args) for variant in variants)
        for followed, (name, args) in zip(strict, constraints, strict=True)
    ]
    return strict, loose
