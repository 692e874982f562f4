"""What a comparison of engines gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.records import Completion, Json, Request

TOLERANCE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.4}
"""Nats by which the loglikelihood of one continuation may differ, by number type. The two short types keep 11 and 8
bits of a number; a continuation of some dozen tokens adds up their errors."""


@dataclass(frozen=True)
class Pair:
    """One request and what both engines answered; None with a reason: it failed."""

    request: Request
    a: Completion | None
    b: Completion | None
    error_a: str | None = None
    error_b: str | None = None

    @property
    def failed(self) -> bool:
        return self.a is None or self.b is None


@dataclass(frozen=True)
class Worst:
    """The pair whose loglikelihoods differ most."""

    request: int
    """Its place among the task's requests."""
    context_end: str
    continuation: str
    a: float
    b: float


@dataclass(frozen=True)
class Loglikelihoods:
    """Scoring requests of a task. Differences are in nats, over the pairs that both engines answered."""

    n: int
    n_failed: int
    """Failed on either side; they count as different."""
    max_difference: float | None
    mean_difference: float | None
    share_greedy_equal: float
    """Of all n: both engines say the same of whether the continuation was the most probable one."""
    worst: Worst | None


@dataclass(frozen=True)
class Divergence:
    """The first token in which two greedy answers differ."""

    request: int
    position: int
    """Tokens of the answer before it."""
    token_a: int | None
    """None: the answer of this engine ends there."""
    token_b: int | None
    text_a: str
    text_b: str
    gap_a: float | None = None
    """How much likelier engine a holds its own token than the other's, nats; None: not known."""
    gap_b: float | None = None
    """The same of engine b and its token."""

    def is_tie(self, tolerance: float) -> bool:
        """Whether differences within the tolerance, one on each token, explain it."""
        known = [gap for gap in (self.gap_a, self.gap_b) if gap is not None]
        return bool(known) and all(gap <= 2 * tolerance for gap in known)


@dataclass(frozen=True)
class Answers:
    """Generation requests of a task."""

    n: int
    """Greedy ones."""
    n_failed: int
    """Failed on either side; they count as different."""
    share_equal: float
    """Of all n: equal text."""
    divergences: tuple[Divergence, ...]
    n_sampled: int
    """Requests with a temperature: engines draw differently, so their texts are not compared."""


@dataclass(frozen=True)
class TaskParity:
    """One task, answered by both engines on the very same requests."""

    suite: str
    task: str
    n_requests: int
    n_failed_a: int
    n_failed_b: int
    first_error: str | None
    """Why the first failed request failed."""
    loglikelihoods: Loglikelihoods | None
    answers: Answers | None
    scores: Mapping[str, tuple[float | None, float | None]]
    """metric -> its value from the answers of a and of b."""
    headline_metric: str | None
    n_samples: int
    n_samples_changed: int
    """Samples of which a score differs, or of which one failed."""
    n_own_requests: int
    """Requests that b alone was asked, because an answer of its led to another question."""
    within: bool
    """Nothing failed; every loglikelihood is within the tolerance, every divergence a tie."""


@dataclass(frozen=True)
class EngineParity:
    """An engine held against the first."""

    engine: str
    tolerance: float
    """Nats."""
    tasks: tuple[TaskParity, ...]
    facts: Mapping[str, Json]
    """What the engine says of itself."""

    @property
    def within(self) -> bool:
        return all(task.within for task in self.tasks)

    @property
    def n_failed(self) -> int:
        return sum(task.n_failed_a + task.n_failed_b for task in self.tasks)


@dataclass(frozen=True)
class Parity:
    """Engines on one checkpoint, each held against the first."""

    checkpoint: str
    engine: str
    """The first."""
    facts: Mapping[str, Json]
    others: tuple[EngineParity, ...]

    @property
    def within(self) -> bool:
        return all(other.within for other in self.others)

    @property
    def n_failed(self) -> int:
        return sum(other.n_failed for other in self.others)
