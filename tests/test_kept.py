"""Samples within a fixed amount of memory: by place beyond it, and the same to whoever reads them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.kept import KeptSamples, Place, SamplesOf, sample_to_json, spooled
from harness.records import Sample, Score
from harness.store import Store
from tests.test_store import record, say


def sample(number: int, **fields: object) -> Sample:
    scores = {"accuracy": Score(float(number % 2), detail=[number])}
    return Sample("t", str(number), f"prompt {number} ü", ("out",), scores=scores, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("held_bytes", [0, 500, 10_000_000])
def test_samples_read_the_same_from_memory_and_from_disk(held_bytes: int) -> None:
    kept = spooled((sample(i) for i in range(20)), held_bytes)
    assert len(kept) == 20
    assert list(kept) == [("t", str(i)) for i in range(20)]
    assert list(kept.values()) == [sample(i) for i in range(20)]
    assert ("t", "20") not in kept
    assert kept.get(("t", "20")) is None
    kept.close()


def test_no_more_than_the_limit_is_held(tmp_path: Path) -> None:
    size = len(sample_to_json(sample(0))) + 1
    kept = spooled((sample(i) for i in range(10)), 3 * size)
    assert sum(isinstance(value, Sample) for value in kept._kept.values()) == 3
    assert sum(isinstance(value, Place) for value in kept._kept.values()) == 7


def test_a_later_line_takes_the_place_of_an_earlier(tmp_path: Path) -> None:
    with (tmp_path / "lines").open("w+b") as file:
        kept = KeptSamples(file, 0)
        start = 0
        for one in (sample(1, graded=False), sample(2), sample(1)):
            line = sample_to_json(one).encode() + b"\n"
            file.write(line)
            kept.add(one, Place(start, len(line)))
            start += len(line)
        file.flush()
        assert kept["t", "1"] == sample(1)
        assert list(kept) == [("t", "1"), ("t", "2")]


def test_some_of_them_are_a_sequence() -> None:
    kept = spooled((sample(i) for i in range(5)), 0)
    some = SamplesOf(kept, [("t", "4"), ("t", "1"), ("t", "3")])
    assert [one.sample_id for one in some] == ["4", "1", "3"]
    assert (len(some), some[0], some[-1]) == (3, sample(4), sample(3))
    assert [one.sample_id for one in some[1:]] == ["1", "3"]
    assert list(some) == list(some)  # read anew, as often as it takes


def test_a_journal_beyond_the_limit_resumes_finishes_and_reopens(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(KeptSamples.__init__, "__defaults__", (300,))
    monkeypatch.setattr(spooled, "__defaults__", (300,))
    store, keys = Store(tmp_path), [("t", str(i)) for i in range(30)]
    with store.open("run", say) as journal:
        for i in range(20):
            journal.append(sample(i, graded=False))
    with store.open("run", say) as journal:
        assert [s.sample_id for s in journal.samples.values()] == [str(i) for i in range(20)]
        for i in reversed(range(30)):
            journal.append(sample(i))
        journal.finish(record("run"), keys)
    with store.open("run", say) as journal:
        assert journal.samples["t", "29"] == sample(29)
        journal.reopen()
        journal.append(sample(7, error="again"))
        assert journal.samples["t", "7"].error == "again"
        assert list(SamplesOf(journal.samples, keys))[8:] == [sample(i) for i in range(8, 30)]
        journal.finish(record("run"), keys)
    assert [s.error for s in store.samples(store.runs()[0])].count("again") == 1


CODE = """
import resource, sys
from pathlib import Path
from harness.kept import SamplesOf
from harness.records import Sample, Score
from harness.store import Store
from harness.tasks import MetricSpec, aggregate_metric
from tests.test_store import record, say
n, folder = int(sys.argv[1]), Path(sys.argv[2])
keys = [("t", str(i)) for i in range(n)]
with Store(folder).open("run", say) as journal:
    import pyarrow.parquet  # counted before and after alike
    for i in range(n):
        journal.append(Sample("t", str(i), "word " * 1000, ("answer " * 100,), scores={"a": Score(float(i % 2))}))
    metric = aggregate_metric(SamplesOf(journal.samples, keys), "a", MetricSpec())
    assert (metric.n, metric.value) == (n, 0.5)
    journal.finish(record("run"), keys)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(n: int, folder: Path) -> int:
    command = [sys.executable, "-c", CODE, str(n), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return int(done.stdout)


def test_memory_is_flat_in_the_number_of_samples(tmp_path: Path) -> None:
    """6 kB a sample: 24,000 more of them would take 144 MB as text alone, and take less than 60 MB here."""
    few, many = peak_kib(8_000, tmp_path / "few"), peak_kib(32_000, tmp_path / "many")
    assert many - few < 60_000
