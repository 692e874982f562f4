"""Write the site: beside first, then swapped in, so that a reader sees the old report or the new one."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import BadInput, NotWritable, StoreError
from harness.forgetting import steps
from harness.front import names
from harness.front.boards import Board, boards
from harness.front.fronts import DEFAULT_QUERIES, QUERIES, Front, View, front, selections, views
from harness.records import Json, RunRecord
from harness.store import Scan, Store
from reports import text
from reports.document import document
from reports.figures import front_figure
from reports.forgetting import tables
from reports.reliability import diagrams
from reports.samples import Card, cards, page_name, pages, sorted_out
from reports.tables import (
    QUERY_LABELS,
    answer,
    leaderboard,
    place_rows,
    run_href,
    speed,
    speed_title,
    suite_label,
)

MARKER = ".pareto-harness-report"
"""A folder with this file was written here and may be replaced; any other folder is left alone."""
KINDS = ("measured", "estimated")
FILTERS = ("number", "significant", "interval", "energy", "seconds", "mass")
NAME_FILTERS = ("plain_name", "count", "safe_id")


class Sheet(NamedTuple):
    """What one choice of runs and of score puts into the figure, for every number of queries."""

    key: str
    view: View
    selection: str
    fronts: tuple[Front, ...]

    @property
    def shown(self) -> int:
        """Index into QUERIES: the default, or inference alone where no training energy is known."""
        usual = QUERIES.index(DEFAULT_QUERIES)
        return usual if self.fronts[usual].places or not self.fronts[-1].places else len(QUERIES) - 1


def write_site(runs_dir: Path, out: Path) -> Path:
    """Write the report of a runs folder as a static site.

    Args:
        runs_dir: folder of run folders; unfinished and unreadable ones are left out and named on the page.
        out: folder of the site; an earlier report in it is replaced as a whole.
    Returns: path of index.html.
    Raises:
        BadInput: no finished run in runs_dir, or `out` holds something that is not a report.
        NotWritable: the disk is full or read-only; an earlier report is still whole.
    """
    store = Store(Path(runs_dir))
    scan = store.scan()
    if not scan.runs:
        raise BadInput(_nothing_to_report(store.runs_dir, scan))
    target = Path(os.path.abspath(out))
    _check_target(target, store.runs_dir)
    with _swapped(target) as folder:
        _write_assets(folder)
        _write_index(folder, scan, store)
        for index in range(len(scan.runs)):
            _write_run(folder, store, scan.runs, index)
    return Path(out) / "index.html"


def _nothing_to_report(runs_dir: Path, scan: Scan) -> str:
    found = f" ({len(scan.unfinished)} unfinished, {len(scan.broken)} unreadable)" if any(scan[1:]) else ""
    return (
        f"no finished run in {str(runs_dir)!r}{found}; score something first: harness eval or train-then-eval"
    )


def _check_target(target: Path, runs_dir: Path) -> None:
    """Raises: BadInput: writing there would throw away something that is not a report."""
    if target == runs_dir.resolve() or target in runs_dir.resolve().parents:
        raise BadInput(f"the report cannot go to {str(target)!r}, which holds the runs; give another folder")
    if target.exists() and not target.is_dir():
        raise BadInput(f"{str(target)!r} is a file; give a folder for the report")
    if target.is_dir() and any(target.iterdir()) and not (target / MARKER).exists():
        raise BadInput(f"{str(target)!r} holds files that are not a report; give an empty or a new folder")


@contextmanager
def _swapped(target: Path) -> Iterator[Path]:
    """A folder to write into that takes the target's place at the end, or vanishes on an error."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        new, old = beside / "new", beside / "old"
        new.mkdir()
    except OSError as exc:
        raise NotWritable.of(target, exc) from exc
    try:
        yield new
        if target.exists():
            target.rename(old)
        new.rename(target)
    except OSError as exc:
        if old.exists() and not target.exists():
            old.rename(target)
        raise NotWritable.of(target, exc) from exc
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_assets(folder: Path) -> None:
    """Style, scripts and plotly.js, once for all pages."""
    assets = folder / "assets"
    assets.mkdir()
    for item in (files("reports") / "static").iterdir():
        (assets / item.name).write_bytes(item.read_bytes())
    plotly = files("plotly") / "package_data" / "plotly.min.js"
    (assets / "plotly.min.js").write_bytes(plotly.read_bytes())
    (folder / MARKER).write_text("pareto-harness report\n", encoding="utf-8")


def _write_index(folder: Path, scan: Scan, store: Store) -> None:
    found = boards(scan.runs)
    sheets = [sheet for index, board in enumerate(found) for sheet in _sheets(board, index)]
    (folder / "fronts").mkdir()
    for sheet in sheets:
        call = f"window.paretoFront({script_json(sheet.key)}, {script_json(_payload(sheet))});\n"
        (folder / "fronts" / f"{sheet.key}.js").write_text(call, encoding="utf-8")
    generated = datetime.now(UTC).isoformat(timespec="seconds")
    data = document(scan, found, [sheet.fronts for sheet in sheets], generated)
    (folder / "data.json").write_text(
        json.dumps(finite(data), indent=1, ensure_ascii=True, allow_nan=False) + "\n", encoding="utf-8"
    )
    first = sheets[0] if sheets else None
    _render(
        folder / "index.html",
        "index.html.j2",
        root="",
        scan=scan,
        boards=[(board, leaderboard(board), speed(board)) for board in found],
        first=first and {"rows": _rows(first, first.shown), "answer": answer(first.fronts[first.shown])},
        beside=first.fronts[first.shown].beside if first else (),
        losses=tables(steps(scan.runs, store)),
        menu=script_json(_menu(sheets)),
        query_labels=QUERY_LABELS,
        generated=generated,
    )


def _sheets(board: Board, index: int) -> list[Sheet]:
    return [
        Sheet(f"b{index}-{view.id}-{names.safe_id(s)}", view, s, tuple(front(view, s, q) for q in QUERIES))
        for view in views(board)
        for s in selections(view)
    ]


def _rows(sheet: Sheet, index: int) -> list[Any]:
    return place_rows(sheet.fronts[index], sheet.fronts)


def _payload(sheet: Sheet) -> dict[str, Any]:
    """All that the page's script needs to draw any number of queries; it computes nothing itself."""
    return {
        "fronts": [
            {
                "figure": front_figure(each),
                "rows": [row._asdict() for row in _rows(sheet, index)],
                "beside": [list(pair) for pair in each.beside],
                "answer": answer(each),
            }
            for index, each in enumerate(sheet.fronts)
        ],
    }


def _menu(sheets: Sequence[Sheet]) -> list[dict[str, Any]]:
    """Choices of the page: runs compared -> scores."""
    menu: dict[tuple[int, str], dict[str, Any]] = {}
    for sheet in sheets:
        condition = sheet.view.board.condition.label
        entry = menu.setdefault(
            (id(sheet.view.board), sheet.view.id),
            {
                "label": f"{names.plain_name(sheet.view.label)} · {condition}",
                "notes": [*_only_inference(sheet), *sheet.view.notes, *sheet.view.board.notes],
                "scores": [],
            },
        )
        label = suite_label(sheet.selection, sheet.fronts[0])
        entry["scores"].append({"label": names.plain_name(label), "key": sheet.key, "shown": sheet.shown})
    return list(menu.values())


def _only_inference(sheet: Sheet) -> list[str]:
    if QUERIES[sheet.shown] is not None or not sheet.fronts[-1].places:
        return []
    return ["no training energy is known here, so inference alone is compared"]


def _write_run(folder: Path, store: Store, runs: Sequence[RunRecord], index: int) -> None:
    """Pages of one run: its figures, and its samples by kind."""
    run = runs[index]
    home = folder / "runs" / names.safe_id(run.run_id)
    home.mkdir(parents=True)
    found, trouble = _cards(store, run)
    kinds = sorted_out(found)
    links = [(kind, len(mine), page_name(kind, 1)) for kind, mine in kinds.items()]
    common = {"root": "../../", "run": run, "links": links, "trouble": trouble}
    before, after = (runs[i] if 0 <= i < len(runs) else None for i in (index - 1, index + 1))
    drawn = diagrams(run)
    _render(home / "index.html", "run.html.j2", before=before, after=after, reliability=drawn, **common)
    for kind, mine in kinds.items():
        for page in pages(kind, mine):
            _render(home / page_name(kind, page.number), "samples.html.j2", page=page, **common)


def _cards(store: Store, run: RunRecord) -> tuple[list[Card], str]:
    """All samples of a run; where the table is damaged, those before the damage and what is wrong."""
    found: list[Card] = []
    try:
        found.extend(cards(run, store.samples(run)))
    except (StoreError, KeyError, TypeError) as exc:
        return found, f"the samples of this run cannot be read: {exc}"
    return found, ""


def _render(path: Path, template: str, **values: Any) -> None:
    path.write_text(environment().get_template(template).render(**values), encoding="utf-8", errors="replace")


_ENVIRONMENT: list[Any] = []


def environment() -> Any:
    """Jinja with escaping on for every template, whatever its name ends in."""
    if _ENVIRONMENT:
        return _ENVIRONMENT[0]
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update({name: getattr(text, name) for name in FILTERS})
    made.filters.update({name: getattr(names, name) for name in NAME_FILTERS})
    made.filters["kind"] = lambda word: word if word in KINDS else "unknown"
    made.filters["speed_title"] = speed_title
    made.filters["plain_text"] = text.plain_text
    made.filters["pretty_json"] = lambda value: json.dumps(
        finite(value), indent=1, default=str, ensure_ascii=False
    )
    made.globals.update(run_href=run_href, page_name=page_name)
    _ENVIRONMENT.append(made)
    return made


def script_json(value: Json) -> Any:
    """JSON that may stand inside a script element or a .js file: no '<', '>', '&', no line separators.

    Returns: markupsafe.Markup, so that a template writes it as it is.
    """
    from markupsafe import Markup

    raw = json.dumps(finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        raw = raw.replace(char, f"\\u{ord(char):04x}")
    return Markup(raw)


def finite(value: Any) -> Any:
    """The same value with NaN and infinities as null: JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
