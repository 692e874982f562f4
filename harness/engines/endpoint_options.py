"""Options of the endpoint engine, and the key, which is none of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from harness.endpoints import KEY_RULE, LIKE_A_KEY, Endpoint
from harness.errors import BadInput, BadPlan
from harness.records import Json
from harness.yamlfile import problem

DEFAULT_KEY = "HARNESS_API_KEY"
OPENAI_KEY, OPENAI_HOST = "OPENAI_API_KEY", "api.openai.com"
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
LEAST_HIDDEN = 8
"""Shorter keys (EMPTY, none) are no secrets, and hiding them would hide parts of answers."""
ASKED = frozenset(
    {"model", "prompt", "messages", "temperature", "top_p", "top_k", "seed", "n", "stop", "stream", "stream_options",
     "max_tokens", "max_completion_tokens", "echo", "logprobs", "top_logprobs", "prompt_logprobs", "ignore_eos",
     "return_token_ids", "add_generation_prompt", "continue_final_message"}
)  # fmt: skip
"""Fields of a request that say what is asked: a user's own would make the record say otherwise."""
SECRET = re.compile(
    r"(?:.*[._-])?(?:api[_-]?key|(?:access|secret|private)[_-]?key|(?:access|auth|bearer|id)[_-]?token|authori[sz]ation|"
    r"secret|password|passwd|credentials?)|key|token|auth|bearer",
    re.IGNORECASE,
)
"""Names of what is no field of a request and must not be written into a record."""
RESULT = ("tokenizer", "max_length", "extra_body")
"""Options that what is answered depends on: part of a run's identity."""


class EndpointOptions(BaseModel):
    """`--engine-option NAME=VALUE`, or engine.options in a plan."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    tokenizer: Path | None = Field(default=None, description="Folder of the tokenizer that the server uses")
    key_env: str | None = Field(default=None, description="Environment variable that holds the key")
    local: bool = Field(default=False, description="The server runs on this machine: weigh its energy")
    concurrency: int = Field(default=32, ge=1, le=4096, description="Requests in flight")
    rpm: float | None = Field(default=None, gt=0, description="Requests per minute")
    tpm: float | None = Field(default=None, gt=0, description="Tokens per minute, prompts and answers")
    price_in: float | None = Field(default=None, ge=0, description="Per million prompt tokens")
    price_out: float | None = Field(default=None, ge=0, description="Per million answer tokens")
    cost_limit: float | None = Field(default=None, gt=0, description="Stop before this much is spent")
    deadline_s: float = Field(default=600.0, gt=0, description="Longest time of one request")
    retries: int = Field(default=8, ge=0, description="After 429, 5xx and broken connections")
    backoff_s: float = Field(default=0.5, gt=0, description="First wait; doubles up to 30 s")
    stream: bool | None = Field(default=None, description="Times per token; unset: where speed is measured")
    max_length: int | None = Field(default=None, ge=2, description="Context, where the server does not tell")
    extra_body: dict[str, Any] = Field(default_factory=dict, description="Further fields of every request")

    @field_validator("tokenizer")
    @classmethod
    def _folder(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().is_dir():
            raise ValueError(f"{str(value)!r} is no folder; give one with the server's tokenizer files")
        return None if value is None else value.expanduser()

    @model_validator(mode="after")
    def _priced(self) -> EndpointOptions:
        if self.cost_limit is not None and (self.price_in is None or self.price_out is None):
            raise ValueError("cost_limit needs price_in and price_out (per million tokens)")
        return self


def read_options(given: Mapping[str, Json]) -> EndpointOptions:
    """Raises: BadPlan: an option there is not, or a value that does not fit. Values of key_env are not repeated."""
    name = given.get("key_env")
    if name is not None and not (isinstance(name, str) and VARIABLE.fullmatch(name)):
        raise BadPlan(
            "engine endpoint: key_env is the NAME of an environment variable, in capitals, never the key itself"
        )
    _check_body(given.get("extra_body"))
    unknown = sorted(set(given) - set(EndpointOptions.model_fields))
    if unknown:  # without the value: somebody may have tried to give a key
        known = ", ".join(EndpointOptions.model_fields)
        raise BadPlan(f"engine endpoint has no option {unknown[0]!r}; known: {known}")
    try:
        return EndpointOptions.model_validate(dict(given))
    except ValidationError as exc:
        raise BadPlan(f"engine endpoint: {problem(exc, EndpointOptions)}") from exc


def _check_body(body: Json) -> None:
    """Raises: BadPlan: further fields that the engine sets itself, or that hold a key; values are not repeated."""
    if _holds_key(body):
        raise BadPlan(
            f"engine endpoint: extra_body holds a key, or what looks like one; take it out: {KEY_RULE}"
        )
    taken = sorted(ASKED & body.keys()) if isinstance(body, Mapping) else []
    if taken:
        raise BadPlan(
            f"engine endpoint: extra_body may not set {taken[0]!r}, which the harness sets and records by itself; "
            "change it where it is set: --set sampling.NAME=VALUE, the task's options, or the model in the address"
        )


def _holds_key(value: Json) -> bool:
    """Whether a name or a text in it, at any depth, is a key's."""
    if isinstance(value, Mapping):
        named = any(SECRET.fullmatch(str(name)) or LIKE_A_KEY.search(str(name)) for name in value)
        return named or any(map(_holds_key, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_holds_key, value))
    return isinstance(value, str) and LIKE_A_KEY.search(value) is not None


class Key:
    """A key that shows itself to nobody."""

    def __init__(self, value: str, source: str) -> None:
        self._value = value
        self._spelt = re.compile("".join(map(_spellings, value)))
        self.source = source
        """Name of the environment variable."""

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def hide(self, text: str) -> str:
        """The text without the key, should a server repeat it, as it is or as JSON may write it."""
        if len(self._value) < LEAST_HIDDEN:
            return text
        plain = text.replace(self._value, "[key]")
        return self._spelt.sub("[key]", plain) if "\\" in plain else plain

    def hide_in(self, data: Any) -> Any:
        """Data of JSON without the key, in texts and in names."""
        if len(self._value) < LEAST_HIDDEN:
            return data
        if isinstance(data, str):
            return self.hide(data)
        if isinstance(data, list):
            return [self.hide_in(item) for item in data]
        if isinstance(data, dict):
            return {self.hide(name): self.hide_in(item) for name, item in data.items()}
        return data

    def __repr__(self) -> str:
        return f"Key from {self.source}" if self._value else "no key"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a key is not written anywhere")


def _spellings(letter: str) -> str:
    """A pattern of a letter as it is, and as JSON may write it."""
    plain = re.escape(letter)
    return rf"(?:{plain}|\\{{1,4}}(?:{plain}|(?i:u{ord(letter):04x})))"


def find_key(endpoint: Endpoint, name: str | None) -> Key:
    """The key from the environment; OPENAI_API_KEY goes to OpenAI alone unless key_env says so.

    Raises: BadInput: the variable named is not set, or holds what is no header's value.
    """
    value = os.environ.get(name or DEFAULT_KEY, "")
    if name is not None and not value.strip():
        raise BadInput(f"engine endpoint: the environment has no {name}, which key_env names; export it")
    source = name or DEFAULT_KEY
    if not value and endpoint.host == OPENAI_HOST:
        source, value = OPENAI_KEY, os.environ.get(OPENAI_KEY, "")
    value = value.strip()
    if not value.isascii() or not value.isprintable():
        raise BadInput(f"engine endpoint: {source} holds characters that no key has; export it anew")
    return Key(value, source)
