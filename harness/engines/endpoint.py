"""The endpoint engine: an OpenAI-compatible server behind the harness's queue.

Asynchronous inside (an event loop in a thread of its own, so many requests in flight), futures outside. What the
server can is asked once, when the engine is loaded. See docs/endpoints.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, NamedTuple, TypeVar

from harness.endpoints import Endpoint, is_endpoint, parse
from harness.engines.endpoint_client import Client
from harness.engines.endpoint_generation import Generator, Target, text_of
from harness.engines.endpoint_options import find_key, read_options
from harness.engines.endpoint_probe import TEXT, probe
from harness.engines.endpoint_scoring import Scorer
from harness.engines.endpoint_texts import TextTokenizer, asking
from harness.errors import BadCheckpoint, BadInput, CostLimitReached, EngineError, HarnessError
from harness.protocols import EngineStats, Tokenizer
from harness.records import Checkpoint, Completion, GenerateRequest, Json, LoglikelihoodRequest, Request

T = TypeVar("T")

UNKNOWN_LENGTH = 1 << 20
"""max_length where neither the server nor an option tells one: the server refuses what is too long."""
CLOSED = "the engine was closed before this request was answered"
ELSEWHERE = (
    "inference energy is not known: the server's is not measured here "
    "(--engine-option local=true if it runs on this machine)"
)


class Item(NamedTuple):
    """A request on its way."""

    request: Request
    future: Future[Completion]
    queued_s: float
    target: Target


class EndpointEngine:
    """Implements harness.protocols.Engine for one server; its models are checkpoints that share it."""

    name = "endpoint"
    takes_endpoints = True

    def __init__(self, checkpoint: Checkpoint, options: Mapping[str, Json]) -> None:
        if not is_endpoint(checkpoint.spec):
            raise BadCheckpoint(
                f"{checkpoint.spec!r} is no endpoint; give http(s)://host[:port]/v1#model, or drop --engine endpoint"
            )
        self.options = read_options(options)
        self.endpoint: Endpoint = parse(checkpoint.spec)
        self._key = find_key(self.endpoint, self.options.key_env)
        self._base_fingerprint = checkpoint.base_fingerprint
        self._waiting: deque[Item] = deque()
        self._active: dict[asyncio.Task[None], Item] = {}
        self._in_flight = self.options.concurrency
        self._stopped: HarnessError | None = None
        """Why nothing more is asked; what is in flight is still answered."""
        self._counts = {"requests": 0, "prompt": 0, "cached": 0, "output": 0}
        self._busy_s = 0.0
        self._busy_since_s: float | None = None
        self._targets: dict[str, Target] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        try:
            self._client: Client = self._await(self._open())
            self._generator = Generator(self._client)
            self.activate(checkpoint)
            self._client.counts = dict.fromkeys(self._client.counts, 0)  # the probe's tries are no news
        except BaseException:
            self.close()
            raise

    @classmethod
    def load(cls, checkpoint: Checkpoint, options: Mapping[str, Json]) -> EndpointEngine:
        return cls(checkpoint, options)

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> Client:
        return Client(self.endpoint, self.options, self._key)

    # Models of the server

    def activate(self, checkpoint: Checkpoint) -> None:
        """Answer as this model of the server; what is queued keeps the model that it was queued for.

        Raises: BadCheckpoint: another server; one that does not answer or has no such model; a tokenizer that
            disagrees with it.
        """
        if checkpoint.base_fingerprint != self._base_fingerprint:
            raise BadCheckpoint(f"{checkpoint.spec!r} is another server than the one asked; ask it by itself")
        model = parse(checkpoint.spec).model
        if model not in self._targets:
            self._targets[model] = self._await(self._target(model))
        self._current = self._targets[model]

    async def _target(self, model: str) -> Target:
        server = await probe(self._client, model)
        told = [length for length in (server.max_model_len, self.options.max_length) if length is not None]
        length = min(told, default=None)
        scorer = Scorer(self._client, server, length)
        if self.options.tokenizer is None:
            tokenizer: Tokenizer = TextTokenizer(f"{self.endpoint.url}#{model}", chat=server.chat)
            return Target(server, tokenizer, False, length, scorer)
        target = Target(server, load_tokenizer(str(self.options.tokenizer)), True, length, scorer)
        await self._check_tokenizer(target)
        return target

    async def _check_tokenizer(self, target: Target) -> None:
        """Raises: BadCheckpoint: the tokenizer here gives other tokens than the server's."""
        server, ours = target.server, target.tokenizer.encode(TEXT)
        theirs = await target.scorer.tokens(TEXT) if server.tokenize else None
        same = tuple(ours) == theirs if theirs is not None else server.text_tokens in (None, len(ours))
        if not same:
            count = server.text_tokens if theirs is None else len(theirs)
            raise BadCheckpoint(
                f"the tokenizer in {self.options.tokenizer} disagrees with {self.endpoint}: {len(ours)} tokens here "
                f"and {count} there for {TEXT!r}{'' if count != len(ours) else ', and not the same ones'}; give the "
                "folder of the model that is served"
            )

    @property
    def tokenizer(self) -> Tokenizer:
        return self._current.tokenizer

    @property
    def max_length(self) -> int:
        return self._current.max_length or UNKNOWN_LENGTH

    @property
    def can_score(self) -> bool:
        """Whether it answers log-likelihood requests."""
        return self._current.server.scoring is not None

    @property
    def energy_elsewhere(self) -> str | None:
        """Why this machine's energy is not the model's; None: it is."""
        return None if self.options.local else ELSEWHERE

    # The queue

    def widen(self, in_flight: int) -> int:
        """Let so many requests be in flight, unless the user has set another number; returns how many may be."""
        if "concurrency" not in self.options.model_fields_set:
            self._in_flight = max(self._in_flight, in_flight)
        return self._in_flight

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        """Queue requests.

        Raises: BadInput: what this server cannot be asked at all. EngineError: the engine is closed.
        """
        if self._loop.is_closed():
            raise EngineError("the engine is closed")
        now, target = time.perf_counter(), self._current
        for request in requests:
            self._refuse(target, request)
        items = [Item(request, Future(), now, target) for request in requests]
        self._counts["requests"] += len(items)
        self._loop.call_soon_threadsafe(self._arrived, items)
        return [item.future for item in items]

    def _refuse(self, target: Target, request: Request) -> None:
        server, endpoint = target.server, f"{self.endpoint.url}#{target.server.model}"
        if isinstance(request, LoglikelihoodRequest):
            if server.scoring is None:
                raise BadInput(
                    f"{endpoint} gives no log-likelihoods (neither prompt_logprobs nor echo); ask tasks that "
                    "compare them in their generative form, e.g. --tasks lettered:NAME"
                )
            return
        if target.real_ids or not server.completions or not server.chat:
            chat = not target.real_ids and bool(asking(request.prompt_ids).messages)
            call = "chat/completions" if chat else "completions"
            if not (server.chat if chat else server.completions):
                advice = "--chat off" if chat else "--chat on" + ", and no tokenizer option" * target.real_ids
                why = self._client.refusals.get(call, "it does not answer them")
                raise BadInput(f"{endpoint} has no {call} ({why}); ask with {advice}")

    def _arrived(self, items: Sequence[Item]) -> None:
        self._waiting.extend(items)
        self._pump()

    def _pump(self) -> None:
        """Start what may be started. In the event loop alone."""
        while self._waiting and self._stopped is None and len(self._active) < self._in_flight:
            item = self._waiting.popleft()
            if item.future.cancelled():
                continue
            task = self._loop.create_task(self._serve(item))
            self._active[task] = item
            task.add_done_callback(self._served)
        if self._active and self._busy_since_s is None:
            self._busy_since_s = time.perf_counter()
        if self._stopped is not None and not self._active:
            # last of all, so that whoever hears of it has every answer that was paid for
            while self._waiting:
                _fail(self._waiting.popleft().future, self._stopped)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._active.pop(task, None)
        if not self._active and self._busy_since_s is not None:
            self._busy_s += time.perf_counter() - self._busy_since_s
            self._busy_since_s = None
        self._pump()

    async def _serve(self, item: Item) -> None:
        try:
            completion = await self._answer(item)
        except CostLimitReached as exc:
            self._stopped = self._stopped or exc
            self._waiting.appendleft(item)
        except HarnessError as exc:
            _fail(item.future, exc)
        except asyncio.CancelledError:
            _fail(item.future, EngineError(CLOSED))
            raise
        except Exception as exc:  # noqa: BLE001  a request that dies unheard would leave its task hanging
            _fail(item.future, EngineError(f"{type(exc).__name__}: {self._key.hide(str(exc))}"))
        else:
            self._counts["prompt"] += completion.prompt_tokens
            self._counts["cached"] += completion.cached_tokens
            self._counts["output"] += completion.output_tokens
            with contextlib.suppress(InvalidStateError):
                item.future.set_result(completion)

    async def _answer(self, item: Item) -> Completion:
        request, target = item.request, item.target
        if isinstance(request, GenerateRequest):
            if not request.prompt_ids or request.sampling.max_tokens < 1 or request.sampling.n < 1:
                raise EngineError("a prompt, max_tokens and n must each be at least 1 long")
            return await self._generator.generate(target, request, item.queued_s)
        if not request.context_ids or not request.continuation_ids:
            raise EngineError("a loglikelihood needs at least one context token and one continuation token")
        if target.real_ids:
            whole = request.context_ids + request.continuation_ids
            text = None if target.server.takes_ids else text_of(target.tokenizer, whole)
            found = await target.scorer.score_ids(request.context_ids, request.continuation_ids, text)
        else:
            tail = asking(request.continuation_ids).text
            found = await target.scorer.score_text(asking(request.context_ids), tail)
        return Completion(
            loglikelihood=found.loglikelihood,
            is_greedy=found.is_greedy,
            prompt_tokens=found.prompt_tokens,
            dropped_prompt_tokens=found.dropped,
            queued_s=item.queued_s,
            started_s=found.sent_s,
            done_s=time.perf_counter(),
        )

    # Facts

    def stats(self) -> EngineStats:
        since, counts = self._busy_since_s, self._counts
        busy_s = self._busy_s + (0.0 if since is None else time.perf_counter() - since)
        return EngineStats(
            busy_s, counts["requests"], counts["prompt"], counts["cached"], counts["output"], None
        )

    def describe(self) -> Mapping[str, Json]:
        target, limits = self._current, self._client.limits
        facts: dict[str, Json] = {
            "name": self.name,
            "url": self.endpoint.url,
            "server": target.server.facts(),
            "tokenizer": str(self.options.tokenizer) if target.real_ids else "the server's",
            "max_length": target.max_length,
            "concurrency": self._in_flight,
            **self._client.counts,
            "notes": self._notes(),
        }
        if limits.priced:
            facts["cost"] = round(limits.spent, 9)
            facts["prices_per_million"] = [self.options.price_in, self.options.price_out]
        return facts

    def _notes(self) -> list[str]:
        notes = [] if self.options.local else [ELSEWHERE]
        if self._generator.usage_missing:
            notes.append("the server does not count tokens: those of this run are not known")
        if self._client.dropped:
            names = ", ".join(sorted(self._client.dropped))
            notes.append(f"the server takes no {names}: asked without")
        return notes

    def close(self) -> None:
        """Stop; what is not answered fails with EngineError."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        if not self._thread.is_alive():
            self._loop.close()

    async def _shut(self) -> None:
        self._stopped = EngineError(CLOSED)
        for task in list(self._active):
            task.cancel()
        await asyncio.gather(*self._active, return_exceptions=True)
        while self._waiting:
            _fail(self._waiting.popleft().future, EngineError(CLOSED))
        client = getattr(self, "_client", None)
        if client is not None:
            await client.close()


def load_tokenizer(folder: str) -> Tokenizer:
    """Raises: BadCheckpoint: the folder's tokenizer does not load."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as exc:
        reason = (str(exc).strip() or type(exc).__name__).splitlines()[0]
        raise BadCheckpoint(f"the tokenizer of {folder!r} does not load: {reason}") from exc
    return tokenizer


def _fail(future: Future[Completion], problem: HarnessError) -> None:
    with contextlib.suppress(InvalidStateError):
        future.set_exception(problem)
