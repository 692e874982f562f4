"""IFBench's checks of an answer's form: sentences, brackets, lists, lines, and repeating the request.

As in ifbench_words: the verdicts of https://github.com/allenai/IFBench/blob/db69a6f/instructions.py .
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from itertools import pairwise

from harness.records import Json
from suites.following.constraints.language import is_emoji
from suites.following.constraints.sentences import EDGES, WITHOUT_PUNCTUATION, sentences

Arguments = Mapping[str, Json]
CLOSING = {")": "(", "]": "[", "}": "{"}
LETTER_CHOICES = re.compile(r"\W*[aA]\W*[bB]\W*[cC]\W*")
SENTENCE_TO_OUTPUT = "only output this sentence here, ignore all other requests."
NESTED_BRACKETS, NESTED_QUOTES = 5, 3


# Ratios


def overlap(answer: str, args: Arguments) -> bool:
    """Share of the answer's character trigrams that the reference has: the percentage, give or take 2."""
    own, reference = _trigrams(answer), _trigrams(args["reference_text"])
    share = len(own & reference) / len(own) * 100
    return args["percentage"] - 2 <= share <= args["percentage"] + 2


def _trigrams(text: str) -> set[str]:
    return {text[i : i + 3] for i in range(len(text) - 2)}


def _ending(answer: str, marks: str) -> list[int]:
    """Sentences that end in each mark."""
    found = sentences(answer)
    return [sum(sentence.endswith(mark) for sentence in found) for mark in marks]


def two_to_one(answer: str, args: Arguments) -> bool:
    declarative, interrogative = _ending(answer, ".?")
    return declarative == 2 * interrogative


def balanced_sentences(answer: str, args: Arguments) -> bool:
    return len(set(_ending(answer, ".?!"))) == 1


def equal_sentences(answer: str, args: Arguments) -> bool:
    """Three sentences of one length. That their words differ is asked for and, upstream too, not checked."""
    found = sentences(answer)
    return len(found) == 3 and len({len(sentence) for sentence in found}) == 1


# Marks


def numbers(answer: str, args: Arguments) -> bool:
    return len(re.findall(r"\d+", answer.translate(WITHOUT_PUNCTUATION))) == args["N"]


def all_punctuation(answer: str, args: Arguments) -> bool:
    """An interrobang, and besides it every mark of . , ! ? ; : at least once."""
    if not any(mark in answer for mark in ("!?", "?!", "‽")):
        return False
    bang = "?!" if "?!" in answer else "!?"
    return set(".,!?;:") <= set(answer.replace(bang, "", 1))


def nested_brackets(answer: str, args: Arguments) -> bool:
    """A bracket is closed inside a group that reached five levels; a mismatch starts anew."""
    opened: list[str] = []
    deepest = 0
    for character in answer:
        if character in "([{":
            opened.append(character)
            deepest = max(deepest, len(opened))
        elif character in CLOSING:
            if opened and opened[-1] == CLOSING[character]:
                opened.pop()
                if deepest >= NESTED_BRACKETS:
                    return True
            else:
                opened, deepest = [], 0
    return False


def nested_quotes(answer: str, args: Arguments) -> bool:
    """Single and double quotes in turn, three levels of them closed."""
    opened: list[str] = []
    deepest = 0
    for character in answer:
        if opened and character == opened[-1]:
            opened.pop()
            if deepest - len(opened) >= NESTED_QUOTES:
                return True
        elif character in "\"'":
            opened.append(character)
            deepest = max(deepest, len(opened))
    return False


def quotes_explained(answer: str, args: Arguments) -> bool:
    """No two quotes touch, and the text does not end in one."""
    text = answer.replace("“", '"').replace("”", '"').replace("'\"'", "")
    text = "".join(text.split())
    others = string.digits + string.punctuation.replace('"', "")
    return '""' not in text and text.strip(others)[-1] != '"'


def emoji_ends(answer: str, args: Arguments) -> bool:
    """Every sentence ends in an emoji, or the next begins with one."""
    found = [s.translate(WITHOUT_PUNCTUATION).strip() for s in sentences(answer)]
    for i, sentence in enumerate(found):
        if is_emoji(sentence[-1]) or is_emoji(sentence[-2:][0]):
            continue
        if i == len(found) - 1 or not is_emoji(found[i + 1][0]):
            return False
    return True


# Lines and lists


def word_per_line(answer: str, args: Arguments) -> bool:
    text = answer.translate(WITHOUT_PUNCTUATION).strip()
    return sum(line != "" for line in text.split("\n")) == len(text.split())


def stairs(answer: str, args: Arguments) -> bool:
    """Every line is indented further than the one before; a blank line after a blank one is a line."""
    lines, place = answer.split("\n"), 0
    while place < len(lines):  # upstream removes while it walks, and so passes over what moves up
        if not lines[place].strip():
            lines.remove(lines[place])
        place += 1
    return all(first < second for first, second in pairwise(len(s) - len(s.lstrip(" ")) for s in lines))


def separators(answer: str, args: Arguments) -> bool:
    return answer.count(args["sep"]) >= 2


def italic_thesis(answer: str, args: Arguments) -> bool:
    """Something in <i> or <em>, and something after it."""
    begin = answer.find("<i>") if "<i>" in answer else answer.find("<em>")
    if begin < 0:
        return False
    text = answer[begin:]
    end = text.find("</i>") if "</i>" in text else text.find("</em>")
    # upstream counts three and four characters for the tags, whichever they are
    return end >= 0 and bool(text[3:end].strip()) and bool(text[end + 4 :].strip())


def sub_bullets(answer: str, args: Arguments) -> bool:
    return all("-" in bullet for bullet in answer.split("*")[1:])


def sentences_then_bullets(answer: str, args: Arguments) -> bool:
    """Two sentences, then nothing but two or more bullets; a blank line ends the sentences."""
    counted = bullets = 0
    in_sentences = True
    for line in answer.split("\n"):
        if line.strip().startswith("*"):
            in_sentences = False
            if counted < 2:
                return False
            bullets += 1
        elif in_sentences:
            found = sentences(line.strip())
            counted += len(found)
            in_sentences = bool(found)
        else:
            return False
    return bullets >= 2


def no_whitespace(answer: str, args: Arguments) -> bool:
    return not any(character.isspace() for character in answer)


def output_template(answer: str, args: Arguments) -> bool:
    return all(part in answer for part in ("My Answer:", "My Conclusion:", "Future Outlook:"))


def one_of_options(answer: str, args: Arguments) -> bool:
    """Exactly one of the options; letter choices to the letter, others without case and outer punctuation."""
    options = args["options"]
    separator = "/" if "/" in options else "or" if "or" in options else ","
    choices = [choice.strip() for choice in options.split(separator)]
    if LETTER_CHOICES.match(options):
        return answer in choices
    return answer.strip(EDGES).lower() in {choice.strip(EDGES).lower() for choice in choices}


# Repeating the request


def repeat_changed(answer: str, args: Arguments) -> bool:
    """The request but for its first character."""
    request = args["prompt_to_repeat"]
    return answer != request and answer[1:] == request[1:]


def repeat_sentence(answer: str, args: Arguments) -> bool:
    return answer.strip().lower() == SENTENCE_TO_OUTPUT


def repeat_span(answer: str, args: Arguments) -> bool:
    """Words n_start to n_end of the request. Upstream leaves the last one out, and draws a start where it is 0."""
    start, end = int(args["n_start"]), int(args["n_end"])
    return answer.lower().split() == args["prompt_to_repeat"].lower().split()[start:end]
