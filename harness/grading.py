"""The grading phase: samples that wait for a classifier or a judge are scored, in energy windows of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

from harness.binding import Bound
from harness.journal import Key
from harness.judging.model import JudgeModel
from harness.kept import SamplesOf
from harness.protocols import Window
from harness.records import Sample

Where = Literal["here", "elsewhere"]


def waiting(bound: Bound, samples: Mapping[Key, Sample]) -> dict[str, Sequence[Sample]]:
    """Answered samples of each task that are not graded, or whose judge could not be asked."""
    found: dict[str, list[Key]] = {}
    for key in bound.keys:
        sample = samples.get(key)
        if sample is not None and not sample.graded and sample.error is None:
            found.setdefault(sample.task, []).append(key)
    return {task: SamplesOf(samples, keys) for task, keys in found.items()}


class Grading:
    """The windows of one run's grading; use as a context manager.

    Loading a judge belongs to no window. While a judge elsewhere is asked, nothing is weighed: this machine's joules
    are not its. What is graded after it by a classifier here is weighed again.

    Args:
        window: opens one, for work here or elsewhere.
        make_room: called before a judge is loaded that needs the memory for itself.
    """

    def __init__(
        self,
        judge: JudgeModel | None,
        window: Callable[[Where], AbstractContextManager[Window]],
        make_room: Callable[[], None],
    ) -> None:
        self._judge = judge
        self._open_window = window
        self._make_room = make_room
        self._where: Where | None = None
        self._opened: AbstractContextManager[Window] | None = None
        self._window: Window | None = None

    def __enter__(self) -> Grading:
        if self._judge is not None:
            self._judge.around_load = self._loading
            self._judge.shared.before_computing = self._judge_computes
            self._judge.told = self._told
        return self

    def __exit__(self, *problem: object) -> None:
        self._close()
        if self._judge is not None:
            self._judge.release()
            if self._judge.alone:
                self._judge.unload()

    def graded(self, tasks: Mapping[str, Sequence[Sample]], bound: Bound) -> Iterator[Sample]:
        """Grade the samples of every task."""
        for name, samples in tasks.items():
            self._enter("here")
            yield from self.weighed(bound.tasks[name].grade(samples))

    def weighed(self, graded: Iterable[Sample]) -> Iterator[Sample]:
        """Samples as they are graded, each a query of the window that is open then, if one is."""
        for sample in graded:
            if self._window is not None:
                self._window.count(1, 0)
            yield sample

    def _enter(self, where: Where) -> None:
        if self._where != where:
            self._close()
            self._opened = self._open_window(where)
            self._window = self._opened.__enter__()
            self._where = where

    def _close(self) -> None:
        opened, self._opened, self._window, self._where = self._opened, None, None, None
        if opened is not None:
            opened.__exit__(None, None, None)

    # What the judge tells

    @contextmanager
    def _loading(self) -> Iterator[None]:
        self._close()
        if self._judge is not None and self._judge.alone:
            self._make_room()
        yield

    def _judge_computes(self) -> None:
        self._enter("elsewhere" if self._judge is not None and self._judge.elsewhere else "here")

    def _told(self, output_tokens: int) -> None:
        """Called in the engine's thread."""
        window = self._window
        if window is not None:
            window.count(0, output_tokens)
