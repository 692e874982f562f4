"""A small OpenAI-compatible server on loopback that adds numbers, and that misbehaves as a test tells it to."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "adder"


@dataclass
class Act:
    """What the server does with one request."""

    body: Any = None
    """JSON, or bytes as they are."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hang_s: float = 0.0
    """Wait before anything is sent."""
    cut: bool = False
    """Close the connection without an answer, or in the middle of the body."""
    stream: list[Any] | None = None
    """Server-sent events; with cut, the connection closes after them."""
    gap_s: float = 0.002
    """After every one of them."""


@dataclass
class Asked:
    """A request as it came."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    at_s: float


def words_of(body: Mapping[str, Any]) -> list[str]:
    text = (
        str(body.get("prompt", ""))
        if "prompt" in body
        else " ".join(m["content"] for m in body.get("messages", ()))
    )
    return text.split()


def sum_of(body: Mapping[str, Any]) -> str:
    """'What is 3 + 4?' -> '7', whatever stands around it."""
    found = re.search(r"(\d+) \+ (\d+)", " ".join(words_of(body)))
    return str(int(found[1]) + int(found[2])) if found else "none"


def answer(path: str, body: Mapping[str, Any], text: str | None = None, **more: Any) -> dict[str, Any]:
    """A whole and right answer of either kind. Tokens are words here."""
    text = sum_of(body) if text is None else text
    n = int(body.get("n", 1))
    one = (
        {"message": {"role": "assistant", "content": text}}
        if path.endswith("chat/completions")
        else {"text": text}
    )
    choices = [{"index": i, "finish_reason": "stop", **one} for i in range(n)]
    usage = {"prompt_tokens": len(words_of(body)), "completion_tokens": n, "total_tokens": 0}
    return {"id": "x", "model": MODEL, "choices": choices, "usage": usage, **more}


class Listener(ThreadingHTTPServer):
    request_queue_size = 128
    """Connections that wait to be accepted: five, the default, would hold a burst up for a second."""


class Server:
    """Answers right until `act` says otherwise.

    Attributes:
        act: (path, body, number of answers asked so far, from 1) -> what to do; None: answer right. Called for
            requests of answers after the probe alone: `arm()` says from when on.
        asked: requests in their order, since arm().
        most_at_once: of them, in flight together.
    """

    def __init__(self, port: int = 0, key: str | None = None) -> None:
        self.act: Callable[[str, dict[str, Any], int], Act | None] = lambda path, body, number: None
        self.asked: list[Asked] = []
        self.key = key
        self.stopped = False
        self.delay_s = 0.0
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None: ...

            def do_GET(self) -> None:
                outer.serve(self, {})

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.serve(self, json.loads(raw))

        self.http = Listener(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.spec = f"{self.url}#{MODEL}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def arm(self, act: Callable[[str, dict[str, Any], int], Act | None] | None = None) -> None:
        """Forget what was asked, and misbehave from now on."""
        with self._lock:
            self.asked.clear()
            self.most_at_once = 0
            if act is not None:
                self.act = act

    def stop(self) -> None:
        self.stopped = True
        self.http.shutdown()
        self.http.server_close()

    def serve(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        path = handler.path.removeprefix("/v1/")
        with self._lock:
            self.asked.append(Asked(path, body, dict(handler.headers), time.monotonic()))
            number = len(self.asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            time.sleep(self.delay_s)
            if self.stopped:  # connections that are still open
                _drop(handler)
                return
            send(handler, self._what(path, body, number, handler.headers.get("authorization")))
        finally:
            with self._lock:
                self._at_once -= 1

    def _what(self, path: str, body: dict[str, Any], number: int, authorization: str | None) -> Act:
        if self.key is not None and authorization != f"Bearer {self.key}":
            return Act({"error": {"message": f"wrong key: {authorization}"}}, 401)
        if path == "models":
            default = Act({"data": [{"id": MODEL, "owned_by": "tests", "max_model_len": 512}]})
        else:
            default = ordinary(path, body, number)
        return self.act(path, body, number) or default


def ordinary(path: str, body: dict[str, Any], number: int) -> Act:
    """What a server of sums does that takes texts, streams, draws, and knows nothing beyond OpenAI's API."""
    if not path.endswith("completions"):
        return Act({"error": {"message": "not found"}}, 404)
    if body.get("model") != MODEL:
        return Act({"error": {"message": f"no model {body.get('model')}"}}, 404)
    if isinstance(body.get("prompt"), list) or {"prompt_logprobs", "echo"} & body.keys():
        return Act({"error": {"message": "unknown field"}}, 400)
    if body.get("temperature", 0) > 0:
        return Act(answer(path, body, f"drawn {number}"))
    if body.get("stream"):
        return Act(stream=pieces(path, body))
    return Act(answer(path, body))


def pieces(path: str, body: Mapping[str, Any], text: str | None = None) -> list[Any]:
    """The answer as a stream of single letters, then its end, its usage, [DONE]."""
    whole = sum_of(body) if text is None else text
    chat = path.endswith("chat/completions")

    def piece(text: str, end: str | None) -> dict[str, Any]:
        one = {"delta": {"content": text}} if chat else {"text": text}
        return {"choices": [{"index": 0, "finish_reason": end, **one}]}

    usage = {"prompt_tokens": len(words_of(body)), "completion_tokens": len(whole)}
    return [*(piece(letter, None) for letter in whole), piece("", "stop"), {"choices": [], "usage": usage}]


def send(handler: BaseHTTPRequestHandler, act: Act) -> None:
    time.sleep(act.hang_s)
    try:
        if act.stream is not None:
            _send_stream(handler, act)
            return
        if act.cut and act.body is None:
            _drop(handler)
            return
        raw = act.body if isinstance(act.body, bytes) else json.dumps(act.body).encode()
        handler.send_response(act.status)
        for name, value in {"content-type": "application/json", **act.headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw[: len(raw) // 2] if act.cut else raw)
        if act.cut:
            _drop(handler)
    except OSError:
        handler.close_connection = True


def _send_stream(handler: BaseHTTPRequestHandler, act: Act) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("connection", "close")
    handler.end_headers()
    for event in act.stream or ():
        handler.wfile.write(f": ping\n\ndata: {json.dumps(event)}\n\n".encode())
        handler.wfile.flush()
        time.sleep(act.gap_s)
    if not act.cut:
        handler.wfile.write(b"data: [DONE]\n\n")
    _drop(handler)


def _drop(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def running(key: str | None = None) -> Iterator[Server]:
    server = Server(key=key)
    try:
        yield server
    finally:
        server.stop()


def is_answer(path: str) -> bool:
    return path.endswith("completions")
