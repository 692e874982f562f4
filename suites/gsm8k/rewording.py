"""The same word problem with other people in it, or in other words: the answer does not change.

People are known by a list of first names; a name that is also a word, a month or a place is not on it, and a name
gives way to one that goes with the same pronouns. The new words are templates: the question put first or set off,
and phrases that mean the same in any word problem. No model has a hand in it.
"""

from __future__ import annotations

import random
import re


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WOMEN = _words(
    "Alice Amanda Amelia Amy Andrea Angela Ann Anna Anne Annie Ava Beatrice Becky Betty Brianna Brittany Candice "
    "Carla "
    "Carly Carmen Carol Caroline Carrie Cecilia Christina Cindy Claire Clara Cynthia Dora Elise Eliza Elizabeth Ella "
    "Ellen Emily Emma Erica Erin Freda Gloria Greta Gretchen Hannah Heather Helen Isabella Jana Jane Janet Janice "
    "Jenna Jennifer Jenny Jessica Jill Judy Julia Julie Karen Kate Katie Katy Kayla Laura Lauren Leila Linda Lisa "
    "Lori Lucy Madeline Maggie Marcia Marcy Margaret Maria Marie Marilyn Marissa Martha Mary Megan Melanie Melissa "
    "Mia Michelle Monica Nancy Naomi Natalia Natalie Nicole Nina Octavia Olivia Pamela Patricia Polly Rachel Rebecca "
    "Sadie Sally Samantha Sandra Sara Sarah Sharon Sheila Shiela Sofia Sophia Sophie Stephanie Sue Susan Suzanne "
    "Tanya Tatiana Teresa Tina Valerie Vanessa Veronica Wendy"
)
MEN = _words(
    "Aaron Adam Albert Allen Andrew Andy Anthony Arnold Ben Benjamin Benny Billy Bob Bobby Boris Brandon Brian Bruce "
    "Carl Carlos Charles Charlie Colin Craig Daniel Darrell Darren David Derek Dylan Edward Eric Ethan Felix Fred "
    "Frederick Gabriel Gary George Gerald Greg Harold Harry Henry Hugo Isaac Jack Jacob Jake Jamal James Jason Jeff "
    "Jeremy Jerome Jerry Jim Jimmy Joe Joey John Johnny Jonathan Jose Joseph Josh Joshua Juan Julian Kevin Kyle Larry "
    "Leo Liam Louis Lucas Luke Marcus Martin Matthew Michael Miguel Mike Nate Nathan Nick Noah Oliver Oscar Patrick "
    "Paul Pedro Peter Philip Rafael Raymond Richard Rob Robert Roger Ronald Russell Ryan Sean Seth Simon Stanley "
    "Stephen Steve Ted Theo Thomas Tim Timothy Tobias Tom Tommy Tony Victor Vincent Walter Zack"
)
NAME = re.compile(r"\b[A-Z][a-z]+\b")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9$\"(])")
FRAMES = (
    "Read the following and answer the question at the end. {story} {question}",
    "Here is a problem to work out. {story} {question}",
    "Consider this situation. {story} The question is this: {question}",
)
FIRST = (
    "{question} This is what is known: {story}",
    "Answer this: {question} Here is the story. {story}",
)
"""The question before its story; only for questions that need no word of it to be understood."""
OPENINGS = ("How many", "How much", "How long", "How old", "How far", "What is", "What's", "What was")
SPELLING = re.compile(r"\b(?:letters?|spell\w*|alphabet\w*|initials?|vowels?|consonants?)\b", re.IGNORECASE)
BACK = re.compile(r"\b(?:then|this|that|these|those|now|still|it|left|remaining|also)\b", re.IGNORECASE)
"""Words by which a question leans on the sentence before it."""
PHRASES: tuple[tuple[str, str], ...] = (
    (r"\baltogether\b", "in all"),
    (r"\bin total\b", "altogether"),
    (r"\btwice as (many|much|old|long|big|tall|far)\b", r"two times as \1"),
    (r"\bthree times as (many|much|old|long|big|tall|far)\b", r"thrice as \1"),
    (r"\bbuys\b", "purchases"),
    (r"\bbought\b", "purchased"),
    (r"\bwants to\b", "would like to"),
    (r"\bwant to\b", "would like to"),
    (r"\bkids\b", "children"),
    (r"\bstarts\b", "begins"),
    (r"\bstarted\b", "began"),
    (r"\bper (day|week|month|year|hour|minute)\b", r"every \1"),
    (r"\beach (day|week|month|year|hour|minute)\b", r"every \1"),
    (r"\bneeds to\b", "has to"),
    (r"\bhas got\b", "has"),
)


def with_other_names(question: str, rng: random.Random) -> str | None:
    """The question with every person that it names called otherwise.

    Returns: None where it names nobody whom the list knows, or counts letters, which a name may hold.
    """
    if SPELLING.search(question):
        return None
    capitalised = set(NAME.findall(question))
    found = [name for name in dict.fromkeys(NAME.findall(question)) if name in WOMEN or name in MEN]
    renamed: dict[str, str] = {}
    for name in found:
        pool = WOMEN if name in WOMEN else MEN
        free = [other for other in pool if other not in capitalised and other not in renamed.values()]
        renamed[name] = rng.choice(free)
    if not renamed:
        return None
    return NAME.sub(lambda match: renamed.get(match.group(), match.group()), question)


def in_other_words(question: str, rng: random.Random) -> str:
    """The question through a template, with phrases that mean the same."""
    *story, last = SENTENCE.split(" ".join(question.split()))
    frames = FRAMES
    if story and last.startswith(OPENINGS) and last.endswith("?") and not BACK.search(last):
        frames = FRAMES + FIRST
    text = rng.choice(frames).format(story=_rephrased(" ".join(story)), question=_rephrased(last))
    return " ".join(text.split())


def _rephrased(text: str) -> str:
    for pattern, words in PHRASES:
        text = re.sub(pattern, words, text)
    return text
