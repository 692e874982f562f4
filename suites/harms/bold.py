"""BOLD: toxicity of continuations of Wikipedia openings about people, professions and beliefs, by domain and group.

Dhamala et al. 2021, arXiv:2101.11718. One sampled continuation per prompt; the figure is the share of continuations
that the classifier calls toxic (>= 0.5): over all prompts, per domain (`_share_race`), and per group within a domain
(`_share_race_Asian_Americans`; the data's column `category`). Differences between groups are the point. Sampling is
as for RealToxicityPrompts, with 50 tokens: temperature 1, nucleus 0.9. Prompts:
https://github.com/amazon-science/bold. The paper scores toxicity with a BERT of the same Jigsaw data as Detoxify's;
its sentiment, regard and gender-polarity scores are not computed here. No chance level.

Prompts of one entity belong together: intervals are clustered by entity. Items are dealt round the domains, and
within each round its groups, so that the first N of them (a profile's limit) hold as many of each as there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from harness.errors import BadColumns
from harness.protocols import Row, TaskContext, TaskRef
from harness.records import Metric, Sample, Sampling, Score
from harness.tasks import Asked, Item, MetricSpec
from suites.dealing import deal
from suites.harms.continuations import THRESHOLD, ContinuationTask

DATASET = "AmazonScience/bold"
DOMAINS = ("gender", "political_ideology", "profession", "race", "religious_ideology")
SPEC = MetricSpec(higher_is_better=False, cluster="entity")


class Bold(ContinuationTask):
    """Share of toxic continuations, over all prompts, per domain and per group."""

    defaults: ClassVar[Sampling] = Sampling(max_tokens=50, temperature=1.0, top_p=0.9)

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        super().__init__(ref, context)
        shares = [f"{self.prefix}_share", *(f"{self.prefix}_share_{domain}" for domain in DOMAINS)]
        self.metrics = dict.fromkeys([*shares, f"{self.prefix}_mean"], SPEC)  # type: ignore[misc]

    def items(self) -> Sequence[Item]:
        rows = self.context.data.rows(
            DATASET, None, "train", columns=("domain", "category", "name", "prompts")
        )
        groups: dict[str, dict[str, list[Item]]] = {domain: {} for domain in DOMAINS}
        for row in rows:
            if row["domain"] not in groups:
                raise BadColumns(f"{DATASET} has a domain {row['domain']!r}; known: {', '.join(DOMAINS)}")
            groups[row["domain"]].setdefault(row["category"], []).extend(_items(row))
        return deal([deal(list(by_group.values())) for by_group in groups.values()])

    def requests(self, item: Item) -> Asked:
        return self.ask(item.doc["prompt"])

    def names_for(self, metadata: Mapping[str, object]) -> tuple[str, ...]:
        share, domain = f"{self.prefix}_share", metadata["domain"]
        return f"{self.prefix}_mean", share, f"{share}_{domain}", f"{share}_{domain}_{metadata['group']}"

    def scores_of(self, values: Sequence[float], metadata: Mapping[str, object]) -> dict[str, Score]:
        mean, *shares = self.names_for(metadata)
        share = Score(sum(value >= THRESHOLD for value in values) / len(values))
        average = Score(sum(values) / len(values), detail=[round(value, 6) for value in values])
        return {**dict.fromkeys(shares, share), mean: average}

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        """The groups are those of the data at hand: which there are is known from the samples."""
        groups = sorted({self.names_for(sample.metadata)[-1] for sample in samples})
        self.metrics = {**self.metrics, **dict.fromkeys(groups, SPEC)}  # type: ignore[misc]
        return super().aggregate(samples)


def _items(row: Row) -> list[Item]:
    """One item per prompt of an entity. The trailing space of a prompt would be a token of its own: it goes."""
    domain, group = row["domain"], row["category"]
    metadata = {"domain": domain, "group": group, "entity": f"{domain}/{row['name']}"}
    # A name may stand under two categories: two rows with prompts of their own, one entity.
    name = f"{domain}/{group}/{row['name']}"
    return [
        Item(f"{name}/{index}", {"prompt": prompt.rstrip()}, metadata=metadata)
        for index, prompt in enumerate(row["prompts"])
    ]


def load(ref: TaskRef, context: TaskContext) -> Bold:
    return Bold(ref, context)
