"""Reliability diagrams: bars where the numbers are, and nothing drawn of what is not in form."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.records import Metric
from harness.stats.calibration import calibration
from reports.pages import write_site
from reports.reliability import diagrams, read_bars
from tests.reported_runs import CHECKPOINTS, record, samples, write_run

ROW = {"low": 0.8, "high": 0.9, "n": 4, "confidence": 0.85, "accuracy": 0.5, "ci95": [0.15, 0.85]}


def test_a_bar_stands_where_its_bin_is_and_as_high_as_it_is_right():
    (bar,) = read_bars({"reliability": [ROW]})
    assert (bar.x, bar.width) == (80.0, pytest.approx(10.0))
    assert (bar.top, bar.whisker_top, bar.whisker_bottom) == (50.0, pytest.approx(15.0), pytest.approx(85.0))
    assert bar.middle == pytest.approx(85.0)
    assert (bar.n, bar.confidence, bar.accuracy) == (4, 0.85, 0.5)


@pytest.mark.parametrize(
    "detail",
    [
        None, 3, "x", {}, {"reliability": 3}, {"reliability": [None, 3, {}]}, {"reliability": [{**ROW, "n": 0}]},
        {"reliability": [{**ROW, "accuracy": None}]}, {"reliability": [{**ROW, "accuracy": 1.5}]},
        {"reliability": [{**ROW, "ci95": None}]}, {"reliability": [{**ROW, "ci95": [float("nan"), 1]}]},
        {"reliability": [{**ROW, "low": 0.95}]}, {"reliability": [{**ROW, "confidence": "<b>"}]},
    ],
)  # fmt: skip
def test_what_is_not_in_form_is_not_drawn(detail):
    assert read_bars(detail) == ()


def test_a_run_page_draws_what_a_calibration_metric_carries(tmp_path):
    found = calibration([0.95, 0.95, 0.65, 0.25], [1, 0, 1, 0])["ece"]
    run = record(CHECKPOINTS[0], "hallucination", 4)
    run = replace(
        run, metrics={**run.metrics, "calibration": {"verbal_ece": found, "plain": Metric(0.5, 4, 0, True)}}
    )
    assert [(d.task, d.name, len(d.bars)) for d in diagrams(run)] == [("calibration", "verbal_ece", 3)]
    write_run(tmp_path / "runs", run, list(samples("hallucination", 0.5, 4, 0)))
    site = write_site(tmp_path / "runs", tmp_path / "report").parent
    (page,) = site.glob("runs/*/index.html")
    text = page.read_text(encoding="utf-8")
    assert text.count('<rect class="bar"') == 3
    assert "2 answers: mean confidence 0.950, right 0.500" in text


def test_a_run_without_calibration_has_no_such_section(site):
    text = next(site.glob("runs/*/index.html")).read_text(encoding="utf-8")
    assert 'id="reliability"' not in text
