"""What training lost: chains of checkpoints in a real store, shares by hand, the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.forgetting import brief
from harness.cli.main import run as harness
from harness.forgetting import steps
from harness.records import Metric
from harness.store import Store
from reports.pages import write_site
from tests.made_runs import checkpoint, run, samples, trained, write

BASE = [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
SFT = [1, 1, 1, 0, 0, 0, 1, 0, 0, 0]
DPO = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """base -> sft -> dpo, all on reasoning; base and dpo on safety too."""
    base = checkpoint("base")
    sft = checkpoint("sft", replace(trained("sft", {}, 1.0), parent="fp-base", root="fp-base"))
    dpo = checkpoint("dpo", replace(trained("dpo", {}, 1.0), method="dpo", parent="fp-sft", root="fp-base"))
    for made, scores, minute in ((base, BASE, 1), (sft, SFT, 2), (dpo, DPO, 3)):
        finished = f"2026-03-01T10:0{minute}:00+00:00"
        write(tmp_path, run(made, "reasoning", 0.5, finished_at=finished), samples(scores))
    for made, scores in ((base, BASE), (dpo, BASE)):
        write(tmp_path, run(made, "safety", 0.5, finished_at="2026-03-01T10:09:00+00:00"), samples(scores))
    return tmp_path


def test_every_checkpoint_is_held_against_its_parent_and_its_root(chain: Path) -> None:
    found = steps(Store(chain).runs())
    assert [(step.before, step.after, step.stages) for step in found] == [
        ("base", "sft", ("sft (sft)",)),
        ("sft", "dpo", ("dpo (dpo)",)),
        ("base", "dpo", ("sft (sft)", "dpo (dpo)")),
    ]
    assert [[c.suite for c in step.comparisons] for step in found] == [
        ["reasoning"],
        ["reasoning"],
        ["reasoning", "safety"],
    ]


def test_shares_lost_and_won_by_hand(chain: Path) -> None:
    """base -> sft: three of ten lost, one won; McNemar on 3 against 1 is 2 (1 + 4) / 16."""
    first, _, last = steps(Store(chain).runs())
    ((_, row),) = first.headlines
    assert (row.share_lost, row.share_won) == (0.3, 0.1)
    assert row.paired.difference == pytest.approx(-0.2)
    assert row.paired.p_value == pytest.approx(0.625)
    low, high = row.share_lost_ci95 or (0, 0)
    assert (low, high) == (
        pytest.approx(0.1078, abs=1e-4),
        pytest.approx(0.6032, abs=1e-4),
    )  # Wilson, 3 of 10
    shares = {suite: (row.share_lost, row.share_won) for suite, row in last.headlines}
    assert shares == {"reasoning": (0.6, 0.4), "safety": (0.0, 0.0)}


def test_p_values_are_adjusted_over_all_suites_of_a_step(chain: Path) -> None:
    last = steps(Store(chain).runs())[-1]
    p = {suite: (row.paired.p_value, row.p_holm) for suite, row in last.headlines}
    assert p["reasoning"][1] == pytest.approx(min(1.0, 2 * p["reasoning"][0]))
    assert p["safety"] == (1.0, 1.0)


def test_lower_is_better_turns_lost_and_won_round(tmp_path: Path) -> None:
    falling = {"sums": {"accuracy": Metric(0.5, 10, 0, higher_is_better=False)}}
    sft = checkpoint("sft", replace(trained("sft", {}, 1.0), parent="fp-base"))
    write(tmp_path, run(checkpoint("base"), "toxicity", 0.5, metrics=falling), samples(BASE))
    write(tmp_path, run(sft, "toxicity", 0.5, metrics=falling), samples(SFT))
    ((_, row),) = steps(Store(tmp_path).runs())[0].headlines
    assert (row.share_lost, row.share_won) == (0.1, 0.3)


def test_what_belongs_together_is_tested_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two subjects of five questions, all lost: both or none change sign, so p is 2 / 2^2 and not 2 / 2^10."""
    subjects = {"sums": {"accuracy": Metric(0.5, 10, 0, True, cluster="subject")}}
    sft = checkpoint("sft", replace(trained("sft", {}, 1.0), parent="fp-base"))
    for made, scores in ((checkpoint("base"), [1] * 10), (sft, [0] * 10)):
        answered = [replace(s, metadata={"subject": i // 5}) for i, s in enumerate(samples(scores))]
        write(tmp_path, run(made, "reasoning", 0.5, metrics=subjects), answered)
    ((_, row),) = steps(Store(tmp_path).runs())[0].headlines
    assert (row.paired.p_value, row.p_holm, row.better) == (0.5, 0.5, "a")
    assert harness(["forgetting", "--runs", str(tmp_path)]) == 0
    assert "cluster sign-flip" in capsys.readouterr().out


def test_a_model_that_stopped_refusing_is_shown_by_the_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The balance of two rates has no value per sample: the table, the summary and the report show the rates."""
    metrics = {
        "xstest": {
            "balanced": Metric(0.5, 10, 0, True, made_of=("refusal_on_unsafe",)),
            "refusal_on_unsafe": Metric(0.5, 10, 0, True),
        }
    }
    sft = checkpoint("sft", replace(trained("sft", {}, 1.0), parent="fp-base"))
    for made, scores in ((checkpoint("base"), [1] * 10), (sft, [0] * 10)):
        record = run(made, "refusal", 0.5, metrics=metrics, headline_metrics={"xstest": "balanced"})
        write(tmp_path / "runs", record, samples(scores, "xstest", "refusal_on_unsafe"))
    found = steps(Store(tmp_path / "runs").runs())
    assert (
        brief(found)[0]
        == "base -> sft: worse on refusal/xstest refusal_on_unsafe -1.000 (lost 1.000, won 0.000)"
    )
    assert harness(["forgetting", "--runs", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().out
    assert "refusal_on_unsafe (of balanced)" in shown
    assert "note: refusal: xstest: balanced (0.500 -> 0.500) has no value per sample" in shown
    page = write_site(tmp_path / "runs", tmp_path / "site").read_text(encoding="utf-8")
    assert "refusal_on_unsafe (of balanced)" in page.split('id="forgetting"', 1)[1]


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    sft = checkpoint("sft", replace(trained("sft", {}, 1.0), parent="fp-base"))
    write(tmp_path, run(checkpoint("base"), "reasoning", 0.5), samples(BASE))
    write(tmp_path, run(sft, "reasoning", 0.5), samples(SFT[:5]))
    (step,) = steps(Store(tmp_path).runs())
    assert step.comparisons == ()
    assert "5 samples are in one" in step.left_out[0]


def test_a_base_alone_has_no_steps(tmp_path: Path) -> None:
    write(tmp_path, run(checkpoint("base"), "reasoning", 0.5), samples(BASE))
    assert steps(Store(tmp_path).runs()) == []


def test_the_command_shows_a_table_and_json(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert harness(["forgetting", "--runs", str(chain)]) == 0
    shown = capsys.readouterr().out
    assert "base -> dpo: sft (sft), dpo (dpo)" in shown
    row = next(line.split() for line in shown.splitlines() if line.startswith("reasoning"))
    assert row[:8] == ["reasoning", "sums", "accuracy", "10", "0.600", "0.400", "0.300", "0.100"]
    assert harness(["forgetting", "--runs", str(chain), "--suite", "safety", "--json"]) == 0
    (step,) = json.loads(capsys.readouterr().out)["steps"]
    assert (step["before"], step["after"]) == ("base", "dpo")
    assert step["comparisons"][0]["differences"][0]["share_lost"] == 0.0


def test_mistakes_are_one_line(chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert harness(["forgetting", "--runs", str(chain), "--suite", "reasonin"]) == 2
    assert "reasoning" in capsys.readouterr().err
    assert harness(["forgetting", "--runs", str(tmp_path / "none")]) == 2
    assert "no folder" in capsys.readouterr().err
    write(tmp_path / "alone", run(checkpoint("base"), "reasoning", 0.5), samples(BASE))
    assert harness(["forgetting", "--runs", str(tmp_path / "alone")]) == 0
    assert "score the base too" in capsys.readouterr().out


def test_the_report_shows_a_table_per_step(chain: Path, tmp_path: Path) -> None:
    page = write_site(chain, tmp_path / "site").read_text(encoding="utf-8")
    section = page.split('id="forgetting"', 1)[1].split("</section>", 1)[0]
    titles = [part.split("<small>")[0] for part in section.split("<h3>")[1:]]
    assert titles == ["base → sft", "sft → dpo", "base → dpo"]
    first = section.split("<tbody>")[1].split("</tbody>")[0]
    cells = [cell.split("</td>")[0] for cell in first.split('<td class="num">')[1:]]
    assert cells[:5] == ["10", "0.600", "0.400", "0.300", "0.100"]


def test_a_report_without_training_has_no_such_section(tmp_path: Path) -> None:
    write(tmp_path / "runs", run(checkpoint("base"), "reasoning", 0.5), samples(BASE))
    page = write_site(tmp_path / "runs", tmp_path / "site").read_text(encoding="utf-8")
    assert 'id="forgetting"' not in page
