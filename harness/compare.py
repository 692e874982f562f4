"""Hold one finished run against another, sample by sample. Runs on different samples are refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from harness.errors import BadInput, NotComparable
from harness.headline_parts import said_of, stand_ins
from harness.records import Json, Metric, RunRecord, Sample
from harness.stats.intervals import summarise
from harness.stats.paired import PairedDifference, holm, paired_difference
from harness.store import Store

ASKING = ("suite_version", "chat", "num_fewshot", "sampling", "seed", "strategy")
"""Parts of a run's identity that change how a sample is asked, not which sample it is."""
NAMED = (*ASKING, "engine", "judge", "detoxify")
Key = tuple[str, str]


@dataclass(frozen=True)
class MetricDifference:
    """One metric of one task: run b minus run a."""

    task: str
    metric: str
    headline: bool
    """Whether the metric enters the suite's headline."""
    higher_is_better: bool
    paired: PairedDifference
    n_left_out: int
    """Samples that failed in either run."""
    p_holm: float | None = None
    """Adjusted for the number of tasks; headline metrics and parts of them only."""
    share_lost: float = 0.0
    """Share of the pairs in which b's score is the worse one."""
    share_won: float = 0.0
    share_lost_ci95: tuple[float, float] | None = None
    """Wilson, by clusters where there are some."""
    share_won_ci95: tuple[float, float] | None = None
    cluster: str | None = None
    """Metadata key of the samples that belong together; None: each stands alone."""
    part_of: str | None = None
    """The task's headline metric, which no sample has a value of and which this one stands for."""

    @property
    def leads(self) -> bool:
        """Whether it speaks for its task: the headline metric, or what stands for it."""
        return self.headline or self.part_of is not None

    @property
    def title(self) -> str:
        """The metric, what it is a part of, and its direction where that is down."""
        about = [f"of {self.part_of}"] if self.part_of else []
        about += [] if self.higher_is_better else ["lower is better"]
        return f"{self.metric} ({', '.join(about)})" if about else self.metric

    @property
    def better(self) -> str | None:
        """'a' or 'b' where the interval excludes 0, else None."""
        interval = self.paired.ci95
        if interval is None or interval[0] <= 0 <= interval[1]:
            return None
        return "b" if (self.paired.difference > 0) == self.higher_is_better else "a"


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same samples."""

    run_a: str
    run_b: str
    checkpoint_a: str
    checkpoint_b: str
    suite: str
    n_samples: int
    """Samples of each run."""
    identical: bool
    """Every score of every sample is the same."""
    differences: tuple[MetricDifference, ...]
    energy_ratio: float | None
    """Energy per query of b over that of a; None where it is unknown or on different bases."""
    energy_basis: str | None
    notes: tuple[str, ...] = ()
    """What differs besides the checkpoint, and why there is no energy ratio."""


class _Scored(NamedTuple):
    target: str | None
    failed: bool
    values: Mapping[str, float | None]
    clusters: Mapping[str, str]
    """Metadata key -> what the sample has there, for the keys that a metric of the run names as its cluster."""


class _Pairs(NamedTuple):
    """Both runs' scores of one metric, in one order."""

    first: list[float]
    second: list[float]
    clusters: list[str]
    n_left_out: int


def compare(
    run_a: RunRecord | Path | str, run_b: RunRecord | Path | str, store: Store | None = None
) -> Comparison:
    """Pair the samples of two finished runs; b is held against a.

    Args:
        run_a, run_b: a record, a run folder, or (with a store) a run id or its beginning.
        store: where ids are looked up.
    Raises:
        NotComparable: different suites, tasks, limits, samples or data.
        UnknownName: no such finished run. StoreError: a damaged one.
    """
    a, b = _record(run_a, store), _record(run_b, store)
    _refuse_other_suite(a, b)
    scores_a, scores_b = _scores(a, a, store), _scores(b, a, store)
    _refuse_other_samples(a, b, scores_a, scores_b)
    differences = [
        _difference(task, metric, a, scores_a, scores_b)
        for task, metrics in a.metrics.items()
        for metric in metrics
        if metric in b.metrics.get(task, {})
    ]
    found = [row for row in differences if row is not None]
    parts = stand_ins(a, {task: [row.metric for row in found if row.task == task] for task in a.metrics})
    found = [
        replace(row, part_of=a.headline_metrics[row.task]) if row.metric in parts.get(row.task, ()) else row
        for row in found
    ]
    ratio, basis, energy_notes = _energy(a, b)
    return Comparison(
        run_a=a.run_id,
        run_b=b.run_id,
        checkpoint_a=a.checkpoint.name,
        checkpoint_b=b.checkpoint.name,
        suite=a.suite,
        n_samples=len(scores_a),
        identical=scores_a == scores_b,
        differences=_adjusted(found),
        energy_ratio=ratio,
        energy_basis=basis,
        notes=(
            *said_of(a, b, parts),
            *_asked_differently(a, b),
            *_clusters_unknown(a, found),
            *energy_notes,
        ),
    )


def _record(run: RunRecord | Path | str, store: Store | None) -> RunRecord:
    if isinstance(run, RunRecord):
        return run
    path = Path(run)
    if path.is_dir():
        return Store(path.parent).find(str(path))
    if store is None:
        raise BadInput(f"no run folder {str(run)!r}; give the folder of a finished run")
    return store.find(str(run))


def _scores(record: RunRecord, named: RunRecord, store: Store | None) -> dict[Key, _Scored]:
    """Args: named: the run whose metrics say by which metadata samples belong together."""
    if record.path is None and store is None:
        raise BadInput(f"run {record.run_id!r} was not read from a folder; give the store it lies in")
    home = Store(record.path.parent) if record.path is not None else store
    samples: Iterable[Sample] = home.samples(record) if home is not None else ()
    keys = {
        task: {metric.cluster for metric in metrics.values() if metric.cluster is not None}
        for task, metrics in named.metrics.items()
    }
    return {
        (sample.task, sample.sample_id): _Scored(
            sample.target,
            sample.failed,
            {name: score.value for name, score in sample.scores.items()},
            {key: _cluster_of(sample, key) for key in keys.get(sample.task, ())},
        )
        for sample in samples
    }


def _cluster_of(sample: Sample, key: str) -> str:
    """What a sample shares with others; its own id where it has nothing. Args: key: of metadata; a.b: inside a."""
    head, _, tail = key.partition(".")
    inside = sample.metadata.get(head)
    value = inside.get(tail) if tail and isinstance(inside, Mapping) else None
    return str(sample.metadata.get(key, sample.sample_id if value is None else value))


def _refuse_other_suite(a: RunRecord, b: RunRecord) -> None:
    """Raises: NotComparable: what was asked of the two runs differs by name."""
    fix = "score both with the same command"
    if a.suite != b.suite:
        raise NotComparable(f"{a.run_id} scored suite {a.suite!r} and {b.run_id} {b.suite!r}; {fix}")
    limits = a.identity.get("limit"), b.identity.get("limit")
    if limits[0] != limits[1]:
        raise NotComparable(
            f"{a.run_id} has {_limit(limits[0])} and {b.run_id} {_limit(limits[1])}; score both with the same --limit"
        )
    if a.profile != b.profile:
        raise NotComparable(f"{a.run_id} is profile {a.profile!r} and {b.run_id} {b.profile!r}; {fix}")
    others = sorted(set(a.metrics) ^ set(b.metrics))
    if others:
        raise NotComparable(f"task {others[0]!r} is in one of {a.run_id} and {b.run_id} only; {fix}")


def _limit(limit: Json) -> str:
    return "no limit" if limit is None else f"limit {limit}"


def _refuse_other_samples(
    a: RunRecord, b: RunRecord, scores_a: Mapping[Key, _Scored], scores_b: Mapping[Key, _Scored]
) -> None:
    """Raises: NotComparable: other samples, other targets, or other data under the same names."""
    apart = sorted(set(scores_a) ^ set(scores_b))
    if apart:
        task, sample_id = apart[0]
        raise NotComparable(
            f"{len(apart)} samples are in one of {a.run_id} and {b.run_id} only, the first is {sample_id!r} of task "
            f"{task!r}; score both with the same data and limit"
        )
    if not scores_a:
        raise NotComparable(f"{a.run_id} and {b.run_id} hold no samples; score something first")
    moved = next((key for key in scores_a if scores_a[key].target != scores_b[key].target), None)
    if moved is not None:
        raise NotComparable(
            f"sample {moved[1]!r} of task {moved[0]!r} has the target {scores_a[moved].target!r} in {a.run_id} and "
            f"{scores_b[moved].target!r} in {b.run_id}: other data; score both with the same data"
        )
    if any(a.identity.get(part) != b.identity.get(part) for part in ASKING):
        return  # the tasks' fingerprints cover the asking too, so they tell nothing of the data here
    tasks_a, tasks_b = a.identity.get("tasks") or {}, b.identity.get("tasks") or {}
    changed = next((task for task in tasks_a if tasks_a[task] != tasks_b.get(task)), None)
    if changed is not None:
        raise NotComparable(
            f"the data fingerprint of task {changed!r} is not the same in {a.run_id} and {b.run_id}; score both "
            "again on the same data with the same version"
        )


def _difference(
    task: str,
    metric: str,
    record: RunRecord,
    scores_a: Mapping[Key, _Scored],
    scores_b: Mapping[Key, _Scored],
) -> MetricDifference | None:
    """None where the metric has no value per sample, e.g. a percentile over the whole task."""
    aggregate = record.metrics[task][metric]
    pairs = _paired(task, metric, aggregate.cluster, scores_a, scores_b)
    if not pairs.first:
        return None
    clusters = None if aggregate.cluster is None else pairs.clusters
    both = list(zip(pairs.first, pairs.second, strict=True))
    down, up = [float(x > y) for x, y in both], [float(x < y) for x, y in both]
    lost, won = (
        summarise(moved, n_failed=0, higher_is_better=False, clusters=clusters)
        for moved in ((down, up) if aggregate.higher_is_better else (up, down))
    )
    return MetricDifference(
        task,
        metric,
        record.headline_metrics.get(task) == metric,
        aggregate.higher_is_better,
        paired_difference(pairs.first, pairs.second, clusters=clusters),
        pairs.n_left_out,
        share_lost=lost.value or 0.0,
        share_won=won.value or 0.0,
        share_lost_ci95=lost.ci95,
        share_won_ci95=won.ci95,
        cluster=aggregate.cluster,
    )


def _paired(
    task: str,
    metric: str,
    cluster: str | None,
    scores_a: Mapping[Key, _Scored],
    scores_b: Mapping[Key, _Scored],
) -> _Pairs:
    """Args: cluster: metadata key of the samples that belong together."""
    found = _Pairs([], [], [], 0)
    left_out = 0
    for key, mine in scores_a.items():
        if key[0] != task or metric not in {*mine.values, *scores_b[key].values}:
            left_out += key[0] == task and (mine.failed or scores_b[key].failed)
            continue
        x, y = mine.values.get(metric), scores_b[key].values.get(metric)
        if x is None or y is None:
            left_out += 1
        else:
            found.first.append(x)
            found.second.append(y)
            found.clusters.append(mine.clusters.get(cluster or "", key[1]))
    return found._replace(n_left_out=left_out)


def _clusters_unknown(record: RunRecord, differences: Iterable[MetricDifference]) -> list[str]:
    """Metrics whose interval rests on clusters of samples, in a run that does not say which: an older one."""
    return [
        f"{row.task} {row.metric}: the run does not say which samples belong together; each is taken to stand alone"
        for row in differences
        if row.cluster is None and _is_clustered(record.metrics[row.task][row.metric], row.paired.n)
    ]


def _is_clustered(metric: Metric, n_pairs: int) -> bool:
    """Whether samples share a cluster; where a metric counts more than the samples have, each is one by itself."""
    return (metric.interval or "").startswith("cluster") and metric.n <= n_pairs


def _adjusted(differences: list[MetricDifference]) -> tuple[MetricDifference, ...]:
    """Holm over the tasks: one p-value per task, that of its headline metric, or one for each part of it."""
    tested = [i for i, row in enumerate(differences) if row.leads and row.paired.p_value is not None]
    p_values = holm([differences[i].paired.p_value or 0.0 for i in tested])
    by_index = dict(zip(tested, p_values, strict=True))
    return tuple(replace(row, p_holm=by_index.get(i)) for i, row in enumerate(differences))


def _asked_differently(a: RunRecord, b: RunRecord) -> list[str]:
    """Settings besides the checkpoint that differ: the reader must know them."""
    return [
        f"{part} differs: {a.identity.get(part)!r} against {b.identity.get(part)!r}"
        for part in NAMED
        if a.identity.get(part) != b.identity.get(part)
    ]


def _energy(a: RunRecord, b: RunRecord) -> tuple[float | None, str | None, list[str]]:
    """Energy per query of b over a, where both rest on the same basis."""
    first, second = a.energy.get("inference"), b.energy.get("inference")
    if first is None or second is None:
        return None, None, ["no energy ratio: a run has no inference energy"]
    if first.basis is None or first.basis != second.basis:
        return None, None, [f"no energy ratio: basis {first.basis!r} against {second.basis!r}"]
    mine, other = first.wh_per_1000_queries, second.wh_per_1000_queries
    if not mine or other is None:
        return None, first.basis, ["no energy ratio: energy per query is not known"]
    return other / mine, first.basis, []
