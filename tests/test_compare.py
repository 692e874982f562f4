"""Two runs held against each other, read back from a real store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.compare import compare
from harness.errors import NotComparable, UnknownName
from harness.records import Metric, RunRecord
from harness.stats.intervals import wilson_interval
from harness.store import Store
from tests.made_runs import ESTIMATED, checkpoint, energy, run, samples, write

A = [1, 1, 1, 0, 0, 0, 0, 1]
B = [1, 1, 1, 1, 1, 0, 1, 0]


def pair(tmp_path: Path, a: list, b: list, **fields_b: object) -> tuple[RunRecord, RunRecord]:
    """The two runs as the store reads them back."""
    write(tmp_path, run(checkpoint("a"), "reasoning", 0.5), samples(a))
    record = replace(run(checkpoint("b"), "reasoning", 0.6), **fields_b)  # type: ignore[arg-type]
    write(tmp_path, record, samples(b))
    store = Store(tmp_path)
    return store.find("a--reasoning"), store.find("b--")


def test_shares_are_compared_by_hand(tmp_path: Path) -> None:
    """Discordant pairs 1 and 3 of 8: p = 2 (1 + 4) / 16."""
    found = compare(*pair(tmp_path, A, B))
    (row,) = found.differences
    assert (row.task, row.metric, row.headline, row.paired.test) == (
        "sums",
        "accuracy",
        True,
        "mcnemar exact",
    )
    assert (row.paired.n, row.paired.value_a, row.paired.value_b) == (8, 0.5, 0.75)
    assert row.paired.p_value == row.p_holm == pytest.approx(0.625)
    assert row.better is None
    assert (found.n_samples, found.identical) == (8, False)


def test_a_clear_difference_names_the_better_run(tmp_path: Path) -> None:
    a, b = pair(tmp_path, [0] * 40, [1] * 30 + [0] * 10)
    assert compare(a, b).differences[0].better == "b"
    assert compare(b, a).differences[0].better == "a"
    falling = {"sums": {"accuracy": Metric(0.5, 40, 0, higher_is_better=False)}}
    assert compare(replace(a, metrics=falling), b).differences[0].better == "a"


def test_failed_samples_are_left_out_and_counted(tmp_path: Path) -> None:
    (row,) = compare(*pair(tmp_path, [1, None, 0, 1], [1, 1, None, None])).differences
    assert (row.paired.n, row.n_left_out) == (1, 3)


def test_scores_between_zero_and_one_by_hand(tmp_path: Path) -> None:
    """0.1, 0.1, 0.2, 0.2: all on one side in 2 of 16 ways; t(3) = 3.182446 times the error 0.0577350 / 2."""
    (row,) = compare(*pair(tmp_path, [0.1, 0.5, 0.3, 0.2], [0.2, 0.6, 0.5, 0.4])).differences
    assert (row.paired.test, row.paired.p_value) == ("sign-flip", pytest.approx(1 / 8))
    assert row.paired.difference == pytest.approx(0.15)
    half = 3.182446 * 0.0577350 / 2
    assert row.paired.ci95 == pytest.approx((0.15 - half, 0.15 + half), abs=1e-6)


def test_questions_on_one_passage_are_compared_by_passage(tmp_path: Path) -> None:
    """Five passages of four questions; B wins all of passages 0 to 3, so the sums are 4, 4, 4, 4, 0: p = 2 / 2^4.

    Taken one by one, 16 questions won against none lost would give 2 / 2^16.
    """
    about = {"sums": {"accuracy": Metric(0.2, 20, 0, True, interval="cluster-wilson", cluster="passage")}}
    won = [1] * 16 + [0] * 4
    for name, scores in (("a", [0] * 20), ("b", won)):
        answered = [
            replace(sample, metadata={"passage": f"text {i // 4}"})
            for i, sample in enumerate(samples(scores))
        ]
        write(tmp_path, run(checkpoint(name), "reasoning", 0.5, metrics=about), answered)
    found = compare("a--", "b--", Store(tmp_path))
    (row,) = found.differences
    assert (row.cluster, row.paired.n, row.paired.n_clusters) == ("passage", 20, 5)
    assert (row.paired.test, row.paired.p_value) == ("cluster sign-flip", pytest.approx(1 / 8))
    # cluster-wilson: shares 1, 1, 1, 1, 0 of five clusters of one size have the error sd / sqrt(5) = 0.2, t(4) = 2.7764
    assert row.share_won == 0.8
    assert row.share_won_ci95 == pytest.approx(
        wilson_interval(0.8, 0.16 / 0.04 * (1.959964 / 2.776445) ** 2), abs=1e-5
    )
    assert not any("belong together" in note for note in found.notes)


def test_epochs_share_an_id_inside_their_metadata(tmp_path: Path) -> None:
    about = {"sums": {"accuracy": Metric(0.5, 6, 0, True, cluster="inspect.id")}}
    for name, scores in (("a", [0] * 6), ("b", [1] * 6)):
        answered = [
            replace(sample, metadata={"inspect": {"id": i // 2, "epoch": i % 2}})
            for i, sample in enumerate(samples(scores))
        ]
        write(tmp_path, run(checkpoint(name), "reasoning", 0.5, metrics=about), answered)
    (row,) = compare("a--", "b--", Store(tmp_path)).differences
    assert (row.paired.n_clusters, row.paired.p_value) == (
        3,
        pytest.approx(1 / 4),
    )  # 2, 2, 2: two of eight ways


def test_a_run_that_does_not_say_what_its_clusters_are_is_named(tmp_path: Path) -> None:
    older = {"sums": {"accuracy": Metric(0.5, 8, 0, True, interval="cluster-wilson")}}
    a, b = pair(tmp_path, A, B, metrics=older)
    found = compare(replace(a, metrics=older), b)
    assert found.differences[0].paired.test == "mcnemar exact"
    assert "sums accuracy: the run does not say which samples belong together" in found.notes[0]


def test_a_run_equals_itself(tmp_path: Path) -> None:
    a, _ = pair(tmp_path, A, B)
    found = compare(a, a)
    assert found.identical
    assert (found.differences[0].paired.difference, found.differences[0].paired.p_value) == (0, 1)
    assert found.energy_ratio == 1


def test_holm_counts_the_tasks(tmp_path: Path) -> None:
    """0 against 6 discordant pairs in task one (p = 1/32), 0 against 1 in task two (p = 1)."""
    metrics = {task: {"accuracy": Metric(0.5, 6, 0, True)} for task in ("one", "two")}
    both = {"metrics": metrics, "headline_metrics": dict.fromkeys(metrics, "accuracy")}
    for name, first, second in (("a", [0] * 6, [0] * 6), ("b", [1] * 6, [1] + [0] * 5)):
        write(
            tmp_path,
            run(checkpoint(name), "reasoning", 0.5, **both),
            [*samples(first, "one"), *samples(second, "two")],
        )
    one, two = compare("a--reasoning", "b--reasoning", Store(tmp_path)).differences
    assert (one.paired.p_value, one.p_holm) == (pytest.approx(1 / 32), pytest.approx(1 / 16))
    assert (two.paired.p_value, two.p_holm) == (1, 1)


def test_parts_stand_for_a_headline_that_no_sample_has(tmp_path: Path) -> None:
    """Six refusals of unsafe prompts lost: p = 2 / 2^6, and 1 / 16 for two parts; `checked` is no part."""
    rates = ("refusal_on_unsafe", "over_refusal_on_safe", "checked")
    for name, refuses in (("a", 1), ("b", 0)):
        whole = Metric(0.5 + refuses / 2, 12, 0, True, made_of=rates[:2])
        metrics = {
            "xstest": {"balanced": whole} | {rate: Metric(0.5, 6, 0, rate != rates[1]) for rate in rates}
        }
        made = run(checkpoint(name), "refusal", 0.5, metrics=metrics, headline_metrics={"xstest": "balanced"})
        asked = [
            *samples([refuses] * 6, "xstest", rates[0]),
            *(replace(s, sample_id=f"safe {s.sample_id}") for s in samples([0] * 6, "xstest", rates[1])),
            *(
                replace(s, sample_id=f"more {s.sample_id}")
                for s in samples([refuses] * 6, "xstest", rates[2])
            ),
        ]
        write(tmp_path, made, asked)
    found = compare("a--", "b--", Store(tmp_path))
    rows = {row.metric: row for row in found.differences}
    assert [name for name, row in rows.items() if row.leads] == list(rates[:2])
    assert (rows[rates[0]].part_of, rows[rates[0]].better) == ("balanced", "a")
    assert rows[rates[1]].title == "over_refusal_on_safe (of balanced, lower is better)"
    assert (rows[rates[0]].paired.p_value, rows[rates[0]].p_holm) == (
        pytest.approx(1 / 32),
        pytest.approx(1 / 16),
    )
    assert rows["checked"].p_holm is None
    assert found.notes[0] == (
        "xstest: balanced (1.000 -> 0.500) has no value per sample; compared in its place: refusal_on_unsafe, "
        "over_refusal_on_safe"
    )


def test_a_headline_that_does_not_say_its_parts_has_all_of_its_task(tmp_path: Path) -> None:
    plain = {name: Metric(0.5, 8, 0, True) for name in ("accuracy", "f1", "extractors_disagree", "p99")}
    metrics = {"sums": plain}
    a, b = pair(tmp_path, A, B, metrics=metrics, headline_metrics={"sums": "f1"})
    a = replace(a, metrics=metrics, headline_metrics={"sums": "f1"})
    found = compare(a, b)
    assert [(row.metric, row.part_of) for row in found.differences] == [("accuracy", "f1")]
    bare = replace(a, headline_metrics={"sums": "p99"}, metrics={"sums": {"p99": plain["p99"]}})
    assert "nothing of it is compared" in compare(bare, b).notes[0]


def test_a_metric_without_values_per_sample_is_not_compared(tmp_path: Path) -> None:
    metrics = {"sums": {"accuracy": Metric(0.5, 8, 0, True), "p99": Metric(3.0, 8, 0, False, unit="ms")}}
    a, b = pair(tmp_path, A, B, metrics=metrics)
    found = compare(replace(a, metrics=metrics), b)
    assert [row.metric for row in found.differences] == ["accuracy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "safety"}, "suite 'reasoning'.*'safety'"),
        ({"identity": {"limit": 50}}, "no limit and b--reasoning limit 50.*--limit"),
        ({"profile": "full"}, "profile 'quick'.*'full'"),
        ({"identity": {"tasks": {"sums": ["1", "other"]}}}, "data fingerprint of task 'sums'"),
        ({"metrics": {}}, "task 'sums' is in one"),
    ],
    ids=["suite", "limit", "profile", "data", "tasks"],
)
def test_runs_on_other_samples_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(NotComparable, match=message):
        compare(*pair(tmp_path, A, B, **change))


def test_other_sample_ids_and_targets_are_refused(tmp_path: Path) -> None:
    a, _ = pair(tmp_path, A, B)
    write(tmp_path, run(checkpoint("c"), "reasoning", 0.5), samples(A[:5]))
    with pytest.raises(NotComparable, match=r"3 samples are in one .* first is '5' of task 'sums'"):
        compare(a, "c--reasoning", Store(tmp_path))
    moved = [replace(sample, target="x") if sample.sample_id == "2" else sample for sample in samples(A)]
    write(tmp_path, run(checkpoint("d"), "reasoning", 0.5), moved)
    with pytest.raises(NotComparable, match=r"sample '2' .* target '2' .* 'x'"):
        compare(a, "d--reasoning", Store(tmp_path))


def test_what_was_asked_differently_is_compared_and_told(tmp_path: Path) -> None:
    """Another strategy on the same samples is a fair question, although the fingerprints differ."""
    identity = {"strategy": "self_consistency", "tasks": {"sums": ["1", "other"]}}
    found = compare(*pair(tmp_path, A, B, identity=identity))
    assert any(note.startswith("strategy differs") for note in found.notes)


def test_energy_is_a_ratio_on_one_basis_only(tmp_path: Path) -> None:
    a, b = pair(tmp_path, A, B)
    cheap = replace(b, energy={"inference": energy(25.0, queries=100)})
    assert compare(a, cheap).energy_ratio == pytest.approx(0.25)
    other = compare(a, replace(b, energy={"inference": energy(25.0, ESTIMATED, 100)}))
    assert other.energy_ratio is None
    assert "basis 'measured: gpu nvml_counter' against 'estimated: cpu cpu_load'" in other.notes[-1]
    assert compare(a, replace(b, energy={})).energy_ratio is None


def test_runs_are_found_by_folder_and_by_the_start_of_their_id(tmp_path: Path) -> None:
    a, b = pair(tmp_path, A, B)
    assert compare(a.path or "", str(b.path)) == compare("a--", "b--", Store(tmp_path))
    with pytest.raises(UnknownName, match="no finished run 'z'"):
        compare("z", "b--", Store(tmp_path))
