"""Tasks whose figures are those of a toxicity classifier, which reads their texts in the grading window."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar

from harness.classifiers import choose
from harness.hashing import hash_json
from harness.protocols import TaskContext, TaskRef
from harness.tasks import RequestTask


class ClassifiedTask(RequestTask, ABC):
    """Scored apart by the classifier that harness.classifiers chooses.

    Metric names begin with the classifier's own prefix, so figures of two classifiers never meet in one column.
    """

    uses_chat: ClassVar[bool] = False
    graded_apart = True

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        super().__init__(ref, context)
        self.classifier = choose(context.settings)
        self.prefix = self.classifier.metric_prefix
        self.notes.append(self.classifier.note)

    @property
    def fingerprint(self) -> str:
        return hash_json([super().fingerprint, self.classifier.identity()])
