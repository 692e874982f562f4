"""What was asked, without the chat template around it: from a run's rendered prompts back to requests."""

from __future__ import annotations

from collections.abc import Callable

from harness.endpoints import is_endpoint
from harness.engines.endpoint_texts import asking
from harness.errors import HarnessError
from harness.records import Checkpoint

MARK = "\ue000request\ue000"
"""Private characters: no template holds them."""


def unwrapper(checkpoint: Checkpoint) -> Callable[[str], str]:
    """A function from a rendered prompt to the request in it; what it cannot take apart it leaves as it is."""
    if is_endpoint(checkpoint.spec):
        return _of_a_server
    frame = _frame(checkpoint)
    if frame is None:
        return lambda prompt: prompt
    before, after = frame

    def unwrap(prompt: str) -> str:
        fits = (
            prompt.startswith(before) and prompt.endswith(after) and len(prompt) >= len(before) + len(after)
        )
        return prompt[len(before) : len(prompt) - len(after)] if fits else prompt

    return unwrap


def _of_a_server(prompt: str) -> str:
    found = asking([ord(letter) for letter in prompt])
    if not found.messages:
        return prompt
    if len(found.messages) == 1:
        return found.messages[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in found.messages)


def _frame(checkpoint: Checkpoint) -> tuple[str, str] | None:
    """What the chat template writes around a single user turn; None: no template, or the folder is gone."""
    from jinja2 import TemplateError

    from harness.engines.loading import load_tokenizer  # imports torch

    try:
        tokenizer = load_tokenizer(checkpoint)
        if not tokenizer.chat_template:
            return None
        turn = [{"role": "user", "content": MARK}]
        text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    except (HarnessError, OSError, ValueError, TemplateError):
        return None
    before, found, after = text.partition(MARK)
    return (before, after) if found else None
