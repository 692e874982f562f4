"""Calls into inspect-ai without traces: nothing on stdout, no hooks of other packages, no git, logging as it was."""

from __future__ import annotations

import io
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from queue import Full
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

WORKER = "AnyIO worker thread"


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, inspect may be asked for anything; afterwards the process is as before.

    Switched off, because each costs seconds or leaves traces: looking for hooks in all installed packages (which
    imports every task of inspect_evals), finding the distribution of a task, asking git for the state of the user's
    working directory. Hooks that were registered by an import stay.
    """
    import inspect_ai._eval.task.log as task_log
    import inspect_ai._util.appdirs as appdirs
    import inspect_ai.hooks._startup as startup

    log_module = import_module("inspect_ai.log._log")
    evaluation = import_module("inspect_ai._eval.eval")  # the package has a function of the same name
    root = logging.getLogger()
    handlers, level, excepthook = list(root.handlers), root.level, sys.excepthook
    with ExitStack() as stack:
        stack.enter_context(patch.object(startup, "_registry_hooks_loaded", True))
        stack.enter_context(patch.object(task_log, "resolve_task_distribution", lambda name: None))
        stack.enter_context(patch.object(task_log, "git_context", lambda: None))
        # Trace logs and sample buffers would pile up in the user's home, or fail where that is read-only.
        stack.enter_context(patch.object(appdirs, "user_data_path", lambda name: Path(_scratch().name, name)))
        # A coloured traceback takes a tenth of a second and more, for every sample that fails.
        stack.enter_context(patch.object(log_module, "format_traceback", _plain_traceback))
        # Ctrl-C would leave it set, and no later run of this process could start.
        stack.enter_context(patch.object(evaluation, "_eval_async_running", False))
        # stdout is for results; inspect and the tasks print to it as they load.
        stack.enter_context(redirect_stdout(io.StringIO()))
        try:
            yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            sys.excepthook = excepthook
            end_workers()


def end_workers() -> None:
    """End the threads of event loops that are closed.

    anyio forgets some that were busy when their loop went down; they wait for work for ever, and Python waits for
    them before it exits.
    """
    for thread in threading.enumerate():
        loop, queue = getattr(thread, "loop", None), getattr(thread, "queue", None)
        if thread.name == WORKER and loop is not None and queue is not None and loop.is_closed():
            with suppress(Full):  # told already
                queue.put_nowait(None)


@cache
def _scratch() -> TemporaryDirectory[str]:
    """inspect's data folder in this process; it goes when the process ends."""
    return TemporaryDirectory(prefix="inspect-data-")


def _plain_traceback(kind: type[BaseException], error: BaseException, trace: Any) -> tuple[str, str]:
    text = "".join(traceback.format_exception(kind, error, trace))
    return text, text
