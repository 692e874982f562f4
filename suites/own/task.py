"""A task that a user writes in a suite file: rows of a data file, a prompt template, scorers by name.

    tasks:
      capitals:
        data: capitals.jsonl
        prompt: "What is the capital of {country}?"
        target: city
        scorer: exact_match

Keys: harness/owntask.py and docs/own-suites.md. Scorers: suites/own/scorers.py. The chance level is known for choices
alone: the mean of 1 / choices.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from string import ascii_uppercase
from typing import ClassVar

from pydantic import ValidationError

from harness.errors import BadInput, BadPlan, UserError
from harness.groups import grouped_metrics
from harness.hashing import hash_json
from harness.judging.asking import grade_with, metric_name, note_of
from harness.judging.figures import rubric_metrics, rubric_verdicts
from harness.judging.rubric import Rubric, read_rubric
from harness.owntask import OwnFields
from harness.protocols import TaskContext, TaskRef
from harness.records import Completion, Json, Metric, Sample, Score
from harness.tasks import Asked, Item, MetricSpec, RequestTask, aggregate_metric, scored
from harness.templates import template
from harness.thoughts import final_answer
from harness.yamlfile import problem
from suites.lettered import letter_of
from suites.own.choices import mean_chance
from suites.own.rows import CHOICES, CLUSTER, GROUP, OwnRows
from suites.own.scorers import Scorer, UserScorer, text_scorer, user_scorer

Turns = str | Sequence[Mapping[str, str]]


class OwnTask(RequestTask):
    """Rows of a file, asked and scored as a suite file says."""

    options: ClassVar[Collection[str]] = (*OwnFields.model_fields, "lines")
    without_likelihoods: ClassVar[str] = "write scorer: letter, and {choices} in the prompt"

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        """Raises: BadInput, BadPlan: no entry of a suite file, or a scorer that cannot be used."""
        super().__init__(ref, context)
        own = {key: value for key, value in ref.options.items() if key in OwnFields.model_fields}
        if "data" not in own:
            raise BadInput("task 'own' is written in a suite file, under data: FILE (docs/own-suites.md)")
        try:
            self.entry = OwnFields.model_validate(own)
        except ValidationError as exc:  # of what a profile's options put in
            raise BadPlan(f"task {ref.label!r}: {problem(exc, OwnFields)}") from exc
        self._names = self.entry.scorer_names
        self._lines: Mapping[str, str] = ref.options.get("lines", {})
        self.compares_likelihoods = "choice" in self._names
        as_it_has = False if self.compares_likelihoods else None
        self.uses_chat = as_it_has if self.entry.chat in (None, "auto") else bool(self.entry.chat)  # type: ignore[misc]
        self._scorers = self._read_scorers()
        self._rubric = self._read_rubric()
        self.graded_apart = self._rubric is not None and context.judge is not None  # type: ignore[misc]

    # What is scored

    @property
    def _where(self) -> str:
        return f"{self._lines['scorer']}: " if "scorer" in self._lines else ""

    def _read_rubric(self) -> Rubric | None:
        """The judge's rubric. Raises: BadPlan: a judge alone is to score, and --judge names none."""
        texts = [scorer.rubric for scorer in self.entry.scorer or () if scorer.name == "judge"]
        if not texts:
            return None
        text = str(texts[0])
        try:
            rubric = (
                read_rubric(Path(text))
                if text.endswith((".yaml", ".yml"))
                else Rubric(name="rubric", text=text)
            )
        except UserError as exc:
            raise type(exc)(f"{self._where}{exc}") from exc
        if self.context.judge is not None:
            self.notes.append(note_of(self.context.judge))
        elif self._names == ["judge"] and self.context.engine is not None:
            raise BadPlan(
                f"{self._where}scorer 'judge' asks a model; name it with --judge, or add another scorer"
            )
        else:
            self.notes.append("scorer 'judge' is left out: no --judge was named")
        return rubric

    def _read_scorers(self) -> list[Scorer | UserScorer]:
        """Scorers that read the answer's text."""
        where = self._where
        if "letter" in self._names and CHOICES not in str(self.entry.prompt):
            raise BadPlan(f"{where}scorer 'letter' wants the choices shown: put {{choices}} into the prompt")
        found: list[Scorer | UserScorer] = []
        for scorer in self.entry.scorer or ():
            if ".py:" in scorer.name:
                found.append(user_scorer(scorer.name, where))
            elif scorer.name not in ("choice", "letter", "judge"):
                found.append(text_scorer(scorer, where))
        names = [name for scorer in found for name in scorer.metrics]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise BadPlan(f"{where}two scorers have the name {twice!r}; rename the function")
        return found

    @cached_property
    def metrics(self) -> Mapping[str, MetricSpec]:  # type: ignore[override]
        """Of the scorers in their order; the first is the headline's."""
        found: dict[str, MetricSpec] = {}
        if "choice" in self._names:
            found |= {"accuracy": self._guessed, "accuracy_per_char": self._guessed}
        if "letter" in self._names:
            found |= {"letter": self._guessed, "no_letter": MetricSpec(higher_is_better=False)}
        for scorer in self._scorers:
            found |= scorer.metrics
        cluster = None if self.entry.cluster is None else CLUSTER
        return {name: replace(spec, cluster=cluster) for name, spec in found.items()}

    @property
    def _guessed(self) -> MetricSpec:
        return MetricSpec(chance=mean_chance(len(item.doc[CHOICES]) for item in self._items.values()))

    # What is asked

    def items(self) -> Sequence[Item]:
        if self.entry.choices is None and not template(str(self.entry.prompt)).columns:
            self.notes.append("the prompt names no column: every row is asked the same")
        with_row = any(isinstance(scorer, UserScorer) for scorer in self._scorers)
        return OwnRows(self.entry, self._lines, self.context.data).items(with_row=with_row)

    @property
    def n_requests(self) -> int:
        if not self.compares_likelihoods:
            return len(self._items)
        return sum(len(item.doc[CHOICES]) for item in self._items.values())

    @property
    def fingerprint(self) -> str:
        """Of the rows and of what is asked and scored; where the files lie does not matter."""
        entry = self.entry.model_dump(exclude={"data", "scorer"})
        scorers = [scorer.identity for scorer in self._scorers]
        scorers += [] if self._rubric is None else [self._rubric.model_dump()]
        items = [[item.id, item.doc, item.target, item.metadata] for item in self._items.values()]
        return hash_json([self.version, entry, self._names, scorers, self.context.chat, self.sampling, items])

    def requests(self, item: Item) -> Asked:
        prompt, system = str(item.doc["prompt"]), item.doc["system"]
        turns: Turns = prompt if system is None else self._turns(str(system), prompt)
        if not self.compares_likelihoods:
            return self.ask(turns)
        space = "" if self.in_chat or prompt[-1:].isspace() else " "
        return self.compare(turns, [space + choice for choice in item.doc[CHOICES]])

    def _turns(self, system: str, prompt: str) -> Turns:
        turns = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        if not self.in_chat or self._takes_system:
            return turns
        note = "the chat template takes no system message: it opens the user's turn instead"
        if note not in self.notes:
            self.notes.append(note)
        return f"{system}\n\n{prompt}"

    @cached_property
    def _takes_system(self) -> bool:
        from jinja2 import TemplateError

        turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
        try:
            self.engine.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except TemplateError:
            return False
        return True

    # How it is scored

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        if self.compares_likelihoods:
            return _likeliest(item, [completion.loglikelihood for completion in completions])
        return self._by_rules(
            item, [output.text for completion in completions for output in completion.outputs]
        )

    def _by_rules(self, item: Item, outputs: Sequence[str]) -> dict[str, Score]:
        """Thoughts before an answer are no part of it."""
        answers = [final_answer(output) for output in outputs]
        found: dict[str, Score] = {}
        if "letter" in self._names:
            found |= _letters(item, answers)
        for scorer in self._scorers:
            graded = [scorer.grade_item(answer, item.doc) for answer in answers]
            for name in scorer.metrics:
                found[name] = Score(sum(one[name] for one in graded) / len(graded))
        return found

    def grade(self, samples: Sequence[Sample]) -> Iterable[Sample]:
        """By the rules, then by the judge; of several answers of a prompt the judge reads the first."""
        judge, rubric = self.context.judge, self._rubric
        if judge is None or rubric is None:
            return super().grade(samples)
        by_rules = (  # one after another: none is needed once it is graded
            scored(sample, partial(self._by_rules, self._items[sample.sample_id], sample.outputs))
            for sample in samples
        )
        return grade_with(judge, by_rules, rubric_verdicts(judge, rubric, self._for_the_judge))

    def _for_the_judge(self, sample: Sample) -> tuple[str, str]:
        """The request and the answer; the right answer stands below the request."""
        doc = self._items[sample.sample_id].doc
        reference = "".join(f"\n\n(A right answer: {target})" for target in doc["targets"])
        return f"{doc['prompt']}{reference}", final_answer(sample.outputs[0])

    @property
    def _judged_names(self) -> list[str]:
        judge, rubric = self.context.judge, self._rubric
        if judge is None or rubric is None:
            return []
        return [metric_name(judge, rubric.name), metric_name(judge, "unreadable")]

    @property
    def metric_names(self) -> Sequence[str]:
        if self.entry.group is None:
            return [*self.metrics, *self._judged_names]
        groups = dict.fromkeys(str(item.metadata[GROUP]) for item in self._items.values())
        suffixes = ["", "/macro", *(f"/{group}" for group in groups)]
        return [f"{name}{suffix}" for name in self.metrics for suffix in suffixes] + self._judged_names

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        """Mean of each metric; with a group, also of every group and over the groups."""
        found: dict[str, Metric] = {}
        for name, spec in self.metrics.items():
            if self.entry.group is None:
                found[name] = aggregate_metric(samples, name, spec)
            else:
                found |= grouped_metrics(samples, name, spec, GROUP)
        if self.context.judge is not None and self._rubric is not None:
            found |= rubric_metrics(self.context.judge, self._rubric, samples)
        return found


def _likeliest(item: Item, loglikelihoods: Sequence[float | None]) -> dict[str, Score]:
    """Whether the right choice is the likeliest, as a whole and per character; of equal ones the first counts."""
    choices: Sequence[str] = item.doc[CHOICES]
    right = choices.index(item.doc["targets"][0])
    values = [float("-inf") if value is None else value for value in loglikelihoods]
    per_char = [value / max(len(choice), 1) for value, choice in zip(values, choices, strict=True)]
    detail: list[Json] = [round(value, 4) for value in values]
    return {
        "accuracy": Score(float(values.index(max(values)) == right), detail=detail),
        "accuracy_per_char": Score(float(per_char.index(max(per_char)) == right)),
    }


def _letters(item: Item, answers: Sequence[str]) -> dict[str, Score]:
    choices: Sequence[str] = item.doc[CHOICES]
    right = ascii_uppercase[choices.index(item.doc["targets"][0])]
    found = [letter_of(answer, len(choices)) for answer in answers]
    return {
        "letter": Score(sum(letter == right for letter in found) / len(found), detail=found),
        "no_letter": Score(found.count(None) / len(found)),
    }
