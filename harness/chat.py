"""Chat templates, which come with a checkpoint and may refuse what they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import BadCheckpoint
from harness.folders import read_json
from harness.protocols import Tokenizer

REFUSES = "raise_exception"
"""What a template calls to refuse."""
PLAIN = "ask in plain text with --chat off"
PROBE = ({"role": "user", "content": "Hello"},)
"""What every chat begins with."""


def render(tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]], whose: str, **options: Any) -> str:
    """A conversation through the chat template, as text.

    Args: whose: the checkpoint's name. options: of apply_chat_template; else the answer is opened.
    Raises: BadCheckpoint: the template refuses it, or is broken.
    """
    from jinja2 import TemplateError

    how = options or {"add_generation_prompt": True}
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **how))
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as exc:
        raise refusal(whose, exc) from exc


def refusal(whose: str, exc: Exception, way_out: str = PLAIN) -> BadCheckpoint:
    """One line: whose template, what it says, and the way out."""
    said = " ".join(str(exc).split())[:200] or type(exc).__name__
    return BadCheckpoint(
        f"the chat template of {whose!r} refuses the conversation: {said}; "
        f"repair it (chat_template.jinja beside the tokenizer) or {way_out}"
    )


def check_template(folder: Path, whose: str) -> None:
    """Hold one user turn against the template in a tokenizer's folder, without loading anything else.

    Raises: BadCheckpoint: it refuses, or is no template. What it does to other conversations shows when they are asked.
    """
    text, special = _template(folder)
    if REFUSES not in text:
        return
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        render_jinja_template([list(PROBE)], chat_template=text, add_generation_prompt=True, **special)
    except TemplateError as exc:
        raise refusal(whose, exc) from exc


def _template(folder: Path) -> tuple[str, dict[str, str]]:
    """The default template, "" where none is found, and the special tokens that it may name."""
    card = folder / "tokenizer_config.json"
    config = read_json(card) if card.is_file() else {}
    special = {}
    for name, value in config.items():
        token = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(token, str):
            special[name] = token
    beside = folder / "chat_template.jinja"
    text = beside.read_text("utf-8") if beside.is_file() else config.get("chat_template")
    return (text if isinstance(text, str) else ""), special
