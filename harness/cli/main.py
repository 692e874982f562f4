"""Run a command and turn whatever comes out of it into an exit code and, at most, one line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from harness.errors import HarnessError

USER_MISTAKE = 2
INTERRUPTED = 1
_ABORTED = 130
"""What typer returns when Ctrl-C reached it first."""
HELP_WIDTH = 100
_DISK = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only; choose a folder that can be written",
    errno.EACCES: "permission denied; choose a folder that you may write",
    errno.EPERM: "not permitted; choose a folder that you may write",
}


def main() -> None:
    """Entry point of the `harness` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code (0, 1, 2, 3)."""
    from harness.cli.app import command
    from harness.cli.manyvalued import spread

    arguments = spread(arguments) or ["--help"]
    debug = "--debug" in arguments
    if not debug:
        quieten()
    try:
        settings = {"standalone_mode": False, "max_content_width": HELP_WIDTH}
        code = command(arguments)(arguments, prog_name="harness", **settings) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone; the null device keeps Python from saying so at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as exc:  # noqa: BLE001  the last stop before the user
        if debug:
            import traceback

            traceback.print_exc()
        line, code = explain(exc)
        print(f"harness: {line}", file=sys.stderr)
        return code
    if code == _ABORTED:
        print("harness: interrupted; repeat the command to go on", file=sys.stderr)
        return INTERRUPTED
    return int(code)


def explain(exc: BaseException) -> tuple[str, int]:
    """One line and the exit code for an exception: every kind that can reach the user is named here."""
    if isinstance(exc, HarnessError):
        return _one_line(str(exc)), exc.exit_code
    if isinstance(exc, KeyboardInterrupt) or type(exc).__name__ == "Abort":
        return "interrupted; repeat the command to go on", INTERRUPTED
    if hasattr(exc, "format_message"):  # typer's usage errors
        return f"{_one_line(exc.format_message()).rstrip('.')}; see `{_help_command(exc)}`", USER_MISTAKE
    if isinstance(exc, OSError) and exc.errno in _DISK:
        return f"{exc.filename or 'writing'}: {_DISK[exc.errno]}, then repeat the command", USER_MISTAKE
    if isinstance(exc, RuntimeError) and "home directory" in str(exc):  # pathlib's word for ~nobody
        return "a path begins with ~ and a name that no user here has; write the path out", USER_MISTAKE
    if isinstance(exc, MemoryError):
        return "out of memory; try a smaller model, --dtype bfloat16 or --set engine.batch_tokens=1024", 1
    where = f"{type(exc).__name__}: {_one_line(str(exc))}"
    return f"something broke that should not have: {where} (run again with --debug for the traceback)", 1


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _help_command(exc: BaseException) -> str:
    context = getattr(exc, "ctx", None)
    return f"{context.command_path if context else 'harness'} --help"


def quieten() -> None:
    """Keep the heavy libraries' warnings, banners and bars off the terminal. Set before they are imported."""
    import warnings

    warnings.simplefilter("ignore")
    quiet = {
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "DATASETS_VERBOSITY": "error",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_VERBOSITY": "error",
        "LMEVAL_LOG_LEVEL": "ERROR",
        "LOGLEVEL": "ERROR",
        "TOKENIZERS_PARALLELISM": "false",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "PYTHONWARNINGS": "ignore",
        "TQDM_DISABLE": "1",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
