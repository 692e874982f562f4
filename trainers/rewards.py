"""Rewards with TRL's signature: f(prompts, completions, <dataset columns>, **kwargs) -> one number per completion.

None means that the reward does not apply to a row. Completions are texts, or conversations of one turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.errors import BadColumns
from harness.mathematics import after_mark, same_value
from harness.records import Json

ANSWER_COLUMNS = ("answer", "target", "solution", "label")
MARKED = re.compile(r"^#### *\S.*$", re.MULTILINE)
BRACE = re.compile(r"\\boxed\{|[{}]")
OPEN, CLOSE = "<answer>", "</answer>"
Reward = Callable[..., list[float | None]]


def text_of(completion: Any) -> str:
    """The words of a completion, whether it is plain text or a list of messages."""
    if isinstance(completion, str):
        return completion
    return "".join(str(message.get("content") or "") for message in completion)


def gold_of(columns: Mapping[str, Any], reward: str) -> Sequence[Any]:
    """The column that holds the right answers.

    Raises: BadColumns: there is none.
    """
    for name in ANSWER_COLUMNS:
        if name in columns:
            return columns[name]
    raise BadColumns(
        f"reward {reward!r} needs one of the columns {', '.join(ANSWER_COLUMNS)}; map one with "
        "columns: {answer: existing}"
    )


def exact_match(*, completions: Sequence[Any], **columns: Any) -> list[float | None]:
    """1 where the completion is the answer, but for white space at its ends; else 0."""
    return [
        None if gold is None else float(text_of(completion).strip() == str(gold).strip())
        for completion, gold in zip(completions, gold_of(columns, "exact_match"), strict=True)
    ]


def math_verify(*, completions: Sequence[Any], **columns: Any) -> list[float | None]:
    """1 where the completion's last answer equals the right one as mathematics (1/2 = 0.5), else 0.

    It is read in the last <answer>...</answer> or behind the last ####, where the completion has one; a right answer
    counts from its ####. A right answer that cannot be read as mathematics abstains.
    """
    return [
        _same_value(text_of(completion), str(gold))
        for completion, gold in zip(completions, gold_of(columns, "math_verify"), strict=True)
    ]


def _same_value(answer: str, gold: str) -> float | None:
    try:
        return float(same_value(_final(answer), gold))
    except ValueError:  # the right answer is no mathematics
        return None


def _final(text: str) -> str:
    """What stands in the last <answer>...</answer>, or else behind the last ####, or else all."""
    before, tag, _ = text.rpartition(CLOSE)
    return before.rpartition(OPEN)[2] if tag and OPEN in before else after_mark(text)


def format_reward(*, completions: Sequence[Any], **columns: Any) -> list[float | None]:
    r"""1 where the completion gives exactly one final answer (\boxed{...}, #### ... or <answer>...</answer>)."""
    texts = map(text_of, completions)
    return [float(len(MARKED.findall(text)) + _boxes(text) + _tagged(text) == 1) for text in texts]


def _boxes(text: str) -> int:
    r"""How many \boxed{...} hold something and are closed, whatever braces stand in them."""
    opened: list[tuple[bool, int]] = []
    found = 0
    for brace in BRACE.finditer(text):
        if brace[0] != "}":
            opened.append((len(brace[0]) > 1, brace.end()))
        elif opened:
            boxed, begin = opened.pop()
            found += boxed and bool(text[begin : brace.start()].strip())
    return found


def _tagged(text: str) -> int:
    """How many <answer>...</answer> hold something."""
    insides = [part.split(CLOSE, 1) for part in text.split(OPEN)[1:]]
    return sum(len(parts) > 1 and bool(parts[0].strip()) for parts in insides)


class Toxicity:
    """Minus the probability that the completion is toxic, in [-1, 0]; an empty completion gets -1.

    The classifier is the one that the toxicity suite would take under the same settings.
    """

    def __init__(self, settings: Mapping[str, Json] | None = None) -> None:
        self.settings = dict(settings or {})
        self._classifier: Any = None

    def configured(self, settings: Mapping[str, Json]) -> Toxicity:
        """The same reward with the plan's settings, e.g. detoxify_checkpoint."""
        return Toxicity(settings)

    def __call__(self, *, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        if self._classifier is None:
            from harness.classifiers import choose

            self._classifier = choose(self.settings)
        texts = [text_of(completion) for completion in completions]
        scores = self._classifier.score(texts)
        # Saying nothing is never toxic; rewarding that would teach silence
        return [-float(score) if text.strip() else -1.0 for text, score in zip(texts, scores, strict=True)]


toxicity = Toxicity()
