"""inspect tasks read their data themselves: lead what they call to --data-dir, and keep their caches apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from harness.errors import DatasetUnavailable
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


@contextmanager
def redirected(data: DataSource) -> Iterator[None]:
    """Inside, ids of datasets resolve as harness.datasets does: --data-dir, the hub's cache, the hub.

    A pinned revision is dropped where a folder answers: the folder is what it is. inspect's own cache of prepared
    datasets, which is not keyed by where the rows came from, is a temporary folder.
    """
    import datasets
    import huggingface_hub
    import inspect_ai.dataset._sources.hf as inspect_hf

    place = _Places(data)
    with ExitStack() as stack:
        cache = stack.enter_context(TemporaryDirectory(prefix="inspect-cache-"))
        stack.enter_context(patch.object(inspect_hf, "inspect_cache_dir", lambda subdir=None: Path(cache)))
        for name in ("load_dataset", "get_dataset_split_names", "get_dataset_config_names"):
            stack.enter_context(patch.object(datasets, name, place.dataset(getattr(datasets, name))))
        for name in ("snapshot_download", "hf_hub_download"):
            function = getattr(huggingface_hub, name)
            stack.enter_context(patch.object(huggingface_hub, name, place.repository(function)))
        stack.enter_context(_quiet_bars())
        yield


class _Places:
    def __init__(self, data: DataSource) -> None:
        self._data = data

    def dataset(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """datasets.load_dataset and its kin, for a path that a folder may answer."""

        def call(path: str, *args: Any, **kwargs: Any) -> Any:
            if path in BUILDERS or Path(path).exists():
                return function(path, *args, **kwargs)
            config = kwargs.get("name", args[0] if args else None)
            found = self._data.path_or_id(path, config)
            if Path(found).is_dir():
                kwargs.pop("revision", None)
            kwargs.pop("trust_remote_code", None)
            return function(found, *args, **kwargs)

        return call

    def repository(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """snapshot_download and hf_hub_download, for a repository that a folder may answer."""

        def call(repo_id: str, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("repo_type") != "dataset":
                return function(repo_id, *args, **kwargs)
            found = Path(self._data.path_or_id(repo_id))
            if not found.is_dir():
                return function(repo_id, *args, **kwargs)
            filename = kwargs.get("filename", args[0] if args else None)
            target = found if filename is None else found / filename
            if not target.exists():
                raise DatasetUnavailable(
                    f"{found} has no {filename}; the task needs the repository as it is on the hub"
                )
            return str(target)

        return call


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
