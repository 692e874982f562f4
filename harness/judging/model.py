"""The model of --judge: one load for a whole plan, asked for one checkpoint after another, in the grading window."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from harness.answers.cache import Answers
from harness.chat import refusal
from harness.engines.lazy import LazyEngine, SharedEngine
from harness.errors import EngineError, HarnessError, UserError
from harness.protocols import Engine, Tokenizer
from harness.records import Checkpoint, Completion, GenerateRequest, Json, Sampling
from harness.thoughts import final_answer, whole_turns
from harness.tokens import encoder_of

Turns = Sequence[Mapping[str, str]]


@dataclass
class Counts:
    """What was asked of the judge."""

    questions: int = 0
    reused: int = 0
    """Answers that came from the response cache."""
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    """Of computed answers alone, as the prompt tokens."""


class JudgeModel:
    """The judge's engine, loaded at the first question that the response cache does not answer.

    Args:
        load: loads the judge on its engine.
        answers: opens its response cache; gives None where that is off.
        identity: what determines its verdicts.
        alone: it does not share the machine's memory with the model that is judged (a GPU, vLLM).
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        load: Callable[[Checkpoint], Engine],
        answers: Callable[[Checkpoint], Answers | None],
        identity: Mapping[str, Json],
        *,
        alone: bool,
    ) -> None:
        self.checkpoint = checkpoint
        self.alone = alone
        self._identity = identity
        self._load = load
        self.shared = SharedEngine(str(identity["engine"][0]), self._loading, answers)
        self.engine = LazyEngine(self.shared, checkpoint)
        self.around_load: Callable[[], AbstractContextManager[object]] = nullcontext
        """Entered while the judge is loaded: the grading window is closed then."""
        self.told: Callable[[int], None] = _nobody
        """Told the output tokens of every computed answer."""
        self.counts = Counts()
        self._cost_before: float | None = None
        self._looked = False
        self._lock = threading.Lock()

    def _loading(self, checkpoint: Checkpoint) -> Engine:
        with self.around_load():
            return self._load(checkpoint)

    def of(self, *judged: Checkpoint) -> EngineJudge:
        """The judge of these checkpoints' answers."""
        return EngineJudge(self, *judged)

    def identity(self) -> Mapping[str, Json]:
        return self._identity

    @property
    def elsewhere(self) -> bool:
        """Whether it is loaded on another machine, whose energy is not weighed here."""
        return (
            self.shared.loaded is not None
            and getattr(self.shared.loaded, "energy_elsewhere", None) is not None
        )

    # Asking

    def submit(self, conversations: Sequence[Turns], max_tokens: int) -> list[Future[str]]:
        """Futures of the answers' texts, without thoughts. Raises: CostLimitReached."""
        self._look_for_answers()
        try:
            prompts = self._rendered(conversations)
            requests = [GenerateRequest(ids, Sampling(max_tokens)) for ids in self._encode(prompts)]
            asked = self.engine.submit(requests)
        except (
            EngineError,
            UserError,
        ) as exc:  # a judge that cannot be had fails the samples: their answers stay
            return [_failed(self._problem(exc)) for _ in conversations]
        with self._lock:
            self.counts.questions += len(asked)
        return [self._text_of(prompt, future) for prompt, future in zip(prompts, asked, strict=True)]

    def _look_for_answers(self) -> None:
        """Once per run: what earlier runs and other processes have kept."""
        if not self._looked and self.engine.answers is not None:
            self.engine.answers.refresh()
        self._looked = True

    def _rendered(self, conversations: Sequence[Turns]) -> list[str]:
        tokenizer = self.engine.tokenizer
        return [
            rendered(tokenizer, turns) if tokenizer.chat_template else plain(turns) for turns in conversations
        ]

    def _encode(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        tokenizer = self.engine.tokenizer
        # a template writes its own special tokens
        return encoder_of(tokenizer).encode(prompts, special=not tokenizer.chat_template)

    def _text_of(self, prompt: str, asked: Future[Completion]) -> Future[str]:
        text: Future[str] = Future()
        asked.add_done_callback(partial(self._answered, text, prompt))
        return text

    def _answered(self, text: Future[str], prompt: str, done: Future[Completion]) -> None:
        """Runs in the engine's thread. What the judge thinks aloud is no verdict, whoever reads it."""
        problem = done.exception()
        with suppress(Exception):  # whoever waited has cancelled
            if problem is not None:
                self._count(failed=1)
                lost = not isinstance(problem, HarnessError) or isinstance(problem, EngineError)
                text.set_exception(self._problem(problem) if lost else problem)
                return
            completion = done.result()
            if completion.dropped_prompt_tokens:
                self._count(failed=1)
                cut = f"its question is {completion.dropped_prompt_tokens} tokens longer than its context"
                text.set_exception(EngineError(f"judge {self.checkpoint.name}: {cut}"))
                return
            computed = not completion.reused
            self._count(
                reused=completion.reused,
                prompt_tokens=completion.prompt_tokens * computed,
                output_tokens=completion.output_tokens * computed,
            )
            if computed:
                self.told(completion.output_tokens)
            turn = whole_turns(prompt, completion, self.engine.tokenizer)
            text.set_result(final_answer(turn.outputs[0].text))

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, n in more.items():
                setattr(self.counts, name, getattr(self.counts, name) + n)

    def _problem(self, exc: BaseException) -> EngineError:
        return EngineError(f"judge {self.checkpoint.name}: {exc}")

    # Facts

    def take_facts(self) -> dict[str, Json]:
        """What was asked since the last call, and what it cost; empty where nothing was."""
        with self._lock:
            counts, self.counts = self.counts, Counts()
        if not counts.questions:
            return {}
        told = {} if self.shared.loaded is None else dict(self.shared.loaded.describe())
        facts: dict[str, Json] = {
            "name": self.checkpoint.name,
            "spec": self.checkpoint.spec,
            "fingerprint": self.checkpoint.fingerprint,
            "engine": self.shared.name,
            **{item.name: getattr(counts, item.name) for item in fields(counts)},
        }
        if "cost" in told:
            facts["cost"] = round(told["cost"] - (self._cost_before or 0.0), 9)
            self._cost_before = told["cost"]
        return facts

    def notes(self, facts: Mapping[str, Json]) -> list[str]:
        """What a reader must know of verdicts that were not computed in this run."""
        if not facts.get("reused"):
            return []
        note = (
            f"{facts['reused']} of {facts['questions']} answers of the judge {facts['name']} came from the response "
            "cache: the energy of grading is without them (--no-cache asks it anew)"
        )
        changed = "; its server can have changed the model under its name since"
        return [note + changed * ("://" in self.checkpoint.base)]

    def problems(self) -> list[str]:
        """What went wrong with its response cache."""
        answers = self.engine.answers
        if answers is None:
            return []
        answers.settle()
        return answers.problems()

    def release(self) -> None:
        """The window of a run is closed: nobody is told any more."""
        self.around_load, self.told = nullcontext, _nobody
        self._looked = False
        self.shared.before_computing = _nothing

    def unload(self) -> None:
        self.shared.unload()
        self._cost_before = None

    def close(self) -> None:
        self.shared.close()


class EngineJudge:
    """Implements harness.protocols.Judge for the answers of one checkpoint, or of several that are compared."""

    def __init__(self, model: JudgeModel, *judged: Checkpoint) -> None:
        self.name = model.checkpoint.name
        self.judges_itself = model.checkpoint.fingerprint in {one.fingerprint for one in judged}
        self.model = model

    @property
    def engine(self) -> Engine:
        """For libraries that ask models in their own way."""
        return self.model.engine

    def identity(self) -> Mapping[str, Json]:
        return self.model.identity()

    def submit(self, conversations: Sequence[Turns], max_tokens: int = 256) -> list[Future[str]]:
        return self.model.submit(conversations, max_tokens)


def rendered(tokenizer: Tokenizer, turns: Turns) -> str:
    """A conversation through the chat template; one that takes no system message gets it in the first turn.

    Raises: BadCheckpoint: the template refuses that too.
    """
    from jinja2 import TemplateError

    whose = Path(str(getattr(tokenizer, "name_or_path", ""))).name or "the judge"
    options = {"tokenize": False, "add_generation_prompt": True}
    try:
        return str(tokenizer.apply_chat_template(turns, **options))
    except TemplateError as exc:
        if len(turns) < 2 or turns[0]["role"] != "system" or turns[1]["role"] != "user":
            raise refusal(whose, exc, "name another --judge") from exc
        first = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
    try:
        return str(tokenizer.apply_chat_template([first, *turns[2:]], **options))
    except TemplateError as exc:
        raise refusal(whose, exc, "name another --judge") from exc


def plain(turns: Turns) -> str:
    """A conversation for a judge without a chat template."""
    return "\n\n".join(turn["content"] for turn in turns) + "\n\n"


def _failed(problem: EngineError) -> Future[str]:
    future: Future[str] = Future()
    future.set_exception(problem)
    return future


def _nobody(output_tokens: int) -> None: ...


def _nothing() -> None: ...
