"""Scorers that a suite file names. Each reads one answer and says how right it is; nothing that a model wrote is run.

    exact_match  the answer is the target, but for white space at its ends
    contains     the target stands in the answer
    regex        what the pattern finds is the target (without a target: it finds something)
    number       the last number of the answer is the target's
    f1           words in common (harmonic mean of precision and recall), without case, punctuation and articles
    rouge        ROUGE-L, ROUGE-1 and ROUGE-2, F measures
    math         the last expression equals the target as mathematics
    letter       the answer names the letter of the right choice

Of several targets the best counts.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import BadInput, BadPlan, HarnessError, UserError
from harness.fingerprint import file_sha256
from harness.mathematics import same_value
from harness.owntask import ScorerEntry
from harness.records import Json
from harness.tasks import MetricSpec
from harness.userfiles import load_object

REGEX_S = 1.0
"""A pattern that takes longer on one answer has run away; the sample fails."""
TOLERANCE = 1e-6
NUMBER = re.compile(r"(?:(?<!\d)[-−+])?(?:\d{1,3}(?:,\d{3})+(?![\d])|\d+)?(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")
SEPARATORS = str.maketrans({"٬": ",", "٫": "."})
"""Thousands and decimals as Arabic writes them."""
ARTICLES = re.compile(r"\b(?:a|an|the)\b")
PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")

Grade = Callable[[str, Sequence[str]], Mapping[str, float]]
"""(answer, targets) -> metric name -> value."""


class Scorer(NamedTuple):
    """A scorer, set."""

    metrics: Mapping[str, MetricSpec]
    grade: Grade
    identity: Json = None
    """What of its settings determines its values."""

    def grade_item(self, answer: str, doc: Mapping[str, Json]) -> Mapping[str, float]:
        """Args: doc: of an item; its `targets` are read."""
        return self.grade(answer, doc["targets"])


def text_scorer(entry: ScorerEntry, where: str = "") -> Scorer:
    """The scorer that an entry names.

    Args: where: opens the message of an error.
    Raises: BadPlan: its pattern cannot be read.
    """
    if entry.name in SIMPLE:
        found = Scorer({entry.name: MetricSpec()}, _best(entry.name, SIMPLE[entry.name]))
    else:
        try:
            found = MAKERS[entry.name](entry)
        except BadPlan as exc:
            raise BadPlan(f"{where}{exc}") from exc
    return found._replace(identity=entry.model_dump(exclude_none=True))


def _best(name: str, similarity: Callable[[str, str], float]) -> Grade:
    """The most similar of the targets counts."""
    return lambda answer, targets: {name: max(similarity(answer, target) for target in targets)}


# Letters


def _exact_match(entry: ScorerEntry) -> Scorer:
    def same(answer: str, target: str) -> float:
        return float(_folded(answer, entry) == _folded(target, entry))

    return Scorer({entry.name: MetricSpec()}, _best(entry.name, same))


def _contains(entry: ScorerEntry) -> Scorer:
    fold = entry if entry.ignore_case is not None else entry.model_copy(update={"ignore_case": True})

    def inside(answer: str, target: str) -> float:
        return float(_folded(target, fold) in _folded(answer, fold))

    return Scorer({entry.name: MetricSpec()}, _best(entry.name, inside))


def _folded(text: str, entry: ScorerEntry) -> str:
    """One form for texts that look the same."""
    plain = unicodedata.normalize("NFC", text).strip()
    return plain.casefold() if entry.ignore_case else plain


def _regex(entry: ScorerEntry) -> Scorer:
    import regex

    try:
        pattern = regex.compile(str(entry.pattern), regex.IGNORECASE if entry.ignore_case else 0)
    except regex.error as exc:
        raise BadPlan(f"scorer 'regex': pattern {entry.pattern!r} cannot be read: {exc}") from exc

    def grade(answer: str, targets: Sequence[str]) -> Mapping[str, float]:
        try:
            match = pattern.search(answer, timeout=REGEX_S)
        except TimeoutError as exc:
            raise HarnessError(f"pattern {entry.pattern!r} took over {REGEX_S:g} s on this answer") from exc
        if match is None or not targets:
            return {entry.name: float(match is not None)}
        found = next((group for group in match.groups() if group is not None), match[0])
        return {entry.name: float(any(_folded(found, entry) == _folded(one, entry) for one in targets))}

    return Scorer({entry.name: MetricSpec()}, grade)


# Numbers


def numbers(text: str) -> list[float]:
    """Numbers of a text, in their order: '1,234.5' is one, '−3' is negative, digits of any script count."""
    plain = text.translate(SEPARATORS)
    plain = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in plain)
    found = (match[0].replace(",", "").replace("−", "-") for match in NUMBER.finditer(plain))
    values = (float(one) for one in found if any(c.isdigit() for c in one) and one[0] not in "eE")
    return [value for value in values if math.isfinite(value)]


def _number(entry: ScorerEntry) -> Scorer:
    tolerance = TOLERANCE if entry.tolerance is None else entry.tolerance

    def equal(answer: str, target: str) -> float:
        wanted = numbers(target)
        if not wanted:
            raise HarnessError(f"the target {target[:40]!r} holds no number; use another scorer")
        found = numbers(answer)
        return float(bool(found) and math.isclose(found[-1], wanted[-1], rel_tol=tolerance, abs_tol=1e-12))

    return Scorer({entry.name: MetricSpec()}, _best(entry.name, equal))


def same_mathematics(answer: str, target: str) -> float:
    """1 where the answer's last expression is the target's, by math-verify."""
    try:
        return float(same_value(answer, target))
    except ValueError as exc:
        raise HarnessError(
            f"the target {target[:40]!r} cannot be read as mathematics; use another scorer"
        ) from exc


# Words


def words(text: str) -> list[str]:
    """Lower case, without punctuation and articles: the form in which SQuAD compares answers.

    Source: Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1.
    """
    return ARTICLES.sub(" ", PUNCTUATION.sub("", text.lower())).split()


def word_f1(answer: str, target: str) -> float:
    """Harmonic mean of the shares of words in common; 1 where both have no words."""
    given, wanted = words(answer), words(target)
    common = sum((Counter(given) & Counter(wanted)).values())
    if not given or not wanted:
        return float(given == wanted)
    return 2 * common / (len(given) + len(wanted))


def _rouge(entry: ScorerEntry) -> Scorer:
    kinds = ("rougeL", "rouge1", "rouge2")

    def grade(answer: str, targets: Sequence[str]) -> Mapping[str, float]:
        scores = [_rouge_scorer(kinds).score(target, answer) for target in targets]
        return {kind: max(float(score[kind].fmeasure) for score in scores) for kind in kinds}

    return Scorer({kind: MetricSpec() for kind in kinds}, grade)


@cache
def _rouge_scorer(kinds: tuple[str, ...]) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(kinds), use_stemmer=True)


SIMPLE: Mapping[str, Callable[[str, str], float]] = {"f1": word_f1, "math": same_mathematics}
MAKERS: Mapping[str, Callable[[ScorerEntry], Scorer]] = {
    "exact_match": _exact_match, "contains": _contains, "regex": _regex, "number": _number, "rouge": _rouge,
}  # fmt: skip


# The user's own


class UserScorer(NamedTuple):
    """A function of a file that the suite file names: f(answer, row) -> a number, True or False."""

    name: str
    function: Callable[[str, Mapping[str, Json]], Any]
    identity: Json

    @property
    def metrics(self) -> Mapping[str, MetricSpec]:
        return {self.name: MetricSpec()}

    def grade_item(self, answer: str, doc: Mapping[str, Json]) -> Mapping[str, float]:
        """Raises: HarnessError: it returned no number; and whatever it raises itself."""
        value = self.function(answer, dict(doc["row"]))
        if isinstance(value, str) or not hasattr(value, "__float__"):  # numpy's numbers are numbers
            raise HarnessError(f"scorer {self.name!r} returned {value!r:.80}; a number is wanted")
        if not math.isfinite(value):
            raise HarnessError(f"scorer {self.name!r} returned {value}; a number that is one is wanted")
        return {self.name: float(value)}


def user_scorer(place: str, where: str = "") -> UserScorer:
    """Args: place: path/to/file.py:function. where: opens the message of an error. Raises: BadInput, UnknownName."""
    path, _, name = place.rpartition(":")
    file = Path(path)
    try:
        function = load_object(file, name, "scorer")
    except UserError as exc:
        raise type(exc)(f"{where}{exc}") from exc
    try:
        with suppress(ValueError):  # some built-in functions do not say what they take
            signature(function).bind("an answer", {})
    except TypeError as exc:
        raise BadInput(f"{where}{place} cannot be called: {exc}; write def {name}(answer, row)") from exc
    return UserScorer(name, function, file_sha256(file))
