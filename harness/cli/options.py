"""Groups of options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.cli.fields import option


@dataclass(frozen=True, kw_only=True)
class Debug:
    debug: bool = option("--debug", help="Show tracebacks and the libraries' own messages", default=False)


@dataclass(frozen=True, kw_only=True)
class RunsFolder(Debug):
    runs: Path | None = option("--runs", help="Folder of run folders [default: runs]", plan="runs")


@dataclass(frozen=True, kw_only=True)
class Machine(RunsFolder):
    """Where data lies, what computes, what is allowed, how energy is weighed."""

    data_dir: Path | None = option(
        "--data-dir", help="Folder of dataset repositories, used before the hub", plan="data_dir"
    )
    engine: str | None = option("--engine", help="Engine that answers", plan="engine.name")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = option(
        "--dtype", help="Number format of the weights", plan="engine.dtype"
    )
    device: str | None = option(
        "--device", help="cpu, cuda, cuda:1, ... [default: auto]", plan="engine.device"
    )
    threads: int | None = option(
        "--threads", help="CPU threads [default: by a short measurement]", plan="engine.threads"
    )
    meter: str | None = option("--meter", help="Energy meter", plan="energy.meter")
    country: str | None = option(
        "--country", help="ISO alpha-3 code for the grid's CO2e, e.g. DEU", plan="energy.country"
    )
    price_per_kwh: float | None = option(
        "--price-per-kwh", help="Price of electricity, for the cost", plan="energy.price_per_kwh"
    )
    allow_pickle: bool = option(
        "--allow-pickle",
        help="Load .bin and .pt weights, which can run code",
        plan="allow_pickle",
        default=False,
    )
    trust_remote_code: bool = option(
        "--trust-remote-code",
        help="Run Python code that comes with a checkpoint",
        plan="trust_remote_code",
        default=False,
    )


@dataclass(frozen=True, kw_only=True)
class Output(Debug):
    json: bool = option("--json", help="Print one JSON object on standard output", default=False)


@dataclass(frozen=True, kw_only=True)
class Settings:
    set: list[str] | None = option(
        "--set", help="Any other setting of the plan, e.g. --set lora.r=8", metavar="KEY=VALUE"
    )


@dataclass(frozen=True, kw_only=True)
class Cache:
    """The response cache: answers are kept unless the user says no, and read only where the user says so."""

    cache: bool = option(
        "--cache",
        help="Use answers of earlier runs where the request is the same; their energy is not known then",
        default=False,
    )
    no_cache: bool = option("--no-cache", help="Keep no answers for --cache, and use none", default=False)


def cache_data(options: Cache) -> dict[str, str]:
    """The plan's setting, where one was given. Raises: BadInput: both were."""
    from harness.errors import BadInput

    if options.cache and options.no_cache:
        raise BadInput("--cache and --no-cache contradict each other; give one of them")
    return {"cache": "read"} if options.cache else {"cache": "off"} if options.no_cache else {}
