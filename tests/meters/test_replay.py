from __future__ import annotations

import json

import pytest

from harness.energy import summarise
from harness.errors import BadInput, MeterError
from harness.meters.replay import ReplayMeter
from harness.plan import EnergySpec


def line(joules, *, window="w", phase="inference", queries=0, closed=True):
    component = {"component": "gpu", "provenance": "measured:nvml_counter", "gross_j": joules}
    return {
        "phase": phase, "duration_s": 10.0, "components": [component] if closed else [], "window": window,
        "queries": queries, "closed": closed,
    }  # fmt: skip


def spec(tmp_path, *lines):
    path = tmp_path / "readings.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in lines))
    return EnergySpec(meter="replay", replay=path)


def replayed(meter, phase="inference", counts=()):
    lines = []
    with meter.window(phase, "label", lines.append) as window:
        for count in counts:
            window.count(*count)
    return lines


def test_windows_come_in_order_and_start_over(tmp_path):
    meter = ReplayMeter(
        spec(tmp_path, line(100.0, window="a"), line(50.0, window="a"), line(7.0, window="b"))
    )
    totals = [summarise(replayed(meter), EnergySpec()).ranked_j for _ in range(3)]
    assert totals == [150.0, 7.0, 150.0]


def test_recorded_counts_stand_and_missing_ones_are_filled_in(tmp_path):
    recorded = ReplayMeter(spec(tmp_path, line(100.0, queries=4)))
    assert summarise(replayed(recorded, counts=[(9, 9)]), EnergySpec()).queries == 4
    bare = ReplayMeter(spec(tmp_path, line(1.0), line(1.0), line(1.0)))
    lines = replayed(bare, counts=[(3, 0), (4, 10)])
    assert [item.queries for item in lines if item.closed] == [2, 2, 3]
    assert sum(item.output_tokens for item in lines) == 10


def test_a_journal_with_opening_lines_replays_as_complete(tmp_path):
    meter = ReplayMeter(spec(tmp_path, line(0, closed=False), line(100.0), line(0, closed=False)))
    summary = summarise(replayed(meter), EnergySpec())
    assert summary.complete
    assert summary.ranked_j == 100.0


def test_what_was_not_recorded_is_refused(tmp_path):
    meter = ReplayMeter(spec(tmp_path, line(1.0)))
    with pytest.raises(MeterError, match="no training window"):
        replayed(meter, "training")


def test_bad_files_are_named_with_their_line(tmp_path):
    with pytest.raises(BadInput, match=r"energy\.replay"):
        ReplayMeter(EnergySpec(meter="replay"))
    with pytest.raises(BadInput, match="cannot read"):
        ReplayMeter(EnergySpec(meter="replay", replay=tmp_path / "none.jsonl"))
    bad = spec(tmp_path, line(1.0), {"phase": "inference"})
    with pytest.raises(BadInput, match=r"readings\.jsonl:2: not an energy reading"):
        ReplayMeter(bad)


def test_parts_are_replayed_as_they_were_recorded(tmp_path):
    parted = [{**line(30.0), "part": "latency@1"}, {**line(20.0), "part": "latency@4"}]
    with ReplayMeter(spec(tmp_path, *parted)).window("inference", "label", lambda reading: None) as window:
        with window.stretch("latency@4") as readings:
            pass
        with window.stretch("latency@16") as unknown:
            pass
    assert summarise(readings, EnergySpec()).ranked_j == 20.0
    assert list(unknown) == []
