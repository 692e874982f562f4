"""TOFU: has a model forgotten twenty invented authors, and only them?

Maini et al. 2024, arXiv:2401.06121, on the perturbed sets of locuslab/TOFU: questions on the authors to forget
(forget10, or `forget=forget05`, `forget=forget01`), on invented authors to keep, on real authors and on world facts;
the first 300 of each, as in https://github.com/locuslab/tofu/blob/8c49eee/config/eval_everything.yaml . Official
code: https://github.com/locuslab/tofu/blob/8c49eee/evaluate_util.py and, for the sums,
https://github.com/locuslab/tofu/blob/8c49eee/utils.py (get_model_utility, get_forget_quality). Of every set:

    SET_rouge_l_recall  of the greedy answer against the right one (rouge_score, with its stemmer)
    SET_probability     of the right answer, per token: exp(mean log-likelihood), the end token included; of real
                        authors and world facts its share of the sum over the right and the wrong answers
    SET_truth_ratio     R = mean probability of the wrong answers / that of the right one in other words (real
                        authors, world facts: as it is); max(0, 1 - R), and min(R, 1/R) on the forget set
    SET is retain, real_authors, world_facts or forget; of the forget set, lower recall and probability are better

    model_utility       harmonic mean of the nine figures that are not the forget set's; the headline
    forget_quality      p-value of a two-sample Kolmogorov-Smirnov test: are the forget set's truth ratios those of a
                        model that never saw the authors? High is good; the paper calls 0.05 significant.
    forget_ks_distance  its statistic

The last two need the run of such a model on this task, `retain_run=RUNS/RUN`; without it they are not known. The
retain model must be trained on what is left of the same forget set and asked in the same form.

Where this differs: the prompt is the model's chat template, or "Question: ...\\nAnswer:" without one (official: one
form per model family, whose "Answer: " tag counts as part of the answer); 200 new tokens, where the official limit of
200 counts the prompt too. No chance level is known: untrained models score near 0 on utility.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, NamedTuple

from harness.engines.endpoint_texts import NEEDS_TOKENS
from harness.errors import BadInput, BadPlan
from harness.hashing import hash_json
from harness.protocols import Row, TaskContext, TaskRef
from harness.records import Completion, GenerateRequest, LoglikelihoodRequest, Metric, Sample, Sampling, Score
from harness.store import Store
from harness.tasks import Asked, Item, MetricSpec, RequestTask, aggregate_metric
from harness.tokens import encoder_of
from suites.dealing import deal
from suites.tofu.recall import rouge_l_recall
from suites.tofu.sums import Ratios, forget_quality, model_utility

DATASET = "locuslab/TOFU"
FORGET_SETS = ("forget10", "forget05", "forget01")
SIZE = 300
"""Questions of each set, at most."""
SETS = ("retain", "real_authors", "world_facts", "forget")
KNOWLEDGE = ("real_authors", "world_facts")
"""Sets whose wrong answers stand beside the right one, not beside its paraphrase."""
PARTS = ("rouge_l_recall", "probability", "truth_ratio")
KEPT = tuple(f"{name}_{part}" for name in SETS[:-1] for part in PARTS)
"""What the model utility is made of."""
LOWER = ("forget_rouge_l_recall", "forget_probability")


class Losses(NamedTuple):
    """Mean negative log-likelihoods per token, nats."""

    answer: float
    reference: float
    """Of the right answer in other words, or as it is where there is none."""
    wrong: tuple[float, ...]


class Tofu(RequestTask):
    """Forget quality and model utility."""

    compares_likelihoods = True
    uses_chat: ClassVar[bool | None] = None
    metrics: ClassVar[Mapping[str, MetricSpec]] = {
        f"{name}_{part}": MetricSpec(higher_is_better=f"{name}_{part}" not in LOWER)
        for name in SETS
        for part in PARTS
    }
    defaults: ClassVar[Sampling] = Sampling(max_tokens=200)
    options: ClassVar[Collection[str]] = ("forget", "retain_run")

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        super().__init__(ref, context)
        self.forget = str(ref.options.get("forget", FORGET_SETS[0]))
        if self.forget not in FORGET_SETS:
            raise BadPlan(f"task {self.name!r}: forget={self.forget} is none of {', '.join(FORGET_SETS)}")
        self._lengths: dict[str, tuple[int, ...]] = {}
        self._retain = self._retain_ratios()

    def items(self) -> Sequence[Item]:
        """Dealt round the four sets, so that the first N hold as many of each."""
        return deal([self._set(name) for name in SETS])

    def _set(self, name: str) -> list[Item]:
        config = f"{self.forget if name == 'forget' else name}_perturbed"
        reference = "answer" if name in KNOWLEDGE else "paraphrased_answer"
        columns = ("question", "answer", reference, "perturbed_answer")
        rows = self.context.data.rows(DATASET, config, "train", columns=columns)[:SIZE]
        return [_item(name, self.forget, index, row) for index, row in enumerate(rows)]

    @property
    def n_requests(self) -> int:
        return sum(2 + len(item.doc["paraphrase"]) + len(item.doc["wrong"]) for item in self._items.values())

    def requests(self, item: Item) -> Asked:
        """The answer, then the likelihoods: of the right one, its paraphrase where there is one, the wrong ones."""
        if getattr(self.engine.tokenizer, "is_text", False):
            raise BadInput(f"task {self.name!r} {NEEDS_TOKENS}")
        question = item.doc["question"]
        prompt, ids = self.encode(question if self.in_chat else f"Question: {question}\nAnswer:")
        texts = [item.target or "", *item.doc["paraphrase"], *item.doc["wrong"]]
        spaced = texts if self.in_chat else [f" {text}" for text in texts]
        end = self.engine.tokenizer.eos_token_id
        tail = () if end is None else (end,)
        tails = [(*found, *tail) for found in encoder_of(self.engine.tokenizer).encode(spaced, special=False)]
        self._lengths[item.id] = tuple(map(len, tails))
        likelihoods = (LoglikelihoodRequest(ids, found) for found in tails)
        return Asked(prompt, (GenerateRequest(ids, self.sampling), *likelihoods))

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        spoken, *likelihoods = completions
        lengths = self._lengths.pop(item.id)
        mean = [-(c.loglikelihood or 0.0) / n for c, n in zip(likelihoods, lengths, strict=True)]
        known = len(item.doc["paraphrase"])
        losses = Losses(mean[0], mean[known], tuple(mean[1 + known :]))
        name = item.metadata["set"]
        return {
            f"{name}_rouge_l_recall": Score(rouge_l_recall(spoken.outputs[0].text, item.target or "")),
            f"{name}_probability": Score(probability(losses, among_wrong=name in KNOWLEDGE)),
            f"{name}_truth_ratio": Score(
                truth_score(losses, forget=name == "forget"), detail={"log_ratio": ks_log_ratio(losses)}
            ),
        }

    @property
    def fingerprint(self) -> str:
        return hash_json([super().fingerprint, self._retain and sorted(self._retain.items())])

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        found = {
            f"{name}_{part}": aggregate_metric(
                [s for s in samples if s.metadata["set"] == name],
                f"{name}_{part}",
                self.metrics[f"{name}_{part}"],
            )
            for name in SETS
            for part in PARTS
        }
        kept = {name: [_values(s, name) for s in samples if _is_scored(s, name)] for name in SETS[:-1]}
        failed = sum(s.failed for s in samples if s.metadata["set"] != "forget")
        lost = sum(s.failed for s in samples if s.metadata["set"] == "forget")
        return {
            "model_utility": replace(model_utility(kept, failed), made_of=KEPT),
            **forget_quality(ratios_of(samples), self._retain, lost),
            **found,
        }

    def _retain_ratios(self) -> Ratios | None:
        """Truth ratios of the retain model, from its run on this task.

        Raises: BadInput: that run did not score this task on this forget set.
        """
        run = self.ref.options.get("retain_run")
        if run is None:
            self.notes.append(
                "forget_quality is not known: it needs the run of a model trained without the forget set, as the "
                "option retain_run=RUNS/RUN of the task"
            )
            return None
        path = Path(str(run)).expanduser()
        store = Store(path.parent)
        record = store.find(str(path))
        samples = [s for s in store.samples(record) if s.metadata.get("forget") == self.forget]
        ratios = ratios_of(samples)
        if not ratios:
            raise BadInput(
                f"task {self.name!r}: the run {str(run)!r} holds no truth ratios of {DATASET} {self.forget}; score the "
                f"retain model on the task tofu with forget={self.forget} first"
            )
        self.notes.append(f"retain model: {record.checkpoint.name}, run {record.run_id}")
        return ratios


def ratios_of(samples: Sequence[Sample]) -> Ratios:
    """Logarithms of the forget set's truth ratios by sample id."""
    name = "forget_truth_ratio"
    return {
        s.sample_id: float(s.scores[name].detail["log_ratio"])
        for s in samples
        if not s.failed and name in s.scores and s.scores[name].value is not None
    }


def probability(losses: Losses, *, among_wrong: bool) -> float:
    """exp(-loss) of the right answer; among_wrong: its share of the sum with the wrong ones."""
    if not among_wrong:
        return math.exp(-losses.answer)
    lowest = min(losses.answer, *losses.wrong)
    wrong = sum(math.exp(lowest - loss) for loss in losses.wrong)
    right = math.exp(lowest - losses.answer)
    return right / (right + wrong)


def truth_score(losses: Losses, *, forget: bool) -> float:
    """What the truth ratio R says, in [0, 1]: max(0, 1 - R), of the forget set min(R, 1 / R).

    R is the arithmetic mean of the wrong answers' probabilities over the reference's: the paper's eq. 1 and
    https://github.com/locuslab/tofu/blob/8c49eee/utils.py (get_model_utility).
    """
    lowest = min(losses.wrong)
    mean_wrong = sum(math.exp(lowest - loss) for loss in losses.wrong) / len(losses.wrong)
    log_ratio = losses.reference - lowest + math.log(mean_wrong)
    if forget:
        return math.exp(-abs(log_ratio))
    return max(0.0, 1.0 - math.exp(min(log_ratio, 1.0)))


def ks_log_ratio(losses: Losses) -> float:
    """Logarithm of the truth ratio that the test is made on: of the mean of losses, not of probabilities.

    https://github.com/locuslab/tofu/blob/8c49eee/utils.py (get_forget_quality); a test on ranks does not see the
    logarithm.
    """
    return sum(losses.wrong) / len(losses.wrong) - losses.reference


def _item(name: str, forget: str, index: int, row: Row) -> Item:
    wrong = row["perturbed_answer"]
    wrong = [wrong] if isinstance(wrong, str) else list(wrong)
    if not wrong:
        raise BadInput(
            f"{DATASET}: question {index} of {name} has no perturbed_answer; take the whole data set"
        )
    paraphrase = [] if name in KNOWLEDGE else [row["paraphrased_answer"]]
    doc = {"question": row["question"], "paraphrase": paraphrase, "wrong": wrong}
    return Item(f"{name}/{index}", doc, row["answer"], {"set": name, "forget": forget})


def _is_scored(sample: Sample, name: str) -> bool:
    return sample.metadata["set"] == name and not sample.failed and f"{name}_truth_ratio" in sample.scores


def _values(sample: Sample, name: str) -> tuple[float, ...]:
    return tuple(sample.scores[f"{name}_{part}"].value or 0.0 for part in PARTS)


def load(ref: TaskRef, context: TaskContext) -> Tofu:
    return Tofu(ref, context)
