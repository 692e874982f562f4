"""From what a server sent to outputs: texts, ends, times. What is no answer raises Garbage and names what came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.engines.endpoint_client import Broken, Event, Garbage, Reply, usage_of
from harness.records import Chunk, ChunkKind, FinishReason, Output

ENDS: Mapping[str, FinishReason] = {
    "stop": "stop", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop", "end_turn": "stop",
    "length": "length", "max_tokens": "length",
}  # fmt: skip


@dataclass
class Choice:
    """One answer, put together from its pieces."""

    texts: list[str] = field(default_factory=list)
    finish: str | None = None
    times_s: list[float] = field(default_factory=list)
    """time.perf_counter() per piece that held something."""
    token_ids: list[int] = field(default_factory=list)
    token_times_s: list[float] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    """Pieces of a stream; their times are of time.perf_counter()."""
    reasoned: bool = False


def read_choices(reply: Reply, n: int, *, chat: bool) -> list[Choice]:
    """The n answers of a reply.

    Raises: Garbage: fewer or more than n, texts that are none, an end that is none. Broken: a stream that stopped
        before its answers ended.
    """
    events, streamed = reply.events, reply.streamed
    if not streamed and not any("choices" in event.data for event in events):
        keys = sorted({key for event in events for key in event.data})
        raise Garbage(f"an answer without choices; it has {', '.join(keys) or 'nothing'}")
    found: dict[int, Choice] = {}
    for event in events:
        _take(found, event, n, streamed=streamed, chat=chat)
    if streamed and (not found or any(choice.finish is None for choice in found.values())):
        raise Broken("the stream ended before the answer did")
    if sorted(found) != list(range(n)):
        raise Garbage(f"{len(found)} choices came where n={n} were asked for")
    return [found[index] for index in range(n)]


def _take(found: dict[int, Choice], event: Event, n: int, *, streamed: bool, chat: bool) -> None:
    """Add an event's pieces to the choices found so far."""
    pieces = event.data.get("choices") or []
    if not isinstance(pieces, list) or not all(isinstance(piece, dict) for piece in pieces):
        raise Garbage(f"choices that are no list of objects: {_shown(pieces)}")
    usage = usage_of([event]).output if streamed else None
    for place, piece in enumerate(pieces):
        index = piece.get("index", place)
        if not isinstance(index, int) or not 0 <= index < max(n, 1) * 64:
            raise Garbage(f"a choice whose index is {_shown(index)}")
        choice = found.setdefault(index, Choice())
        _add(choice, piece, event.at_s if streamed else None, chat=chat)
        if streamed:
            choice.chunks.append(Chunk(event.at_s, _kind(choice, piece), _tokens(piece), usage))
    if usage is not None and not pieces:
        for choice in found.values():
            choice.chunks.append(Chunk(event.at_s, "usage", usage=usage))


def _kind(choice: Choice, piece: Mapping[str, Any]) -> ChunkKind:
    """What a piece that was just added holds. A chat's thoughts and its answer never come in one piece."""
    delta = piece.get("delta")
    message = delta if isinstance(delta, dict) else {}
    if choice.texts[-1]:
        return "text"
    if message.get("reasoning_content") or message.get("reasoning"):
        return "reasoning"
    if piece.get("token_ids"):
        return "empty"
    if piece.get("finish_reason") is not None:
        return "end"
    return "role" if message.get("role") and not choice.chunks else "empty"


def _tokens(piece: Mapping[str, Any]) -> int | None:
    ids = piece.get("token_ids")
    return len(ids) if isinstance(ids, list) else None


def _add(choice: Choice, piece: Mapping[str, Any], at_s: float | None, *, chat: bool) -> None:
    text = _chat_text(choice, piece) if chat else piece.get("text")
    if not isinstance(text, str):
        raise Garbage(f"a choice whose text is {_shown(text)}")
    ids = piece.get("token_ids")
    if isinstance(ids, list) and all(isinstance(token, int) for token in ids):
        choice.token_ids += ids
        choice.token_times_s += [] if at_s is None else [at_s] * len(ids)
    if at_s is not None and (text or ids):
        choice.times_s.append(at_s)
    choice.texts.append(text)
    if piece.get("finish_reason") is not None:
        choice.finish = piece["finish_reason"]


def _chat_text(choice: Choice, piece: Mapping[str, Any]) -> Any:
    """Content of a message, or of a piece of one; a refusal is an answer, thoughts are not."""
    whole = "message" in piece
    message = piece.get("message") if whole else piece.get("delta")
    if not isinstance(message, dict):
        return "" if message is None and piece.get("finish_reason") is not None and not whole else message
    thought = message.get("reasoning_content") or message.get("reasoning")
    choice.reasoned = choice.reasoned or bool(thought)
    content = message.get("content")
    if content is None:
        content = message.get("refusal")
    if content is None and (not whole or choice.reasoned):
        return ""
    return content


def finished(choice: Choice) -> FinishReason:
    """Raises: Garbage: an end that is none, or that means that there is no answer."""
    end = ENDS.get(choice.finish) if isinstance(choice.finish, str) else None
    if end is None:
        raise Garbage(f"an answer whose finish_reason is {_shown(choice.finish)}")
    return end


def to_output(
    choice: Choice, stops: Sequence[str], queued_s: float, tokens: int | None, text: str | None = None
) -> Output:
    """An output, cut before the first stop string.

    Args:
        tokens: of this answer, where the server tells; the times of its pieces are token times if they are as many.
        text: decoded from the ids, where they came.
    """
    whole = "".join(choice.texts) if text is None else text
    places = [place for stop in stops if (place := whole.find(stop)) >= 0]
    times = choice.token_times_s
    if not times and tokens is not None and len(choice.times_s) == tokens:
        times = choice.times_s
    return Output(
        text=whole[: min(places)] if places else whole,
        token_ids=tuple(choice.token_ids),
        finish_reason="stop" if places else finished(choice),
        token_times_s=tuple(at_s - queued_s for at_s in times),
        chunks=tuple(chunk._replace(at_s=chunk.at_s - queued_s) for chunk in choice.chunks),
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
