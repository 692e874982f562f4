"""Answers of models that think aloud: where the thinking ends and the answer begins."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from harness.records import Completion


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


def opening_of(prompt: str) -> str:
    """The tag of a thought that the prompt's end opens, as chat templates do, with a line's end; else ''."""
    end = prompt[-64:].rstrip()
    return next((f"{tags.open}\n" for tags in TAGS if end.endswith(tags.open)), "")


def whole_turn(prompt: str, text: str) -> str:
    """What a model wrote, with the tag before it that the prompt ends with.

    Without it a thought that was cut off would look like an answer.
    """
    opening = opening_of(prompt)
    said_again = bool(opening) and text.lstrip().startswith(opening.rstrip())
    return text if said_again else opening + text


def whole_turns(prompt: str, completion: Completion, tokenizer: object = None) -> Completion:
    """A completion whose texts are whole_turn()'s; tokens and times are those of what was written.

    Args: tokenizer: of the engine. Where tags are special tokens of it, texts have none, and where a thought ended
        cannot be seen: they stay as they are.
    """
    opening = opening_of(prompt)
    added = getattr(tokenizer, "added_tokens_decoder", {}) if opening else {}
    hidden = any(token.special and str(token) == opening.rstrip() for token in added.values())
    if not opening or hidden:
        return completion
    outputs = (replace(output, text=whole_turn(prompt, output.text)) for output in completion.outputs)
    return replace(completion, outputs=tuple(outputs))


def tags_of(template: str | None, known: dict[str, int] | None = None) -> Tags | None:
    """The tags that a model uses: those its chat template names, else those its vocabulary has a token for.

    Args: template: Jinja source of the chat template. known: added tokens, text -> id.
    """
    for tags in TAGS:
        if template and (tags.open in template or tags.close in template):
            return tags
    return next((tags for tags in TAGS if known and tags.open in known and tags.close in known), None)
