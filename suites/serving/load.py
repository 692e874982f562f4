"""What is sent, how much of it at a time, and when: options of the latency task, and the loads that they make."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from harness.errors import BadPlan
from suites.serving.profiles import PROFILES, Slo

MS = 1000.0


@dataclass(frozen=True)
class Point:
    """One load: closed (concurrency), or open (a rate, or a share of what closed loops reached)."""

    prompt_tokens: int
    output_tokens: int
    concurrency: int | None = None
    rate: float | None = None
    utilisation: float | None = None
    lengths: str = ""
    """Part of the label that names lengths, where several are swept."""

    @property
    def label(self) -> str:
        """'4', '2.5rps', '0.5load'; with '-in512' or '-out64' where lengths are swept."""
        if self.concurrency is not None:
            head = str(self.concurrency)
        else:
            head = f"{self.rate:g}rps" if self.rate is not None else f"{self.utilisation:g}load"
        return head + self.lengths

    @property
    def key(self) -> str:
        """First part of its samples' ids: 'c4', '2.5rps-in512'."""
        return ("c" if self.concurrency is not None else "") + self.label


@dataclass(frozen=True)
class Load:
    """Options of the task."""

    concurrencies: tuple[int, ...] = (1, 4, 16)
    """Closed loops: requests in flight."""
    rates: tuple[float, ...] = ()
    """Open loops: requests per second."""
    utilisations: tuple[float, ...] = ()
    """Open loops: share of the largest throughput of the closed loops before them."""
    burstiness: float = 1.0
    """Shape of the gamma distribution of gaps: 1 Poisson, less burstier, more steadier."""
    max_concurrency: int | None = None
    """Of open loops: what is due beyond it waits here; None: no limit."""
    requests: int = 32
    """Measured per load."""
    rounds: int = 1
    """Requests per slot of a closed loop, at least."""
    warmup: int = 2
    """Sent before, journalled and left out."""
    prompt_tokens: tuple[int, ...] = (512,)
    output_tokens: tuple[int, ...] = (128,)
    prompts: str | None = None
    """JSONL file with a `prompt` in each line, used in turn; None: drawn from the vocabulary."""
    ignore_eos: bool = True
    """Every answer has output_tokens tokens; false: it may end before."""
    stop_at_knee: bool = False
    """Leave out higher concurrencies once power has fallen twice below its best."""
    slo_ttft_ms: float | None = None
    slo_tpot_ms: float | None = None
    slo_e2e_ms: float | None = None
    profiles: tuple[str, ...] = tuple(PROFILES)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Load:
        """Raises: BadPlan: a value that does not fit, by name."""
        given = {spec.name: options[spec.name] for spec in fields(cls) if spec.name in options}
        for name, value in given.items():
            given[name] = _read(name, value)
        if ("rates" in given) and "concurrencies" not in given:
            given["concurrencies"] = ()
        load = cls(**given)
        if load.utilisations and not load.concurrencies:
            raise BadPlan(
                "latency: utilisations are shares of what closed loops reach; give concurrencies, or rates"
            )
        if not load.points():
            raise BadPlan("latency: nothing to send; give concurrencies or rates")
        return load

    def points(self) -> list[Point]:
        """Every combination of lengths and loads: closed loops in ascending order, then open ones."""
        found = []
        for prompt in self.prompt_tokens:
            for output in self.output_tokens:
                several = (f"-in{prompt}" * (len(self.prompt_tokens) > 1)) + (
                    f"-out{output}" * (len(self.output_tokens) > 1)
                )
                found += [Point(prompt, output, concurrency=c, lengths=several) for c in self.concurrencies]
                found += [Point(prompt, output, rate=r, lengths=several) for r in self.rates]
                found += [Point(prompt, output, utilisation=u, lengths=several) for u in self.utilisations]
        return found

    def requests_at(self, point: Point, limit: int | None) -> int:
        """Measured requests of a load. Args: limit: the most."""
        wanted = max(self.requests, self.rounds * (point.concurrency or 0))
        return wanted if limit is None else min(wanted, limit)

    @property
    def slo(self) -> Slo | None:
        limits = (self.slo_ttft_ms, self.slo_tpot_ms, self.slo_e2e_ms)
        return None if limits == (None,) * 3 else Slo(*(None if ms is None else ms / MS for ms in limits))


WHOLE = ("concurrencies", "prompt_tokens", "output_tokens")
WHOLE_ONE = ("requests", "rounds", "warmup", "max_concurrency")
POSITIVE = ("rates", "utilisations")
POSITIVE_ONE = ("burstiness", "slo_ttft_ms", "slo_tpot_ms", "slo_e2e_ms")


def _read(name: str, value: Any) -> Any:
    if name in WHOLE or name in POSITIVE:
        return _numbers(name, value)
    if name in WHOLE_ONE or name in POSITIVE_ONE:
        if value is None and name in ("max_concurrency", "slo_ttft_ms", "slo_tpot_ms", "slo_e2e_ms"):
            return None
        return _number(name, value, value)
    if name == "profiles":
        return _profiles(value)
    if name == "prompts":
        if not isinstance(value, str) or not Path(value).expanduser().is_file():
            raise BadPlan(f"latency: prompts is {value!r}; give a JSONL file with a prompt in each line")
        return value
    if not isinstance(value, bool):
        raise BadPlan(f"latency: {name} is {value!r}; give true or false")
    return value


def _numbers(name: str, value: Any) -> tuple[Any, ...]:
    """One number, a list, or text with spaces between numbers (the command line has no lists)."""
    several = _words(value) if isinstance(value, str) else value
    several = several if isinstance(several, (list, tuple)) else [several]
    found = tuple(sorted({_number(name, one, value) for one in several}))
    if not found and name in ("prompt_tokens", "output_tokens"):
        raise BadPlan(f"latency: {name} is {value!r}; give whole numbers from 1 on")
    return found


def _words(text: str) -> list[Any]:
    found: list[Any] = []
    for word in text.split():
        try:
            found.append(int(word))
        except ValueError:
            try:
                found.append(float(word))
            except ValueError:
                found.append(word)
    return found


def _number(name: str, one: Any, value: Any) -> Any:
    whole = name in WHOLE or name in WHOLE_ONE
    if whole:
        least = 0 if name == "warmup" else 1
        if type(one) is not int or one < least:
            raise BadPlan(f"latency: {name} is {value!r}; give whole numbers from {least} on")
        return one
    if isinstance(one, bool) or not isinstance(one, (int, float)) or math.isnan(one) or one <= 0:
        raise BadPlan(f"latency: {name} is {value!r}; give numbers above 0")
    if name != "burstiness" and math.isinf(one):
        raise BadPlan(f"latency: {name} is {value!r}; give finite numbers")
    return float(one)


def _profiles(value: Any) -> tuple[str, ...]:
    names = tuple(value.split() if isinstance(value, str) else value if isinstance(value, list) else ())
    if not names or any(name not in PROFILES for name in names):
        raise BadPlan(f"latency: profiles is {value!r}; give some of {', '.join(PROFILES)}")
    return tuple(dict.fromkeys(names))


def arrivals(n: int, rate: float, burstiness: float, seed: int) -> list[float]:
    """When n requests are due, seconds after the start: gamma gaps, stretched so that the last is due at n / rate.

    Args: burstiness: shape of the gaps (their coefficient of variation is 1 / sqrt(burstiness)); inf: even gaps.
    Source: get_request in
    https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/benchmarks/serve.py: the same numbers for the same seed of
    numpy's legacy generator.
    """
    import numpy as np

    if math.isinf(burstiness):
        gaps: Any = np.full(n, 1 / rate)
    else:
        gaps = np.random.RandomState(seed).gamma(shape=burstiness, scale=1 / (rate * burstiness), size=n)
    due = np.cumsum(gaps)
    return [float(at_s) for at_s in due * (n / rate / due[-1])]
