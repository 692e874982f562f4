"""Answers from a server: plain text to /completions, conversations to /chat/completions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from harness.engines.batching import fit_prompt
from harness.engines.endpoint_answers import Choice, read_choices, to_output
from harness.engines.endpoint_client import Call, Client, Refused, Reply, Usage, usage_of
from harness.engines.endpoint_limits import Load
from harness.engines.endpoint_probe import Server, does_sample
from harness.engines.endpoint_scoring import Scorer, chat_body
from harness.engines.endpoint_texts import Asking, asking
from harness.errors import BadInput, EngineError
from harness.protocols import Tokenizer
from harness.records import Completion, GenerateRequest, Json, Output, Sampling

OPTIONAL = ("stream_options", "return_token_ids", "seed")
"""Fields that an answer can do without: a server that refuses one is asked without it from then on."""
TOO_LONG = re.compile(
    r"context length|context window|max_model_len|too long|maximum.{0,30}tokens|longer than", re.I
)
PREFILL_OWNERS = ("vllm", "sglang")
"""Servers that go on with an answer that was begun (continue_final_message); others would answer it."""
MOST_STOPS = 4
"""Stop strings that OpenAI's API takes; answers are cut at all of them here in any case."""
SEED_STEP, SEEDS = 1_000_003, 1 << 31


class Target(NamedTuple):
    """A model of the server, and the tokenizer that its prompts come in."""

    server: Server
    tokenizer: Tokenizer
    real_ids: bool
    """The tokenizer is the server's; else it keeps texts (endpoint_texts)."""
    max_length: int | None
    scorer: Scorer


class Prompt(NamedTuple):
    """What is sent."""

    path: str
    body: Mapping[str, Json]
    size: int
    """Tokens, or characters, which are more."""
    tokens: int | None
    """Tokens, where we can count them."""
    dropped: int = 0
    max_tokens: int | None = None


class Part(NamedTuple):
    """One exchange's answers."""

    choices: Sequence[Choice]
    usage: Usage
    sent_s: float
    done_s: float


class Generator:
    """Asks one server for answers."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.usage_missing = False
        """An answer came without token counts."""
        self._sampling: dict[str, asyncio.Task[bool]] = {}
        """Model -> whether it draws at a temperature; asked when a request first wants that."""

    async def generate(self, target: Target, request: GenerateRequest, queued_s: float) -> Completion:
        """Raises: EngineError: no answer, or none that can be used. BadInput: it does not sample. CostLimitReached."""
        if request.sampling.temperature > 0:
            await self._check_sampling(target.server)
        prompt = await self._prompt(target, request)
        try:
            return await self._ask_all(target, prompt, request.sampling, queued_s)
        except Refused as exc:
            shorter = await self._cut(target, request, exc)
            if shorter is None:
                raise
        return await self._ask_all(target, shorter, request.sampling, queued_s)

    async def _check_sampling(self, server: Server) -> None:
        """Raises: BadInput: a temperature changes nothing."""
        if server.model not in self._sampling:
            self._sampling[server.model] = asyncio.ensure_future(does_sample(self._client, server))
        asked = self._sampling[server.model]
        try:
            draws = await asyncio.shield(asked)
        except EngineError:
            self._sampling.pop(server.model, None)
            raise
        if not draws:
            raise BadInput(
                f"{self._client.endpoint} takes a temperature and does not sample (two answers at 2.0 are equal); ask "
                "for greedy answers (--set sampling.temperature=0), or set sampling up at the server"
            )

    # Prompts

    async def _prompt(self, target: Target, request: GenerateRequest) -> Prompt:
        if target.real_ids:
            return _ids_prompt(target, request)
        asked = asking(request.prompt_ids)
        if not asked.messages:
            return Prompt("completions", {"prompt": asked.text}, len(asked.text.encode()), None)
        if asked.text and target.server.owner not in PREFILL_OWNERS:
            raise EngineError(
                f"this task begins the assistant's answer, and {self._client.endpoint.url} is not known to go on with "
                "one; give the server's tokenizer with --engine-option tokenizer=FOLDER"
            )
        size = sum(len(turn["content"].encode()) + 16 for turn in asked.messages) + len(asked.text)
        return Prompt("chat/completions", chat_body(asked), size, None)

    async def _cut(self, target: Target, request: GenerateRequest, refused: Refused) -> Prompt | None:
        """The prompt cut from the left to the server's context, as the local engines cut it; None: not to be had."""
        server = target.server
        if target.real_ids or refused.status != 400 or not TOO_LONG.search(refused.said):
            return None
        if not (server.tokenize and server.takes_ids) or target.max_length is None:
            return None
        asked: Asking = asking(request.prompt_ids)
        scorer = target.scorer
        ids = await (scorer.chat_tokens(asked) if asked.messages else scorer.tokens(asked.text, keep=False))
        return _ids_prompt(target, replace(request, prompt_ids=ids))

    # Asking

    async def _ask_all(
        self, target: Target, prompt: Prompt, sampling: Sampling, queued_s: float
    ) -> Completion:
        """All draws: in one exchange, or one by one where the server gives one at a time. Greedy ones are alike."""
        sampling = replace(sampling, max_tokens=prompt.max_tokens or sampling.max_tokens)
        n = sampling.n if sampling.temperature > 0 else 1
        if n == 1 or target.server.draws:
            parts = [await self._ask(target, prompt, replace(sampling, n=n))]
        else:
            seeds = [(sampling.seed * SEED_STEP + draw) % SEEDS for draw in range(n)]
            parts = [await self._ask(target, prompt, replace(sampling, n=1, seed=seed)) for seed in seeds]
        return self._completion(target, prompt, sampling, parts, queued_s)

    async def _ask(self, target: Target, prompt: Prompt, sampling: Sampling) -> Part:
        for _ in range(len(OPTIONAL) + 2):
            call = self._call(target, prompt, sampling)
            try:
                return await self._client.ask(call, lambda reply: _read(reply, prompt, sampling.n))
            except Refused as exc:
                if not self._do_without(call, exc):
                    raise
        raise EngineError(f"{self._client.endpoint.url} refuses one field after another")

    def _do_without(self, call: Call, refused: Refused) -> bool:
        """Whether the server refused a field that can be left out or renamed; it then is, from now on."""
        if refused.status not in (400, 422):
            return False
        if "max_completion_tokens" in refused.said and call.path not in self._client.newer_limit:
            self._client.newer_limit.add(call.path)
            return True
        for name in OPTIONAL:
            if name in refused.said and name in (call.body or {}):
                self._client.dropped.add(name)
                return True
        return False

    def _call(self, target: Target, prompt: Prompt, sampling: Sampling) -> Call:
        options = self._client.options
        stream = sampling.ignore_eos if options.stream is None else options.stream
        limit = "max_completion_tokens" if prompt.path in self._client.newer_limit else "max_tokens"
        body: dict[str, Json] = {
            "model": target.server.model,
            **prompt.body,
            limit: sampling.max_tokens,
            **_sampling_fields(sampling, every_stop=target.server.owner in PREFILL_OWNERS),
        }
        if target.real_ids and target.server.owner == "vllm":
            body["return_token_ids"] = True
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        body = {name: value for name, value in body.items() if name not in self._client.dropped}
        most = Load(prompt.size, sampling.max_tokens * sampling.n)
        return Call(prompt.path, body | options.extra_body, most, stream)

    # Answers

    def _completion(
        self, target: Target, prompt: Prompt, sampling: Sampling, parts: Sequence[Part], queued_s: float
    ) -> Completion:
        self._check_tokens(prompt, parts)
        outputs = [
            self._without_key(output)
            for part in parts
            for output in _outputs(target, part, sampling, queued_s)
        ]
        if len(outputs) < sampling.n:
            outputs *= sampling.n
        counted = [part.usage.output for part in parts]
        by_ids = sum(len(choice.token_ids) for part in parts for choice in part.choices)
        first = [times[0] for part in parts for choice in part.choices if (times := choice.times_s)]
        self.usage_missing |= None in counted
        return Completion(
            outputs=tuple(outputs),
            prompt_tokens=parts[0].usage.prompt or prompt.tokens or 0,
            cached_tokens=sum(part.usage.cached or 0 for part in parts),
            output_tokens=by_ids if None in counted else sum(count or 0 for count in counted),
            dropped_prompt_tokens=prompt.dropped,
            queued_s=queued_s,
            sent_s=parts[0].sent_s,
            started_s=parts[0].sent_s,
            first_token_s=min(first, default=None),
            done_s=parts[-1].done_s,
        )

    def _without_key(self, output: Output) -> Output:
        """A server may repeat the key piece by piece."""
        text = self._client.key.hide(output.text)
        return output if text == output.text else replace(output, text=text, token_ids=())

    def _check_tokens(self, prompt: Prompt, parts: Sequence[Part]) -> None:
        """Raises: EngineError: the server counts the prompt's tokens otherwise than the tokenizer here."""
        theirs = parts[0].usage.prompt
        if prompt.tokens is not None and theirs is not None and theirs != prompt.tokens:
            raise EngineError(
                f"the tokenizer here disagrees with {self._client.endpoint.url}: {prompt.tokens} tokens here, {theirs} "
                "there; give the folder of the model that is served"
            )


def _ids_prompt(target: Target, request: GenerateRequest) -> Prompt:
    """A prompt of real ids, cut from the left to the context; text where the server takes no ids.

    Raises: EngineError: text would not come back to the same ids.
    """
    ids, dropped, max_tokens = request.prompt_ids, 0, request.sampling.max_tokens
    if target.max_length is not None:
        ids, dropped, max_tokens = fit_prompt(request, target.max_length)
    if target.server.takes_ids:
        return Prompt("completions", {"prompt": list(ids)}, len(ids), len(ids), dropped, max_tokens)
    text = text_of(target.tokenizer, ids)
    return Prompt("completions", {"prompt": text}, len(ids), len(ids), dropped, max_tokens)


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Text that a server with this tokenizer reads as these ids, its own special tokens added.

    Raises: EngineError: there is none.
    """
    added = tokenizer.encode("", add_special_tokens=True)
    plain = list(ids)[len(added) :] if added and list(ids)[: len(added)] == added else list(ids)
    text = tokenizer.decode(plain, skip_special_tokens=False)
    if tokenizer.encode(text, add_special_tokens=True) != list(ids):
        raise EngineError(
            "this prompt's tokens cannot be written as text, and the server takes no token ids; "
            "drop --engine-option tokenizer"
        )
    return text


def _sampling_fields(sampling: Sampling, *, every_stop: bool) -> dict[str, Json]:
    """OpenAI's fields, and of those beyond them only what the sampling needs."""
    fields: dict[str, Json] = {"temperature": sampling.temperature}
    if sampling.temperature > 0:
        fields["seed"] = sampling.seed
        if sampling.top_p < 1:
            fields["top_p"] = sampling.top_p
        if sampling.top_k > 0:
            fields["top_k"] = sampling.top_k
    if sampling.stop:
        fields["stop"] = list(sampling.stop if every_stop else sampling.stop[:MOST_STOPS])
    if sampling.n > 1:
        fields["n"] = sampling.n
    if sampling.ignore_eos:
        fields["ignore_eos"] = True
    return fields


def _read(reply: Reply, prompt: Prompt, n: int) -> Part:
    choices = read_choices(reply, n, chat=prompt.path != "completions")
    done_s = reply.events[-1].at_s if reply.ended_s is None else reply.ended_s
    return Part(choices, usage_of(reply.events), reply.sent_s, done_s)


def _outputs(target: Target, part: Part, sampling: Sampling, queued_s: float) -> list[Output]:
    alone = part.usage.output if len(part.choices) == 1 else None
    return [
        to_output(choice, sampling.stop, queued_s, alone, _decoded(target, choice)) for choice in part.choices
    ]


def _decoded(target: Target, choice: Choice) -> str | None:
    """Text of the ids that came, by the tokenizer that all engines read answers with."""
    if not target.real_ids or not choice.token_ids:
        return None
    decoder: Any = target.tokenizer
    return str(decoder.decode(choice.token_ids, skip_special_tokens=True))
