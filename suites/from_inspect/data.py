"""inspect tasks read their data themselves: lead what they call to --data-dir, and keep their caches apart.

What cannot be reached is remembered, since many a task catches what its reading raises and stumbles over the gap.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import CalledProcessError
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from harness.errors import DatasetUnavailable
from harness.hubdata import hub_reachable
from harness.protocols import DataSource

BUILDERS = {
    "json",
    "csv",
    "parquet",
    "text",
    "arrow",
    "pandas",
    "xml",
    "webdataset",
    "imagefolder",
    "audiofolder",
}
"""First arguments of load_dataset that name a file format, not a dataset."""


MARKS = re.compile(r"\[/?(bold|red|blue|yellow|link)\]")


@contextmanager
def redirected(places: Places) -> Iterator[None]:
    """Inside, ids of datasets resolve as harness.datasets does: --data-dir, the hub's cache, the hub.

    A pinned revision is dropped where a folder answers: the folder is what it is. inspect's own cache of prepared
    datasets, which is not keyed by where the rows came from, is a temporary folder.
    """
    import datasets
    import huggingface_hub
    import inspect_ai.dataset._sources.hf as inspect_hf
    from inspect_evals.utils import load_dataset as files
    from tenacity import nap

    with ExitStack() as stack:
        cache = stack.enter_context(TemporaryDirectory(prefix="inspect-cache-"))
        stack.enter_context(patch.object(inspect_hf, "inspect_cache_dir", lambda subdir=None: Path(cache)))
        for name in ("load_dataset", "get_dataset_split_names", "get_dataset_config_names"):
            stack.enter_context(patch.object(datasets, name, places.dataset(getattr(datasets, name))))
        for name in ("snapshot_download", "hf_hub_download"):
            function = getattr(huggingface_hub, name)
            stack.enter_context(patch.object(huggingface_hub, name, places.repository(function)))
        stack.enter_context(patch.object(files, "_download_remote", places.file(files._download_remote)))
        stack.enter_context(patch.object(socket, "getaddrinfo", places.host(socket.getaddrinfo)))
        stack.enter_context(_quiet_bars())
        stack.enter_context(patch.object(nap, "time", SimpleNamespace(sleep=_between_tries)))
        yield


class Places:
    """Where a task's data are.

    Attributes:
        missing: the first that could not be reached; None: all could, as far as they were asked for here.
    """

    def __init__(self, data: DataSource) -> None:
        self.missing: DatasetUnavailable | None = None
        self._data = data
        self._unknown_host: str | None = None

    def network_problem(self, exc: BaseException) -> str | None:
        """What could not be reached, where that is why building a task failed; None: it failed for another reason."""
        kinds = network_errors()
        for one in chain(exc):
            if isinstance(one, CalledProcessError) and "clone" in one.cmd:
                return f"{' '.join(map(str, one.cmd))} fails; {WAYS_OUT}"
            if isinstance(one, kinds) and not _is_local(one):
                host = f"{self._unknown_host} cannot be reached, " if self._unknown_host else ""
                return f"{host}{line(one)}; {WAYS_OUT}"
        return None

    def host(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """socket.getaddrinfo: many an error names no address."""

        def call(host: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return function(host, *args, **kwargs)
            except OSError:
                self._unknown_host = host.decode() if isinstance(host, bytes) else str(host)
                raise

        return call

    def _lacks(self, problem: str | DatasetUnavailable) -> DatasetUnavailable:
        found = DatasetUnavailable(problem) if isinstance(problem, str) else problem
        self.missing = self.missing or found
        return found

    def _place(self, dataset: str, config: str | None = None) -> str:
        try:
            return self._data.path_or_id(dataset, config)
        except DatasetUnavailable as exc:
            raise self._lacks(exc) from exc

    def dataset(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """datasets.load_dataset and its kin, for a path that a folder may answer."""

        def call(path: str, *args: Any, **kwargs: Any) -> Any:
            if path in BUILDERS or Path(path).exists():
                return function(path, *args, **kwargs)
            found = self._place(path, kwargs.get("name", args[0] if args else None))
            kwargs.pop("trust_remote_code", None)
            if not Path(found).is_dir():
                return function(found, *args, **kwargs)
            kwargs.pop("revision", None)
            try:
                return function(found, *args, **kwargs)
            except (ValueError, *network_errors()) as exc:
                raise self._lacks(
                    f"{found} does not hold what is asked of it ({line(exc)}); {AS_IT_IS}"
                ) from exc

        return call

    def repository(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """snapshot_download and hf_hub_download, for a repository that a folder may answer."""

        def call(repo_id: str, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("repo_type") != "dataset":
                return self._once(function, repo_id, *args, **kwargs)
            found = Path(self._place(repo_id))
            if not found.is_dir():
                return function(repo_id, *args, **kwargs)
            filename = kwargs.get("filename", args[0] if args else None)
            target = found if filename is None else found / filename
            if not target.exists():
                raise self._lacks(f"{found} has no {filename}; {AS_IT_IS}")
            return str(target)

        return call

    def _once(self, function: Callable[..., Any], repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """A model's files; without a hub, inspect_evals would try again for minutes."""
        try:
            return function(repo_id, *args, **kwargs)
        except network_errors() as exc:
            if hub_reachable():
                raise
            raise self._lacks(
                f"{repo_id!r} is not in the hub's cache, and the hub cannot be reached; go online, or fill the hub's "
                "cache on a machine that is"
            ) from exc

    def file(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """inspect_evals' download of one file to its cache; tried once where the hub cannot be reached either."""

        def call(url: str, kept: str, *args: Any, **kwargs: Any) -> Any:
            download = function if hub_reachable() else function.__wrapped__  # type: ignore[attr-defined]
            try:
                return download(url, kept, *args, **kwargs)
            except network_errors() as exc:
                raise self._lacks(
                    f"{url} cannot be reached; go online, or save that file as {kept} from a machine that is"
                ) from exc

        return call


AS_IT_IS = "the task needs the repository as it is on the hub"
WAYS_OUT = "give --data-dir FOLDER with dataset repositories, fill the hub's cache beforehand, or go online"


def chain(exc: BaseException) -> Iterator[BaseException]:
    """An exception and what it came from, the outcome of a last try included."""
    seen: set[int] = set()
    left: list[Any] = [exc]
    while left:
        one = left.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        tried = getattr(one, "last_attempt", None)  # tenacity's RetryError
        left += [tried.exception() if tried is not None else None, one.__cause__, one.__context__]


def _between_tries(seconds: float) -> None:
    """Nobody waits for what will not come."""
    if hub_reachable():
        time.sleep(seconds)


def _is_local(exc: BaseException) -> bool:
    """A program or a file of this machine that is not there: no network would bring it."""
    return isinstance(exc, (FileNotFoundError, PermissionError)) and exc.errno is not None


def line(exc: BaseException) -> str:
    """What was raised, in one line, without the marks that inspect writes for a terminal."""
    return f"{type(exc).__name__}: {' '.join(MARKS.sub('', str(exc)).split())[:300]}"


@contextmanager
def _quiet_bars() -> Iterator[None]:
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def network_errors() -> tuple[type[BaseException], ...]:
    """What a task raises whose data cannot be reached."""
    import httpx
    import requests
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, httpx.HTTPError, requests.RequestException, DatasetsError, HfHubHTTPError)
