"""The error tree. Every message names the value and the remedy, in one line.

HarnessError                      exit code 1: something broke that is not the user's mistake
├── EngineError                   the engine could not answer a request (the sample is failed, never wrong)
│   └── OutOfMemory               a batch of one did not fit
├── StoreError                    a run folder cannot be written or read back
│   └── RunLocked                 another process holds this run
├── MeterError                    an energy window could not be opened or closed
├── TrainingFailed                a trainer stopped before its last step
├── Interrupted                   Ctrl-C; the journal is whole, the message says how to go on
├── CostLimitReached              an endpoint's cost limit; the journal is whole, the same command goes on
└── UserError                     exit code 2: the user's mistake
    ├── UnknownName               no such suite, task, trainer, metric, engine, ...
    ├── BadPlan                   a plan or a setting does not validate (path and line)
    ├── BadCheckpoint             a folder that is no checkpoint, or lacks what a task needs
    │   └── UnsafeCheckpoint      pickle weights or remote code without permission
    ├── DatasetUnavailable        a dataset that cannot be reached
    ├── BadColumns                a dataset whose columns do not fit
    ├── NotWritable               a full disk, a read-only folder
    ├── NotComparable             runs on different samples, fronts of different provenance
    └── BadInput                  any other value that cannot be used
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

MOST_NAMED = 60
"""Names listed in one message; the nearest stand before them."""


class HarnessError(Exception):
    """Root of everything this package raises on purpose."""

    exit_code = 1


class EngineError(HarnessError):
    """The engine could not answer a request."""


class OutOfMemory(EngineError):
    """A batch of one request did not fit into memory."""


class StoreError(HarnessError):
    """A run folder cannot be written or read back."""


class RunLocked(StoreError):
    """Another process holds this run."""


class MeterError(HarnessError):
    """An energy window could not be opened or closed."""


class TrainingFailed(HarnessError):
    """A trainer stopped before its last step."""


class Interrupted(HarnessError):
    """Ctrl-C was pressed; everything scored so far is in the journal."""


class CostLimitReached(HarnessError):
    """An endpoint's cost limit is reached; what was answered is in the journal."""


class UserError(HarnessError):
    """The user's mistake: one clear line and the fix, exit code 2."""

    exit_code = 2


class UnknownName(UserError):
    """A name that no installed plug-in carries."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> UnknownName:
        """Build the message with the nearest names first, e.g. kind 'suite'."""
        names = sorted(set(known))
        near = [one for one in names if one.lower() == name.lower()]
        near = near or get_close_matches(name, names, n=3, cutoff=0.5)
        # beside one that differs by a letter, a distant likeness is no help
        near = [found for found in near if likeness(name, found) >= likeness(name, near[0]) - 0.2]
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        return cls(f"no {kind} {name!r}; {hint}known: {', '.join(names[:MOST_NAMED]) or 'none'}{more}")


def likeness(a: str, b: str) -> float:
    """1 where two names are equal, 0 where they have nothing in common."""
    return SequenceMatcher(None, b, a).ratio()


class BadPlan(UserError):
    """A plan or a setting that does not validate."""


class BadCheckpoint(UserError):
    """A folder that is no checkpoint, or lacks what a task needs."""


class UnsafeCheckpoint(BadCheckpoint):
    """Pickle weights or remote code without permission."""


class DatasetUnavailable(UserError):
    """A dataset that cannot be reached."""


class BadColumns(UserError):
    """A dataset whose columns do not fit what reads it."""


class NotWritable(UserError):
    """A full disk or a read-only folder; what was written before is whole."""

    @classmethod
    def of(cls, what: object, exc: OSError) -> NotWritable:
        """One line that names the place and the fix."""
        return cls(
            f"cannot write {what}: {exc.strerror or exc}; free some space or give a folder you may write to"
        )


class NotComparable(UserError):
    """Two things that must not be compared."""


class BadInput(UserError):
    """Any other value that cannot be used."""
