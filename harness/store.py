"""All runs of a folder. The files are the database: there is no index to keep in step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import BadInput, StoreError, UnknownName
from harness.journal import ENERGY, RECORD, SAMPLES, TABLE, Journal, open_journal, read_record, read_table
from harness.records import RunRecord, Sample

if TYPE_CHECKING:
    import pandas as pd


MATCHES_SHOWN = 5


class Scan(NamedTuple):
    """What lies in a runs folder."""

    runs: list[RunRecord]
    unfinished: list[Path]
    """Run folders with a journal and no run.json yet."""
    broken: list[tuple[Path, str]]
    """Run folders that cannot be read, and why."""


class Store:
    """A folder of run folders."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = Path(runs_dir)

    def open(self, run_id: str, waiting: Callable[[str], None]) -> AbstractContextManager[Journal]:
        """Open a run for writing; its journal is read back and repaired."""
        return open_journal(self.runs_dir / run_id, waiting)

    def scan(self) -> Scan:
        """Everything in the folder, oldest first. Raises: BadInput: there is no such folder."""
        if not self.runs_dir.is_dir():
            raise BadInput(
                f"no folder {str(self.runs_dir)!r}; score something first: harness eval or train-then-eval"
            )
        found = Scan([], [], [])
        for path in sorted(self.runs_dir.iterdir()):
            if (path / RECORD).is_file():
                try:
                    found.runs.append(read_record(path))
                except StoreError as exc:
                    found.broken.append((path, str(exc)))
            elif (path / SAMPLES).is_file() or (path / ENERGY).is_file():
                found.unfinished.append(path)
        found.runs.sort(key=lambda run: (run.finished_at, run.run_id))
        return found

    def runs(self) -> list[RunRecord]:
        """Finished runs, oldest first."""
        return self.scan().runs

    def find(self, run: str) -> RunRecord:
        """A finished run by its id, the start of its id, or the path of its folder.

        Raises: UnknownName: none, or several. StoreError: not finished, or damaged.
        """
        folder = Path(run)
        if (folder / RECORD).is_file():
            return read_record(folder)
        if (self.runs_dir / run / RECORD).is_file():
            return read_record(self.runs_dir / run)
        runs = self.runs()
        matches = [record for record in runs if record.run_id.startswith(run)]
        if len(matches) > 1:
            listed = ", ".join(record.run_id for record in matches[:MATCHES_SHOWN])
            more = f" and {len(matches) - MATCHES_SHOWN} more" if len(matches) > MATCHES_SHOWN else ""
            raise UnknownName(f"{run!r} fits several finished runs: {listed}{more}; give more of the id")
        if not matches:
            raise UnknownName.of("finished run", run, [record.run_id for record in runs])
        return matches[0]

    def samples(self, record: RunRecord) -> Iterator[Sample]:
        """Samples of a finished run, streamed."""
        return read_table((record.path or self.runs_dir / record.run_id) / TABLE)

    def frame(self) -> pd.DataFrame:
        """One row per run, task and metric, with the run's facts beside."""
        import pandas as pd

        rows = [
            {
                "run_id": run.run_id,
                "checkpoint": run.checkpoint.name,
                "suite": run.suite,
                "profile": run.profile,
                "task": task,
                "metric": name,
                "value": metric.value,
                "stderr": metric.stderr,
                "ci_low": metric.ci95[0] if metric.ci95 else None,
                "ci_high": metric.ci95[1] if metric.ci95 else None,
                "n": metric.n,
                "n_failed": metric.n_failed,
                "higher_is_better": metric.higher_is_better,
            }
            for run in self.runs()
            for task, metrics in run.metrics.items()
            for name, metric in metrics.items()
        ]
        return pd.DataFrame(rows)
