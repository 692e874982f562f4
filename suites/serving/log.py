"""What happened to a request, as it is journalled: when it was due, when it left, and every piece that came back.

All figures of all profiles are computed from this log and from nothing else. Times are seconds on the clock of the
load, which starts with its first sending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from harness.records import Chunk, Completion, Output

DIGITS = 7
"""Of the journalled seconds: tenths of a microsecond."""


@dataclass(frozen=True)
class RequestLog:
    """One answered request."""

    scheduled_s: float
    """When it was due: by the schedule in an open loop, when its slot was free in a closed one."""
    sent_s: float
    """When it left: for a server, the try that was answered; else the handing over to the engine."""
    ended_s: float
    """When the answer was known to be over (a server's stream: [DONE])."""
    chunks: tuple[Chunk, ...]
    """at_s is on the load's clock."""
    prompt_tokens: int | None
    output_tokens: int | None
    """Both as the server or the engine counts them; None: it does not."""
    text_tokens: int | None = None
    """Tokens of the answer's text by the tokenizer here; None: not counted that way."""
    remote: bool = False
    """A server's pieces; else tokens of an engine here."""

    @property
    def counted_apart(self) -> bool:
        """The count came in a piece of its own, or from an engine here."""
        return not self.remote or any(chunk.kind == "usage" for chunk in self.chunks)

    @property
    def tokens(self) -> int | None:
        """Tokens of the answer by whoever counted them; None: nobody did."""
        return self.text_tokens if self.output_tokens is None else self.output_tokens

    def due(self) -> RequestLog:
        """The same as if it had left when it was due: what somebody waited who came on schedule."""
        return replace(self, sent_s=self.scheduled_s)

    def to_json(self) -> dict[str, Any]:
        return {
            "scheduled_s": round(self.scheduled_s, DIGITS),
            "sent_s": round(self.sent_s, DIGITS),
            "ended_s": round(self.ended_s, DIGITS),
            "chunks": [[round(c.at_s, DIGITS), c.kind, c.tokens, c.usage] for c in self.chunks],
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "text_tokens": self.text_tokens,
            "remote": self.remote,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RequestLog:
        """Raises: KeyError, TypeError: what a log is made of is missing."""
        chunks = tuple(Chunk(*chunk) for chunk in data["chunks"])
        return cls(**{**data, "chunks": chunks})


def log_of(completion: Completion, scheduled_s: float, sent_s: float, start_s: float) -> RequestLog | None:
    """The log of a completion; None where nothing says when its pieces came.

    Args: scheduled_s, sent_s, start_s: time.perf_counter() when it was due, was handed over, and of the load's clock.
    """
    output = completion.outputs[0]
    chunks = [
        c._replace(at_s=c.at_s + completion.queued_s - start_s) for c in output.chunks or tokens_of(output)
    ]
    if not chunks:
        return None
    remote = completion.sent_s is not None
    left_s = completion.sent_s if completion.sent_s is not None else sent_s
    counted = completion.output_tokens > 0 or any(chunk.usage is not None for chunk in chunks)
    return RequestLog(
        scheduled_s=scheduled_s - start_s,
        sent_s=left_s - start_s,
        ended_s=completion.done_s - start_s if remote else chunks[-1].at_s,
        chunks=tuple(chunks),
        prompt_tokens=completion.prompt_tokens or None,
        output_tokens=completion.output_tokens if counted else None,
        remote=remote,
    )


def tokens_of(output: Output) -> Sequence[Chunk]:
    """Tokens of an engine here as pieces: those that were ready at one moment are one piece."""
    return [Chunk(at_s, "text", len(list(same))) for at_s, same in groupby(output.token_times_s)]
