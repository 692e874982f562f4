"""Any task of inspect_evals, or of another package that registers with inspect-ai, on a harness engine.

`inspect:NAME[,option=value]`: options are the task's own (`inspect:xstest,subset=unsafe`), generation settings
(temperature, top_p, top_k, max_tokens, stop), `epochs`, and `higher_is_better` where the metric's direction is not
up. Solvers, scorers, metrics and epoch reducers are inspect's; the journal, resuming and the engine are the harness's.

A task that is graded by a model is graded by `--judge MODEL`: a checkpoint, or a name that inspect knows (e.g.
openai/gpt-4o). Without one the checkpoint grades itself, and the metric says so: `refusal_rate (self-judged)`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any, NamedTuple

from pydantic import Field

from harness.errors import BadPlan
from harness.hashing import hash_json
from harness.protocols import Record, TaskContext, TaskRef
from harness.records import Metric, Sample
from harness.sampling import SamplingSpec, read
from suites.from_inspect.index import check_judge, check_options, find_task, judge_parameters, make_task
from suites.from_inspect.quiet import quiet
from suites.from_inspect.scores import Models, Scoring, metrics_of, prompt_text, target_text, to_sample

GENERATION = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop": "stop_seqs",
    "n": "num_choices",
}
"""Names of the harness's sampling settings -> inspect's."""
OWN_OPTIONS = ("epochs", "higher_is_better")
JUDGE_ROLES = ("grader", "judge")
JUDGE_TOKENS = 512
"""Room for a checkpoint that grades itself to reason before its verdict."""
LOWER_IS_BETTER = {"inspect_evals/xstest": {"subset": ("safe", None)}}
"""Tasks whose figure is bad when high, by the options that make it so: over-refusal of safe prompts."""


class Options(SamplingSpec):
    """Options of the adapter, beside those of the task itself."""

    epochs: int | None = Field(default=None, ge=1)
    higher_is_better: bool | None = None


class Unit(NamedTuple):
    """One sample in one epoch."""

    sample: Any
    epoch: int


class InspectTask:
    """An inspect task bound to an engine."""

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        self.name = ref.label
        self.ref = ref
        self.context = context
        self.notes: list[str] = []
        self._full_name, make = find_task(ref.name)
        options, self._generation = self._split(ref.options, make)
        self._options = options
        self._judge = self._judge_name()
        arguments = {**options, **self._judge_arguments(make)}
        self._task = make_task(self._full_name, arguments, context.data)
        self.version = f"{self._task.version}-inspect{version('inspect-ai')}-evals{version('inspect-evals')}"
        self._scoring = Scoring(
            self._task.scorer, self._task.metrics, self._task.epochs_reducer, self._higher_is_better()
        )
        self._note()

    # What is asked

    def _split(self, options: Mapping[str, Any], make: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """(options of the task, generation settings)."""
        import inspect

        parameters = inspect.signature(make).parameters
        own = {k: v for k, v in options.items() if k not in OWN_OPTIONS or k in parameters}
        general = {k: own.pop(k) for k in list(own) if k in GENERATION and k not in parameters}
        if self.context.num_fewshot is not None:
            if "fewshot" not in parameters:
                raise BadPlan(
                    f"inspect task {self.ref.name!r} takes no number of examples; drop --num-fewshot"
                )
            own["fewshot"] = self.context.num_fewshot
        check_options(self.ref.name, make, own)
        adapter = {k: options[k] for k in OWN_OPTIONS if k in options}
        where = f"inspect:{self.ref.name}"
        settings = read(Options, {**adapter, **general, **self.context.sampling}, where).given()
        return own, {GENERATION[key]: value for key, value in settings.items()}

    def _judge_name(self) -> str | None:
        judge = self.context.settings.get("judge")
        if judge is None:
            return None
        check_judge(str(judge))
        return str(judge)

    @cached_property
    def _judge_model(self) -> Any:
        """The judge given, else the checkpoint itself under another name, so that its use shows."""
        judge = self.context.judge
        if judge is not None:
            return self._model(f"{judge.name} judging", judging=True)
        return self._judge or self._model(f"{self._checkpoint_name} judging itself", judging=True)

    @property
    def _self_judged(self) -> bool:
        judge = self.context.judge
        return self._judge is None if judge is None else judge.judges_itself

    def _judge_arguments(self, make: Any) -> dict[str, Any]:
        """The judge for parameters whose default names one; the user's word on them stands."""
        if self.context.engine is None:
            return {}
        wanted = {k: many for k, many in judge_parameters(make).items() if k not in self._options}
        return {name: [self._judge_model] if many else self._judge_model for name, many in wanted.items()}

    def _higher_is_better(self) -> bool:
        given = self.ref.options.get("higher_is_better")
        if given is not None:
            return bool(given)
        rule = LOWER_IS_BETTER.get(self._full_name, {})
        return not any(self._options.get(option) in values for option, values in rule.items())

    def _note(self) -> None:
        total = len(self._task.dataset)
        if len(self._samples) < total:
            self.notes.append(f"{len(self._samples)} of {total} samples")
        if self._judge is not None:
            self.notes.append(f"where a model grades, it is {self._judge}")
        elif self.context.judge is not None:
            self.notes.append(
                f"where a model grades, it is {self.context.judge.name}; inspect grades as it goes, so the judge's "
                "energy is in that of inference"
            )

    # What there is

    @cached_property
    def _samples(self) -> list[Any]:
        """The first `limit` samples, each with an id that is unique as text."""
        seen: dict[str, int] = {}
        for index, sample in enumerate(self._task.dataset):
            if sample.id is None:
                sample.id = index + 1  # as inspect numbers them
            seen[str(sample.id)] = seen.get(str(sample.id), 0) + 1
            if seen[str(sample.id)] > 1:
                sample.id = f"{sample.id} ({seen[str(sample.id)]})"
        return list(self._task.dataset)[: self.context.limit]

    @property
    def _epochs(self) -> int:
        return int(self.ref.options.get("epochs") or self._task.epochs or 1)

    @cached_property
    def _units(self) -> dict[str, Unit]:
        if self._epochs == 1:
            return {str(sample.id): Unit(sample, 1) for sample in self._samples}
        return {
            f"{sample.id}/epoch{epoch}": Unit(sample, epoch)
            for epoch in range(1, self._epochs + 1)
            for sample in self._samples
        }

    @property
    def sample_ids(self) -> Sequence[str]:
        return list(self._units)

    @property
    def n_requests(self) -> int:
        """At least: solvers with several turns and model-graded scorers ask more."""
        return len(self._units)

    @cached_property
    def fingerprint(self) -> str:
        return hash_json(
            {
                "task": self._full_name,
                "version": self.version,
                "options": self._options,
                "generation": self._generation,
                "epochs": self._epochs,
                "judge": self._judge,
                "seed": self.context.seed,
                "chat": self.context.chat,
                "samples": [[str(s.id), _text(s.input), s.target, s.choices] for s in self._samples],
            }
        )

    @property
    def chat(self) -> bool:
        """inspect's tasks are conversations, unless the user asks in plain text."""
        return self.context.chat != "off"

    # Running

    @property
    def _checkpoint_name(self) -> str:
        return self.context.checkpoint.name if self.context.checkpoint else "checkpoint"

    def _model(self, name: str, *, judging: bool = False) -> Any:
        from inspect_ai.model import GenerateConfig, get_model

        import suites.from_inspect.model  # noqa: F401  registers the provider

        with quiet():
            return get_model(
                f"harness/{name}",
                config=GenerateConfig(max_tokens=JUDGE_TOKENS) if judging else None,
                memoize=False,
                engine=self._judging_engine if judging else self.context.engine,
                strategy=None if judging else self.context.strategy,
                chat="auto" if judging and self.context.judge is not None else self.context.chat,
                seed=self.context.seed,
            )

    @property
    def _judging_engine(self) -> Any:
        """The judge's, which has one to be asked by libraries; else the checkpoint's."""
        return getattr(self.context.judge, "engine", self.context.engine)

    def preview(self, sample_id: str) -> Sample:
        """What the task's solver asks first, as the engine would get it; without one, turn by turn."""
        from suites.from_inspect.preview import first_question

        sample = self._units[sample_id].sample
        turns = first_question(copy.copy(self._task), sample, JUDGE_ROLES)
        prompt = prompt_text(sample.input) if turns is None else self._rendered(turns)
        return Sample(self.name, sample_id, prompt, target=target_text(sample.target))

    def _rendered(self, turns: list[dict[str, str]]) -> str:
        from suites.from_inspect.model import render

        engine = self.context.engine
        if self.context.chat == "off" or (engine is None and len(turns) == 1):
            return "\n\n".join(turn["content"] for turn in turns)
        if engine is None:
            return "\n\n".join(f"[{turn['role']}] {turn['content']}" for turn in turns)
        return render(engine.tokenizer, turns, self._checkpoint_name)

    def run(self, todo: Sequence[str], record: Record) -> None:
        """Epoch by epoch, each with a seed of its own, since draws depend on seed and prompt alone."""
        from inspect_ai import task_with
        from inspect_ai.dataset import MemoryDataset

        from suites.from_inspect.run import evaluate

        model = self._model(self._checkpoint_name)
        models = Models(str(model), str(self._judge_model), self._self_judged)
        for epoch in range(1, self._epochs + 1):
            names = {str(self._units[i].sample.id): i for i in todo if self._units[i].epoch == epoch}
            if not names:
                continue
            subset = [self._units[name].sample for name in names.values()]
            task = task_with(copy.copy(self._task), dataset=MemoryDataset(subset))
            options = {
                "model_roles": dict.fromkeys(JUDGE_ROLES, self._judge_model),
                "seed": self.context.seed + epoch - 1,
                **self._generation,
            }

            def journal(done: Any, names: Mapping[str, str] = names) -> None:
                record(to_sample(self.name, names[str(done.id)], done, models))

            evaluate(task, model, journal, options)

    def grade(self, samples: Sequence[Sample]) -> Iterable[Sample]:
        """Nothing waits: inspect scores as it goes."""
        return samples

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        if any(s.metadata.get("inspect", {}).get("self_judged") for s in samples):
            note = "graded by the checkpoint itself, which flatters it or not: give --judge MODEL for a judge"
            self.notes = [*dict.fromkeys([*self.notes, note])]
        return metrics_of(samples, self._scoring)


def _text(given: Any) -> Any:
    return given if isinstance(given, str) else [[message.role, message.text] for message in given]


def load(ref: TaskRef, context: TaskContext) -> InspectTask:
    """Raises: UnknownName, BadPlan, BadInput, DatasetUnavailable."""
    return InspectTask(ref, context)
