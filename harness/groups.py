"""Metrics of a task whose samples fall into groups: subjects, domains, languages. Each group, and both means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.records import Metric, Sample
from harness.stats.averages import macro_average
from harness.tasks import MetricSpec, aggregate_metric

MACRO = "macro"
"""Suffix of the mean over groups; no group may have that name."""


def grouped_metrics(samples: Sequence[Sample], name: str, spec: MetricSpec, group: str) -> dict[str, Metric]:
    """One metric over all samples, over the groups, and in each group.

    Args: group: metadata key; samples without it are a group called '-'.
    Returns:
        `name`: the mean over samples (micro), whose error takes samples of a group for dependent, unless spec names
        another cluster. `name/macro`: the mean over groups, each counting the same. `name/GROUP`: one per group, in
        the order of their first sample.
    """
    members: dict[str, list[Sample]] = {}
    for sample in samples:
        members.setdefault(str(sample.metadata.get(group, "-")), []).append(sample)
    parts = {value: aggregate_metric(own, name, spec) for value, own in members.items()}
    dependent = spec if spec.cluster or len(members) < 2 else replace(spec, cluster=group)
    return {
        name: aggregate_metric(samples, name, dependent),
        f"{name}/{MACRO}": macro_average(list(parts.values())),
        **{f"{name}/{value}": part for value, part in parts.items()},
    }
