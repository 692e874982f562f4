"""What training cost: every trained checkpoint against the one it came from, on all suites that both were scored on.

A regression is told sample by sample, with the tests of harness.compare: a mean that stands still may hide as many
answers lost as won.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from harness.compare import Comparison, MetricDifference, compare
from harness.errors import NotComparable, StoreError
from harness.records import Json, RunRecord
from harness.stats.paired import holm
from harness.store import Store

Asked = tuple[str, str, Json, str]
"""Suite, profile, limit and strategy: runs that can be held against each other share them."""


@dataclass(frozen=True)
class Step:
    """One checkpoint before a training, and one after it."""

    before: str
    after: str
    stages: tuple[str, ...]
    """Trainings between them, in their order, as 'stage (method)'."""
    comparisons: tuple[Comparison, ...]
    """One per suite that both were scored on; p_holm is adjusted for the tasks of all of them."""
    left_out: tuple[str, ...] = ()
    """Why a suite of both could not be compared."""

    @property
    def headlines(self) -> tuple[tuple[str, MetricDifference], ...]:
        """(suite, headline metric of a task or a part that stands for it), in the order of the comparisons."""
        return tuple(
            (found.suite, row) for found in self.comparisons for row in found.differences if row.leads
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be known beside the rows, and why a suite of both is not among them."""
        beside = (f"{c.suite}: {note}" for c in self.comparisons for note in c.notes if "energy" not in note)
        return (*self.left_out, *beside)


class _Pair(NamedTuple):
    before: RunRecord
    after: RunRecord


def steps(runs: Sequence[RunRecord], store: Store | None = None) -> list[Step]:
    """Every trained checkpoint against its parent, and against the root of its lineage where that is another.

    Args:
        runs: finished runs, oldest first; of several of one checkpoint on one suite the newest counts.
        store: where the samples of records lie that were not read from a folder.
    Returns: in the order in which the trained checkpoints were first scored; checkpoints without a scored ancestor
        have none.
    """
    newest: dict[str, dict[Asked, RunRecord]] = {}
    for run in runs:
        newest.setdefault(run.checkpoint.fingerprint, {})[_asked(run)] = run
    found = []
    for fingerprint, after in newest.items():
        for ancestor in _ancestors(next(iter(after.values())), newest):
            if ancestor != fingerprint and ancestor in newest:
                found.append(_step(newest[ancestor], after, newest, store))
    return [step for step in found if step.comparisons or step.left_out]


def _asked(run: RunRecord) -> Asked:
    return run.suite, run.profile, run.identity.get("limit"), run.strategy


def _ancestors(run: RunRecord, newest: Mapping[str, object]) -> Iterator[str]:
    """Fingerprints to hold a checkpoint against: its parent, then the root if it is another."""
    training = run.checkpoint.training
    if training is not None:
        yield from dict.fromkeys([training.parent, training.root])


def _step(
    before: Mapping[Asked, RunRecord],
    after: Mapping[Asked, RunRecord],
    newest: Mapping[str, Mapping[Asked, RunRecord]],
    store: Store | None,
) -> Step:
    pairs = [_Pair(before[asked], run) for asked, run in after.items() if asked in before]
    found: list[Comparison] = []
    left_out: list[str] = []
    for pair in pairs:
        try:
            found.append(compare(pair.before, pair.after, store))
        except (NotComparable, StoreError) as exc:
            left_out.append(f"{pair.after.suite}: {exc}")
    first, last = next(iter(before.values())), next(iter(after.values()))
    return Step(
        first.checkpoint.name,
        last.checkpoint.name,
        tuple(_between(first.checkpoint.fingerprint, last, newest)),
        _adjusted(found),
        tuple(left_out),
    )


def _between(start: str, run: RunRecord, newest: Mapping[str, Mapping[Asked, RunRecord]]) -> list[str]:
    """The trainings from one checkpoint to another, as far as scored checkpoints tell."""
    named: list[str] = []
    training = run.checkpoint.training
    while training is not None:
        named.insert(0, f"{training.stage} ({training.method})")
        if training.parent == start or training.parent not in newest:
            break
        training = next(iter(newest[training.parent].values())).checkpoint.training
    return named


def _adjusted(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Holm over the tasks of all suites: they are looked at together."""
    tested = [
        (i, k)
        for i, found in enumerate(comparisons)
        for k, row in enumerate(found.differences)
        if row.leads and row.paired.p_value is not None
    ]
    p_values = holm([comparisons[i].differences[k].paired.p_value or 0.0 for i, k in tested])
    by_place = dict(zip(tested, p_values, strict=True))
    return tuple(
        replace(
            found,
            differences=tuple(
                replace(row, p_holm=by_place.get((i, k))) for k, row in enumerate(found.differences)
            ),
        )
        for i, found in enumerate(comparisons)
    )
