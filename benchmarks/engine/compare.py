"""Whether two sides did the same work and said the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

TOLERANCE_NATS = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}
"""Largest difference of one loglikelihood; half precision rounds every layer's output in another order."""
TOLERANCE_METRIC = 1e-4
"""mc2 is a smooth function of loglikelihoods; for the others one sample weighs more than this in any row."""


@dataclass(frozen=True)
class Equality:
    """What was found; counts are of answers."""

    samples: int
    prompts_differ: int
    errors: int
    worst_nats: float | None
    greedy_flags_differ: int
    texts: int
    texts_differ: int
    metrics_differ: tuple[str, ...]
    tolerance_nats: float

    @property
    def equal(self) -> bool:
        bad = self.prompts_differ + self.errors + self.greedy_flags_differ + self.texts_differ
        close = self.worst_nats is None or self.worst_nats <= self.tolerance_nats
        return bad == 0 and close and not self.metrics_differ

    def as_json(self) -> dict[str, Any]:
        return {"equal": self.equal, **asdict(self)}

    def in_words(self) -> str:
        parts = []
        if self.worst_nats is not None:
            parts.append(f"largest difference {self.worst_nats:.1e} nats")
            parts.append(f"{self.greedy_flags_differ} greedy flags differ")
        if self.texts:
            parts.append(f"{self.texts - self.texts_differ} of {self.texts} texts equal")
        if self.prompts_differ or self.errors:
            parts.append(f"{self.prompts_differ} prompts differ, {self.errors} failed")
        if self.metrics_differ:
            parts.append(f"metrics differ: {', '.join(self.metrics_differ)}")
        return "; ".join([f"{'equal' if self.equal else 'NOT EQUAL'}: {self.samples} samples", *parts])


def compare(ours: dict[str, Any], theirs: dict[str, Any], dtype: str) -> Equality:
    """Hold every answer of one side against the other's.

    Args: ours, theirs: {answers: {id: {prompt, scores, text, error}}, metrics: {name: value}}.
    Raises: ValueError: the sides did not answer the same samples, or the same number of requests per sample.
    """
    mine, other = ours["answers"], theirs["answers"]
    if mine.keys() != other.keys():
        odd = sorted(mine.keys() ^ other.keys())
        raise ValueError(f"{len(odd)} samples are on one side alone, e.g. {odd[0]}")
    nats: list[float] = []
    flags = 0
    for key, answer in mine.items():
        pairs = list(zip(answer["scores"] or [], other[key]["scores"] or [], strict=True))
        nats += [abs(own[0] - their[0]) for own, their in pairs]
        flags += sum(bool(own[1]) != bool(their[1]) for own, their in pairs)
    texts = [key for key in mine if mine[key]["text"] is not None and other[key]["scores"] is None]
    return Equality(
        samples=len(mine),
        prompts_differ=sum(mine[key]["prompt"] != other[key]["prompt"] for key in mine),
        errors=sum(bool(mine[key]["error"]) or bool(other[key]["error"]) for key in mine),
        worst_nats=max(nats, default=None),
        greedy_flags_differ=flags,
        texts=len(texts),
        texts_differ=sum(mine[key]["text"] != other[key]["text"] for key in texts),
        metrics_differ=different_metrics(ours["metrics"], theirs["metrics"]),
        tolerance_nats=TOLERANCE_NATS[dtype],
    )


def different_metrics(ours: dict[str, float], theirs: dict[str, float]) -> tuple[str, ...]:
    """Metrics of the peer that are others here; the harness may report more of its own."""
    return tuple(name for name in sorted(theirs) if not close(ours.get(name), theirs.get(name)))


def close(own: float | None, their: float | None) -> bool:
    return own is not None and their is not None and abs(own - their) <= TOLERANCE_METRIC
