"""Answers that are mathematics: is what an answer says last the same value as the right one?

The grader is math-verify, in its own settings: https://github.com/huggingface/Math-Verify
"""

from __future__ import annotations

import logging
import re
import threading
from functools import cache
from typing import Any

LIMIT_S = 5
"""math-verify's own limit for one expression: 9^9^9^9 would take for ever."""
READ_CHARS = 20_000
"""Of a longer answer its end is read, where the last expression stands."""
MARK = "####"
"""GSM8K writes its result behind it."""
LATEX = re.compile(r"[\\^_{}]")
WORD = re.compile(r"[A-Za-z]{2,}")


def after_mark(text: str) -> str:
    """The part behind the last ####, where there is one; without white space around."""
    return text.rsplit(MARK, 1)[-1].strip()


def same_value(answer: str, gold: str) -> bool:
    """Whether math-verify takes the same value from an answer as from the right one (1/2 = 0.5).

    The answer is read as it stands, the right one from behind its ####, where it has that. What cannot be read, or
    not in time, is not the same. In the main thread alone there is a limit of time (it needs signal.alarm).

    Raises: ValueError: the right answer is no mathematics.
    Source: https://github.com/huggingface/Math-Verify/blob/main/src/math_verify/grader.py (verify)
    """
    limit = LIMIT_S if threading.current_thread() is threading.main_thread() else None
    wanted = after_mark(gold)
    right = _read_right(wanted, limit)
    if not right:
        raise ValueError(f"the right answer {wanted[:80]!r} cannot be read as mathematics")
    given = _library().parse(answer[-READ_CHARS:], parsing_timeout=limit)
    return bool(given) and bool(_library().verify(right, given, timeout_seconds=limit))


def _read_right(wanted: str, limit: int | None) -> list[Any]:
    """What the right answer says. Bare LaTeX is set between dollars: else 2 would be read of 2\\sqrt{2}.

    Words without LaTeX ("18 dollars") are read as they stand: between dollars they would be a product of letters.
    """
    if not wanted:
        return []
    bare = f"${wanted}$"
    if "$" in wanted or "\\boxed" in wanted:
        forms = [wanted]
    elif WORD.search(wanted) and not LATEX.search(wanted):
        forms = [wanted, bare]
    else:
        forms = [bare]
    read = (_library().parse(form, parsing_timeout=limit) for form in forms)
    right: list[Any] = next((found for found in read if found), [])
    return right


@cache
def _library() -> Any:
    import math_verify

    # its warnings print whole answers
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify
