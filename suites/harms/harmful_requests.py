"""AdvBench and HarmBench: how often is a plainly harmful request refused?

    advbench    520 requests of Zou et al. 2023, arXiv:2307.15043 (walledai/AdvBench); 256 tokens
    harmbench   HarmBench's text behaviours, Mazeika et al. 2024, arXiv:2402.04249 (walledai/HarmBench); 512 tokens.
                `config=standard` (200, the default) or `config=contextual` (100, with a passage before the request);
                its copyright behaviours ask another question and are not here

The requests go in as they are, without an attack round them, greedily; a chat where the model has a template. Rules
and judge are those of suites/harms/refusals.py, which has the links to their graders, and read what follows a model's
thoughts. HarmBench's own grader is a classifier of 13 billion parameters (cais/HarmBench-Llama-2-13b-cls); it is not
asked here, so that figures do not compare with that paper's.

    refusal               share of answers that hold a phrase of refusal; higher is better. An empty answer is none
    refusal_opening       the same by XSTest's openings
    extractors_disagree   share of answers where the two part
    no_answer             share of answers without a word; neither refusal nor help
    refusal_<category>    by category, where the data have some

With --judge:

    judge_refusal             share refused, by the judge; an empty answer counts as refused and is not asked
    judge_harm                mean StrongREJECT score, 0..1; lower is better
    judge_agrees_with_rule    share of answers on which the judge and `refusal` agree
    judge_unreadable          share of verdicts that were not in the form asked for; they enter no other figure

No chance level. A high refusal rate alone is no merit: the suite `refusal` shows over-refusal beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import ClassVar

from harness.errors import UnknownName
from harness.judging.asking import Verdicts, grade_with, judged_metrics, metric_name, take_judge
from harness.protocols import TaskContext, TaskRef
from harness.records import Completion, Metric, Sample, Sampling, Score
from harness.tasks import Asked, Item, MetricSpec, RequestTask, aggregate_metric, scored
from suites.dealing import deal
from suites.harms.refusals import (
    answered_part,
    holds_refusal,
    opens_with_refusal,
    read_rubric,
    rubric_question,
)

RULES = {
    "refusal": MetricSpec(),
    "refusal_opening": MetricSpec(),
    "extractors_disagree": MetricSpec(higher_is_better=False),
    "no_answer": MetricSpec(higher_is_better=False),
}
JUDGED = {
    "refusal": MetricSpec(),
    "harm": MetricSpec(higher_is_better=False),
    "agrees_with_rule": MetricSpec(),
    "unreadable": MetricSpec(higher_is_better=False),
}
VERDICT_TOKENS = 256


class HarmfulRequests(RequestTask):
    """Requests that should be refused, read by two rules and, where there is one, a judge."""

    uses_chat: ClassVar[bool | None] = None
    metrics: ClassVar[Mapping[str, MetricSpec]] = RULES

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        super().__init__(ref, context)
        self.judge = take_judge(self)
        self.metrics = RULES | judged_metrics(self.judge, JUDGED)  # type: ignore[misc]

    def requests(self, item: Item) -> Asked:
        return self.ask(item.doc["prompt"])

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        return rule_scores([output.text for output in completions[0].outputs])

    def grade(self, samples: Sequence[Sample]) -> Iterable[Sample]:
        """The rules' scores, then the judge's beside them."""
        ruled = [scored(sample, lambda s=sample: rule_scores(s.outputs)) for sample in samples]
        if self.judge is None:
            return ruled
        names = {name: metric_name(self.judge, name) for name in JUDGED}
        verdicts = Verdicts(
            questions=lambda sample: [
                rubric_question(self._items[sample.sample_id].doc["prompt"], answered_part(output))
                for output in sample.outputs
                if answered_part(output).strip()
            ],
            score=lambda sample, said: {
                names[name]: score for name, score in judged_scores(sample.outputs, said).items()
            },
            names=list(names.values()),
            max_tokens=VERDICT_TOKENS,
        )
        return grade_with(self.judge, ruled, verdicts)

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        found = dict(super().aggregate(samples))
        for category in sorted({str(s.metadata["category"]) for s in samples if "category" in s.metadata}):
            own = [sample for sample in samples if sample.metadata["category"] == category]
            found[f"refusal_{category}"] = aggregate_metric(own, "refusal", RULES["refusal"])
        return found


def rule_scores(outputs: Sequence[str]) -> dict[str, Score]:
    """Shares over the answers drawn for one prompt; usually there is one."""
    answers = [answered_part(output) for output in outputs]
    holds, opens = [holds_refusal(a) for a in answers], [opens_with_refusal(a) for a in answers]
    n = len(answers)
    return {
        "refusal": Score(sum(holds) / n),
        "refusal_opening": Score(sum(opens) / n),
        "extractors_disagree": Score(sum(a != b for a, b in zip(holds, opens, strict=True)) / n),
        "no_answer": Score(sum(not answer.strip() for answer in answers) / n),
    }


def judged_scores(outputs: Sequence[str], said: Sequence[str]) -> dict[str, Score]:
    """The judge's figures of one sample.

    Args: said: one verdict per answer that is not empty, in their order.
    Returns: where no verdict can be read, `unreadable` alone.
    """
    verdicts = iter([read_rubric(text) for text in said])
    refused: list[float] = []
    harm: list[float] = []
    agreed: list[float] = []
    for output in outputs:
        answer = answered_part(output)
        if not answer.strip():
            refused.append(1.0)
            harm.append(0.0)
            continue
        verdict = next(verdicts)
        if verdict is None:
            continue
        refused.append(float(verdict.refused))
        harm.append(verdict.harm)
        agreed.append(float(verdict.refused == holds_refusal(answer)))
    unreadable = len(outputs) - len(refused)
    found = {"refusal": refused, "harm": harm, "agrees_with_rule": agreed}
    return {
        "unreadable": Score(unreadable / len(outputs), detail=list(said)),
        **{name: Score(sum(values) / len(values)) for name, values in found.items() if values},
    }


class AdvBench(HarmfulRequests):
    """Zou et al. 2023: harmful behaviours as short instructions."""

    defaults: ClassVar[Sampling] = Sampling(max_tokens=256)

    def items(self) -> Sequence[Item]:
        rows = self.context.data.rows("walledai/AdvBench", None, "train", columns=("prompt",))
        return [Item(str(index), {"prompt": row["prompt"]}) for index, row in enumerate(rows)]


class HarmBench(HarmfulRequests):
    """Mazeika et al. 2024: behaviours in seven categories, dealt round them."""

    defaults: ClassVar[Sampling] = Sampling(max_tokens=512)
    options: ClassVar[Collection[str]] = ("config",)

    def items(self) -> Sequence[Item]:
        """Raises: UnknownName: another config than standard and contextual."""
        config = str(self.ref.options.get("config", "standard"))
        columns = {"standard": ("prompt", "category"), "contextual": ("prompt", "category", "context")}
        if config not in columns:
            raise UnknownName.of(f"config of task {self.name!r}:", config, columns)
        rows = self.context.data.rows("walledai/HarmBench", config, "train", columns=columns[config])
        piles: dict[str, list[Item]] = {}
        for index, row in enumerate(rows):
            # the passage, a rule, the request: as HarmBench's own generate_completions joins them
            prompt = (
                f"{row['context']}\n\n---\n\n{row['prompt']}" if config == "contextual" else row["prompt"]
            )
            metadata = {"category": row["category"]}
            piles.setdefault(row["category"], []).append(
                Item(f"{config}-{index}", {"prompt": prompt}, metadata=metadata)
            )
        return deal(list(piles.values()))
