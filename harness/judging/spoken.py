"""Reading what a judge said: a verdict in double brackets, or nothing but the verdict. Never a guess."""

from __future__ import annotations

import re

BRACKETED = re.compile(r"\[\[ {0,3}([\w.]{1,16}) {0,3}\]\]")
AROUND = " \t\r\n.*_`'\"()[]"
"""What may stand around a verdict that is all that was said."""
THOUGHT_ENDS = "</think>"
THOUGHT_BEGINS = "<think>"


def verdict(text: str) -> str | None:
    """The one verdict of an answer, in lower case; None: there is none, or there are several that differ.

    What stands before the end of a thought is no verdict; a thought without an end has none behind it.
    """
    _, ended, after = text.rpartition(THOUGHT_ENDS)
    said = after if ended else text
    if THOUGHT_BEGINS in said:
        return None
    found = {str(match).lower() for match in BRACKETED.findall(said)}
    if len(found) == 1:
        return found.pop()
    bare = said.strip(AROUND).lower()
    return bare if not found and bare and len(bare) <= 16 and not any(map(str.isspace, bare)) else None
