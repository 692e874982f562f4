"""What score() of a task returned, held against what it should be: tasks are plug-in code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from difflib import get_close_matches
from numbers import Real

from harness.records import Score


def check_scores(found: object, declared: Collection[str] = ()) -> dict[str, Score]:
    """Scores by metric, their values plain numbers.

    Args: declared: metrics that are averaged; empty where the task adds up by itself.
    Raises: TypeError: no mapping of names to scores, or a score of another name in the place of a declared one, which
        nothing would average.
    """
    if not isinstance(found, Mapping):
        name = next(iter(declared), "accuracy")
        raise TypeError(f"score() returned {found!r:.40}; return {{{name!r}: Score(1.0)}}")
    scores = {name: _score(name, score) for name, score in found.items()}
    unknown = next((name for name in scores if name not in declared), None)
    missing = [name for name in declared if name not in scores]
    if unknown is not None and missing:
        near = get_close_matches(unknown, missing, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise TypeError(
            f"score() returned {unknown!r}, which is no metric of the task; {hint}metrics: {', '.join(declared)}"
        )
    return scores


def _score(name: object, score: object) -> Score:
    if not isinstance(name, str):
        raise TypeError(f"score() returned a metric of the name {name!r:.40}; a name is text")
    if not isinstance(score, Score):
        raise TypeError(f"score() returned {score!r:.40} for {name!r}; return Score(...)")
    value: object = score.value
    if value is None or isinstance(value, int | float):
        return score
    if not isinstance(value, Real):
        raise TypeError(f"score() returned Score({value!r:.40}) for {name!r}; a value is a number, or None")
    return replace(score, value=float(value))  # NumPy's numbers, which JSON does not know
