"""Send one load and journal what came back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.energy import summarise
from harness.errors import BadPlan, EngineError
from harness.plan import EnergySpec
from harness.protocols import Record
from harness.records import Completion, EnergyReading, Sample
from harness.tasks import Asked, Item, answer_fields, scored
from suites.serving.load import Point, arrivals
from suites.serving.log import RequestLog, log_of
from suites.serving.metrics import Measured
from suites.serving.sending import Sender, Sent

if TYPE_CHECKING:
    from suites.serving.latency import ServingLatency

Ask = tuple[Item, Asked]


class LoadRun:
    """One load of a task. Args: best_rate: requests per second that closed loops reached; for utilisations."""

    def __init__(self, task: ServingLatency, point: Point, best_rate: float | None) -> None:
        self.task = task
        self.point = point
        self.engine: Any = getattr(task.engine, "loaded", task.engine)
        self.rate = point.rate if point.utilisation is None else (best_rate or 0.0) * point.utilisation

    def measure(self, items: Sequence[Item], record: Record) -> Measured:
        """Warm up, then send the load; its last sample carries what is known of the load as a whole."""
        asked = [(item, self.task.requests(item)) for item in items]
        self._widen(len(asked))
        for sample, _ in self._answers([a for a in asked if a[0].metadata["warmup"]], time.perf_counter()):
            record(sample)
        measured = [a for a in asked if not a[0].metadata["warmup"]]
        tried = self._retries()
        logs: list[RequestLog] = []
        held: Sample | None = None
        with self.task.weigh(f"{self.task.name}@{self.point.label}") as readings:
            start_s = time.perf_counter()
            for sample, log in self._answers(measured, start_s):
                if held is not None:
                    record(held)
                held = sample
                logs += [] if log is None else [log]
            duration_s = time.perf_counter() - start_s
        facts = {
            "duration_s": duration_s,
            "rate": self.rate,
            "energy": energy_facts(readings),
            "peak_memory_bytes": self.engine.stats().peak_memory_bytes,
            "retries": self._retries() - tried,
        }
        if held is not None:
            record(replace(held, metadata={**held.metadata, "facts": facts}))
        return Measured(self.point, logs, len(measured) - len(logs), duration_s)

    def _retries(self) -> int:
        """Tries so far that a server refused or broke off; an engine here has none."""
        return int(self.engine.describe().get("retries", 0))

    def _widen(self, requests: int) -> None:
        """Let the engine have as many requests in flight as the load wants.

        Raises: BadPlan: the user has told it to take fewer.
        """
        slots = self._slots()
        wanted = requests if slots is None else min(slots, requests)
        widen = getattr(self.engine, "widen", None)
        allowed = wanted if widen is None else widen(wanted)
        if slots is not None and allowed < wanted:
            raise BadPlan(
                f"latency: {wanted} requests in flight, and the engine was told to take {allowed}; leave out "
                f"--engine-option concurrency={allowed}, or give smaller concurrencies"
            )

    def _slots(self) -> int | None:
        return self.point.concurrency or self.task.load.max_concurrency

    def _due(self, n: int) -> list[float] | None:
        if self.point.concurrency is not None or not self.rate or not n:
            return None
        return arrivals(n, self.rate, self.task.load.burstiness, self.task.context.seed)

    def _answers(self, asked: Sequence[Ask], start_s: float) -> Iterator[tuple[Sample, RequestLog | None]]:
        sender: Sender[Ask] = Sender(self._send, self._slots(), self._due(len(asked)))
        for sent in sender.run(asked):
            yield self._sample(sent, start_s)

    def _send(self, asked: Ask) -> Future[Completion]:
        (future,) = self.task.context.strategy.submit(self.task.engine, asked[1].requests)
        return future

    def _sample(self, sent: Sent[Ask], start_s: float) -> tuple[Sample, RequestLog | None]:
        item, asked = sent.what
        blank = Sample(self.task.name, item.id, asked.prompt, metadata=item.metadata)
        try:
            completion = sent.future.result()
        except EngineError as exc:
            return replace(blank, error=str(exc)), None
        log = log_of(completion, sent.scheduled_s, sent.sent_s, start_s)
        if log is None:
            return replace(blank, error=NO_TIMES), None
        log = self._with_text_tokens(log, completion)
        metadata = {**item.metadata, "log": log.to_json()}
        sample = replace(blank, **answer_fields([completion]), metadata=metadata)
        if self.task.load.ignore_eos:
            # every answer ends at its last token by design; that is no truncation
            sample = replace(sample, finish_reasons=("stop",) * len(sample.finish_reasons))
        return scored(sample, lambda: self.task.scores(log)), log

    def _with_text_tokens(self, log: RequestLog, completion: Completion) -> RequestLog:
        """With the tokens of the text, where the server's count did not come apart from the answer."""
        tokenizer = self.engine.tokenizer
        if log.counted_apart or getattr(tokenizer, "is_text", False):
            return log
        text = completion.outputs[0].text
        return replace(log, text_tokens=len(tokenizer.encode(text, add_special_tokens=False)))


NO_TIMES = (
    "nothing says when the answer's tokens came: the server did not stream; without streams there is no latency to "
    "measure (--engine-option stream=true asks for them)"
)


def energy_facts(readings: Sequence[EnergyReading]) -> dict[str, Any] | None:
    """Joules of a load with where they come from; None where nothing weighed it."""
    if not readings:
        return None
    summary = summarise(readings, EnergySpec())
    return {
        "ranked_j": summary.ranked_j,
        "ranked_net_j": summary.ranked_net_j,
        "basis": summary.basis,
        "duration_s": summary.duration_s,
        "shared": summary.shared,
        "components": [[c.component, c.provenance, c.gross_j] for c in summary.components],
    }
