"""Native tasks of several turns: what is said next hangs on what was answered.

A plug-in author subclasses TurnsTask and fills in items(), opening(), reply() and score().

Dialogues go to the engine in cohorts, and there are two on the way: while the engine answers a turn of one, the
answers of the other are read, its next turn is tokenised and queued. A cohort's turn is queued as a whole, in the
order of its dialogues, so that what the engine plans together does not hang on the timing. Dialogues that are over
leave their cohort; a cohort that is over makes room for the next.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import ClassVar

from harness.errors import BadPlan, EngineError
from harness.feeding import Question
from harness.protocols import TaskContext, TaskRef
from harness.records import Completion, Json, Sample, Sampling
from harness.tasks import Asked, Item, RequestTask, answer_fields, scored

Message = Mapping[str, str]
"""Of a chat: role (system, user, assistant) and content."""
COHORT = 512
"""Dialogues whose turns are asked together, at most."""
COHORTS = 2
"""On the way at once: the engine answers one while the turns of the other are read."""
SMALL = 64
"""Fewer dialogues go as one cohort: two of half the size would be answered in twice the steps."""
SPEAKERS = {"user": "User", "assistant": "Assistant", "system": "System"}


class TurnsTask(RequestTask):
    """A task whose samples are dialogues, one answer to a turn.

    The journal has a dialogue as one sample: `outputs` and `finish_reasons` by turn, token counts over all turns,
    everything that was said in `metadata["messages"]`. A turn that could not be answered fails the sample.
    """

    waits_for_answers = True
    uses_chat: ClassVar[bool | None] = None
    most_turns: int = 1
    """Answers to a dialogue, at most."""
    plain_stop: ClassVar[tuple[str, ...]] = ("\nUser:",)
    """Ends an answer where there is no chat template, and none was set: a base model would play both parts."""

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        super().__init__(ref, context)
        if self.sampling.n != 1:
            raise BadPlan(
                f"task {self.name!r} is a dialogue, with one answer to a turn, and sampling.n is {self.sampling.n}; "
                "leave it at 1 and use --seed for other draws"
            )
        self._stopped = False
        self._on_the_way: list[_Cohort] = []

    # What a task says of itself

    @abstractmethod
    def opening(self, item: Item) -> Sequence[Message]:
        """What stands before the first answer; the last message is the user's."""

    @abstractmethod
    def reply(self, item: Item, answers: Sequence[Completion]) -> str | None:
        """What the user says to the answers so far, one per turn; None: the dialogue is over.

        Called in the main thread, while other dialogues are being answered: it must be quick, and no judge.
        """

    # score(item, completions) has one completion per turn.

    def plain(self, turns: Sequence[Message]) -> str:
        """A dialogue without a chat template, up to where the next answer begins."""
        said = [f"{SPEAKERS.get(turn['role'], turn['role'])}: {turn['content']}" for turn in turns]
        return "\n\n".join([*said, "Assistant:"])

    def ask_turn(self, item: Item, messages: Sequence[Message], answers: Sequence[Completion]) -> Asked:
        """The request for the next answer; for tasks that write into the model's own turn.

        Args: messages: what was said so far, answers included. answers: to the turns before.
        """
        return self._ask(messages)

    # What follows from it

    @property
    def n_requests(self) -> int:
        """At most: dialogues may end early."""
        return len(self._items) * self.most_turns

    def requests(self, item: Item) -> Asked:
        return self._ask(self.opening(item))

    def _ask(self, messages: Sequence[Message]) -> Asked:
        sampling: Sampling = self.sampling
        if not self.in_chat and not sampling.stop:
            sampling = replace(sampling, stop=self.plain_stop)
        return self.ask(messages, sampling)

    def questions(self, todo: Sequence[str]) -> Iterator[list[Question]]:
        """The next turn of one cohort after another, the oldest first."""
        self._stopped, self._on_the_way = False, []
        size = len(todo) if len(todo) < SMALL else min(COHORT, -(-len(todo) // COHORTS))
        fresh = iter([todo[start : start + size] for start in range(0, len(todo), max(size, 1))])
        live: deque[_Cohort] = deque()
        while True:
            while len(live) < COHORTS and (names := next(fresh, None)) is not None:
                live.append(_Cohort([_Dialogue(self._items[name]) for name in names]))
                self._on_the_way.append(live[-1])
                yield self._turn(live[-1])
            if not live:
                return
            cohort = live.popleft()
            cohort.answered.wait()
            if self._stopped:
                return
            cohort.dialogues = [dialogue for dialogue in cohort.dialogues if dialogue.said is not None]
            if cohort.dialogues:
                yield self._turn(cohort)
                live.append(cohort)
            else:
                self._on_the_way.remove(cohort)

    def stop(self) -> None:
        """The run ends before its time: nobody will read the answers that a cohort waits for."""
        self._stopped = True
        for cohort in list(self._on_the_way):
            cohort.answered.set()

    def _turn(self, cohort: _Cohort) -> list[Question]:
        questions = []
        for dialogue in cohort.dialogues:
            if not dialogue.messages:
                dialogue.messages = [dict(message) for message in self.opening(dialogue.item)]
            elif dialogue.said is not None:
                dialogue.messages.append({"role": "user", "content": dialogue.said})
            asked = self.ask_turn(dialogue.item, dialogue.messages, dialogue.answers)
            dialogue.prompt = dialogue.prompt or asked.prompt
            dialogue.asked = asked.prompt
            finish = partial(self._answered, cohort, dialogue)
            questions.append(Question(dialogue.item.id, asked.requests, finish))
        cohort.expect(len(questions))
        return questions

    def _answered(
        self, cohort: _Cohort, dialogue: _Dialogue, futures: Sequence[Future[Completion]]
    ) -> Sample | None:
        """The dialogue's sample where it is over; None: there will be another turn."""
        try:
            return self._step(dialogue, futures)
        finally:
            cohort.arrived()

    def _step(self, dialogue: _Dialogue, futures: Sequence[Future[Completion]]) -> Sample | None:
        dialogue.said = None
        item = dialogue.item
        blank = Sample(self.name, item.id, dialogue.prompt, target=item.target)
        try:
            (completion,) = [future.result() for future in futures]
        except EngineError as exc:
            return replace(blank, error=str(exc), metadata=dialogue.metadata())
        dialogue.answers.append(completion)
        dialogue.turns.append(self.whole(dialogue.asked, completion))
        dialogue.messages.append({"role": "assistant", "content": completion.outputs[0].text})
        answered = replace(blank, **dialogue_fields(dialogue.turns), metadata=dialogue.metadata())
        if len(dialogue.answers) < self.most_turns:
            try:
                dialogue.said = self.reply(item, dialogue.turns)
            except Exception as exc:  # noqa: BLE001  tasks are plug-in code; it fails this dialogue and no other
                return replace(answered, error=f"reply: {type(exc).__name__}: {exc}")
            if dialogue.said is not None:
                return None
        if self.graded_apart:
            return replace(answered, graded=False)
        return scored(answered, lambda: self.score(item, dialogue.turns))


def dialogue_fields(answers: Sequence[Completion]) -> dict[str, Json]:
    """Fields of a Sample that follow from the answers to its turns, which were asked one after another."""
    fields = answer_fields(answers)
    times = [answer.done_s - answer.queued_s for answer in answers]
    fields["first_token_s"] = answer_fields(answers[:1])["first_token_s"]
    fields["total_s"] = None if fields["reused"] else sum(times)
    return fields


class _Dialogue:
    """One sample on its way."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.prompt = ""
        """Of the first turn, as it was rendered."""
        self.messages: list[dict[str, str]] = []
        self.asked = ""
        """The last turn, as it was rendered."""
        self.answers: list[Completion] = []
        """As they came, one per turn."""
        self.turns: list[Completion] = []
        """The same, each with the tag of a thought that its prompt opened."""
        self.said: str | None = None
        """What the user says next; None: the dialogue is over."""

    def metadata(self) -> dict[str, Json]:
        return {**self.item.metadata, "messages": [dict(message) for message in self.messages]}


class _Cohort:
    """Dialogues whose turns are asked together."""

    def __init__(self, dialogues: list[_Dialogue]) -> None:
        self.dialogues = dialogues
        self.answered = threading.Event()
        self._left = 0

    def expect(self, n: int) -> None:
        """So many answers are on their way. Called before any can have come."""
        self._left = n
        self.answered.clear()

    def arrived(self) -> None:
        """One was read; called in the main thread alone."""
        self._left -= 1
        if self._left == 0:
            self.answered.set()
