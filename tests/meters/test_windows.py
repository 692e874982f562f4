"""Windows cut into segments, over a source that books one joule per millisecond."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from harness.energy import summarise
from harness.errors import MeterError
from harness.meters.neighbours import Neighbours
from harness.meters.windows import SegmentedMeter, is_weighing_rank
from harness.plan import EnergySpec
from harness.records import ComponentEnergy


class Steady:
    """A source that draws exactly 1000 W."""

    def begin(self):
        self.begun_s = time.perf_counter()

    def end(self):
        return (ComponentEnergy("cpu", "measured:test", 1000 * (time.perf_counter() - self.begun_s)),)

    def describe(self):
        return {"provenance": {"cpu": "measured:test"}}


class Meter(SegmentedMeter):
    def __init__(self, spec, name="test"):
        self.name = name
        super().__init__(spec, Steady)


def weigh(spec, seconds=0.0, *, name="test", counts=()):
    lines = []
    with Meter(spec, name).window("inference", "label", lines.append) as window:
        for count in counts:
            window.count(*count)
        time.sleep(seconds)
    return lines


def test_opening_line_then_segments_then_the_last():
    lines = weigh(EnergySpec(idle_s=0, segment_s=0.2), 0.7, counts=[(1, 10), (2, 20)])
    assert [line.closed for line in lines] == [False, True] * 4
    assert len({line.window for line in lines}) == 1
    assert lines[0].window.startswith("label-")
    assert sum(line.queries for line in lines) == 3
    assert sum(line.output_tokens for line in lines) == 30
    summary = summarise(lines, EnergySpec())
    assert summary.complete
    assert summary.measured_j == pytest.approx(1000 * summary.duration_s, rel=0.02)
    assert summary.duration_s == pytest.approx(0.7, abs=0.1)


def test_an_exception_closes_the_window_and_passes_through():
    lines = []
    with pytest.raises(KeyError), Meter(EnergySpec(idle_s=0)).window("training", "x", lines.append):
        raise KeyError("boom")
    assert [line.closed for line in lines] == [False, True]
    assert lines[1].phase == "training"


def test_two_attempts_have_two_window_names():
    meter = Meter(EnergySpec(idle_s=0))
    lines = []
    for _ in range(2):
        with meter.window("inference", "x", lines.append):
            pass
    assert len({line.window for line in lines}) == 2


def test_a_second_window_at_once_is_refused():
    meter = Meter(EnergySpec(idle_s=0))
    with (
        meter.window("inference", "a", lambda line: None),
        pytest.raises(MeterError, match="open already"),
        meter.window("inference", "b", lambda line: None),
    ):
        pass


def test_idle_power_is_measured_once_and_taken_off():
    spec = EnergySpec(idle_s=0.2)
    lines = weigh(spec, 0.3, name="with-idle")
    component = lines[-1].components[0]
    assert component.idle_w == pytest.approx(1000, rel=0.05)
    assert component.net_j == pytest.approx(component.gross_j - component.idle_w * lines[-1].duration_s)
    start_s = time.perf_counter()
    weigh(spec, name="with-idle")
    assert time.perf_counter() - start_s < 0.15
    assert weigh(EnergySpec(idle_s=0), name="without-idle")[-1].components[0].net_j is None


def test_what_fails_in_the_timer_thread_is_raised_on_leaving():
    def full_disk(line):
        if line.closed:
            raise OSError(28, "No space left on device")

    with (
        pytest.raises(OSError, match="No space left"),
        Meter(EnergySpec(idle_s=0, segment_s=0.1)).window("inference", "x", full_disk),
    ):
        time.sleep(0.3)


@pytest.mark.parametrize("variable", ["LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"])
def test_only_local_rank_0_weighs(monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    assert not is_weighing_rank()
    assert weigh(EnergySpec(), counts=[(1, 1)]) == []
    monkeypatch.setenv(variable, "0")
    assert is_weighing_rank()


def test_a_kill_loses_at_most_a_segment_and_shows(tmp_path):
    script = tmp_path / "weigh.py"
    script.write_text(
        textwrap.dedent("""
        import sys, time
        from dataclasses import asdict
        from json import dumps
        sys.path.insert(0, sys.argv[1])
        from test_windows import Meter
        from harness.plan import EnergySpec
        out = open(sys.argv[2], "a")
        def write(line):
            out.write(dumps(asdict(line)) + "\\n"); out.flush()
        with Meter(EnergySpec(idle_s=0, segment_s=0.2)).window("inference", "x", write) as window:
            while True:
                window.count(1, 0); time.sleep(0.01)
        """)
    )
    journal = tmp_path / "energy.jsonl"
    here = str(__import__("pathlib").Path(__file__).parent)
    with subprocess.Popen([sys.executable, str(script), here, str(journal)]) as process:
        deadline = time.time() + 60
        while not (journal.exists() and journal.read_text().count('"closed": true') >= 2):
            assert time.time() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    from harness.meters.replay import _read

    summary = summarise(_read(journal), EnergySpec())
    assert not summary.complete
    assert summary.measured_j == pytest.approx(1000 * summary.duration_s, rel=0.05)
    assert summary.queries > 0


def test_neighbours_see_each_other(tmp_path):
    with Neighbours(tmp_path).watch() as first:
        assert not first()
        with Neighbours(tmp_path).watch() as second:
            assert first()
            assert second()
        assert not first()


def test_no_place_for_a_lock_means_no_neighbours(tmp_path):
    with Neighbours(tmp_path / "nowhere").watch() as shared:
        assert not shared()


def test_a_part_of_the_work_is_weighed_by_itself_and_the_whole_stays_whole():
    lines = []
    with Meter(EnergySpec(idle_s=0, segment_s=0.15)).window("inference", "label", lines.append) as window:
        time.sleep(0.05)
        with window.stretch("load 1") as readings:
            assert readings == []
            time.sleep(0.4)
        time.sleep(0.05)
    assert [r for r in lines if r.closed and r.part == "load 1"] == readings
    assert len(readings) >= 3  # cut at 0.15 and 0.3, and later where the machine is slow
    assert summarise(readings, EnergySpec()).measured_j == pytest.approx(400, rel=0.3)
    assert summarise(lines, EnergySpec()).measured_j == pytest.approx(500, rel=0.3)
    assert summarise(lines, EnergySpec()).complete
    assert {line.part for line in lines} == {"", "load 1"}


class Coarse(Steady):
    """Cannot weigh less than 0.2 s."""

    least_s = 0.2


def test_a_part_too_short_to_be_weighed_is_not_known_and_loses_nothing():
    lines = []
    meter = Meter(EnergySpec(idle_s=0))
    meter._make_source = Coarse
    with meter.window("inference", "label", lines.append) as window:
        with window.stretch("short") as short:
            time.sleep(0.01)
        with window.stretch("long") as readings:
            time.sleep(0.3)
    assert short == []
    assert summarise(readings, EnergySpec()).measured_j == pytest.approx(300, rel=0.1)
    seconds = [line.duration_s for line in lines if line.closed]
    assert min(seconds[:-1]) >= 0.2
    assert sum(seconds) == pytest.approx(0.2 + 0.2 + 0.2 + 0.3, abs=0.1)
