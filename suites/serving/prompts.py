"""Prompts of a load: drawn from the vocabulary, or lines of a file."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.records import Json
from harness.tasks import Item

ROUNDS = 8
"""Tries to draw tokens that come back from their text."""


class Prompts:
    """Args: file: JSONL with a `prompt` in each line; None: prompts are drawn. seed: of the drawing."""

    def __init__(self, file: str | None, seed: int) -> None:
        self._lines = None if file is None else read_prompts(Path(file).expanduser())
        self._seed = seed

    @property
    def drawn(self) -> bool:
        return self._lines is None

    def doc(self, place: int) -> dict[str, Json]:
        """What the sample at this place of its load is made of."""
        if self._lines is None:
            return {"place": place}
        return {"place": place, "prompt": self._lines[place % len(self._lines)]}

    def text(self, item: Item, tokenizer: Any, tokens: int) -> str | tuple[int, ...]:
        """A line of the file, or so many token ids. The ids are those of their text where the tokenizer allows it:
        a server that takes no ids is then asked the same.
        """
        if self._lines is not None:
            return str(item.doc["prompt"])
        return draw_ids(tokenizer, tokens, f"{self._seed}:{item.id}")


def draw_ids(tokenizer: Any, tokens: int, seed: str) -> tuple[int, ...]:
    """Random token ids, the tokenizer's own first ones (BOS) before them."""
    before = tokenizer.encode("", add_special_tokens=True)[: tokens - 1]
    special = set(tokenizer.all_special_ids)
    draw = random.Random(seed)
    size = len(tokenizer)
    body: list[int] = []
    for _ in range(ROUNDS):
        while len(body) < tokens - len(before):
            token = draw.randrange(size)
            if token not in special:
                body.append(token)
        again = [t for t in tokenizer.encode(tokenizer.decode(body), add_special_tokens=False)]
        if again == body or not again:
            break
        body = [t for t in again if t not in special][: tokens - len(before)]
    while len(body) < tokens - len(before):
        token = draw.randrange(size)
        body += [] if token in special else [token]
    return (*before, *body)


def read_prompts(path: Path) -> list[str]:
    """Raises: BadInput: a line without a prompt, or none at all."""
    prompts = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise BadInput(f"latency: {path} cannot be read ({exc}); give a JSONL file with prompts") from exc
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as exc:
            raise BadInput(f"{path}:{number}: no JSON; each line is an object with a prompt") from exc
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str) or not row["prompt"]:
            raise BadInput(f"{path}:{number}: no text under 'prompt'; each line is an object with one")
        prompts.append(row["prompt"])
    if not prompts:
        raise BadInput(f"{path} has no prompts; give a JSONL file with one in each line")
    return prompts
