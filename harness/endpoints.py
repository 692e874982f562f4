"""Endpoint specs: an OpenAI-compatible server as a checkpoint, http(s)://host[:port]/v1#model.

What a server answers with cannot be hashed, so an endpoint's fingerprint is its address and its model's name. No key
is ever part of a spec: keys come from the environment (harness.engines.endpoint).
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from harness.errors import BadCheckpoint
from harness.fingerprint import digest_of
from harness.records import Checkpoint

FORM = "give http(s)://host[:port]/v1#model"
LIKE_A_KEY = re.compile(r"(?:\bsk-|\bhf_|\bgsk_|\bxai-|\bAIza|\bBearer\s)[\w-]{12,}", re.IGNORECASE)
"""Beginnings of keys that are in use; a spec is written into records, so one of these must not be in it."""
KEY_RULE = "keys come from the environment alone (HARNESS_API_KEY, or --engine-option key_env=NAME)"


class Endpoint(NamedTuple):
    """A server and one of its models."""

    url: str
    """Root of the API without a slash at its end, e.g. http://127.0.0.1:8000/v1."""
    model: str

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def root(self) -> str:
        """Where a server keeps what is not OpenAI's (vLLM: /tokenize, /version): the URL before /v1."""
        return re.sub(r"/v\d+$", "", self.url)

    def __str__(self) -> str:
        return f"{self.url}#{self.model}"


def is_endpoint(spec: str) -> bool:
    """Whether a spec is meant as a server's address."""
    return spec.lower().startswith(("http://", "https://"))


def parse(spec: str) -> Endpoint:
    """Read an endpoint spec.

    Raises: BadCheckpoint: no host, no model, a port that is none, or what could be a key. A spec with a key in it is
        never repeated in the message.
    """
    if LIKE_A_KEY.search(spec):
        raise BadCheckpoint(f"the endpoint's address holds what looks like a key; take it out: {KEY_RULE}")
    parts = _split(spec)
    if parts.username is not None or parts.password is not None:
        raise BadCheckpoint(f"the endpoint's address holds a user or a password; take it out: {KEY_RULE}")
    if parts.query:
        raise BadCheckpoint(
            f"the endpoint's address at {parts.hostname} has a query (?...), where keys are kept; {FORM}; {KEY_RULE}"
        )
    model, path = parts.fragment, parts.path.rstrip("/")
    if not model:
        raise BadCheckpoint(f"endpoint {spec!r} names no model; {FORM}")
    if not path:
        raise BadCheckpoint(f"endpoint {spec!r} lacks the API's path, which is mostly /v1; {FORM}")
    if path.endswith(("/completions", "/chat", "/models")):
        raise BadCheckpoint(f"endpoint {spec!r} names one call of the API, not its root; {FORM}")
    return Endpoint(f"{parts.scheme.lower()}://{parts.netloc.lower()}{path}", model)


def refuse_training(spec: str) -> None:
    """Raises: BadCheckpoint: a server, which can be asked and not trained."""
    if is_endpoint(spec):
        raise BadCheckpoint(f"{parse(spec)} is a server, which cannot be trained; give a folder or a hub id")


def _split(spec: str) -> SplitResult:
    try:
        parts = urlsplit(spec)
        _ = parts.port
    except ValueError as exc:
        raise BadCheckpoint(f"the endpoint's address is none ({exc}); {FORM}") from exc
    if not parts.hostname or any(c.isspace() or not c.isprintable() for c in spec):
        raise BadCheckpoint(f"endpoint {spec!r} is no address; {FORM}")
    _check_host(spec, parts.hostname)
    return parts


def _check_host(spec: str, host: str) -> None:
    """Raises: BadCheckpoint: a host that no connection can be opened to. What stands before it may be a password."""
    import httpx  # takes a moment that only servers need

    try:
        _ = httpx.URL(spec).host
        host.rstrip(".").encode("idna")  # as the socket will
    except (httpx.InvalidURL, UnicodeError) as exc:
        reason = " ".join(str(exc).split())
        raise BadCheckpoint(f"the endpoint's host {host!r} is no address ({reason}); {FORM}") from exc


def checkpoint_of(spec: str, name: str | None = None) -> Checkpoint:
    """The checkpoint that an endpoint is. Models of one server share a base: they share the connection.

    Raises: BadCheckpoint
    """
    endpoint = parse(spec)
    return Checkpoint(
        spec=str(endpoint),
        name=name or endpoint.model.rstrip("/").rsplit("/", 1)[-1] or endpoint.model,
        base=endpoint.url,
        adapter=None,
        fingerprint=digest_of({"endpoint": endpoint.url, "model": endpoint.model}),
        base_fingerprint=digest_of({"endpoint": endpoint.url}),
    )
