"""Python files that the user named on the command line or in a suite file: the one kind of code that is run unasked."""

from __future__ import annotations

import sys
import traceback
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import BadInput, HarnessError, UnknownName
from harness.fingerprint import file_sha256
from harness.hashing import slug


def load_object(path: Path, name: str, kind: str) -> Any:
    """A class or function of a user's file; the file is run once.

    Args: kind: what it is wanted as, for the messages: task, scorer.
    Raises: BadInput: no such file, or it does not load (with its line). UnknownName: nothing callable of that name.
    """
    if not path.is_file():
        raise BadInput(f"no {kind} file {str(path)!r}; write path/to/file.py:NAME")
    module = _module(path.resolve(), file_sha256(path), kind)
    found = getattr(module, name, None)
    if not callable(found):
        own = [
            key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
        ]
        raise UnknownName.of(f"{kind} in {path.name}", name, own)
    return found


@cache
def _module(path: Path, digest: str, kind: str) -> ModuleType:
    """Args: digest: of the content, so that a changed file is read anew."""
    name = f"harness_user_{slug(path.stem).replace('-', '_').replace('.', '_')}_{digest[:12]}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{kind} file {str(path)!r} cannot be read as Python; write path/to/file.py:NAME")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(module)
    except HarnessError:
        raise
    except (Exception, SystemExit) as exc:
        del sys.modules[name]
        raise BadInput(f"{kind} file does not load: {blame(exc, path)}") from exc
    return module


def blame(exc: BaseException, path: Path) -> str:
    """'path:line: ValueError: ...', the line being the last one in the user's own file."""
    frames = traceback.extract_tb(exc.__traceback__)
    own = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    line = exc.lineno if isinstance(exc, SyntaxError) else own[-1] if own else None
    return f"{path}{f':{line}' if line else ''}: {type(exc).__name__}: {exc}"
