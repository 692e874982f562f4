"""Memorisation: does a model solve problems, or does it know these? GSM8K against seeded variants of itself.

After Chen et al. 2025, "Memorize or Generalize?", arXiv:2503.02296, who change tasks that a model may have seen and
take the fall in accuracy, together with how much of the old solution comes back, for memorisation. Their tasks are
programs; here they are the problems of GSM8K (Cobbe et al. 2021, arXiv:2110.14168), changed in three ways:

    numbers     other numbers, the right answer computed again from the solution's own equations
    names       other people
    paraphrase  other words, by templates

A problem is asked as it is and in each way that is safe for it; those that cannot be varied so are left out of that
way and counted, with the reasons, in the run's notes. `numbers_drop` is the accuracy on the originals less that on
their variants, over the problems that have both, with the interval of the paired difference; `names_drop` and
`paraphrase_drop` likewise. A drop around 0 speaks for solving. `numbers_recalled` is the share of number variants
that are answered with the original's answer, which is wrong there: what a memory gives back.

Asked like lm-eval's gsm8k, with the first shots of the training split (`num_fewshot`, 5), in plain text unless --chat
on; `variants` is the number of variants of each way (1). An answer is the number behind ####
(https://github.com/openai/grade-school-math/blob/3101c7d/grade_school_math/dataset.py), or else its last number;
`extractors_disagree` is the share of samples in which the two ways of reading differ in a verdict. Variants are drawn
from --seed and the problem. Chance level 0.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from math import sqrt
from statistics import stdev
from typing import ClassVar, NamedTuple

from harness.errors import BadInput, BadPlan
from harness.hashing import hash_json
from harness.protocols import TaskContext, TaskRef
from harness.records import Completion, Json, Metric, Sample, Sampling, Score
from harness.stats.paired import paired_difference
from harness.tasks import Asked, Item, MetricSpec, RequestTask, aggregate_metric
from suites.gsm8k import data as gsm8k
from suites.gsm8k.equations import Untraceable
from suites.gsm8k.number_variants import Variant, answer_of, with_other_numbers
from suites.gsm8k.rewording import in_other_words, with_other_names

KINDS = ("numbers", "names", "paraphrase")
SHOTS = 5
NOBODY = "it names nobody whom the list of names knows"


class Made(NamedTuple):
    """The variants of a problem."""

    variants: Mapping[str, Sequence[Variant]]
    """Way -> variants, where there are some."""
    left_out: Mapping[str, str]
    """Way -> why there is none."""


class Memorisation(RequestTask):
    """A sample is a problem with its variants: they are right or wrong together in one record."""

    uses_chat: ClassVar[bool | None] = False
    defaults: ClassVar[Sampling] = Sampling(max_tokens=256, stop=gsm8k.STOP)
    options: ClassVar[Collection[str]] = ("num_fewshot", "variants")
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        **{f"{kind}_drop": MetricSpec(higher_is_better=False, chance=0.0) for kind in KINDS},
        "original_accuracy": MetricSpec(chance=0.0),
        **{f"{kind}_accuracy": MetricSpec(chance=0.0) for kind in KINDS},
        "numbers_recalled": MetricSpec(higher_is_better=False),
        "extractors_disagree": MetricSpec(higher_is_better=False),
    }

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        self._shots = _count(ref, "num_fewshot", SHOTS, least=0)
        if context.num_fewshot is not None:
            self._shots = context.num_fewshot
        self._variants = _count(ref, "variants", 1, least=1)
        super().__init__(ref, context)
        if self.sampling.n != 1:
            raise BadPlan(
                f"task {self.name!r} takes one answer per problem; use variants=N for more, not sampling.n"
            )
        self._prefix = gsm8k.shots(context.data, self._shots)

    @property
    def fingerprint(self) -> str:
        return hash_json([super().fingerprint, self._prefix])

    def items(self) -> Sequence[Item]:
        """Variants are made for the first `limit` problems alone: it takes about 10 ms each."""
        rows = gsm8k.problems(self.context.data)
        kept = rows[: self.context.limit]
        if len(kept) < len(rows):
            self.notes.append(f"{len(kept)} of {len(rows)} samples")
        made = [self._made(index, row) for index, row in enumerate(kept)]
        self.notes += _told(made)
        return [_item(index, row, one) for index, (row, one) in enumerate(zip(kept, made, strict=True))]

    def _made(self, index: int, row: Mapping[str, Json]) -> Made:
        variants: dict[str, list[Variant]] = {}
        left_out: dict[str, str] = {}
        for kind in KINDS:
            try:
                variants[kind] = [
                    _variant(kind, row, random.Random(f"{self.context.seed}:{kind}:{index}:{number}"))
                    for number in range(self._variants)
                ]
            except Untraceable as exc:
                left_out[kind] = str(exc)
        return Made(variants, left_out)

    @property
    def metric_names(self) -> Sequence[str]:
        return list(self.metrics)

    @property
    def n_requests(self) -> int:
        return sum(len(item.doc["asked"]) for item in self._items.values())

    def requests(self, item: Item) -> Asked:
        """The original first, then its variants."""
        every = [self.ask(self._prefix + gsm8k.asked(one["question"])) for one in item.doc["asked"]]
        return Asked(every[0].prompt, tuple(request for ask in every for request in ask.requests))

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        texts = [completion.outputs[0].text for completion in completions]
        found = [gsm8k.given(text) for text in texts]
        asked = item.doc["asked"]
        right = [value == Fraction(one["answer"]) for value, one in zip(found, asked, strict=True)]
        scores = {"original_accuracy": Score(float(right[0]), detail=_shown(found))}
        for kind in KINDS:
            own = [place for place, one in enumerate(asked) if one["kind"] == kind]
            if own:
                share = sum(right[place] for place in own) / len(own)
                scores[f"{kind}_accuracy"] = Score(share)
                scores[f"{kind}_drop"] = Score(float(right[0]) - share)
            if own and kind == "numbers":
                recalled = sum(found[place] == Fraction(asked[0]["answer"]) for place in own)
                scores["numbers_recalled"] = Score(recalled / len(own))
        scores["extractors_disagree"] = Score(float(any(map(_disagree, texts, asked))))
        return scores

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        """Means; the drops as paired differences over the problems that have the variant."""
        found = {}
        for name, spec in self.metrics.items():
            about = [sample for sample in samples if _has(sample, name.partition("_")[0])]
            found[name] = aggregate_metric(about, name, spec)
            if name.endswith("_drop"):
                found[name] = _paired(found[name], about, name.removesuffix("_drop"))
        return found


def _count(ref: TaskRef, name: str, default: int, least: int) -> int:
    value = ref.options.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise BadPlan(f"task {ref.label!r}: {name} is {value!r}; give a whole number from {least} on")
    return value


def _variant(kind: str, row: Mapping[str, Json], rng: random.Random) -> Variant:
    """Raises: Untraceable: there is none that is safe. BadInput: a row without a result."""
    question, solution = str(row["question"]), str(row["answer"])
    if kind == "numbers":
        return with_other_numbers(question, solution, rng)
    reworded = with_other_names(question, rng) if kind == "names" else in_other_words(question, rng)
    if reworded is None:
        raise Untraceable(NOBODY)
    return Variant(reworded, answer_of(solution))


def _item(index: int, row: Mapping[str, Json], made: Made) -> Item:
    try:
        answer = answer_of(str(row["answer"]))
    except Untraceable as exc:
        raise BadInput(f"{gsm8k.DATASET}, row {index}: no number behind #### in its answer") from exc
    asked = [{"kind": "original", "question": row["question"], "answer": str(answer)}]
    for kind, variants in made.variants.items():
        asked += [{"kind": kind, "question": v.question, "answer": str(v.answer)} for v in variants]
    kinds = [one["kind"] for one in asked]
    metadata = {"kinds": kinds, "questions": [one["question"] for one in asked[1:]]}
    metadata["answers"] = [one["answer"] for one in asked]
    return Item(str(index), {"asked": asked}, str(answer), metadata)


def _has(sample: Sample, part: str) -> bool:
    """Whether a metric is about a sample: a failed one counts for the ways in which its problem was varied."""
    return part not in KINDS or part in sample.metadata["kinds"]


def _disagree(text: str, one: Mapping[str, Json]) -> bool:
    wanted = Fraction(one["answer"])
    return (gsm8k.strict(text) == wanted) != (gsm8k.last(text) == wanted)


def _shown(found: Sequence[Fraction | None]) -> list[str | None]:
    """Numbers for the journal."""
    return [None if value is None else str(value) for value in found]


def _paired(mean: Metric, samples: Sequence[Sample], kind: str) -> Metric:
    """The drop's mean with the standard error and the interval of a paired difference."""
    scored = [s.scores for s in samples if s.error is None and f"{kind}_drop" in s.scores]
    original = [float(scores["original_accuracy"].value or 0.0) for scores in scored]
    variant = [float(scores[f"{kind}_accuracy"].value or 0.0) for scores in scored]
    if not scored:
        return mean
    paired = paired_difference(variant, original)
    drops = [a - b for a, b in zip(original, variant, strict=True)]
    return Metric(
        value=paired.difference,
        n=len(drops),
        n_failed=mean.n_failed,
        higher_is_better=False,
        stderr=stdev(drops) / sqrt(len(drops)) if len(drops) > 1 else None,
        ci95=paired.ci95,
        interval=paired.interval,
        chance=mean.chance,
    )


def _told(made: Sequence[Made]) -> list[str]:
    """How many problems are varied in each way, and why the others are not."""
    notes = []
    for kind in KINDS:
        reasons = Counter(one.left_out[kind] for one in made if kind in one.left_out)
        varied = sum(kind in one.variants for one in made)
        why = "; ".join(f"{n}: {reason}" for reason, n in reasons.most_common())
        notes.append(
            f"{kind}: {varied} of {len(made)} problems varied" + (f"; left out {why}" if why else "")
        )
    return notes


def load(ref: TaskRef, context: TaskContext) -> Memorisation:
    return Memorisation(ref, context)
