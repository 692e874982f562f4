"""Log-likelihoods from a server: of a prompt's own tokens, by vLLM's prompt_logprobs or by echo with logprobs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.engines.endpoint_client import Call, Client, Garbage, Reply, usage_of
from harness.engines.endpoint_echo import Echo, first_choice, number, read_echo
from harness.engines.endpoint_limits import Load
from harness.engines.endpoint_probe import Server
from harness.engines.endpoint_texts import Asking
from harness.errors import EngineError
from harness.records import Json

KEPT = 256
"""Contexts whose tokens are remembered: the choices of a question share one."""
NO_START = (
    "a log-likelihood without a context needs the token that texts begin with, which this server does not tell; "
    "give its tokenizer with --engine-option tokenizer=FOLDER"
)


class Scored(NamedTuple):
    """What a server says of a continuation."""

    loglikelihood: float
    """Sum over the continuation, nats."""
    is_greedy: bool
    prompt_tokens: int
    dropped: int
    """Tokens cut from the left."""
    sent_s: float


class Scorer:
    """Scores continuations on one model of one server."""

    def __init__(self, client: Client, server: Server, max_length: int | None) -> None:
        self._client = client
        self._server = server
        self._max_length = max_length
        self._tokens: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    async def score_ids(self, context: Sequence[int], tail: Sequence[int], text: str | None = None) -> Scored:
        """Of token ids that are the server's own.

        Args: text: context and continuation, for a server that takes no ids.
        Raises: EngineError: the server's tokens are not these, or it gives no number.
        """
        ids = [*context, *tail]
        most = len(ids) if self._max_length is None else self._max_length - 1  # one token is always generated
        kept = ids[-most:]
        if len(tail) >= len(kept):
            raise EngineError(
                f"a continuation of {len(tail)} tokens leaves no context of the {most} that the server takes"
            )
        dropped = len(ids) - len(kept)
        if dropped and not self._server.takes_ids:
            raise EngineError(
                f"{len(ids)} tokens exceed the server's context, and it takes no ids to cut them"
            )
        prompt: Json = kept if self._server.takes_ids else text
        if self._server.scoring == "prompt_logprobs":
            return await self._by_prompt_logprobs(prompt, kept, len(tail), dropped)
        return await self._by_echo(prompt, len(kept) - len(tail), dropped, expected=len(kept))

    async def score_text(self, context: Asking, tail: str) -> Scored:
        """Of text, by the server's own tokens, split as lm-eval splits: those of the whole, less those of the context.

        Raises: EngineError: no context and no token to begin with; a chat on a server without /tokenize.
        """
        if self._server.tokenize:
            head, rest = await self._pair(context, tail)
            if not head:
                raise EngineError(NO_START)
            return await self.score_ids(head, rest, None)
        if context.messages:
            raise EngineError(
                f"log-likelihoods in a chat need the server's tokens (/tokenize), which {self._client.endpoint.url} "
                "does not give; ask in plain text with --chat off, or give tokenizer=FOLDER"
            )
        if not context.text:
            raise EngineError(NO_START)
        return await self._by_echo(context.text + tail, None, 0, split=len(context.text))

    # Tokens of the server

    async def _pair(self, context: Asking, tail: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if context.messages:
            return await self.chat_tokens(context), await self.tokens(tail, special=False)
        head = await self.tokens(context.text)
        whole = await self.tokens(context.text + tail, keep=False)
        return head, whole[len(head) :]

    async def tokens(self, text: str, *, special: bool = True, keep: bool = True) -> tuple[int, ...]:
        """The server's ids of a text."""
        body = {"model": self._server.model, "prompt": text, "add_special_tokens": special}
        return await self._tokenize(f"{int(special)}{text}", body, keep=keep)

    async def chat_tokens(self, asked: Asking) -> tuple[int, ...]:
        """The server's ids of a conversation, up to where the answer begins, or goes on."""
        body = {"model": self._server.model, **chat_body(asked)}
        return await self._tokenize(repr(asked), body, keep=True)

    async def _tokenize(self, name: str, body: Mapping[str, Json], *, keep: bool) -> tuple[int, ...]:
        if name in self._tokens:
            self._tokens.move_to_end(name)
            return self._tokens[name]

        def read(reply: Reply) -> tuple[int, ...]:
            found = reply.events[0].data.get("tokens")
            if not isinstance(found, list) or not all(isinstance(token, int) for token in found):
                raise Garbage(f"{self._client.endpoint.root}/tokenize gave no list of tokens")
            return tuple(found)

        found = await self._client.ask(Call("/tokenize", body), read)
        if keep:
            self._tokens[name] = found
            while len(self._tokens) > KEPT:
                self._tokens.popitem(last=False)
        return found

    # Two ways to ask

    async def _by_prompt_logprobs(
        self, prompt: Json, ids: Sequence[int], n_tail: int, dropped: int
    ) -> Scored:
        body = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}

        def read(reply: Reply) -> Scored:
            rows = first_choice(reply).get("prompt_logprobs")
            if not isinstance(rows, list) or len(rows) != len(ids):
                came = f"{len(rows)} prompt_logprobs" if isinstance(rows, list) else "no prompt_logprobs"
                raise Garbage(f"{came} came where {len(ids)} tokens were sent: the tokenizers disagree")
            total, greedy = 0.0, True
            for row, token in zip(rows[-n_tail:], ids[-n_tail:], strict=True):
                entry = row.get(str(token)) if isinstance(row, dict) else None
                if not isinstance(entry, dict):
                    raise Garbage(f"prompt_logprobs lack token {token}: the tokenizers disagree")
                total += number(entry.get("logprob"))
                greedy = greedy and entry.get("rank") == 1
            return Scored(total, greedy, len(ids), dropped, reply.sent_s)

        return await self._client.ask(self._call(body, len(ids), 1), read)

    async def _by_echo(
        self, prompt: Json, start: int | None, dropped: int, *, split: int = 0, expected: int | None = None
    ) -> Scored:
        """Args:
        start: place of the continuation's first token; None: to be found from `split`.
        split: place of the continuation's first character.
        expected: tokens of the prompt as we count them; None: not known.
        """
        most = self._server.echo_tokens
        body = {"prompt": prompt, "max_tokens": most, "temperature": 0, "echo": True, "logprobs": 1}

        def read(reply: Reply) -> tuple[Echo, int]:
            echo = read_echo(reply, most)
            if expected is not None and len(echo.values) != expected:
                raise Garbage(
                    f"{len(echo.values)} logprobs came where {expected} tokens were sent: the tokenizers disagree"
                )
            return echo, usage_of(reply.events).prompt or len(echo.values)

        size = len(prompt) if isinstance(prompt, (str, list)) else 0
        echo, prompt_tokens = await self._client.ask(self._call(body, size, most), read)
        first = start
        if first is None:
            first = echo.start(split)
        if first is None:
            first = await self._count(str(prompt)[:split])
        if not 0 < first < len(echo.values):
            raise EngineError(NO_START if first == 0 else "the continuation has no token of its own")
        values = [number(value) for value in echo.values[first:]]
        total = sum(values)
        greedy = all(value >= top - 1e-9 for value, top in zip(values, echo.told_tops(first), strict=True))
        return Scored(total, greedy, prompt_tokens, dropped, echo.sent_s)

    async def _count(self, text: str) -> int:
        """Tokens of a text by itself, where the server's pieces do not part at its end."""
        body = {"prompt": text, "max_tokens": 1, "temperature": 0}

        def read(reply: Reply) -> int:
            count = usage_of(reply.events).prompt
            if count is None:
                raise Garbage(
                    "a token lies across the end of the context, and the server counts no tokens to part it by; "
                    "give tokenizer=FOLDER"
                )
            return count

        return await self._client.ask(self._call(body, len(text), 1), read)

    def _call(self, body: Mapping[str, Json], prompt_tokens: int, output_tokens: int) -> Call:
        whole = {"model": self._server.model, **body, **self._client.options.extra_body}
        return Call("completions", whole, Load(prompt_tokens, output_tokens))


def chat_body(asked: Asking) -> dict[str, Json]:
    """Messages, and what makes a server go on with the last one where the answer has begun already."""
    messages = list(asked.messages)
    if not asked.text:
        return {"messages": messages}
    begun = {"role": "assistant", "content": asked.text}
    return {"messages": [*messages, begun], "add_generation_prompt": False, "continue_final_message": True}
