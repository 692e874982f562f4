"""From the logs of a load to its metrics. Pure; nothing here measures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.records import Metric
from harness.stats.intervals import Estimate, proportion
from suites.serving.estimates import estimates
from suites.serving.load import MS, Point
from suites.serving.log import RequestLog
from suites.serving.profiles import (
    PROFILES,
    SCHEDULED,
    STEADY,
    Profile,
    Slo,
    Value,
    content,
    vllm_pieces,
    vllm_tokens,
)
from suites.serving.steady import steady_rate, steady_state


@dataclass(frozen=True)
class Measured:
    """A load that was sent."""

    point: Point
    logs: Sequence[RequestLog]
    """Answered requests, warm-up left out."""
    n_failed: int = 0
    duration_s: float | None = None
    """First sending to last answer, by the sender's clock; None: as the logs say."""
    energy: Mapping[str, Any] = field(default_factory=dict)
    """Of the measured requests: ranked_j, basis, ...; empty where it is not known."""
    peak_memory_bytes: int | None = None

    @property
    def seconds(self) -> float | None:
        if self.duration_s is not None or not self.logs:
            return self.duration_s
        return max(log.ended_s for log in self.logs) - min(log.sent_s for log in self.logs) or None

    def rate(self, amount: float | None, seconds: float | None = None) -> float | None:
        """Amount per second; None: not known. Args: seconds: None: of the whole load."""
        seconds = self.seconds if seconds is None else seconds
        return amount / seconds if amount is not None and seconds and self.logs else None

    def metric(self, value: float | None, unit: str, *, upward: bool = True) -> Metric:
        """A number of the load as a whole, which was made once: it has no interval."""
        return Metric(value, len(self.logs), self.n_failed, upward, unit=unit)


def load_metrics(measured: Measured, profiles: Sequence[str], slo: Slo | None) -> dict[str, Metric]:
    """All metrics of a load, by name without its label. The names hang on the options alone, never on the logs."""
    found: dict[str, Metric] = {}
    for name in profiles:
        found |= profile_metrics(PROFILES[name], measured, measured.logs)
    if "vllm" in profiles:
        found |= vllm_rates(measured)
    if "aiperf" in profiles:
        found |= aiperf_rates(measured)
    if measured.point.concurrency is None:
        found |= profile_metrics(SCHEDULED, measured, measured.logs)
    found |= steady_metrics(measured) | lag_metrics(measured) | energy_metrics(measured)
    if slo is not None:
        found |= slo_metrics(measured, profiles, slo)
    found["peak_memory_bytes"] = measured.metric(measured.peak_memory_bytes, "bytes", upward=False)
    return found


def profile_metrics(profile: Profile, measured: Measured, logs: Sequence[RequestLog]) -> dict[str, Metric]:
    """Statistics of the profile's figures, in ms."""
    figures = [profile.figures(log) for log in logs]
    found = {}
    for name in profile.names:
        values = [own[name] for own in figures]
        n = sum(len(own) for own in values)
        for statistic, estimate in estimates(values, profile.statistics, profile.rule).items():
            found[f"{profile.name}_{name}_{statistic}_ms"] = in_ms(estimate, n, measured.n_failed)
    return found


def in_ms(estimate: Estimate | None, n: int, n_failed: int) -> Metric:
    """Args: estimate: in seconds."""
    if estimate is None:
        return Metric(None, 0, n_failed, higher_is_better=False, unit="ms")
    error = None if estimate.stderr is None else estimate.stderr * MS
    ci95 = None if estimate.ci95 is None else (estimate.ci95[0] * MS, estimate.ci95[1] * MS)
    return Metric(estimate.value * MS, n, n_failed, False, error, ci95, estimate.interval, "ms")


# Throughput


def vllm_rates(measured: Measured) -> dict[str, Metric]:
    """Requests and tokens over the time from the first sending to the last answer; peaks by whole seconds."""
    logs = measured.logs
    output = total(vllm_tokens(log) for log in logs)
    prompts = total(log.prompt_tokens for log in logs)
    tokens, flying = by_second(logs)
    return {
        "vllm_requests_per_s": measured.metric(measured.rate(len(logs)), "requests/s"),
        "vllm_output_tokens_per_s": measured.metric(measured.rate(output), "tokens/s"),
        "vllm_total_tokens_per_s": measured.metric(measured.rate(total((output, prompts))), "tokens/s"),
        "vllm_peak_output_tokens_per_s": measured.metric(tokens, "tokens/s"),
        "vllm_peak_concurrency": measured.metric(flying, "requests"),
    }


def total(counts: Iterable[int | None]) -> int | None:
    """The sum; None where one of them is not known."""
    known = list(counts)
    return None if None in known else sum(count or 0 for count in known)


def by_second(logs: Sequence[RequestLog]) -> tuple[float | None, float | None]:
    """Most pieces in any whole second after the first sending, and most requests that any of them saw."""
    if not logs:
        return None, None
    start_s = min(log.sent_s for log in logs)
    pieces: Counter[int] = Counter()
    flying: Counter[int] = Counter()
    for log in logs:
        times = [chunk.at_s for chunk in vllm_pieces(log)]
        pieces.update(int(at_s - start_s) for at_s in times)
        flying.update(range(int(log.sent_s - start_s), int(times[-1] - start_s) + 1))
    return float(max(pieces.values())), float(max(flying.values()))


def aiperf_rates(measured: Measured) -> dict[str, Metric]:
    """Over the time from the first sending to the last piece with content."""
    logs = [log for log in measured.logs if content(log)]
    seconds = None
    if logs:
        seconds = max(content(log)[-1].at_s for log in logs) - min(log.sent_s for log in logs)
    tokens = total(log.tokens for log in logs)
    return {
        "aiperf_requests_per_s": measured.metric(measured.rate(len(logs), seconds), "requests/s"),
        "aiperf_output_tokens_per_s": measured.metric(measured.rate(tokens, seconds), "tokens/s"),
    }


# Steady state, sending, objectives, energy


def steady_metrics(measured: Measured) -> dict[str, Metric]:
    steady = steady_state(measured.logs, measured.point.concurrency)
    found = profile_metrics(STEADY, measured, steady.logs if steady else [])
    rate = steady_rate(steady, measured.logs) if steady else None
    if rate is None:
        found["steady_output_tokens_per_s"] = Metric(None, 0, measured.n_failed, True, unit="tokens/s")
    else:
        n = len(steady.logs) if steady else 0
        found["steady_output_tokens_per_s"] = Metric(
            rate.value, n, measured.n_failed, True, rate.stderr, rate.ci95, rate.interval, "tokens/s"
        )
    return found


def lag_metrics(measured: Measured) -> dict[str, Metric]:
    """How late requests left, tries without an answer included: what the times from the sending leave out."""
    lags = [[Value(log.sent_s - log.scheduled_s)] for log in measured.logs]
    found = estimates(lags, ("p50", "p99"), "linear")
    return {f"send_lag_{s}_ms": in_ms(found[s], len(lags), measured.n_failed) for s in ("p50", "p99")}


def slo_metrics(measured: Measured, profiles: Sequence[str], slo: Slo) -> dict[str, Metric]:
    """Requests that met all objectives: as a share of all that were sent, and per second. Failed ones met none."""
    judges = [PROFILES[name] for name in profiles]
    if measured.point.concurrency is None:
        judges.append(SCHEDULED)
    found = {}
    for profile in judges:
        verdicts = [profile.meets(log, slo) for log in measured.logs]
        decided = [float(v) for v in verdicts if v is not None] + [0.0] * measured.n_failed
        # a failed request is a missed objective here, so it is among those counted
        found[f"{profile.name}_slo_share"] = proportion(decided)
        open_ = bool(verdicts) and all(verdict is None for verdict in verdicts)
        good = None if open_ else sum(verdict is True for verdict in verdicts)
        found[f"{profile.name}_goodput_per_s"] = measured.metric(measured.rate(good), "requests/s")
    return found


def energy_metrics(measured: Measured) -> dict[str, Metric]:
    """Joules of the measured requests over their tokens; where they come from stands in the unit."""
    joules = measured.energy.get("ranked_j")
    basis = measured.energy.get("basis") or "not known"
    output = total(log.tokens for log in measured.logs)
    every = total((output, total(log.prompt_tokens for log in measured.logs)))
    weighed = joules is not None and joules > 0

    def metric(value: float | None, unit: str, *, upward: bool) -> Metric:
        return measured.metric(value, f"{unit} ({basis})", upward=upward)

    return {
        "j_per_output_token": metric(
            joules / output if weighed and output else None, "J/token", upward=False
        ),
        "output_tokens_per_j": metric(
            output / joules if weighed and output else None, "tokens/J", upward=True
        ),
        "j_per_token": metric(joules / every if weighed and every else None, "J/token", upward=False),
        "energy_j": metric(joules, "J", upward=False),
    }
