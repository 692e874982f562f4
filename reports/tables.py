"""The leaderboard, the speed table and what stands under the figure, as rows of plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from harness.front.boards import Board, Point, is_quality
from harness.front.fronts import DEFAULT_QUERIES, MEAN, QUERIES, Front, Place, mean_suites, score_of, views
from harness.front.joules import Joules, amortised, mean_query_joules, total_joules
from harness.front.names import plain_name, safe_id
from harness.records import Metric, RunRecord
from reports.figures import energy_title, verdict
from reports.text import energy, interval, number

SPEED_COLUMNS = (
    "vllm_ttft_p50_ms", "vllm_ttft_p99_ms", "vllm_tpot_p50_ms", "vllm_e2e_p50_ms", "vllm_output_tokens_per_s",
    "vllm_requests_per_s", "ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms", "e2e_p50_ms", "output_tokens_per_s",
    "requests_per_s", "j_per_output_token", "peak_memory_bytes",
)  # fmt: skip
"""Figures of the latency task by vLLM's definitions, and those of tasks that name no profile."""


SPEED_TERMS = ("ttft", "tpot", "itl", "e2e")


class Cell(NamedTuple):
    """One checkpoint on one suite."""

    run: RunRecord
    href: str
    tied_for_best: bool
    """Its interval reaches the best score's interval: not distinguishable from the best by this look."""


class Line(NamedTuple):
    """A row of the leaderboard."""

    id: str
    point: Point
    cells: Mapping[str, Cell]
    mean: float | None
    mean_ci95: tuple[float, float] | None
    per_query: Joules
    total: Joules
    """At DEFAULT_QUERIES queries."""
    kg_co2e: float | None
    cost: float | None
    currency: str | None
    notes: tuple[str, ...]


def run_href(run: RunRecord) -> str:
    return f"runs/{safe_id(run.run_id)}/index.html"


def row_id(board: Board, point: Point) -> str:
    """Anchor of a point's row on the leaderboard."""
    return safe_id(f"row-{board.condition.label}-{point.id}")


def leaderboard(board: Board) -> list[Line]:
    """Rows of one condition, in the order of training energy."""
    view = views(board)[0]
    suites = mean_suites(view)
    best = {suite: _best(board, suite) for suite in board.suites}
    return [_line(row_id(board, point), point, suites, best) for point in board.points]


def _line(row: str, point: Point, suites: Sequence[str], best: Mapping[str, RunRecord | None]) -> Line:
    cells = {s: Cell(run, run_href(run), _tied(run, best[s])) for s, run in sorted(point.runs.items())}
    score = score_of(point, suites) if suites else "no quality suite"
    scored = [s for s in suites if s in point.runs] or sorted(point.runs)
    per_query = mean_query_joules(point.runs, scored)
    total = total_joules(point.training, per_query, DEFAULT_QUERIES)
    inference = [point.runs[s].energy.get("inference") for s in scored]
    currencies = {e.currency for e in inference if e is not None and e.currency}
    return Line(
        id=row,
        point=point,
        cells=cells,
        mean=None if isinstance(score, str) or len(suites) < 2 else score.value,
        mean_ci95=None if isinstance(score, str) else score.ci95,
        per_query=per_query,
        total=total,
        kg_co2e=_at_default(point, inference, "kg_co2e"),
        cost=_at_default(point, inference, "cost") if len(currencies) == 1 else None,
        currency=next(iter(currencies)) if len(currencies) == 1 else None,
        notes=tuple(dict.fromkeys(n for run in point.runs.values() for n in run.notes)),
    )


def _at_default(point: Point, inference: Sequence, name: str) -> float | None:
    parts = amortised(point.checkpoint, point.training, inference, name)
    return None if parts is None else parts[0] + DEFAULT_QUERIES * parts[1]


def _best(board: Board, suite: str) -> RunRecord | None:
    runs = [p.runs[suite] for p in board.points if suite in p.runs]
    known = [r for r in runs if r.headline.value is not None and math.isfinite(r.headline.value)]
    if len(known) < 2:
        return None
    return max(known, key=lambda r: (r.headline.value or 0.0) * (1 if r.headline.higher_is_better else -1))


def _tied(run: RunRecord, best: RunRecord | None) -> bool:
    """The best, or one whose interval overlaps the best's."""
    if best is None or run.headline.value is None:
        return False
    low, high = run.headline.ci95 or (run.headline.value,) * 2
    best_low, best_high = best.headline.ci95 or (best.headline.value or 0.0,) * 2
    return run is best or (high >= best_low and low <= best_high)


class SpeedLine(NamedTuple):
    """One checkpoint at one concurrency."""

    name: str
    concurrency: str
    href: str
    metrics: Mapping[str, Metric]
    """Metric's name without its concurrency -> value."""


class Speed(NamedTuple):
    """Latency and throughput of a board."""

    columns: list[str]
    lines: list[SpeedLine]


def speed(board: Board) -> Speed:
    """Suites that measure speed: a line per checkpoint and load, the usual columns."""
    lines = []
    for point in board.points:
        for run in point.runs.values():
            if not is_quality(run):
                lines += _speed_lines(point, run)
    found = dict.fromkeys(name for line in lines for name in line.metrics)
    columns = [name for name in SPEED_COLUMNS if name in found] or list(found)[:8]
    return Speed(columns, [line for line in lines if set(columns) & line.metrics.keys()])


def speed_title(name: str) -> str:
    """'vllm_ttft_p50_ms' as 'TTFT p50', 'output_tokens_per_s' as 'output tokens / s'."""
    words = (
        name.removeprefix("vllm_")
        .replace("_per_s", " / s")
        .removesuffix("_ms")
        .removesuffix("_bytes")
        .split("_")
    )
    return " ".join(word.upper() if word in SPEED_TERMS else word for word in words)


def _speed_lines(point: Point, run: RunRecord) -> list[SpeedLine]:
    levels: dict[tuple[str, str], dict[str, Metric]] = {}
    for task, metrics in run.metrics.items():
        for name, metric in metrics.items():
            short, _, level = name.partition("@")
            levels.setdefault((task, level), {})[short] = metric
    return [
        SpeedLine(point.name, plain_name(_load_name(task, level, len(run.metrics))), run_href(run), metrics)
        for (task, level), metrics in levels.items()
    ]


def _load_name(task: str, level: str, tasks: int) -> str:
    return level if level and tasks == 1 else f"{task} {level}".strip()


# Under the figure


class PlaceRow(NamedTuple):
    """A point of the figure in words; the page's script draws the same rows for other choices."""

    name: str
    href: str
    score: str
    ci95: str
    energy: str
    lower_bound: bool
    kind: str
    basis: str
    verdict: str
    chance: str
    on_front: bool
    membership: tuple[bool | None, ...]
    """On the front at each of QUERIES; None where it is not drawn."""


def place_rows(front: Front, across: Sequence[Front]) -> list[PlaceRow]:
    """Rows of one front; `across` are the fronts of the same selection at each of QUERIES."""
    found = [{p.point.id: p.on_front for p in other.places} for other in across]
    return [
        _place_row(place, [by_id.get(place.point.id) for by_id in found], front) for place in front.places
    ]


def _place_row(place: Place, membership: Sequence[bool | None], front: Front) -> PlaceRow:
    return PlaceRow(
        name=place.point.name,
        href=f"#{row_id(front.view.board, place.point)}",
        score=number(place.score.value),
        ci95=interval(place.score.ci95),
        energy=("≥ " if place.energy.lower_bound else "") + energy(place.energy.j),
        lower_bound=place.energy.lower_bound,
        kind=place.energy.kind,
        basis=place.energy.basis or "",
        verdict=verdict(place),
        chance="–" if place.probability is None else number(place.probability, 2),
        on_front=place.on_front,
        membership=tuple(membership),
    )


def answer(front: Front) -> list[str]:
    """The report's question in words: per energy basis, who is on the front and what each step up brings."""
    return [_answer(front, basis) for basis in front.bases]


def _answer(front: Front, basis: str) -> str:
    mine = [p for p in front.places if (p.energy.basis or "") == basis]
    members = [p for p in mine if p.on_front]
    kind = basis.partition(":")[0] or "known"
    if len(mine) == 1:
        return f"{_called(mine[0])} is the only checkpoint with {kind} energy ({basis}): nothing to weigh it against."
    first = members[0]
    said = f"{_called(first)} takes the least energy, {energy(first.energy.j)}, and scores {number(first.score.value)}."
    for before, after in pairwise(members):
        extra = (after.energy.j or 0.0) - (before.energy.j or 0.0)
        gain = abs(after.score.value - before.score.value)
        said += f" {_called(after)} is {gain:.3f} better for {energy(extra)} more"
        said += " (within the intervals of both)." if _overlap(before, after) else "."
    beaten = len(mine) - len(members)
    if beaten:
        plural = "others" if beaten > 1 else "other"
        verb = "take" if beaten > 1 else "takes"
        said += f" {beaten} {plural} of {len(mine)} {verb} more without scoring higher."
    return f"{kind.capitalize()} energy, {energy_title(front.queries)}: {said}"


def _called(place: Place) -> str:
    return plain_name(place.point.name, 40)


def _overlap(one: Place, other: Place) -> bool:
    """No winner is named where intervals overlap."""
    a, b = one.score.ci95, other.score.ci95
    return a is not None and b is not None and a[0] <= b[1] and b[0] <= a[1]


def number_label(queries: int | None) -> str:
    """Label of a button: 1e2 as '100', 1e6 as '1 M'."""
    if queries is None:
        return "inference only"
    return f"{queries // 1_000_000} M" if queries >= 1_000_000 else f"{queries:,}"


def suite_label(selection: str, front: Front) -> str:
    return f"mean of {len(front.suites)} suites" if selection == MEAN else selection


QUERY_LABELS = tuple(number_label(q) for q in QUERIES)
