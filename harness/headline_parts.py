"""Headlines without a value per sample (a balance of two rates, a harmonic mean): what two runs show in their place."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from harness.records import Metric, RunRecord

CHECKS = ("disagree", "unreadable", "inconsistent")
"""Ends of the names of metrics that tell of the grading and not of the answers."""


def stand_ins(record: RunRecord, compared: Mapping[str, Collection[str]]) -> dict[str, tuple[str, ...]]:
    """Task -> metrics to show in the place of its headline metric, of those tasks whose headline metric has no pairs.

    Args: compared: task -> its metrics that were compared sample by sample.
    Returns: what the metric says it is made of; else all metrics of its task but checks of the grading.
    """
    return {
        task: _parts(record.metrics.get(task, {}), headline, compared.get(task, ()))
        for task, headline in record.headline_metrics.items()
        if headline not in compared.get(task, ())
    }


def _parts(metrics: Mapping[str, Metric], headline: str, compared: Collection[str]) -> tuple[str, ...]:
    found = metrics.get(headline)
    named = found.made_of if found is not None else ()
    others = [name for name in metrics if not name.endswith(CHECKS)]
    return tuple(name for name in named or others if name in compared)


def said_of(a: RunRecord, b: RunRecord, parts: Mapping[str, tuple[str, ...]]) -> list[str]:
    """A line for each headline metric that is not compared itself."""
    return [
        f"{task}: {a.headline_metrics[task]} ({_value(a, task)} -> {_value(b, task)}) has no value per sample; "
        + (f"compared in its place: {', '.join(names)}" if names else "nothing of it is compared")
        for task, names in parts.items()
    ]


def _value(record: RunRecord, task: str) -> str:
    found = record.metrics.get(task, {}).get(record.headline_metrics.get(task, ""))
    return "unknown" if found is None or found.value is None else f"{found.value:.3f}"
