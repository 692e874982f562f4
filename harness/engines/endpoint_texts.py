"""A tokenizer for servers whose own is not here: its ids are the text, and a chat stays a chat.

Every character is a token (its code point). A conversation is rendered with private marks (code points that Unicode
keeps free of characters) around each turn, so that the engine finds the messages again and sends them as messages;
the server's template does the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.errors import BadInput

TURN, ROLE_END, TURN_END, ANSWER = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
MARKS = {ord(mark): "\ufffd" for mark in (TURN, ROLE_END, TURN_END, ANSWER)}
EOS = 0x110000
"""One past the last code point."""
_TURN = re.compile(f"{TURN}([^{ROLE_END}]*){ROLE_END}\n([^{TURN_END}]*)(?:{TURN_END}\n|$)")
NEEDS_TOKENS = "counts tokens, and the server's tokenizer is not here; give --engine-option tokenizer=FOLDER"


class Asking(NamedTuple):
    """What ids stand for."""

    text: str
    """Plain text, or the beginning of the assistant's answer where there are messages."""
    messages: tuple[dict[str, str], ...] = ()


class TextTokenizer:
    """Implements harness.protocols.Tokenizer on characters."""

    bos_token_id: int | None = None
    bos_token: str | None = None
    eos_token_id: int | None = EOS
    is_text = True
    """Lengths are characters: what is cut or counted by tokens cannot rest on them."""

    def __init__(self, name: str, *, chat: bool) -> None:
        self.name_or_path = name
        self.chat_template: str | None = "the server's" if chat else None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Special tokens are the server's affair."""
        return [ord(letter) for letter in text]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return "".join(chr(token) for token in token_ids if token < EOS)

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, Any]], tokenize: bool = True, **kwargs: Any
    ) -> Any:
        """The conversation with marks; as text, or as ids where tokenize is set."""
        parts = [
            f"{TURN}{_plain(turn['role'])}{ROLE_END}\n{_plain(turn['content'])}{TURN_END}\n"
            for turn in conversation
        ]
        if kwargs.get("continue_final_message") and parts:
            parts[-1] = parts[-1].removesuffix(f"{TURN_END}\n")
        elif kwargs.get("add_generation_prompt"):
            parts.append(ANSWER)
        rendered = "".join(parts)
        return self.encode(rendered) if tokenize else rendered

    @property
    def all_special_ids(self) -> list[int]:
        raise BadInput(f"this task {NEEDS_TOKENS}")

    def __len__(self) -> int:
        raise BadInput(f"this task {NEEDS_TOKENS}")


def _plain(value: Any) -> str:
    """Text in which no mark can pass for one of ours."""
    return str(value).translate(MARKS)


def asking(token_ids: Sequence[int]) -> Asking:
    """Text and messages that ids of a TextTokenizer stand for."""
    text = "".join(chr(token) for token in token_ids if token < EOS)
    start = text.find(TURN)
    if start < 0:
        return Asking(text)
    messages: list[dict[str, str]] = []
    end = start
    while found := _TURN.match(text, end):
        messages.append({"role": found[1], "content": found[2]})
        end = found.end()
    rest = text[end:]
    if rest.startswith(ANSWER):
        return Asking(rest.removeprefix(ANSWER), tuple(messages))
    if messages and messages[-1]["role"] == "assistant":  # the last turn is to be gone on with
        return Asking(messages[-1]["content"] + rest, tuple(messages[:-1]))
    return Asking(rest, tuple(messages))
