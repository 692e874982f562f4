"""Exchanges with the server: one deadline each, retries, limits; what comes back is JSON or an error that names it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar

import httpx

from harness.endpoints import Endpoint
from harness.engines.endpoint_limits import Limits, Load
from harness.engines.endpoint_options import EndpointOptions, Key
from harness.engines.endpoint_throttle import LONGEST_BACKOFF_S, GivenUp
from harness.errors import EngineError
from harness.records import Json

T = TypeVar("T")

TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 507, 520, 522, 524, 529})
TOO_MANY = (429, 529)
MOST_REFUSALS = 100
"""One request that is refused so often while others are answered will never be: it is too large, say."""
SPENT = "insufficient_quota"
"""What OpenAI's API says in a 429 that no waiting mends."""
CONNECT_S = 20.0
LARGEST_BYTES = 64 << 20
SHOWN = 200
"""Characters of an unexpected answer that a message repeats."""


class Refused(EngineError):
    """The server answered, and the answer is no: asking again would not change it."""

    def __init__(self, message: str, status: int, said: str) -> None:
        super().__init__(message)
        self.status = status
        self.said = said


class Garbage(EngineError):
    """The server answered with what is no answer."""


class Broken(Exception):
    """An attempt that may be made again."""

    def __init__(self, reason: str, *, reached: bool = False, busy: bool = False) -> None:
        super().__init__(reason)
        self.reached = reached
        """The server was there."""
        self.busy = busy
        """It said that it has too much to do."""


class Throttled(Broken):
    """The server said to come again later, which uses up none of the tries."""

    def __init__(self, reason: str, after_s: float | None) -> None:
        super().__init__(reason, reached=True, busy=True)
        self.after_s = after_s


class Call(NamedTuple):
    """One request to the server."""

    path: str
    """Below the API's root; one that begins with / is below the server's."""
    body: Mapping[str, Json] | None
    """None: GET."""
    most: Load = Load(0, 0)
    stream: bool = False
    retries: int | None = None
    """None: as the options say."""


class Event(NamedTuple):
    """A JSON object that came, and when."""

    data: Mapping[str, Any]
    at_s: float
    """time.perf_counter()"""


class Reply(NamedTuple):
    events: Sequence[Event]
    """One, or those of a stream in their order."""
    sent_s: float
    """time.perf_counter() of the attempt that was answered."""
    streamed: bool = False
    ended_s: float | None = None
    """time.perf_counter() when a stream said that it was over."""


class Client:
    """Talks to one server. Lives in one event loop."""

    def __init__(self, endpoint: Endpoint, options: EndpointOptions, key: Key) -> None:
        self.endpoint = endpoint
        self.options = options
        self.key = key
        self.limits = Limits(options)
        self.counts = {"attempts": 0, "retries": 0, "failed": 0}
        self.reached = False
        """Something has answered at the address, if only with an error."""
        self.refusals: dict[str, str] = {}
        """Call -> why the server does not have it."""
        self.newer_limit: set[str] = set()
        """Calls that name the length of an answer max_completion_tokens."""
        self.dropped: set[str] = set()
        """Fields that the server does not take, and that an answer can do without."""
        self._down = False
        """A request has used up its tries without reaching the server: the next ones try once."""
        self._http = httpx.AsyncClient(
            headers={"Accept": "application/json", **key.headers()},
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            follow_redirects=False,  # a key goes to the address that was given, and nowhere else
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, call: Call, read: Callable[[Reply], T]) -> T:
        """Ask, and ask again after 5xx and broken connections, and after 429 for as long as others are answered.

        Args: read: what the reply means; it may raise Broken (a stream cut short) to ask again, or Garbage.
        Raises: EngineError: no answer within the deadline or after all tries. Refused, Garbage.
            CostLimitReached: before anything was sent.
        """
        number = refusals = 0
        while True:
            try:
                answer = read(await self._limited(call))
            except Throttled as exc:
                refusals += 1
                self._wait_or_give_up(exc, refusals)
            except Broken as exc:
                number += 1
                retries = self.options.retries if call.retries is None or exc.busy else call.retries
                if number > retries or (self._down and not exc.reached):
                    self._down = self._down or (call.retries is None and not exc.reached)
                    self.counts["failed"] += 1
                    times = "once" if number == 1 else f"{number} times"
                    raise EngineError(f"{self.endpoint.url}: {exc} (tried {times})") from exc
                self.counts["retries"] += 1
                await asyncio.sleep(self._backoff_s(number))
            else:
                self._down = False
                return answer

    def _backoff_s(self, number: int) -> float:
        """Exponential, with jitter."""
        longest: float = min(LONGEST_BACKOFF_S, self.options.backoff_s * 2.0 ** (number - 1))
        return longest * random.uniform(0.5, 1.0)

    def _wait_or_give_up(self, throttled: Throttled, refusals: int) -> None:
        """The wait itself is the next attempt's (Throttle). Raises: EngineError: nothing was answered for too long."""
        if self.limits.throttle.given_up or refusals > MOST_REFUSALS:
            self.counts["failed"] += 1
            idle = f"nothing was answered for {self.options.deadline_s:g} s, deadline_s"
            why = idle if self.limits.throttle.given_up else f"{refusals} times, while others were answered"
            raise EngineError(f"{self.endpoint.url}: {throttled} ({why})") from throttled
        self.counts["retries"] += 1

    async def _limited(self, call: Call) -> Reply:
        throttle = self.limits.throttle
        try:
            await self.limits.enter(call.most)
        except GivenUp as exc:
            self.counts["failed"] += 1
            raise EngineError(
                f"{self.endpoint.url} says that it has too many requests, and answers none (deadline_s)"
            ) from exc
        used: Load | None = None
        sent_s = time.monotonic()
        try:
            self.counts["attempts"] += 1
            reply = await self._within_deadline(call)
            used = used_load(reply, call.most)
        except Throttled as exc:
            throttle.refused(sent_s, exc.after_s)
            raise
        except (Refused, Garbage):
            throttle.answered()
            raise
        else:
            throttle.answered()
            return reply
        finally:
            await self.limits.leave(call.most, used)

    async def _within_deadline(self, call: Call) -> Reply:
        deadline_s = self.options.deadline_s
        try:
            async with asyncio.timeout(deadline_s):
                return await self._attempt(call)
        except TimeoutError as exc:
            self.counts["failed"] += 1
            raise EngineError(
                f"{self.endpoint.url}: no whole answer within {deadline_s:g} s, the deadline of one request "
                "(--engine-option deadline_s=N)"
            ) from exc
        except httpx.TransportError as exc:
            raise Broken(f"the connection broke ({self._shown(str(exc) or type(exc).__name__)})") from exc
        except httpx.HTTPError as exc:
            raise Garbage(
                f"{self.endpoint.url}: the answer is no HTTP ({self._shown(str(exc) or type(exc).__name__)})"
            ) from exc

    async def _attempt(self, call: Call) -> Reply:
        url = (
            f"{self.endpoint.root}{call.path}" if call.path[:1] == "/" else f"{self.endpoint.url}/{call.path}"
        )
        content = None if call.body is None else json.dumps(call.body).encode()
        headers = {"Content-Type": "application/json"} if content is not None else {}
        sent_s = time.perf_counter()
        method = "GET" if content is None else "POST"
        async with self._http.stream(method, url, content=content, headers=headers) as response:
            self.reached = True
            if response.status_code != 200:
                raise self._problem(response, await self._body(response))
            if call.stream and "event-stream" in response.headers.get("content-type", ""):
                events = [event async for event in self._events(response)]
                return Reply(events, sent_s, streamed=True, ended_s=time.perf_counter())
            text = await self._body(response)
        return Reply([Event(self._object(text), time.perf_counter())], sent_s)

    async def _body(self, response: httpx.Response) -> str:
        parts: list[bytes] = []
        size = 0
        async for part in response.aiter_bytes():
            size += len(part)
            if size > LARGEST_BYTES:
                raise Garbage(f"{self.endpoint.url}: an answer of more than {LARGEST_BYTES >> 20} MiB")
            parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")

    async def _events(self, response: httpx.Response) -> AsyncIterator[Event]:
        """Server-sent events up to [DONE]; comments and other fields are passed over."""
        async for line in response.aiter_lines():
            field, _, value = line.partition(":")
            if field != "data":
                continue
            at_s = time.perf_counter()
            if value.strip() == "[DONE]":
                return
            data = self._object(value.strip())
            if data.get("error"):
                raise Broken(f"the server stopped mid-answer: {self._shown(said(data))}", reached=True)
            yield Event(data, at_s)

    def _object(self, text: str) -> Mapping[str, Any]:
        """What came, without the key: JSON can write it in ways that only show once it is read."""
        try:
            data = self.key.hide_in(json.loads(text))
        except (ValueError, RecursionError) as exc:
            kind = "HTML" if text.lstrip()[:1] == "<" else "what is no JSON" if text.strip() else "nothing"
            raise Garbage(f"{self.endpoint.url} answered with {kind}: {self._shown(text)!r}") from exc
        if not isinstance(data, dict):
            raise Garbage(
                f"{self.endpoint.url} answered with a JSON {type(data).__name__}, not an object: {self._shown(text)!r}"
            )
        return data

    def _problem(self, response: httpx.Response, text: str) -> Exception:
        """What an answer other than 200 means."""
        status = response.status_code
        message = text
        with contextlib.suppress(ValueError, RecursionError):
            message = said(json.loads(text))
        message = self.key.hide(message)
        reason = self._shown(response.reason_phrase)
        what = f"HTTP {status} {reason}: {self._shown(message)}".rstrip(": ")
        if status in TRY_AGAIN and not (status == 429 and SPENT in text):
            after_s = retry_after_s(response.headers)
            if status in TOO_MANY or after_s is not None:
                return Throttled(what, after_s)
            return Broken(what, reached=True, busy=status == 503)
        if status in (401, 403):
            what += f" (the key: {self.key!r})"
        if 300 <= status < 400:
            place = self._shown(response.headers.get("location", "?"))
            what = f"HTTP {status}: it is elsewhere ({place}); give that address"
        return Refused(f"{self.endpoint.url}: {what}", status, message)

    def _shown(self, text: str) -> str:
        """A server's words, fit for one line of an error."""
        plain = "".join(c if c.isprintable() else " " for c in " ".join(self.key.hide(text).split()))
        return plain if len(plain) <= SHOWN else plain[: SHOWN - 1] + "…"


def said(data: Any) -> str:
    """The message of an error object, in the forms that servers give it."""
    for name in ("error", "message", "detail"):
        if isinstance(data, dict) and data.get(name):
            return said(data[name])
    return data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: Retry-After as a number or as a date."""
    value = headers.get("retry-after-ms")
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, float(value or "") / 1000)
    value = headers.get("retry-after")
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(value)
        return max(0.0, seconds) if seconds < float("inf") else None
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


class Usage(NamedTuple):
    """What the server counted; None: it does not tell."""

    prompt: int | None
    cached: int | None
    output: int | None


def usage_of(events: Sequence[Event]) -> Usage:
    """The last usage among the events."""
    found: Mapping[str, Any] = next(
        (e.data["usage"] for e in reversed(events) if isinstance(e.data.get("usage"), dict)), {}
    )
    details = found.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Usage(_count(found.get("prompt_tokens")), _count(cached), _count(found.get("completion_tokens")))


def used_load(reply: Reply, most: Load) -> Load:
    """Tokens to be paid for; where the server tells none, the most that they can be."""
    usage = usage_of(reply.events)
    return Load(
        most.prompt_tokens if usage.prompt is None else usage.prompt,
        most.output_tokens if usage.output is None else usage.output,
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
