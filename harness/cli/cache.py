"""harness cache: the response caches of a runs folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.cli.fields import argument, option, takes
from harness.cli.options import Output, RunsFolder

if TYPE_CHECKING:
    from harness.answers.folders import Checked, Kept, Pruning, Wanted

DAMAGED = 1
COLUMNS = ("model", "engine", "dtype", "device", "answers", "damaged", "size", "last used", "folder")
ONLY_PRUNE = ("older_than", "max_size", "model", "damaged", "all", "yes")
AGES_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
BYTES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}


@dataclass(frozen=True, kw_only=True)
class Options(Output, RunsFolder):
    action: Literal["show", "prune", "verify"] = argument(
        help="show | prune | verify", metavar="[ACTION]", default="show"
    )
    older_than: str | None = option(
        "--older-than", help="prune: not used for so long: 30d, 12h, 2w", metavar="AGE"
    )
    max_size: str | None = option(
        "--max-size", help="prune: keep this much, what was used last first: 500MB, 2GB", metavar="SIZE"
    )
    model: str | None = option(
        "--model", help="prune: this model's alone, by name or start of the folder's name"
    )
    damaged: bool = option("--damaged", help="prune: damaged lines; whole ones stay", default=False)
    all: bool = option("--all", help="prune: everything", default=False)
    yes: bool = option(
        "--yes", help="prune: really remove; without it, only say what would go", default=False
    )


@takes(Options)
def run(options: Options) -> int:
    """Show, prune or verify the answers that are kept for --cache.

    show: what is kept per model and engine. prune: remove some of it; runs are never touched. verify: hold every
    line against its checksum; exit code 1 where one is damaged.
    """
    from harness.answers.folders import find

    _check(options)
    kept = find(options.runs or Path("runs"))
    return {"show": _show, "prune": _prune, "verify": _verify}[options.action](options, kept)


def _check(options: Options) -> None:
    """Raises: BadInput: an option that the action does not have, or nothing said of what is to go."""
    from harness.errors import BadInput

    given = [name for name in ONLY_PRUNE if getattr(options, name)]
    if options.action != "prune" and given:
        raise BadInput(
            f"--{given[0].replace('_', '-')} is for `harness cache prune`, not for {options.action}"
        )
    if options.action == "prune" and not set(given) - {"yes"}:
        raise BadInput("say what is to go: --older-than, --max-size, --model, --damaged or --all")


def _show(options: Options, kept: Sequence[Kept]) -> int:
    from harness.cli import tables

    rows = [described(cache) for cache in kept]
    if options.json:
        print(tables.to_json({"caches": rows}))
        return 0
    if not rows:
        print(f"nothing is kept under {options.runs or 'runs'}")
        return 0
    names = ("model", "engine", "dtype", "device", "answers", "damaged", "bytes", "used_at", "folder")
    cells = [[size(row["bytes"]) if n == "bytes" else _cell(row[n]) for n in names] for row in rows]
    print(tables.align(COLUMNS, cells))
    return 0


def described(cache: Kept) -> dict[str, Any]:
    """One entry of the `caches` list of --json."""
    from datetime import UTC, datetime

    from harness.answers.folders import check

    checks = [check(segment.path) for segment in cache.segments]
    used = datetime.fromtimestamp(cache.used_at, UTC)
    return {
        "folder": cache.name,
        **{name: cache.about.get(name) for name in ("model", "engine", "dtype", "device", "fingerprint")},
        "answers": sum(one.answers for one in checks),
        "damaged": sum(one.damaged for one in checks),
        "segments": len(cache.segments),
        "bytes": cache.size_bytes,
        "used_at": used.isoformat(timespec="seconds"),
    }


def _cell(value: Any) -> str:
    return "-" if value is None else str(value)


def _prune(options: Options, kept: Sequence[Kept]) -> int:
    from harness.answers.folders import plan_pruning, prune
    from harness.cli import tables

    pruning = plan_pruning(kept, wanted(options))
    if options.yes:
        prune(pruning, repair=options.damaged)
    if options.json:
        paths = {"segments": [s.path for s in pruning.segments], "held": [s.path for s in pruning.held]}
        print(tables.to_json({**paths, "bytes": pruning.size_bytes, "removed": options.yes}))
    else:
        print(said(pruning, options))
    return 0


def said(pruning: Pruning, options: Options) -> str:
    """What was done, or would be."""
    count, amount = len(pruning.segments), size(pruning.size_bytes)
    what = (
        f"{count} files with damaged lines ({amount} in all)"
        if options.damaged
        else f"{count} files, {amount}"
    )
    verb = "mended" if options.damaged else "removed"
    lines = [
        f"{verb}: {what}" if options.yes else f"to be {verb}: {what}; nothing was changed, repeat with --yes"
    ]
    if pruning.held:
        lines.append(f"{len(pruning.held)} more are being written to by a running process and stay")
    return "\n".join(lines)


def _verify(options: Options, kept: Sequence[Kept]) -> int:
    from harness.answers.folders import check
    from harness.cli import tables

    checks = [check(segment.path) for cache in kept for segment in cache.segments]
    bad = [one for one in checks if one.damaged or one.problem]
    if options.json:
        print(
            tables.to_json(
                {"segments": [one._asdict() for one in checks], "damaged": sum(c.damaged for c in checks)}
            )
        )
    else:
        print(verdict(checks, bad))
    return DAMAGED if bad else 0


def verdict(checks: Sequence[Checked], bad: Sequence[Checked]) -> str:
    """One line per segment that is not whole, then the sum."""
    from harness.cli.evaluate import one_line

    lines = [
        one_line(f"{one.path}: {one.problem or f'{one.damaged} damaged lines, {one.answers} whole'}", 400)
        for one in bad
    ]
    total = f"{sum(one.answers for one in checks)} answers in {len(checks)} files are whole"
    if bad:
        total += "; damaged ones are never used: `harness cache prune --damaged --yes` removes them"
    return "\n".join([*lines, total])


def wanted(options: Options) -> Wanted:
    """Raises: BadInput: an age or a size that cannot be read."""
    from harness.answers.folders import Wanted

    return Wanted(
        older_than_s=read_amount("--older-than", options.older_than, AGES_S, "30d, 12h, 2w"),
        max_bytes=None
        if (most := read_amount("--max-size", options.max_size, BYTES, "500MB, 2GB")) is None
        else int(most),
        model=options.model,
        damaged=options.damaged,
    )


def read_amount(flag: str, text: str | None, units: Mapping[str, int], example: str) -> float | None:
    """A number and its unit. Raises: BadInput: it is neither."""
    from harness.errors import BadInput

    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if found is None or found[2].lower() not in units:
        raise BadInput(f"{flag} {text!r} cannot be read; write e.g. {example}")
    return float(found[1]) * units[found[2].lower()]


def size(n_bytes: int) -> str:
    """Bytes with a decimal unit: 999 B, 1.2 MB."""
    value, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
