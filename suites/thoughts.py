"""Answers of models that think aloud: where the thinking ends and the answer begins."""

from __future__ import annotations

from typing import NamedTuple


class Tags(NamedTuple):
    """What a model writes round its thoughts."""

    open: str
    close: str


TAGS = (
    Tags("<think>", "</think>"),
    Tags("<thinking>", "</thinking>"),
    Tags("<|begin_of_thought|>", "<|end_of_thought|>"),
    Tags("[THINK]", "[/THINK]"),
)
"""Of DeepSeek-R1 and Qwen3, of models that imitate others, of Sky-T1, of Magistral."""


def final_answer(text: str) -> str:
    """The answer without the thoughts before it; empty where the thinking never ended."""
    place = answer_place(text)
    return text[place:].strip() if place else text


def answer_place(text: str) -> int:
    """Where the answer begins: behind the last thought, at the text's end where the thinking never ended."""
    for tags in TAGS:
        if tags.close in text:
            return text.rindex(tags.close) + len(tags.close)
        if text.lstrip().startswith(tags.open):
            return len(text)
    return 0


def tags_of(template: str | None, known: dict[str, int] | None = None) -> Tags | None:
    """The tags that a model uses: those its chat template names, else those its vocabulary has a token for.

    Args: template: Jinja source of the chat template. known: added tokens, text -> id.
    """
    for tags in TAGS:
        if template and (tags.open in template or tags.close in template):
            return tags
    return next((tags for tags in TAGS if known and tags.open in known and tags.close in known), None)
