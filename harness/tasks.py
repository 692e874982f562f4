"""Native tasks: name the items, say how they are asked, score the answers; the rest is here.

A plug-in author subclasses RequestTask and fills in items(), requests() and score().
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import ClassVar, NamedTuple

from harness.chat import render
from harness.errors import BadCheckpoint, BadInput, EngineError
from harness.feeding import FedTask, Question, pieces
from harness.hashing import hash_json
from harness.protocols import Engine, TaskContext, TaskRef
from harness.records import (
    Completion,
    GenerateRequest,
    Json,
    LoglikelihoodRequest,
    Metric,
    Request,
    Sample,
    Sampling,
    Score,
)
from harness.sampling import SAMPLING, SamplingSpec, check_names, read
from harness.scores import check_scores
from harness.stats.intervals import summarise
from harness.thoughts import whole_turns
from harness.tokens import encoder_of


@dataclass(frozen=True)
class Item:
    """One question of a task, before it is tokenised."""

    id: str
    doc: Mapping[str, Json]
    """The data set's row, or what a generator made."""
    target: str | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)
    """Goes into the journal: subject, domain, group, what the aggregation needs (JSON)."""


class Asked(NamedTuple):
    """An item as it goes to the engine."""

    prompt: str
    """Rendered prompt, as a reader should see it."""
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class MetricSpec:
    """How the values of one metric become a number."""

    higher_is_better: bool = True
    unit: str | None = None
    chance: float | None = None
    cluster: str | None = None
    """Metadata key whose equal values belong together (k samples of a prompt, questions on one passage)."""
    bounds: tuple[float, float] | None = None
    """Lowest and highest score, where they are not 0 and 1: the interval where all samples score the same."""


class RequestTask(FedTask, ABC):
    """A task whose samples are independent requests to an engine."""

    name: str
    version: ClassVar[str] = "1"
    metrics: ClassVar[Mapping[str, MetricSpec]] = {}
    requests_per_item: ClassVar[int] = 1
    uses_chat: ClassVar[bool | None] = True
    """Whether `chat: auto` wraps the prompt in the chat template. None: where the tokenizer has one."""
    graded_apart: bool = False
    """True: score() needs a classifier or a judge, whose energy is weighed apart from the model's."""
    defaults: ClassVar[Sampling] = Sampling()
    options: ClassVar[Collection[str]] = ()
    """Names it reads from self.ref.options; those of sampling (max_tokens, temperature, ...) need no mention."""

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        self.name = ref.label
        self.ref = ref
        self.context = context
        self.notes: list[str] = []
        self._settings = self._read_settings()

    # What a task says of itself

    @abstractmethod
    def items(self) -> Sequence[Item]:
        """All items in the order of the data, without the limit. Called once."""

    @abstractmethod
    def requests(self, item: Item) -> Asked:
        """Tokenise an item; self.ask() and self.compare() do the usual."""

    @abstractmethod
    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        """Metric name -> score, from the answers to the item's requests, in their order."""

    # What follows from it

    def _read_settings(self) -> Mapping[str, Json]:
        """Sampling settings of the suite, then the user's over them.

        Raises: UnknownName: an option that the task does not have. BadPlan: a value that does not fit.
        """
        where = f"task {self.name!r}"
        check_names(self.ref.options, [*self.options, *SAMPLING], where)
        general = {key: self.ref.options[key] for key in SAMPLING if key in self.ref.options}
        return read(SamplingSpec, {**general, **self.context.sampling}, where).given()

    @cached_property
    def _items(self) -> dict[str, Item]:
        items = check_items(self.items(), self.name)
        kept = items if self.context.limit is None else items[: self.context.limit]
        if len(kept) < len(items):
            self.notes.append(f"{len(kept)} of {len(items)} samples")
        return {item.id: item for item in kept}

    @property
    def sample_ids(self) -> Sequence[str]:
        return list(self._items)

    @property
    def n_requests(self) -> int:
        return len(self._items) * self.requests_per_item

    @property
    def fingerprint(self) -> str:
        return hash_json(
            {
                "task": self.ref.provider + ":" + self.ref.name,
                "version": self.version,
                "options": dict(self.ref.options),
                "chat": self.chat,
                "sampling": self.sampling,
                "items": [[item.id, item.doc, item.target] for item in self._items.values()],
            }
        )

    @property
    def metric_names(self) -> Sequence[str]:
        """Metrics it will report; empty where aggregate() decides."""
        return list(self.metrics) if type(self).aggregate is RequestTask.aggregate else []

    @property
    def chat(self) -> bool:
        """Whether it cannot be asked without a chat template."""
        return bool(self.uses_chat) if self.context.chat == "auto" else self.context.chat == "on"

    @property
    def in_chat(self) -> bool:
        """Whether the engine's tokenizer is asked through its chat template."""
        return self.chat or (self.chat_where_possible and bool(self.engine.tokenizer.chat_template))

    @property
    def chat_where_possible(self) -> bool:
        """Whether it is asked through the chat template where the tokenizer has one, and as plain text elsewhere."""
        return self.uses_chat is None and self.context.chat == "auto"

    @property
    def sampling(self) -> Sampling:
        """Defaults, then the suite's options of the same name, then the user's settings."""
        stop = {"stop": tuple(self._settings["stop"])} if "stop" in self._settings else {}
        return replace(self.defaults, **{"seed": self.context.seed, **self._settings, **stop})

    @property
    def engine(self) -> Engine:
        if self.context.engine is None:
            raise EngineError(f"task {self.name!r} was bound without an engine and can only be counted")
        return self.context.engine

    def ask(self, text: str | Sequence[Mapping[str, str]], sampling: Sampling | None = None) -> Asked:
        """One generation request for a user turn, or for a list of chat messages."""
        prompt, ids = self.encode(text)
        return Asked(prompt, (GenerateRequest(ids, sampling or self.sampling),))

    def compare(self, text: str, continuations: Sequence[str]) -> Asked:
        """One loglikelihood request per continuation of a prompt."""
        prompt, ids = self.encode(text)
        tails = encoder_of(self.engine.tokenizer).encode(continuations, special=False)
        return Asked(prompt, tuple(LoglikelihoodRequest(ids, tail) for tail in tails))

    def encode(self, text: str | Sequence[Mapping[str, str]]) -> tuple[str, tuple[int, ...]]:
        """Prompt text and its token ids, through the chat template where the task is a chat.

        Raises: BadCheckpoint: a chat task and a tokenizer without a template, or with one that refuses.
        """
        tokenizer = self.engine.tokenizer
        if not self.in_chat:
            plain = text if isinstance(text, str) else self.plain(text)
            return plain, encoder_of(tokenizer).encode([plain], special=True)[0]
        if not tokenizer.chat_template:
            raise BadCheckpoint(
                f"task {self.name!r} is a chat and the tokenizer of {self._checkpoint_name()!r} has no chat template; "
                "give one (chat_template.jinja beside the tokenizer) or ask in plain text with --chat off"
            )
        turns = [{"role": "user", "content": text}] if isinstance(text, str) else list(text)
        rendered = render(tokenizer, turns, self._checkpoint_name())
        # The template writes its own special tokens: adding them again would double the BOS.
        return rendered, encoder_of(tokenizer).encode([rendered], special=False)[0]

    def plain(self, turns: Sequence[Mapping[str, str]]) -> str:
        """Chat messages as a prompt without a chat template."""
        return "\n\n".join(turn["content"] for turn in turns)

    def questions(self, todo: Sequence[str]) -> Iterator[list[Question]]:
        """Tokenise piece by piece, ahead of the engine."""
        items = (self._items[sample_id] for sample_id in todo)
        asked = ((item, self.requests(item)) for item in items)
        for piece in pieces(asked, lambda pair: len(pair[1].prompt) * len(pair[1].requests)):
            yield [Question(item.id, ask.requests, partial(self._sample, item, ask)) for item, ask in piece]

    def preview(self, sample_id: str) -> Sample:
        """A sample as it would be asked, unanswered; its metadata has the `choices` whose likelihoods are compared."""
        item = self._items[sample_id]
        asked = self.requests(item)
        tails = [one.continuation_ids for one in asked.requests if isinstance(one, LoglikelihoodRequest)]
        choices: list[Json] = [self.engine.tokenizer.decode(list(tail)) for tail in tails]
        metadata = {"choices": choices} if choices else {}
        return Sample(self.name, item.id, asked.prompt, target=item.target, metadata=metadata)

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        return self.context.strategy.submit(self.engine, requests)

    def _sample(self, item: Item, asked: Asked, futures: Sequence[Future[Completion]]) -> Sample:
        blank = Sample(self.name, item.id, asked.prompt, target=item.target, metadata=item.metadata)
        try:
            completions = [self.whole(asked.prompt, future.result()) for future in futures]
        except EngineError as exc:
            return replace(blank, error=str(exc))
        answered = replace(blank, **answer_fields(completions))
        if self.graded_apart:
            return replace(answered, graded=False)
        declared = self.metrics if type(self).aggregate is RequestTask.aggregate else ()
        return scored(answered, lambda: self.score(item, completions), declared)

    def whole(self, prompt: str, completion: Completion) -> Completion:
        """An answer as it is read: a thought that the prompt has opened has its tag."""
        return whole_turns(prompt, completion, self.engine.tokenizer)

    def grade(self, samples: Sequence[Sample]) -> Iterable[Sample]:
        """Tasks with graded_apart score here, from what the journal holds."""
        for sample in samples:
            yield replace(sample, graded=True)

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        """Mean of each declared metric with its interval."""
        return {name: aggregate_metric(samples, name, spec) for name, spec in self.metrics.items()}

    def _checkpoint_name(self) -> str:
        return self.context.checkpoint.name if self.context.checkpoint else "the checkpoint"


def check_items(items: Iterable[Item], task: str) -> list[Item]:
    """Raises: BadInput: what is no item, or two items of one id, of which the journal could hold one."""
    if not isinstance(items, Iterable):
        raise BadInput(
            f"items() of task {task!r} returned {items!r:.40}; return a list of harness.tasks.Item"
        )
    seen: set[str] = set()
    found = list(items)
    for item in found:
        if not isinstance(item, Item):
            raise BadInput(
                f"items() of task {task!r} gave {item!r:.40}; give harness.tasks.Item(id, doc, target)"
            )
        if not isinstance(item.id, str) or not isinstance(item.target, str | None):
            raise BadInput(f"task {task!r}: id and target of item {item.id!r} must be text; write str(...)")
        if item.id in seen:
            raise BadInput(f"task {task!r} has two items with the id {item.id!r}; give each one of its own")
        seen.add(item.id)
    return found


def answer_fields(completions: Sequence[Completion]) -> dict[str, Json]:
    """Fields of a Sample that follow from the engine's answers alone."""
    outputs = [output for completion in completions for output in completion.outputs]
    reused = sum(c.reused for c in completions)
    first = [c.first_token_s - c.queued_s for c in completions if c.first_token_s is not None]
    return {
        "outputs": tuple(output.text for output in outputs),
        "finish_reasons": tuple(output.finish_reason for output in outputs),
        "prompt_tokens": sum(c.prompt_tokens for c in completions),
        "cached_tokens": sum(c.cached_tokens for c in completions),
        "output_tokens": sum(c.output_tokens for c in completions),
        "dropped_prompt_tokens": max((c.dropped_prompt_tokens for c in completions), default=0),
        "first_token_s": None if reused else min(first, default=None),
        # reading an answer back says nothing of how long it takes
        "total_s": None if reused else max((c.done_s - c.queued_s for c in completions), default=None),
        "answers": sum(len(c.outputs) or 1 for c in completions),
        "reused": reused,
        "reused_tokens": sum(c.reused_tokens for c in completions),
    }


def scored(sample: Sample, score: Callable[[], object], declared: Collection[str] = ()) -> Sample:
    """The sample with its scores; a scorer that raises, or returns none, fails this sample and no other.

    Args: declared: metrics that are averaged, to which a misspelt name would be lost; empty: any name will do.
    """
    try:
        return replace(sample, scores=check_scores(score(), declared), graded=True)
    except (Exception, SystemExit) as exc:  # noqa: BLE001  scorers are plug-in code
        return replace(sample, error=f"scorer: {type(exc).__name__}: {exc}", graded=True)


def aggregate_metric(samples: Sequence[Sample], name: str, spec: MetricSpec) -> Metric:
    """Mean of one metric over the samples that have it; failed samples are counted, not averaged."""
    values: list[float] = []
    clusters: list[str] = []
    failed = 0
    for sample in samples:
        score = sample.scores.get(name)
        if sample.error is not None or (score is not None and score.value is None and score.error):
            failed += 1
        elif score is not None and score.value is not None:
            values.append(score.value)
            clusters.append(str(sample.metadata.get(spec.cluster, sample.sample_id)) if spec.cluster else "")
    metric = summarise(
        values,
        n_failed=failed,
        higher_is_better=spec.higher_is_better,
        clusters=clusters if spec.cluster else None,
        unit=spec.unit,
        chance=spec.chance,
        bounds=spec.bounds,
    )
    return metric if spec.cluster is None else replace(metric, cluster=spec.cluster)
