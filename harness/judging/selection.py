"""Which samples of finished runs a judge is asked about, and what it is shown of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from harness.errors import BadInput
from harness.judging.requests import unwrapper
from harness.records import RunRecord, Sample
from harness.store import Store
from harness.thoughts import final_answer, whole_turn


@dataclass(frozen=True)
class Part:
    """Of which tasks, and how much of each."""

    tasks: Sequence[str] = ()
    """None: all that hold answers."""
    limit: int | None = None


class Selection(NamedTuple):
    """Samples to be judged: prompt is the request, outputs are the answers, in the order of the runs."""

    samples: list[Sample]
    n_left_out: int
    """Without an answer in one of the runs."""
    n_reworded: int = 0
    """Requests that are not worded alike in the two runs."""


def find_run(store: Store, run: str) -> RunRecord:
    """A finished run by id, the beginning of an id, or folder. Raises: UnknownName, StoreError."""
    path = Path(run)
    return Store(path.parent).find(str(path)) if path.is_dir() else store.find(run)


def pairs_of(a: RunRecord, b: RunRecord, store: Store, part: Part) -> Selection:
    """The first answers of two runs on the same samples.

    Raises: BadInput: no answers to compare, or a task that the runs do not hold.
    """
    unwrap_a, unwrap_b = unwrapper(a.checkpoint), unwrapper(b.checkpoint)
    others = {(s.task, s.sample_id): s for s in _samples(b, store)}
    found = Selection([], 0)
    for one in _chosen(part, _samples(a, store)):
        other = others[one.task, one.sample_id]
        if not (_answered(one) and _answered(other)):
            found = found._replace(n_left_out=found.n_left_out + 1)
            continue
        request = unwrap_a(one.prompt)
        reworded = found.n_reworded + (request != unwrap_b(other.prompt))
        found = found._replace(n_reworded=reworded)
        answers = (_answer(one), _answer(other))
        found.samples.append(Sample(one.task, one.sample_id, request, answers, one.target, graded=False))
    return _something(found, f"{a.run_id} and {b.run_id}")


def answers_of_run(record: RunRecord, store: Store, part: Part) -> Selection:
    """The answers of one run, without its scores. Raises: BadInput: as pairs_of."""
    unwrap = unwrapper(record.checkpoint)
    chosen = list(_chosen(part, _samples(record, store)))
    answered = [replace(one, outputs=(_answer(one),)) for one in chosen if _answered(one)]
    samples = [replace(one, prompt=unwrap(one.prompt), scores={}, graded=False) for one in answered]
    return _something(Selection(samples, len(chosen) - len(samples)), record.run_id)


def _answer(sample: Sample) -> str:
    """The first answer as a judge reads it: without the thoughts before it."""
    return final_answer(whole_turn(sample.prompt, sample.outputs[0]))


def _answered(sample: Sample) -> bool:
    return bool(sample.outputs) and sample.error is None


def _samples(record: RunRecord, store: Store) -> Iterator[Sample]:
    return (store if record.path is None else Store(record.path.parent)).samples(record)


def _chosen(part: Part, samples: Iterator[Sample]) -> Iterator[Sample]:
    taken: dict[str, int] = {}
    for sample in samples:
        n = taken.setdefault(sample.task, 0)
        if (not part.tasks or sample.task in part.tasks) and (part.limit is None or n < part.limit):
            taken[sample.task] += 1
            yield sample
    missing = [task for task in part.tasks if task not in taken]
    if missing:
        raise BadInput(f"no task {missing[0]!r} in the run; it holds {', '.join(taken) or 'nothing'}")


def _something(found: Selection, what: str) -> Selection:
    if not found.samples:
        raise BadInput(
            f"{what}: no answers to judge ({found.n_left_out} samples have none; tasks that compare log-likelihoods "
            "write nothing); score a task that generates"
        )
    return found
