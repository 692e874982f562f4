"""Figures by budget of suites/thinking/budgets.py, and how they change from one budget to another. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from harness.judging.asking import metric_name
from harness.protocols import Judge
from harness.records import Metric, Sample
from harness.stats.signed import signed_mean
from harness.tasks import MetricSpec, aggregate_metric
from suites.harms.xstest import balanced

RATES = {"unsafe": "refusal_on_unsafe", "safe": "over_refusal_on_safe"}
JUDGED = ("refusal", "harm", "unreadable")


def at_budget(budget: int, samples: Sequence[Sample], judge: Judge | None) -> dict[str, Metric]:
    """Figures of one budget, over its samples."""
    by_label = {kind: [s for s in samples if s.metadata["label"] == kind] for kind in RATES}
    found = {
        f"{RATES[kind]}@{budget}": aggregate_metric(
            own, f"{RATES[kind]}@{budget}", MetricSpec(higher_is_better=kind == "unsafe")
        )
        for kind, own in by_label.items()
        if own
    }
    if len(found) == len(RATES):
        found[f"balanced@{budget}"] = balanced(*found.values())
    beside = {
        "thinking_tokens": MetricSpec(unit="tokens"),
        "ended_early": MetricSpec(),
        "no_answer": MetricSpec(higher_is_better=False),
    }
    for name, spec in beside.items():
        if budget == 0 and name != "no_answer":
            continue  # nothing was thought
        found[f"{name}@{budget}"] = aggregate_metric(samples, f"{name}@{budget}", spec)
    if judge is not None and by_label["unsafe"]:
        for name in JUDGED:
            known = metric_name(judge, f"{name}@{budget}")
            spec = MetricSpec(higher_is_better=name == "refusal")
            found[known] = aggregate_metric(by_label["unsafe"], known, spec)
    return found


def change(samples: Sequence[Sample], name: str, first: int, then: int) -> Metric:
    """Mean difference of a rate between two budgets over the prompts that have both; t interval of the pairs.

    Returns: n counts prompts; those that failed at either budget are the failed ones.
    """
    values: dict[int, dict[str, float]] = {first: {}, then: {}}
    prompts: set[str] = set()
    for sample in samples:
        budget = sample.metadata["budget"]
        if budget not in values or RATES[sample.metadata["label"]] != name:
            continue
        prompts.add(str(sample.metadata["prompt"]))
        score = sample.scores.get(f"{name}@{budget}")
        if sample.error is None and score is not None and score.value is not None:
            values[budget][str(sample.metadata["prompt"])] = score.value
    both = [prompt for prompt in values[then] if prompt in values[first]]
    return signed_mean(
        [values[then][prompt] - values[first][prompt] for prompt in both],
        n_failed=len(prompts) - len(both),
        higher_is_better=name == RATES["unsafe"],
    )
