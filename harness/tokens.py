"""Texts to token ids, many in one call, and what texts have in common once: exactly what encoding each alone gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from harness.protocols import Tokenizer

Ids = tuple[int, ...]

CUT = re.compile(r"(?<=[A-Za-z0-9])(?=\n)|(?<=\S\n)(?=[A-Za-z0-9])")
"""Where a text may be cut: between a letter or digit and a line's end, and between one that ends a line with text in
it and a letter or digit. (Of several ends of lines in a row, what follows decides how some patterns split them.)"""
MOST_KEPT_CHARS = 4_000_000
"""Pieces of text kept with their tokens; then all are forgotten."""
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LINEWISE = {
    rf"{CONTRACTIONS}|{WORDS}|\p{{N}}{{1,3}}|{REST}",  # Llama 3
    rf"{CONTRACTIONS}|{WORDS}|\p{{N}}|{REST}",  # Qwen 2 and 3
}
"""Split patterns that never join a letter or digit with a line's end beside it, and never look back."""


class Frame(NamedTuple):
    """Special tokens that the tokenizer puts around a text."""

    before: Ids
    after: Ids


class Encoder:
    """Encodes batches with one tokenizer.

    Byte-level BPE splits a text with a pattern before it merges, so that tokens never reach over a cut. Where the
    tokenizer is of that kind, texts are cut at lines and every piece is encoded once: five-shot prompts differ in
    their last lines. Any other tokenizer gets whole texts.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer: Any = tokenizer
        self._fast = bool(getattr(tokenizer, "is_fast", False))
        self._frame = _frame(tokenizer) if self._fast and _cuts_at_lines(tokenizer) else None
        self._kept: dict[str, Ids] = {}
        self._kept_chars = 0

    @property
    def linewise(self) -> bool:
        """Whether texts are cut at lines."""
        return self._frame is not None

    def encode(self, texts: Sequence[str], *, special: bool) -> list[Ids]:
        """Token ids of every text. Args: special: with the tokenizer's own special tokens, e.g. BOS."""
        unique = list(dict.fromkeys(texts))
        if self._frame is None:
            found = dict(zip(unique, self._batch(unique, special=special), strict=True))
            return [found[text] for text in texts]
        pieces = {text: CUT.split(text) for text in unique}
        ids = self._ids_of(dict.fromkeys(chain.from_iterable(pieces.values())))
        before, after = self._frame if special else Frame((), ())
        joined = {
            text: (*before, *chain.from_iterable(map(ids.__getitem__, parts)), *after)
            for text, parts in pieces.items()
        }
        return [joined[text] for text in texts]

    def _ids_of(self, pieces: Iterable[str]) -> dict[str, Ids]:
        wanted = list(pieces)
        new = [piece for piece in wanted if piece not in self._kept]
        fresh = dict(zip(new, self._batch(new, special=False), strict=True))
        found = {piece: fresh[piece] if piece in fresh else self._kept[piece] for piece in wanted}
        if self._kept_chars > MOST_KEPT_CHARS:
            self._kept, self._kept_chars = {}, 0
        self._kept |= fresh
        self._kept_chars += sum(map(len, fresh))
        return found

    def _batch(self, texts: list[str], *, special: bool) -> list[Ids]:
        if not self._fast:
            return [tuple(self.tokenizer.encode(text, add_special_tokens=special)) for text in texts]
        if not texts:
            return []
        encoded = self.tokenizer(
            texts, add_special_tokens=special, return_attention_mask=False, return_token_type_ids=False
        )
        return [tuple(ids) for ids in encoded["input_ids"]]


@lru_cache(maxsize=2)
def _shared(tokenizer: Any) -> Encoder:
    return Encoder(tokenizer)


def encoder_of(tokenizer: Tokenizer) -> Encoder:
    """The tokenizer's encoder: tasks and checkpoints that share a tokenizer share what was encoded."""
    try:
        return _shared(tokenizer)  # type: ignore[arg-type]
    except TypeError:  # a tokenizer that has no hash
        return Encoder(tokenizer)


# Which tokenizers may be cut at lines


def _cuts_at_lines(tokenizer: Any) -> bool:
    """Whether tokens of a text are those of its pieces: known byte-level BPE, and nothing that reaches over a cut."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    model: Any = getattr(backend, "model", None)
    if backend is None or type(model).__name__ != "BPE" or model.dropout or model.end_of_word_suffix:
        return False
    if not _is_plain(_state(backend.normalizer)) or not _splits_lines(_state(backend.pre_tokenizer)):
        return False
    added = backend.get_added_tokens_decoder().values()
    reaching = any(
        token.lstrip or token.rstrip or token.single_word or "\n" in token.content for token in added
    )
    return not reaching and _holds(tokenizer)


def _state(part: Any) -> Any:
    """A normalizer or pre-tokenizer as its JSON, or None."""
    return None if part is None else json.loads(part.__getstate__())


def _is_plain(normalizer: Any) -> bool:
    if normalizer is None or normalizer["type"] == "NFC":
        return True
    return normalizer["type"] == "Sequence" and all(map(_is_plain, normalizer["normalizers"]))


def _splits_lines(pre_tokenizer: Any) -> bool:
    steps = [pre_tokenizer] if pre_tokenizer else []
    if steps and steps[0]["type"] == "Sequence":
        steps = steps[0]["pretokenizers"]
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return False
    patterns = [step for step in steps[:-1] if step["type"] != "Digits"]
    if any(step["type"] != "Split" or not _is_known(step) for step in patterns):
        return False
    return bool(patterns) or bool(steps[-1]["use_regex"])


def _is_known(split: Any) -> bool:
    return (
        split["pattern"].get("Regex") in LINEWISE and split["behavior"] == "Isolated" and not split["invert"]
    )


PROBE = "Q: 1?\nA: 2.\nQ: 12 + 30?\n\nThe answer\nis 42.\r\n  So it is\n\n\n A\n<x> it's done 7\n"


def _holds(tokenizer: Any) -> bool:
    """Try it on a text with every kind of line's end."""
    parts = [tokenizer.encode(part, add_special_tokens=False) for part in CUT.split(PROBE)]
    return list(chain.from_iterable(parts)) == list(tokenizer.encode(PROBE, add_special_tokens=False))


def _frame(tokenizer: Any) -> Frame | None:
    """Special tokens before and after a text, or None where they are not a fixed frame."""
    bare, whole = (list(tokenizer.encode(PROBE, add_special_tokens=special)) for special in (False, True))
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return Frame(tuple(whole[:start]), tuple(whole[start + len(bare) :]))
    return None
