"""Options that take several values, as a shell's glob gives them: --adapters ckpts/a ckpts/b ckpts/c."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MANY_VALUED = {"eval": ("--adapters",)}
"""Command -> its options of that kind."""


def spread(arguments: Sequence[str]) -> list[str]:
    """Give every value of such an option the option's name in front, for click takes one value an option.

    ['--adapters', 'a', 'b', '--limit', '4'] -> ['--adapters', 'a', '--adapters', 'b', '--limit', '4']
    """
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    return list(_spread(arguments, MANY_VALUED.get(command, ())))


def _spread(arguments: Iterable[str], flags: Sequence[str]) -> Iterable[str]:
    taking: str | None = None
    first = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if argument.startswith("-"):
            taking, first = (name if name in flags else None), not equals
            yield argument
        elif taking is None or first:
            first = False
            yield argument
        else:
            yield from (taking, argument)
