"""CodeCarbon as a meter: offline tracker, machine mode, one task per segment, provenance read off its hardware."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from harness.errors import MeterError
from harness.grid import intensity
from harness.meters.windows import SegmentedMeter
from harness.plan import EnergySpec
from harness.records import J_PER_KWH, ComponentEnergy, Json

MIN_LOAD_S = 0.1
"""CPU load is counted in ticks of 10 ms: a shorter stretch cannot tell it."""
MIN_COUNTER_S = 1.0
"""A GPU that used nothing for this long does not count (virtual GPUs do that), so its 0 is no reading."""
_CPU_PROVENANCE = {
    "intel_rapl": "measured:rapl_package",
    "windows_emi": "measured:windows_emi",
    "intel_power_gadget": "measured:power_gadget",
    "cpu_load": "estimated:cpu_load",
    "constant": "estimated:tdp_constant",
}


class CodeCarbonMeter(SegmentedMeter):
    """Whole-machine energy by CodeCarbon; see docs/energy.md for what it can and cannot know."""

    name = "codecarbon"

    def __init__(self, spec: EnergySpec) -> None:
        intensity(spec)  # an unknown country is said now, not after the run
        super().__init__(spec, _source)


@cache
def _source() -> CodeCarbonSource:
    """One tracker per process: finding the hardware takes seconds, and its cache confuses GPU selections."""
    return CodeCarbonSource()


class CodeCarbonSource:
    """Weighs with CodeCarbon's task mode: counters are read at both ends of every stretch."""

    least_s = MIN_LOAD_S

    def __init__(self) -> None:
        self._tracker = _make_tracker()
        self._stretch = 0
        self._begun_s = 0.0

    def begin(self) -> None:
        """Raises: MeterError: another CodeCarbon tracker weighs in this process."""
        _refuse_double_counting(self._tracker)
        self._stretch += 1
        self._tracker.start_task(f"stretch-{self._stretch}")
        self._begun_s = time.perf_counter()

    def end(self) -> Sequence[ComponentEnergy]:
        seconds = time.perf_counter() - self._begun_s
        name = f"stretch-{self._stretch}"
        data = self._tracker.stop_task(name)
        self._tracker._tasks.pop(name, None)  # it would keep every stretch of a long run
        if data is None:
            raise MeterError("CodeCarbon lost its task; a second tracker in this process may have stopped it")
        kwh = {"cpu": data.cpu_energy, "gpu": data.gpu_energy, "ram": data.ram_energy}
        provenance = {c: _provenance(self._tracker._hardware, c) for c in kwh}
        return tuple(
            ComponentEnergy(c, provenance[c], self._joules(c, provenance[c], kwh[c], seconds))
            for c in ("cpu", "gpu", "ram")
        )

    def _joules(self, component: str, provenance: str, kwh: float, seconds: float) -> float | None:
        """The reading in joules, None where the method cannot tell."""
        if provenance == "absent" or (provenance == "estimated:cpu_load" and seconds < MIN_LOAD_S):
            return None
        if component == "gpu" and kwh <= 0 and seconds >= MIN_COUNTER_S:
            return None
        if component == "cpu" and _rapl_skipped(self._tracker._hardware):
            return None
        return kwh * J_PER_KWH

    def describe(self) -> Mapping[str, Json]:
        from codecarbon import __version__

        conf = self._tracker._conf
        return {
            "provenance": {c: _provenance(self._tracker._hardware, c) for c in ("cpu", "gpu", "ram")},
            "codecarbon": __version__,
            "scope": "machine",
            "cpu_model": conf.get("cpu_model"),
            "cpu_threads": conf.get("cpu_count"),
            "gpu_model": conf.get("gpu_model") or None,
            "ram_gb": conf.get("ram_total_size"),
        }


def _make_tracker() -> Any:
    """Build the tracker with every setting given: a .codecarbon.config or a variable must not move figures.

    Raises: MeterError: CodeCarbon is not installed or does not start here.
    """
    with _silence():
        try:
            from codecarbon import OfflineEmissionsTracker
        except ImportError as exc:
            raise MeterError(f"CodeCarbon does not import ({exc}); pip install 'codecarbon>=3.3,<4'") from exc
        tracker = OfflineEmissionsTracker(
            # CO2e is computed in harness.energy: a forced figure keeps the tracker from loading its tables.
            force_carbon_intensity_g_co2e_kwh=0.0,
            country_iso_code=None,
            country_2letter_iso_code=None,
            region=None,
            cloud_provider=None,
            cloud_region=None,
            electricitymaps_api_token=False,
            emissions_endpoint=False,
            output_methods=[],
            output_dir=tempfile.gettempdir(),
            tracking_mode="machine",
            # False would take over SIGINT and SIGTERM for its lock file.
            allow_multiple_runs=True,
            measure_power_secs=3600.0,
            gpu_ids=_visible_gpus(),
            force_cpu_power=None,
            force_ram_power=None,
            force_mode_cpu_load=False,
            rapl_include_dram=False,
            rapl_prefer_psys=False,
            pue=1.0,
            wue=0.0,
            log_level="critical",
        )
        try:
            tracker._ensure_hardware_ready()
        except Exception as exc:
            raise MeterError(f"CodeCarbon does not start on this machine: {exc}; use another meter") from exc
    return tracker


@contextmanager
def _silence() -> Iterator[None]:
    """CodeCarbon sets its own level at import, so only a filter keeps it quiet."""
    logger = logging.getLogger("codecarbon")

    def mute(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.CRITICAL

    logger.addFilter(mute)
    try:
        yield
    finally:
        logger.removeFilter(mute)


def _visible_gpus() -> list[str] | None:
    """GPUs to weigh: None lets CodeCarbon follow CUDA_VISIBLE_DEVICES, which it reads as 'all' when empty."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [] if visible is not None and visible.strip() in ("", "-1") else None


def _refuse_double_counting(own: Any) -> None:
    """Refuse to weigh beside a running tracker of somebody else (a trainer's callback, for instance).

    Raises: MeterError
    """
    for thread in threading.enumerate():
        scheduler = getattr(getattr(thread, "function", None), "__self__", None)
        tracker = getattr(getattr(scheduler, "function", None), "__self__", None)
        if type(scheduler).__name__ == "PeriodicScheduler" and tracker is not None and tracker is not own:
            raise MeterError(
                "another CodeCarbon tracker is active in this process and would count the same joules again; "
                "stop it (in a trainer: report_to='none')"
            )


def _provenance(hardware: Sequence[Any], component: str) -> str:
    """Where a component's figure comes from, by the hardware object that CodeCarbon chose for it."""
    for item in hardware:
        kind, part = type(item).__name__, getattr(item, "chip_part", "").lower()
        if kind == "CPU" and component == "cpu":
            return _CPU_PROVENANCE.get(item._mode, f"estimated:{item._mode}")
        if kind == "GPU" and component == "gpu":
            return _gpu_provenance(item)
        if kind == "RAM" and component == "ram":
            return "estimated:ram"
        if part == component:
            return "estimated:powermetrics" if kind == "AppleSiliconChip" else "measured:pmic"
    return "absent"


def _gpu_provenance(gpu: Any) -> str:
    """The weakest method among the GPUs weighed: one of them on power samples makes the sum an estimate."""
    ids = list(gpu._get_gpu_ids())
    devices = [device for device in gpu.devices.devices if device.gpu_index in ids]
    if not devices:
        return "absent"
    if any(device._use_power_fallback for device in devices):
        return "estimated:gpu_power_samples"
    nvidia = all(type(device).__name__ == "NvidiaGPUDevice" for device in devices)
    return "measured:nvml_counter" if nvidia else "measured:amdsmi_counter"


def _rapl_skipped(hardware: Sequence[Any]) -> bool:
    """Whether a RAPL counter could not be read: CodeCarbon then books 0 joules for it."""
    files = [
        file
        for item in hardware
        if getattr(item, "_mode", None) == "intel_rapl"
        for file in getattr(item._intel_interface, "_rapl_files", ())
    ]
    return any(file.sample_skipped for file in files)
