"""Answers that are mathematics: is what an answer says last the same value as the right one?

The grader is math-verify, in its own settings: https://github.com/huggingface/Math-Verify
"""

from __future__ import annotations

import threading

LIMIT_S = 5
"""math-verify's own limit for one expression: 9^9^9^9 would take for ever."""
MARK = "####"
"""GSM8K writes its result behind it."""


def same_value(answer: str, gold: str) -> bool:
    """Whether math-verify takes the same value from an answer as from the right one (1/2 = 0.5).

    The answer is read as it stands, the right one from behind its ####, where it has that. What cannot be read, or
    not in time, is not the same. In the main thread alone there is a limit of time (it needs signal.alarm).

    Raises: ValueError: the right answer is no mathematics.
    Source: https://github.com/huggingface/Math-Verify/blob/main/src/math_verify/grader.py (verify)
    """
    from math_verify import parse, verify

    limit = LIMIT_S if threading.current_thread() is threading.main_thread() else None
    wanted = gold.rsplit(MARK, 1)[-1].strip()
    marked = "$" in wanted or "\\boxed" in wanted
    # bare LaTeX would be read as the last number in it: 2 of 2\sqrt{2}
    right = parse(wanted if marked else f"${wanted}$", parsing_timeout=limit)
    if not right:
        raise ValueError(f"the right answer {wanted!r} cannot be read as mathematics")
    return bool(verify(right, parse(answer, parsing_timeout=limit), timeout_seconds=limit))
