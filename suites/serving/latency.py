"""Latency, throughput and energy of the loaded engine, or of a server, under loads that are made here.

A load is closed (so many requests in flight at any time: as one is answered the next is sent) or open (requests leave
when they are due by a gamma process, whether or not earlier ones are answered). Lengths of prompts and answers, levels
of concurrency and rates are lists: every combination is a load. A request is `prompt_tokens` tokens drawn from the
tokenizer's own vocabulary (seeded; nothing shared), or a line of the file `prompts`; it gets exactly `output_tokens`
tokens, end tokens ignored. The first `warmup` requests of a load are answered before its clock starts; they are
journalled, marked and left out.

Every request's log (when it was due, when it left, every piece that came back) stands in its sample's metadata, and
all figures are computed from that: suites/serving/profiles.py has the definitions of vLLM, GuideLLM and AIPerf,
suites/serving/steady.py those of the steady state and of the knee. `scheduled_*` are vLLM's figures from the time when
a request was due: a sender that falls behind hides nothing. For engines here the times are taken at their queue,
without a network; for servers they are those of the client. Joules are weighed per load, warm-up left out.

A load that was cut short, or in which requests failed, is measured again as a whole. No chance level. Peak memory is
the process's (CPU) or the allocator's (GPU) since loading, weights included; a server's is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import ClassVar

from harness.errors import BadPlan
from harness.protocols import Record, TaskContext, TaskRef
from harness.records import Completion, EnergyReading, GenerateRequest, Metric, Sample, Sampling, Score
from harness.tasks import Asked, Item, RequestTask
from suites.serving.knee import Powers, knee_metric
from suites.serving.load import MS, Load, Point
from suites.serving.log import RequestLog
from suites.serving.metrics import Measured, load_metrics
from suites.serving.profiles import vllm_figures
from suites.serving.prompts import Prompts
from suites.serving.run import LoadRun

Weigh = Callable[[str], AbstractContextManager[Sequence[EnergyReading]]]


@contextmanager
def unweighed(part: str) -> Iterator[Sequence[EnergyReading]]:
    """Where nobody weighs loads by themselves."""
    yield ()


class ServingLatency(RequestTask):
    """TTFT, TPOT, ITL, E2E, throughput, goodput and energy per load."""

    measures_speed: ClassVar[bool] = True

    version: ClassVar[str] = "2"
    uses_chat: ClassVar[bool] = False
    options: ClassVar[Collection[str]] = tuple(Load.__dataclass_fields__)
    weigh: Weigh = staticmethod(unweighed)
    """Set by the harness before run(): weighs what is done inside by itself."""

    def __init__(self, ref: TaskRef, context: TaskContext) -> None:
        super().__init__(ref, context)
        self.load = Load.of(ref.options)
        self.prompts = Prompts(self.load.prompts, context.seed)
        self.notes += notes(self.load, self.prompts)

    @property
    def _items(self) -> dict[str, Item]:  # type: ignore[override]
        """The limit counts measured requests per load, not the first samples of all."""
        return {item.id: item for item in self.items()}

    @property
    def metric_names(self) -> Sequence[str]:
        return list(self.aggregate([]))

    def items(self) -> Sequence[Item]:
        return [item for point in self.load.points() for item in self.items_of(point)]

    def items_of(self, point: Point) -> list[Item]:
        """Warm-up first."""
        warm = [(f"warmup{index}", True) for index in range(self.load.warmup)]
        measured = [(str(index), False) for index in range(self.load.requests_at(point, self.context.limit))]
        return [
            Item(
                f"{point.key}/{name}",
                self.prompts.doc(place),
                metadata={"load": point.label, "warmup": warmup},
            )
            for place, (name, warmup) in enumerate(warm + measured)
        ]

    def requests(self, item: Item) -> Asked:
        point = next(p for p in self.load.points() if p.label == item.metadata["load"])
        sampling = replace(
            self.sampling, max_tokens=point.output_tokens, ignore_eos=self.load.ignore_eos, n=1, stop=()
        )
        text = self.prompts.text(item, self.engine.tokenizer, point.prompt_tokens)
        if isinstance(text, str) or self.chat:
            plain = text if isinstance(text, str) else self.engine.tokenizer.decode(text)
            return self.ask(plain, sampling)
        return self.ask_ids(text, sampling)

    def ask_ids(self, ids: tuple[int, ...], sampling: Sampling) -> Asked:
        """A request of these tokens."""
        return Asked(self.engine.tokenizer.decode(ids), (GenerateRequest(ids, sampling),))

    def score(self, item: Item, completions: Sequence[Completion]) -> Mapping[str, Score]:
        """Not used: figures need the time of the sending, which a completion does not know."""
        return {}

    def scores(self, log: RequestLog) -> Mapping[str, Score]:
        """The request's own figures in ms, by vLLM's definitions, for its page in the report."""
        found = vllm_figures(log)
        return {
            f"vllm_{name}_ms": Score(found[name][0].seconds * MS)
            for name in ("ttft", "tpot", "e2e")
            if found[name]
        }

    # Running

    def run(self, todo: Sequence[str], record: Record) -> None:
        """Load by load. One of which anything is missing is measured as a whole."""
        self._check_length()
        powers = Powers()
        for point in self._due(set(todo)):
            items = self.items_of(point)
            reason, rate = self._left_out(point, powers), powers.best_rate(point)
            if reason is not None:
                for item in items:
                    record(replace(self._blank(item), metadata={**item.metadata, "not_sent": reason}))
            elif point.utilisation is not None and rate is None:
                for item in items:
                    record(replace(self._blank(item), error=NO_RATE))
            else:
                powers.add(point, LoadRun(self, point, rate).measure(items, record))

    def _due(self, todo: Collection[str]) -> list[Point]:
        """Loads of which something is missing, and the closed loops that open ones take a share of."""
        points = self.load.points()
        wanted = {p for p in points if any(item.id in todo for item in self.items_of(p))}
        shared = {p.lengths for p in wanted if p.utilisation is not None}
        return [p for p in points if p in wanted or (p.concurrency is not None and p.lengths in shared)]

    def _left_out(self, point: Point, powers: Powers) -> str | None:
        """Why a load is not sent."""
        if self._too_long(point):
            return f"{point.prompt_tokens} + {point.output_tokens} tokens exceed the context"
        if self.load.stop_at_knee and point.concurrency is not None and powers.passed(point):
            return "the knee was passed"
        return None

    def _blank(self, item: Item) -> Sample:
        return Sample(self.name, item.id, "", metadata=item.metadata)

    def _too_long(self, point: Point) -> bool:
        return self.prompts.drawn and point.prompt_tokens + point.output_tokens > self.engine.max_length

    def _check_length(self) -> None:
        """Raises: BadPlan: no load fits into the context."""
        points = self.load.points()
        if all(map(self._too_long, points)):
            shortest = min(points, key=lambda p: p.prompt_tokens + p.output_tokens)
            raise BadPlan(
                f"latency: {shortest.prompt_tokens} + {shortest.output_tokens} tokens exceed the context of "
                f"{self._checkpoint_name()!r} ({self.engine.max_length}); give smaller prompt_tokens"
            )

    # Adding up

    def aggregate(self, samples: Sequence[Sample]) -> Mapping[str, Metric]:
        found: dict[str, Metric] = {}
        loads = [self._measured(point, samples) for point in self.load.points()]
        for measured in loads:
            metrics = load_metrics(measured, self.load.profiles, self.load.slo)
            found |= {f"{name}@{measured.point.label}": metric for name, metric in metrics.items()}
        levels = [measured for measured in loads if measured.point.concurrency is not None]
        if len(levels) >= 3 and len(levels) == len(self.load.concurrencies):
            metric, said = knee_metric(levels)
            found["knee_concurrency"] = metric
            if samples:
                self._say(said)
        for reason in dict.fromkeys(s.metadata["not_sent"] for s in samples if "not_sent" in s.metadata):
            left_out = dict.fromkeys(
                s.metadata["load"] for s in samples if s.metadata.get("not_sent") == reason
            )
            self._say(f"not sent, since {reason}: {', '.join(left_out)}")
        self._say_retries(samples)
        return found

    def _say_retries(self, samples: Sequence[Sample]) -> None:
        tried = {
            s.metadata["load"]: s.metadata.get("facts", {}).get("retries", 0)
            for s in samples
            if "facts" in s.metadata
        }
        several = [f"{number} at {load}" for load, number in tried.items() if number]
        if several:
            self._say(
                f"tries that the server refused or broke off, and that were made again: {', '.join(several)}; times "
                "are those of the try that was answered, send_lag_* and scheduled_* have the wait before it"
            )

    def _measured(self, point: Point, samples: Sequence[Sample]) -> Measured:
        own = [
            s
            for s in samples
            if s.metadata["load"] == point.label and not s.metadata["warmup"] and "not_sent" not in s.metadata
        ]
        logs = [RequestLog.from_json(s.metadata["log"]) for s in own if s.error is None]
        facts = next((s.metadata["facts"] for s in own if "facts" in s.metadata), {})
        return Measured(
            point,
            sorted(logs, key=lambda log: log.sent_s),
            n_failed=sum(s.error is not None for s in own),
            duration_s=facts.get("duration_s"),
            energy=facts.get("energy") or {},
            peak_memory_bytes=facts.get("peak_memory_bytes"),
        )

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


NO_RATE = "no closed loop was answered, so there is no throughput to take a share of"


def notes(load: Load, prompts: Prompts) -> list[str]:
    """What a reader must know beside the figures."""
    found = [
        f"warm-up requests per load, journalled and left out: {load.warmup}; figures carry the name of the tool whose "
        f"definitions they follow: {', '.join(load.profiles)}"
    ]
    if load.rates or load.utilisations:
        kind = "Poisson" if load.burstiness == 1 else f"gamma, burstiness {load.burstiness:g}"
        found.append(f"open loop: {kind} arrivals; scheduled_* count from when a request was due")
    if load.slo is not None:
        limits = [f"{name} <= {s * MS:g} ms" for name, s in load.slo._asdict().items() if s is not None]
        found.append(f"objectives: {', '.join(limits)}")
    if not prompts.drawn:
        found.append("prompts come from a file and repeat between loads: a prefix cache answers them sooner")
    return found


def load(ref: TaskRef, context: TaskContext) -> ServingLatency:
    return ServingLatency(ref, context)
