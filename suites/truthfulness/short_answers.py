"""Short answers to factual questions: is it right, is it wrong, or does it say that it does not know?

Rightness is that of closed-book question answering: equal to a reference after case, punctuation, articles and white
space are put aside (Rajpurkar et al. 2016, https://github.com/rajpurkar/SQuAD-explorer/blob/master/evaluate-v2.0.py ,
also for NQ-open: Lee et al. 2019). The abstention rule is this project's own.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
READ_CHARS = 600
"""Of an answer; whether it knows is said at its beginning."""
F1_RIGHT = 0.5
"""An answer that shares more of its words than this with a reference is right (Stangel et al. 2025)."""

SENTENCE = re.compile(r"(?<=[.!?\n])\s+")
WORDS = re.compile(r"[\w/]+")
CONTRACTIONS = {
    "n't": " not", "i'm": "i am", "it's": "it is", "there's": "there is", "that's": "that is", "i've": "i have",
    "i'd": "i would", "ca not": "cannot", "can not": "cannot", "dont ": "do not ", "un able": "unable",
}  # fmt: skip
"""Applied in this order to lower-case text."""
LEADS = (
    "i am sorry", "i am very sorry", "i am so sorry", "i am afraid", "sorry", "i apologize", "i apologise",
    "apologies", "my apologies", "unfortunately", "honestly", "to be honest", "well", "hmm", "answer", "a",
    "the answer is", "it is", "this is", "but", "that", "it seems", "it appears", "currently", "as an ai",
    "as an ai language model", "as a language model", "as a large language model", "as an ai assistant",
    "as an artificial intelligence", "for the confusion", "for the inconvenience",
)  # fmt: skip
"""What may stand before an abstention and says nothing itself."""
NOT_KNOWING = (
    "i do not know", "i really do not know", "i do not actually know", "i honestly do not know", "i did not know",
    "i do not recognize", "i do not recognise", "i do not recall", "i am not sure", "i am not certain",
    "i am not entirely sure", "i am not entirely certain", "i am not completely sure", "i am unsure", "i am uncertain",
)  # fmt: skip
"""Abstain at a sentence's end or before one of FOLLOWERS: titles go on otherwise ("I Do Not Know How to ...")."""
FOLLOWERS = frozenset({
    "the", "who", "whom", "whose", "what", "when", "where", "which", "whether", "if", "anything", "any", "enough",
    "about", "of", "that", "this", "how", "why", "it", "for", "him", "her", "a", "an", "and", "but", "or",
})  # fmt: skip
OPENINGS = (
    "i have no idea", "i have no information", "i have no knowledge", "i have no record", "i have no clue",
    "i have no data", "i have no reliable", "i do not have any", "i do not have enough", "i do not have information",
    "i do not have sufficient", "i do not have specific", "i do not have reliable", "i do not have knowledge",
    "i do not have data", "i do not have details", "i do not have a record", "i do not have records",
    "i do not have access", "i do not have an answer", "i do not have the answer", "i do not currently have",
    "i am not aware", "i am not familiar", "i am unaware", "i am unfamiliar", "i am not able to", "i am unable to",
    "i was unable to", "i was not able to", "i cannot answer", "i cannot say", "i cannot tell", "i cannot determine",
    "i cannot find", "i cannot provide", "i cannot verify", "i cannot confirm", "i cannot identify", "i cannot locate",
    "i cannot be sure", "i cannot be certain", "i could not find", "i could not verify", "i could not identify",
    "i could not locate", "i could not determine", "i did not find", "i found no", "i find no", "i see no record",
    "there is no record", "there is no information", "there is no evidence", "there is no mention",
    "there is no such", "there is no known", "there is no widely known", "there is not enough information",
    "there is insufficient information", "not enough information", "insufficient information",
    "there is no reliable", "there is no verifiable", "no information is available", "no information available",
    "information is not available", "the information is not available", "this information is not available",
    "that information is not available", "information is unavailable", "i have never heard of", "i never heard of",
    "i have not heard of", "not known who", "not known what", "not known when", "not known where", "not known which",
    "not known if", "not known whether", "not known how",
)  # fmt: skip
"""Abstain at the beginning of a sentence, whatever follows."""
WHOLE = frozenset({
    "unknown", "not known", "unanswerable", "uncertain", "unclear", "not sure", "no idea", "no clue", "no answer",
    "no comment", "no information", "no record", "do not know", "not know", "cannot answer", "n/a", "na", "idk",
})  # fmt: skip
"""Abstain as a whole sentence."""
ANYWHERE = (
    " does not exist ", " do not exist ", " does not seem to exist ", " does not appear to exist ",
    " does not appear to be a real ", " does not seem to be a real ", " is not a real ", " was not a real ",
    " by that name ", " with that name ", " of that name ", " by this name ", " with this name ", " of this name ",
)  # fmt: skip
"""Of a sentence that says "no" or "not"."""
NONE_OF_A_NAME = re.compile(r"there (?:is|was|are) no (?:\w+ ){1,4}(?:named|called) ")
GUESSES = (
    " i think ", " i believe ", " i guess ", " i suspect ", " i would say ", " i would guess ", " best guess ",
    " my guess ", " probably ", " perhaps ", " maybe ", " possibly ", " likely ", " might be ", " may be ",
    " could be ", " might have ", " may have ",
)  # fmt: skip
"""After an abstention: an answer all the same."""
ASSERTIONS = (
    "it was ",
    "he was ",
    "she was ",
    "they were ",
    "that was ",
    "the answer is ",
    "the answer was ",
)
"""What follows an abstention and begins so is an answer."""
NAMED = 4
"""Words of the longest answer that stands behind an abstention without a verb: "I don't know. Paris."."""
IDLE = frozenset({
    "i", "you", "me", "my", "your", "we", "please", "sorry", "apologies", "thanks", "thank", "let", "can", "could",
    "would", "should", "will", "do", "does", "did", "is", "are", "has", "have", "there", "not", "no", "none",
    "nothing", "unknown", "unclear", "question", "more", "context", "information", "details", "answer", "help",
    "check", "try", "look", "see", "ask", "consult", "search", "provide", "clarify", "tell", "give", "note", "know",
    "if", "for", "idea", "clue", "about", "that", "this", "it", "was", "never", "as", "because",
    "unfortunately", "however", "anyway", "really", "honestly",
})  # fmt: skip
"""Words that a bare name, date or number does not have."""
CLAUSE = re.compile(r"[,;:\u2013\u2014]| - |\bbut\b|\bhowever\b")


def normalised(answer: str) -> str:
    """Lower case without punctuation and articles, single spaces.

    https://github.com/rajpurkar/SQuAD-explorer/blob/master/evaluate-v2.0.py (normalize_answer)
    """
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def exact(answer: str, references: Iterable[str]) -> bool:
    """Whether an answer equals a reference, normalised."""
    found = normalised(answer)
    return any(found == normalised(reference) for reference in references)


def overlap(answer: str, references: Iterable[str]) -> float:
    """Highest F1 of the words of an answer and of a reference, normalised; 0 without references."""
    return max((_f1(normalised(answer).split(), normalised(one).split()) for one in references), default=0.0)


def _f1(found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    shared = sum((Counter(found) & Counter(wanted)).values())
    return 2 * shared / (len(found) + len(wanted))


def holds(answer: str, references: Iterable[str]) -> bool:
    """Whether a reference stands in the answer as whole words, normalised and without accents."""
    found = f" {normalised(_plain(answer))} "
    return any(f" {words} " in found for words in (normalised(_plain(one)) for one in references) if words)


def _plain(text: str) -> str:
    """Without accents: Kraków is Krakow."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def abstains(answer: str) -> bool:
    """Whether an answer says that it does not know, in its first sentence or after an excuse.

    Saying so and guessing all the same ("I'm not sure, but I think it is Paris", "I don't know. Paris.") is an answer.
    """
    parts = _sentences(answer)
    sentences = [_words(part) for part in parts]
    for place, sentence in enumerate(sentences):
        words = _without_lead(sentence)
        if not words:
            continue  # an excuse: what it excuses follows
        if not _says_so(words) and not _says_so(_first_clause(parts[place])):
            return False
        rest = " ".join([words, *sentences[place + 1 :]])
        return not any(guess in f" {rest} " for guess in GUESSES) and not _answers_behind(parts[place:])
    return False


def _first_clause(sentence: str) -> str:
    """Without leads; "I don't know, sorry" abstains in it."""
    clauses = (_without_lead(_words(clause)) for clause in CLAUSE.split(sentence))
    return next((clause for clause in clauses if clause), "")


def _answers_behind(parts: list[str]) -> bool:
    """Whether an answer stands behind an abstention, in a clause of its own or in the sentence after it.

    A bare name counts behind a bare abstention alone, and behind "but": lists follow others ("none named A, B or C").

    Args: parts: the sentence that abstains and those after it.
    """
    clauses = [_words(clause) for clause in CLAUSE.split(parts[0])]
    said = next(
        (place for place, clause in enumerate(clauses) if _says_so(_without_lead(clause))), len(clauses)
    )
    behind = [clause for clause in clauses[said + 1 :] if clause]
    after = _words(parts[1]) if len(parts) > 1 else ""
    if any(f"{clause} ".startswith(ASSERTIONS) and not _denies(clause) for clause in [*behind, after]):
        return True
    bare = said < len(clauses) and _without_lead(clauses[said]) in {*NOT_KNOWING, *WHOLE}
    contrasted = [_words(part) for part in re.split(r"\b(?:but|however)\b", parts[0])[1:]]
    named = [*contrasted, after, *(behind[:1] if bare else [])]
    return any(0 < len(clause.split()) <= NAMED and not IDLE & set(clause.split()) for clause in named)


def _denies(clause: str) -> bool:
    return any(f" {word} " in f" {clause} " for word in ("not", "no", "never", "unclear", "unknown"))


def _sentences(answer: str) -> list[str]:
    """Each sentence of the beginning, lower-case, contractions written out."""
    text = answer.strip().lower()[:READ_CHARS].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    for short, long in CONTRACTIONS.items():
        text = text.replace(short, long)
    return [part for part in SENTENCE.split(text) if part.strip()]


def _words(text: str) -> str:
    return " ".join(WORDS.findall(text))


def _without_lead(sentence: str) -> str:
    """The sentence after the words that say nothing yet."""
    while True:
        lead = max((one for one in LEADS if f"{sentence} ".startswith(f"{one} ")), key=len, default=None)
        if lead is None:
            return sentence
        sentence = sentence[len(lead) :].lstrip()


def _says_so(words: str) -> bool:
    """Whether a sentence without its lead is an abstention."""
    if words in WHOLE or any(f"{words} ".startswith(f"{opening} ") for opening in OPENINGS):
        return True
    for opening in NOT_KNOWING:
        if words == opening:
            return True
        if words.startswith(f"{opening} "):
            following = words[len(opening) + 1 :].split()
            return following[0] in FOLLOWERS and following[:2] != ["how", "to"]
    if NONE_OF_A_NAME.match(words):
        return True
    says_no = " not " in f" {words} " or " no " in f" {words} "
    return says_no and any(part in f" {words} " for part in ANYWHERE)
