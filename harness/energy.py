"""Add up energy readings: totals, rates, money, CO2e. Pure arithmetic on records; nothing here measures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeVar

from harness.grid import Grid, GridSettings, intensity
from harness.records import J_PER_KWH, J_PER_WH, ComponentEnergy, EnergyReading, EnergySummary

_T = TypeVar("_T")

MIN_SEGMENTS = 5
"""Fewer segments give no interval."""
UNKNOWN_SHARE = 0.01
"""A component may be unknown for this share of the time before its total counts as a lower bound."""
_DRAWS = 2000
_BLOCKS = 200


class Pricing(GridSettings, Protocol):
    """The part of harness.plan.EnergySpec that turns joules into money and CO2e."""

    @property
    def price_per_kwh(self) -> float | None: ...

    @property
    def currency(self) -> str: ...


class _Segment(NamedTuple):
    """What rates are made of: numerator and denominators of the same stretch of time."""

    ranked_j: float
    queries: int
    output_tokens: int


def basis_of(components: Iterable[ComponentEnergy]) -> str | None:
    """Say what a ranking would compare: the measured components if there are any, else the estimated ones.

    Estimated RAM never counts (a constant of 5 W per module rewards nothing but short wall-clock).

    Returns: e.g. 'measured: cpu rapl_package, gpu nvml_counter', or None where nothing was weighed.
    """
    found = {kind: _of_kind(components, kind) for kind in ("measured", "estimated")}
    for kind, members in found.items():
        if members:
            names = sorted(f"{c.component} {c.provenance.partition(':')[2]}" for c in members)
            return f"{kind}: {', '.join(names)}"
    return None


def _of_kind(components: Iterable[ComponentEnergy], kind: str) -> list[ComponentEnergy]:
    """Components of one provenance kind that may enter a total."""
    return [
        c
        for c in components
        if c.provenance.startswith(kind + ":") and not (kind == "estimated" and c.component == "ram")
    ]


def _total(components: Iterable[ComponentEnergy], kind: str, field: str = "gross_j") -> float | None:
    """Sum one field over the components of a kind; None where there is none, or one of them is not known."""
    values = [getattr(c, field) for c in _of_kind(components, kind)]
    return sum(values) if values and None not in values else None


def _ranked(components: Iterable[ComponentEnergy], basis: str | None, field: str = "gross_j") -> float | None:
    return None if basis is None else _total(components, basis.partition(":")[0], field)


def summarise(readings: Sequence[EnergyReading], spec: Pricing) -> EnergySummary:
    """Add up the readings of one phase.

    Args:
        readings: lines of one energy.jsonl, all of one phase, in the order they were written. A line with
            closed=False opens a segment; one that no closed line of its window follows was lost to a kill.
        spec: price and grid.
    Returns: totals over the closed segments. Where a segment was lost, or a component was not known for more
        than UNKNOWN_SHARE of the time, they are lower bounds and complete is False. Rates divide only what
        belongs to the same segments. Segments of different bases have no common ranked total.
    """
    closed = [r for r in readings if r.closed]
    components = _merge([(c, r.duration_s) for r in closed for c in r.components])
    bases = {basis_of(r.components) for r in closed}
    basis = bases.pop() if len(bases) == 1 else None
    ranked_j = _ranked(components, basis)
    segments = _rate_segments(closed, basis)
    queries = sum(s.queries for s in segments)
    summary = EnergySummary(
        duration_s=sum(r.duration_s for r in closed),
        components=components,
        measured_j=_total(components, "measured"),
        estimated_j=_total(components, "estimated"),
        basis=basis,
        ranked_j=ranked_j,
        ranked_net_j=_ranked(components, basis, "net_j"),
        complete=bool(closed) and not _lost(readings) and not _has_gaps(closed),
        queries=sum(r.queries for r in closed) or None,
        output_tokens=sum(r.output_tokens for r in closed) or None,
        wh_per_1000_queries=_ratio(sum(s.ranked_j for s in segments) / J_PER_WH * 1000, queries),
        wh_per_1000_queries_ci95=_ratio_interval(segments),
        j_per_output_token=_ratio(sum(s.ranked_j for s in segments), sum(s.output_tokens for s in segments)),
    )
    return price(replace(summary, shared=any(r.shared for r in closed)), spec)


def price(summary: EnergySummary, spec: Pricing) -> EnergySummary:
    """Put money and CO2e on a summary's ranked total; nothing is put on an unknown one."""
    grid: Grid = intensity(spec)
    kwh = None if summary.ranked_j is None else summary.ranked_j / J_PER_KWH
    return replace(
        summary,
        kg_co2e=None if kwh is None or grid.g_per_kwh is None else kwh * grid.g_per_kwh / 1000,
        grid_g_per_kwh=grid.g_per_kwh,
        grid_source=grid.source,
        cost=None if kwh is None or spec.price_per_kwh is None else kwh * spec.price_per_kwh,
        price_per_kwh=spec.price_per_kwh,
        currency=None if spec.price_per_kwh is None else spec.currency,
    )


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator > 0 else None


def _merge(parts: Sequence[tuple[ComponentEnergy, float]]) -> tuple[ComponentEnergy, ...]:
    """Add components of the same name and provenance; parts carry the seconds each covers."""
    groups: dict[tuple[str, str], list[tuple[ComponentEnergy, float]]] = {}
    for component, seconds in parts:
        groups.setdefault((component.component, component.provenance), []).append((component, seconds))
    return tuple(_merge_one(members) for _, members in sorted(groups.items()))


def _merge_one(members: Sequence[tuple[ComponentEnergy, float]]) -> ComponentEnergy:
    known = [(c, s) for c, s in members if c.gross_j is not None]
    nets = [c.net_j for c, _ in known if c.net_j is not None]
    idles = [(c.idle_w, s) for c, s in known if c.idle_w is not None]
    seconds = sum(s for _, s in idles)
    return ComponentEnergy(
        component=members[0][0].component,
        provenance=members[0][0].provenance,
        gross_j=sum(c.gross_j or 0.0 for c, _ in known) if known else None,
        net_j=sum(nets) if known and len(nets) == len(known) else None,
        idle_w=sum(w * s for w, s in idles) / seconds if seconds > 0 else None,
    )


def _lost(readings: Sequence[EnergyReading]) -> bool:
    """Whether a segment was opened and never closed. Replayed files may hold closed lines alone."""
    opened: Counter[str] = Counter(r.window for r in readings if not r.closed)
    closed: Counter[str] = Counter(r.window for r in readings if r.closed)
    return any(n > closed[window] for window, n in opened.items())


def _has_gaps(closed: Sequence[EnergyReading]) -> bool:
    """Whether a component that was weighed somewhere is not known for more than UNKNOWN_SHARE of the time."""
    total_s = sum(r.duration_s for r in closed)
    unknown_s: defaultdict[str, float] = defaultdict(float)
    for reading in closed:
        for c in reading.components:
            if c.gross_j is None and not c.provenance.startswith("absent"):
                unknown_s[c.component] += reading.duration_s
    return any(seconds > UNKNOWN_SHARE * total_s for seconds in unknown_s.values())


def _rate_segments(closed: Sequence[EnergyReading], basis: str | None) -> list[_Segment]:
    segments = []
    for reading in closed:
        joules = _ranked(reading.components, basis)
        if joules is not None:
            segments.append(_Segment(joules, reading.queries, reading.output_tokens))
    return segments


def _ratio_interval(segments: Sequence[_Segment]) -> tuple[float, float] | None:
    """Bootstrap the Wh per 1000 queries over segments (percentiles 2.5 and 97.5 of 2000 draws, fixed seed).

    Consecutive segments are pooled into at most 200 blocks: bounded work, and what lasts longer than a
    segment stays together. None below MIN_SEGMENTS, or where draws without a query are no exception.
    """
    if len(segments) < MIN_SEGMENTS or not any(s.queries for s in segments):
        return None
    import numpy as np

    n = min(len(segments), _BLOCKS)
    pooled = np.array([(s.ranked_j, s.queries) for s in segments], dtype=float)
    blocks = np.array([block.sum(axis=0) for block in np.array_split(pooled, n)])
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_DRAWS)
    joules, queries = (counts @ blocks).T
    drawn = queries > 0
    if drawn.mean() < 0.95:
        return None
    low, high = np.percentile(joules[drawn] / queries[drawn] / J_PER_WH * 1000, [2.5, 97.5])
    return float(low), float(high)


def add(summaries: Sequence[EnergySummary | None]) -> EnergySummary | None:
    """Add up summaries: the stages of a lineage, the phases of a run.

    Unknown plus anything is unknown: None among them gives None, an unknown total gives an unknown total, and
    totals of different bases have no common ranked total. Rates are over the sums; they carry no interval.
    """
    known = [s for s in summaries if s is not None]
    if not known or len(known) < len(summaries):
        return None
    if len(known) == 1:
        return known[0]
    bases = {s.basis for s in known}
    basis = bases.pop() if len(bases) == 1 else None
    ranked_j = _sum_known([s.ranked_j for s in known]) if basis else None
    queries = sum(s.queries or 0 for s in known) or None
    tokens = sum(s.output_tokens or 0 for s in known) or None
    return EnergySummary(
        duration_s=sum(s.duration_s for s in known),
        components=_merge([(c, s.duration_s) for s in known for c in s.components]),
        measured_j=_sum_known([s.measured_j for s in known]),
        estimated_j=_sum_known([s.estimated_j for s in known]),
        basis=basis,
        ranked_j=ranked_j,
        ranked_net_j=_sum_known([s.ranked_net_j for s in known]) if basis else None,
        complete=all(s.complete for s in known),
        queries=queries,
        output_tokens=tokens,
        wh_per_1000_queries=_ratio((ranked_j or 0.0) / J_PER_WH * 1000, queries or 0) if ranked_j else None,
        j_per_output_token=_ratio(ranked_j or 0.0, tokens or 0) if ranked_j else None,
        kg_co2e=_sum_known([s.kg_co2e for s in known]),
        grid_g_per_kwh=_common([s.grid_g_per_kwh for s in known]),
        grid_source=_common([s.grid_source for s in known]),
        cost=_sum_known([s.cost for s in known]) if _common([s.currency for s in known]) else None,
        price_per_kwh=_common([s.price_per_kwh for s in known]),
        currency=_common([s.currency for s in known]),
        shared=any(s.shared for s in known),
    )


def _sum_known(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) if len(known) == len(values) else None


def _common(values: Sequence[_T | None]) -> _T | None:
    """The value that all of them share, else None."""
    return values[0] if all(v == values[0] for v in values) else None


def untrained(like: EnergySummary) -> EnergySummary:
    """Zero joules on the basis of another summary: the training energy of a lineage's root, by definition."""
    return EnergySummary(
        duration_s=0.0,
        components=(),
        measured_j=like.measured_j and 0.0,
        estimated_j=like.estimated_j and 0.0,
        basis=like.basis,
        ranked_j=None if like.basis is None else 0.0,
        ranked_net_j=None if like.basis is None else 0.0,
        complete=True,
    )


def total_at(training: EnergySummary | None, inference: EnergySummary | None, queries: int) -> float | None:
    """Joules of training once and answering N queries: E_train + N * E_query.

    Returns: None where either is not known, or where the two were not weighed on the same basis.
    """
    if training is None or inference is None or training.ranked_j is None:
        return None
    if training.basis != inference.basis or inference.wh_per_1000_queries is None:
        return None
    return training.ranked_j + queries * inference.wh_per_1000_queries * J_PER_WH / 1000
