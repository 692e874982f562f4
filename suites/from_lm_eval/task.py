"""One lm-eval task, group or tag as a task of the harness: asked sample by sample, summed by lm-eval's functions."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice

from lm_eval.api.instance import Instance

from harness.errors import EngineError
from harness.feeding import FedTask, Question, pieces
from harness.hashing import hash_json
from harness.mathematics import same_value
from harness.protocols import TaskContext, TaskRef
from harness.records import Completion, Metric, Request, Sample
from suites.from_lm_eval import scoring
from suites.from_lm_eval.build import Built, Wanted, as_turns, build, filled
from suites.from_lm_eval.model import HarnessLM
from suites.from_lm_eval.options import OWN, read_options
from suites.from_lm_eval.samples import (
    answered_sample,
    blank_sample,
    continuations,
    scored_sample,
    with_responses,
)
from suites.from_lm_eval.totals import TaskTotals, total_group, total_tag, total_task
from suites.lettered import form_of


class LmEvalTask(FedTask):
    """Implements harness.protocols.Task."""

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        self.name = ref.label
        self.ref = ref
        self.context = context
        self.options = read_options(ref)
        self._sampling = self.options.given()
        self._readers = {"math_verify": same_value} if self.options.math_verify else {}
        self._built = build(self._wanted(chat=self._chat is True))
        versions = ", ".join(sorted({str(task.VERSION) for task in self._built.loaded.tasks.values()}))
        self.version = f"lm-eval {importlib.metadata.version('lm-eval')}, {versions}"
        own = [getattr(self.options, name) for name in OWN]
        self.fingerprint = hash_json([self._built.fingerprint, self._chat, self._sampling, own])
        self.sample_ids: Sequence[str] = list(self._built.instances)
        self.n_requests = sum(len(group) for group in self._built.instances.values())
        self.notes: list[str] = self._describe()
        self.metric_names = self._declared_metrics()

    # What it is

    @property
    def _chat(self) -> bool | None:
        """None: a chat if the tokenizer has a template, which is known when the engine is loaded."""
        if self.context.chat != "auto":
            return self.context.chat == "on"
        return None if self.options.chat == "auto" else bool(self.options.chat)

    @property
    def chat(self) -> bool:
        """Whether it cannot be asked without a chat template."""
        return self._chat is True

    @property
    def chat_where_possible(self) -> bool:
        """Whether it is a chat where the tokenizer has a template."""
        return self._chat is None

    @property
    def compares_likelihoods(self) -> bool:
        """Whether it asks for log-likelihoods, which not every server gives."""
        groups = self._built.instances.values()
        return any(one.request_type != "generate_until" for group in groups for one in group)

    @property
    def generative_form(self) -> str | None:
        """What to ask where there are none."""
        return form_of(self.ref.name, self._built.loaded.tasks.values())

    def _wanted(self, *, chat: bool) -> Wanted:
        context, options = self.context, self.options
        shots = options.num_fewshot if context.num_fewshot is None else context.num_fewshot
        return Wanted(
            name=self.ref.name,
            limit=context.limit,
            num_fewshot=shots,
            chat=chat,
            fewshot_seed=options.fewshot_seed,
            system_instruction=options.system_instruction,
            allow_unsafe=options.allow_unsafe_code,
            source=f"{type(context.data).__name__}:{context.data.data_dir}",
            data=context.data,
        )

    def _describe(self) -> list[str]:
        notes = []
        asked, total = len(self.sample_ids), sum(self._built.total.values())
        if asked < total:
            notes.append(f"{asked} of {total} samples")
        shots = {int(task.get_config("num_fewshot") or 0) for task in self._built.loaded.tasks.values()}
        wanted = self._wanted(chat=False).num_fewshot
        if wanted is not None and shots != {wanted}:
            fixed = ", ".join(map(str, sorted(shots)))
            notes.append(f"lm-eval fixes the shots of this task at {fixed}; num_fewshot {wanted} is not used")
        if len(self._built.loaded.tasks) > 1 and not self._weighted:
            notes.append(
                "lm-eval declares no aggregate here: the first metrics are unweighted means over its tasks"
            )
        return notes

    @property
    def _weighted(self) -> bool:
        groups = self._built.loaded.groups
        return bool(groups and groups[0].aggregate_metric_list)

    def _declared_metrics(self) -> list[str] | None:
        """Names that aggregate() will report; None where only the answers tell."""
        tasks = list(self._built.loaded.tasks.values())
        names = [scoring.expected_metrics(task, self._readers) for task in tasks]
        if any(found is None for found in names):
            return None
        totals = {
            task.task_name: total_task(task, [], 0, found or [])
            for task, found in zip(tasks, names, strict=True)
        }
        if self._weighted:
            return None
        return list(self._merge(totals))

    # Asking

    def preview(self, sample_id: str) -> Sample:
        """A sample as it would be asked; without an engine, a chat's turns one by one.

        Its metadata has the `choices` whose likelihoods are compared.
        """
        bare = self.context.engine is None
        built, template = (self._built, as_turns) if bare else (self._asking, self._lm.apply_chat_template)
        instances = [filled(instance, template) for instance in built.instances[sample_id]]
        blank = blank_sample(self.name, sample_id, built.task(sample_id), instances)
        return replace(blank, metadata={**blank.metadata, "choices": continuations(instances)})

    @cached_property
    def _lm(self) -> HarnessLM:
        if self.context.engine is None:
            raise EngineError(f"task {self.name!r} was bound without an engine and can only be counted")
        overrides = {**self._sampling, **self.context.sampling}
        return HarnessLM(self.context.engine, self.context.strategy, overrides, self.context.seed)

    @cached_property
    def _asking(self) -> Built:
        """The build that fits the checkpoint's tokenizer."""
        if self._chat is None and self._lm.tokenizer.chat_template:
            return build(self._wanted(chat=True))
        return self._built

    def prepare(self) -> None:
        """Chat prompts are built with lm-eval's global random state, which the main thread alone may set."""
        _ = self._asking

    def questions(self, todo: Sequence[str]) -> Iterator[list[Question]]:
        """Tokenise documents piece by piece, each piece in one call."""
        for piece in pieces(todo, self._chars):
            yield self._questions(piece)

    def _chars(self, sample_id: str) -> int:
        return sum(len(str(instance.args[0])) for instance in self._asking.instances[sample_id])

    def _questions(self, piece: Sequence[str]) -> list[Question]:
        lm = self._lm
        instances = {
            sample_id: [
                filled(instance, lm.apply_chat_template) for instance in self._asking.instances[sample_id]
            ]
            for sample_id in piece
        }
        asked = iter(lm.ask([one for group in instances.values() for one in group]))
        questions = []
        for sample_id, group in instances.items():
            requests = [next(asked) for _ in group]
            finish = partial(self._sample, sample_id, group, [len(each) for each in requests])
            questions.append(Question(sample_id, [r for each in requests for r in each], finish))
        return questions

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        return self._lm.submit(requests)

    def _sample(
        self,
        sample_id: str,
        instances: list[Instance],
        sizes: Sequence[int],
        futures: Sequence[Future[Completion]],
    ) -> Sample:
        """Args: sizes: how many of the futures answer each instance, in order."""
        task = self._asking.task(sample_id)
        blank = blank_sample(self.name, sample_id, task, instances)
        try:
            flat = [future.result() for future in futures]
        except EngineError as exc:
            return replace(blank, error=str(exc))
        rest = iter(flat)
        for instance, size in zip(instances, sizes, strict=True):
            instance.resps = self._lm.read(instance, list(islice(rest, size)))
        sample = answered_sample(blank, task, instances, flat)
        if scoring.needs_all_docs(task):
            return replace(sample, graded=False)
        return scored_sample(sample, task, instances, alone=True, readers=self._readers)

    # Grading and adding up

    def grade(self, samples: Sequence[Sample]) -> Iterable[Sample]:
        """Tasks whose filters may look at all documents at once are scored here, subtask by subtask."""
        by_task: dict[str, list[Sample]] = {}
        for sample in samples:
            by_task.setdefault(str(sample.metadata["subtask"]), []).append(sample)
        for name, members in by_task.items():
            task = self._built.loaded.tasks[name]
            groups = [with_responses(sample, self._built.instances[sample.sample_id]) for sample in members]
            scoring.apply_filters(task, [instance for group in groups for instance in group])
            for sample, group in zip(members, groups, strict=True):
                yield scored_sample(sample, task, group, alone=False, readers=self._readers)

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        """lm-eval's metrics: of the group first, then of its parts as metric/part."""
        by_task: dict[str, list[Sample]] = {name: [] for name in self._built.loaded.tasks}
        for sample in samples:
            # without the texts: they are not summed, and they are what is large
            scores = replace(sample, prompt="", outputs=())
            by_task[self._built.subtask[sample.sample_id]].append(scores)
        totals = {
            name: total_task(
                task,
                by_task[name],
                self.options.bootstrap_iters,
                scoring.expected_metrics(task, self._readers) or (),
            )
            for name, task in self._built.loaded.tasks.items()
        }
        return self._merge(totals)

    def _merge(self, totals: Mapping[str, TaskTotals]) -> dict[str, Metric]:
        if len(totals) == 1 and not self._weighted:
            return dict(next(iter(totals.values())).metrics)
        groups = self._built.loaded.groups
        merged = total_group(groups[0], totals) if self._weighted else total_tag(totals)
        for group in groups[1:]:
            parts = total_group(group, totals)
            merged |= {f"{metric}/{group.name}": value for metric, value in parts.items()}
        for name, total in totals.items():
            merged |= {f"{metric}/{name}": value for metric, value in total.metrics.items()}
        return merged
