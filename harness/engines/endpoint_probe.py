"""What a server can: asked once, when the engine is loaded, with requests of one token."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.engines.endpoint_answers import read_choices
from harness.engines.endpoint_client import Call, Client, Garbage, Refused, Reply, usage_of
from harness.engines.endpoint_echo import number, read_echo
from harness.engines.endpoint_limits import Load
from harness.errors import BadCheckpoint, EngineError
from harness.records import Json

Scoring = Literal["prompt_logprobs", "echo"]
TEXT = "One, two, three: the probe of 4 capitals, Ünïcödé and  two spaces."
ASKED = Load(64, 2)
SAMPLED_TOKENS = 16
PROBE_RETRIES = 2
NO_KEY = (401, 403)


@dataclass(frozen=True)
class Server:
    """What a server has for one model."""

    model: str
    completions: bool
    chat: bool
    takes_ids: bool
    """/completions takes token ids for a prompt."""
    scoring: Scoring | None
    """How log-likelihoods are had: vLLM's prompt_logprobs, echo with logprobs, or not."""
    echo_tokens: int
    """max_tokens that go with echo: 0, or 1 where 0 is refused."""
    tokenize: bool
    """/tokenize, as vLLM has it."""
    draws: bool
    """n > 1 gives n answers; else n requests are sent."""
    max_model_len: int | None
    owner: str | None
    """owned_by of /v1/models: vllm, ..."""
    says: Mapping[str, Json]
    """What it tells of itself: version, root of the weights, fingerprint."""
    text_tokens: int | None
    """Tokens that it counts in TEXT."""

    def facts(self) -> dict[str, Json]:
        """For the run record."""
        facts = asdict(self)
        del facts["text_tokens"]
        return facts


async def probe(client: Client, model: str) -> Server:
    """Ask the server what it can.

    Raises: BadCheckpoint: it does not answer, refuses the key, or has no such model.
    """
    entries = await _models(client)
    entry: Mapping[str, Any] = next((one for one in entries if one.get("id") == model), {})
    names = tuple(str(one.get("id")) for one in entries)
    plain = await _try(client, "completions", {"model": model, "prompt": TEXT, "max_tokens": 1})
    chat = await _try(client, "chat/completions", _chat(model))
    if chat is None and plain is None:
        raise BadCheckpoint(_why_not(client, model, names))
    scoring, echo = await _scoring(client, model) if plain else (None, 0)
    tokens = await _tokens(client, model)
    return Server(
        model=model,
        completions=plain is not None,
        chat=chat is not None,
        takes_ids=plain is not None and await _takes_ids(client, model),
        scoring=scoring,
        echo_tokens=echo,
        tokenize=tokens,
        draws=await _draws(client, model, completions=plain is not None),
        max_model_len=_number(entry.get("max_model_len")),
        owner=entry.get("owned_by") if isinstance(entry.get("owned_by"), str) else None,
        says=await _says(client, entry, plain or chat),
        text_tokens=usage_of(plain.events).prompt if plain else None,
    )


def _chat(model: str) -> dict[str, Json]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}


async def _ask(client: Client, path: str, body: Mapping[str, Json] | None, retries: int = 0) -> Reply:
    call = Call(path, body, ASKED if body is not None else Load(0, 0), retries=retries)
    return await client.ask(call, lambda reply: reply)


async def _try(client: Client, path: str, body: dict[str, Json]) -> Reply | None:
    """The reply with its one choice; None where the server does not have this.

    Raises: BadCheckpoint: it refuses the key, or is not there.
    """
    client.refusals.pop(path, None)
    try:
        reply = await _ask(client, path, _whole(client, path, body), PROBE_RETRIES)
        if not _first(reply.events[0].data):
            raise Garbage(f"{client.endpoint.url}/{path}: an answer without choices")
    except Refused as exc:
        if exc.status in NO_KEY:
            raise BadCheckpoint(f"{exc}; export the right one") from exc
        if "max_completion_tokens" in exc.said and path not in client.newer_limit:
            client.newer_limit.add(path)
            return await _try(client, path, body)
        client.refusals[path] = str(exc)
        return None
    except EngineError as exc:
        if client.reached or isinstance(exc, Garbage):
            client.refusals[path] = str(exc)
            return None
        raise BadCheckpoint(f"{exc}; start the server, or mend the address") from exc
    return reply


def _whole(client: Client, path: str, body: Mapping[str, Json]) -> dict[str, Json]:
    """The body with the name that the server has for an answer's length, and the user's own fields."""
    newer = "max_completion_tokens" if path in client.newer_limit else "max_tokens"
    return {(newer if name == "max_tokens" else name): value for name, value in body.items()} | (
        client.options.extra_body
    )


def _why_not(client: Client, model: str, names: Sequence[str]) -> str:
    if names and model not in names:
        held = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        return f"{client.endpoint.url} has no model {model!r}; it has: {held}"
    reasons = dict.fromkeys(client.refusals.values())
    return f"{client.endpoint} answers neither completions nor chats: {'; '.join(reasons)}"


async def _models(client: Client) -> list[Mapping[str, Any]]:
    """Entries of /v1/models; none where the server has no list."""
    try:
        reply = await _ask(client, "models", None)
    except Refused as exc:
        if exc.status in NO_KEY:
            raise BadCheckpoint(f"{exc}; export the right one") from exc
        return []
    except EngineError:
        return []  # asked again by what comes next, which must have an answer
    data = reply.events[0].data.get("data")
    return [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []


async def _optional(client: Client, path: str, body: Mapping[str, Json] | None) -> Mapping[str, Any] | None:
    """The object that came; None for whatever else happened: what is asked here, few servers have."""
    try:
        return (await _ask(client, path, body)).events[0].data
    except EngineError:
        return None


async def _scoring(client: Client, model: str) -> tuple[Scoring | None, int]:
    body = {"model": model, "prompt": TEXT, "max_tokens": 1, "temperature": 0}
    found = await _optional(client, "completions", body | {"prompt_logprobs": 1})
    if found and isinstance(_first(found).get("prompt_logprobs"), list):
        return "prompt_logprobs", 0
    for most in (0, 1):
        with contextlib.suppress(EngineError):
            reply = await _ask(
                client, "completions", body | {"max_tokens": most, "echo": True, "logprobs": 1}
            )
            if _is_echo(reply, most):
                return "echo", most
    return None, 0


def _is_echo(reply: Reply, generated: int) -> bool:
    """Whether TEXT came back with a number for every token and for the likeliest in its place, but for the first.

    Raises: Garbage
    """
    text = _first(reply.events[0].data).get("text")
    echo = read_echo(reply, generated)
    told = [number(value) for value in echo.values[1:]]
    return isinstance(text, str) and text.startswith(TEXT) and len(echo.told_tops(1)) == len(told) > 1


def _first(data: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    return first if isinstance(first, dict) else {}


async def _tokens(client: Client, model: str) -> bool:
    found = await _optional(client, "/tokenize", {"model": model, "prompt": TEXT})
    return found is not None and isinstance(found.get("tokens"), list)


async def _takes_ids(client: Client, model: str) -> bool:
    body = {"model": model, "prompt": [1, 2, 3], "max_tokens": 1, "temperature": 0}
    try:
        reply = await _ask(client, "completions", body)
    except EngineError:
        return False
    return usage_of(reply.events).prompt == 3


async def _draws(client: Client, model: str, *, completions: bool) -> bool:
    """Whether n=2 gives two answers; servers are known that take it and give one."""
    body = {"model": model, "max_tokens": 1, "temperature": 1.0, "n": 2}
    path = "completions" if completions else "chat/completions"
    body |= {"prompt": TEXT} if completions else {"messages": _chat(model)["messages"]}
    found = await _optional(client, path, body)
    choices = (found or {}).get("choices")
    return isinstance(choices, list) and len(choices) == 2


async def does_sample(client: Client, server: Server) -> bool:
    """Whether it draws at a temperature; servers are known that take one and give the greedy answer.

    Raises: EngineError: it does not answer.
    """
    path = "completions" if server.completions else "chat/completions"
    body: dict[str, Json] = {"model": server.model, "max_tokens": SAMPLED_TOKENS, "temperature": 2.0}
    body |= {"prompt": TEXT} if server.completions else {"messages": _chat(server.model)["messages"]}
    body = _whole(client, path, body)
    replies = [await _ask(client, path, body, PROBE_RETRIES) for _ in range(2)]
    texts = [read_choices(reply, 1, chat=not server.completions)[0].texts for reply in replies]
    return texts[0] != texts[1] or not any(texts[0])


async def _says(client: Client, entry: Mapping[str, Any], reply: Reply | None) -> dict[str, Json]:
    """What tells this server from another one, or from itself after an update."""
    version = await _optional(client, "/version", None)
    found = {
        "version": (version or {}).get("version"),
        "root": entry.get("root"),
        "system_fingerprint": reply.events[0].data.get("system_fingerprint") if reply else None,
        "model": reply.events[0].data.get("model") if reply else None,
    }
    return {name: value[:200] for name, value in found.items() if isinstance(value, str) and value}


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 1 else None
