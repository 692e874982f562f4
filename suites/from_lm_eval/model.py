"""lm-eval's language model on a harness engine: tokenises, truncates and samples as lm-eval's HF backend does.

    lm_eval.simple_evaluate(model=HarnessLM(engine), tasks=[...])

The task driver (suites.from_lm_eval.task) asks request by request through ask() and read() of the same class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs

from harness.chat import render
from harness.errors import BadCheckpoint, BadInput
from harness.protocols import Engine, Strategy, Tokenizer
from harness.records import (
    Completion,
    GenerateRequest,
    Json,
    LoglikelihoodRequest,
    Request,
    Sampling,
)
from harness.tokens import Ids, encoder_of

MAX_GEN_TOKS = 256
"""HFLM.max_gen_toks"""
HF_TOP_K = 50
"""What transformers' generate() takes where a task samples and names no top_k."""
UNDERSTOOD = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k", "use_cache", "seed"}

Response = Any
"""(log-likelihood, is greedy) | log-likelihood | text, by request type."""


class HarnessLM(TemplateLM):
    """Answers lm-eval's requests through an engine.

    Args:
        overrides: fields of Sampling that go before what a task says (max_tokens, temperature, ...).
        seed: draws of sampling tasks depend on (seed, draw, prompt).
    """

    backend = "causal"

    def __init__(
        self,
        engine: Engine,
        strategy: Strategy | None = None,
        overrides: Mapping[str, Json] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.engine = engine
        self.strategy = strategy
        self.seed = seed
        self.overrides = {key: value for key, value in (overrides or {}).items() if key in _SAMPLING}
        if isinstance(self.overrides.get("stop"), list):
            self.overrides["stop"] = tuple(self.overrides["stop"])

    # What lm-eval wants to know of a model

    @property
    def tokenizer(self) -> Tokenizer:  # type: ignore[override]
        return self.engine.tokenizer

    @property
    def tokenizer_name(self) -> str:
        return str(getattr(self.tokenizer, "name_or_path", "")).replace("/", "__")

    @property
    def eot_token_id(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise BadCheckpoint(
                "the tokenizer has no end-of-text token; set eos_token in tokenizer_config.json"
            )
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def max_length(self) -> int:
        return self.engine.max_length

    @property
    def max_gen_toks(self) -> int:
        return MAX_GEN_TOKS

    @property
    def _checkpoint_name(self) -> str:
        return Path(str(getattr(self.tokenizer, "name_or_path", ""))).name or "the checkpoint"

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Render messages; a template that refuses a system turn gets the others, as in lm-eval.

        Raises: BadCheckpoint: the tokenizer has no chat template, or one that refuses the other turns too.
        """
        from jinja2.exceptions import TemplateError

        if not self.tokenizer.chat_template:
            raise BadCheckpoint(
                "chat is on and the tokenizer has no chat template; "
                "give one (chat_template.jinja beside the tokenizer) or ask in plain text with --chat off"
            )
        how = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
        }
        try:
            return str(self.tokenizer.apply_chat_template(chat_history, tokenize=False, **how))
        except TemplateError:
            turns = [message for message in chat_history if message["role"] != "system"]
            return render(self.tokenizer, turns, self._checkpoint_name, **how)

    # Tokens: many texts at a time

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """As HFLM.tok_encode: the tokenizer's own special tokens, but for text that begins with the BOS."""
        if add_special_tokens is not None:
            return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)
        return list(self._encode([string], self.tokenizer.decode([self.prefix_token_id]))[0])

    def _encode(self, texts: Sequence[str], bos: str | None) -> list[Ids]:
        """Ids with the tokenizer's special tokens, but for texts that begin with the BOS themselves."""
        encoder = encoder_of(self.tokenizer)
        marked = [has_bos_prefix(text, bos) for text in texts]
        ids = {}
        for special in (True, False):
            chosen = [text for text, mark in zip(texts, marked, strict=True) if mark is not special]
            ids |= dict(zip(chosen, encoder.encode(chosen, special=special), strict=True))
        return [ids[text] for text in texts]

    def encode_prompts(self, texts: Sequence[str]) -> list[Ids]:
        """As HFLM.tok_batch_encode does for batches of one."""
        return self._encode(texts, getattr(self.tokenizer, "bos_token", None))

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[LoglikelihoodRequest]:
        """Contexts and continuations as TemplateLM._encode_pair encodes them: spaces that end a context go over to
        the continuation, and what follows the context's tokens in the whole text are the continuation's.
        """
        moved = [_without_trailing_space(context, tail) for context, tail in pairs if context]
        texts = [text for context, tail in moved for text in (context, context + tail)]
        ids = iter(self._encode(texts, self.tokenizer.decode([self.prefix_token_id])))
        alone = iter(encoder_of(self.tokenizer).encode([t for c, t in pairs if not c], special=False))
        requests = []
        for context, _ in pairs:
            if context:
                head, whole = next(ids), next(ids)
                requests.append(LoglikelihoodRequest(head, whole[len(head) :]))
            else:
                requests.append(self._after_nothing(next(alone)))
        return requests

    def _after_nothing(self, tail: Ids) -> LoglikelihoodRequest:
        """As TemplateLM.loglikelihood: an empty context becomes BOS, or EOS where there is none."""
        if tail and tail[0] == self.prefix_token_id:
            return LoglikelihoodRequest(tail[:1], tail[1:])
        return LoglikelihoodRequest((self.prefix_token_id,), tail)

    def encode_windows(self, texts: Sequence[str]) -> list[list[LoglikelihoodRequest]]:
        """Disjoint windows over texts, each token predicted once, as HFLM.loglikelihood_rolling cuts them."""
        encoded = self._encode(texts, self.tokenizer.decode([self.prefix_token_id]))
        return [self._windows(ids) for ids in encoded]

    def _windows(self, ids: Ids) -> list[LoglikelihoodRequest]:
        if getattr(self.tokenizer, "is_text", False):
            raise BadInput(
                "windows over a text are counted in tokens, and the server's tokenizer is not here; "
                "give --engine-option tokenizer=FOLDER"
            )
        windows = utils.get_rolling_token_windows(
            token_list=list(ids),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        pairs = map(utils.make_disjoint_window, windows)
        return [LoglikelihoodRequest(tuple(context), tuple(tail)) for context, tail in pairs]

    def sampling(self, gen_kwargs: Mapping[str, Any], repeats: int = 1) -> Sampling:
        """lm-eval's generation settings as the engine's; greedy draws are all alike, so one is made.

        Raises: BadInput: a setting that the engine does not know (num_beams, ...).
        """
        kwargs = dict(normalize_gen_kwargs(dict(gen_kwargs), MAX_GEN_TOKS))
        unknown = sorted(key for key in kwargs if key not in UNDERSTOOD)
        if unknown:
            raise BadInput(f"generation setting {unknown[0]!r} of the task is none that the engine knows")
        eos = self.tokenizer.decode([self.eot_token_id], skip_special_tokens=False)
        temperature = float(kwargs.get("temperature", 0.0)) if kwargs["do_sample"] else 0.0
        drawn = Sampling(
            max_tokens=kwargs["max_gen_toks"],
            temperature=temperature,
            top_p=float(kwargs.get("top_p", 1.0)),
            top_k=int(kwargs.get("top_k", HF_TOP_K if temperature > 0 else 0)),
            stop=tuple(term for term in handle_stop_sequences(kwargs["until"], eos=eos) if term),
            seed=self.seed,
        )
        drawn = replace(drawn, **{"n": repeats, **self.overrides})
        return drawn if drawn.temperature > 0 else replace(drawn, n=1)

    # Requests of lm-eval <-> requests of the engine

    def ask(self, instances: Sequence[Instance]) -> list[list[Request]]:
        """Per request of lm-eval, the engine's requests that answer it."""
        by_kind: dict[str, list[int]] = {}
        for place, instance in enumerate(instances):
            by_kind.setdefault(instance.request_type, []).append(place)
        asked: dict[int, list[Request]] = {}
        for kind, places in by_kind.items():
            made = self._ask_kind(kind, [instances[place] for place in places])
            asked |= dict(zip(places, made, strict=True))
        return [asked[place] for place in range(len(instances))]

    def _ask_kind(self, kind: str, instances: Sequence[Instance]) -> list[list[Request]]:
        if kind == "loglikelihood":
            return [[request] for request in self.encode_pairs([one.args for one in instances])]
        if kind == "loglikelihood_rolling":
            return [list(windows) for windows in self.encode_windows([one.args[0] for one in instances])]
        prompts = self.encode_prompts([one.args[0] for one in instances])
        return [
            [GenerateRequest(ids, self.sampling(one.args[1], one.repeats or 1))]
            for ids, one in zip(prompts, instances, strict=True)
        ]

    @staticmethod
    def read(instance: Instance, completions: Sequence[Completion]) -> list[Response]:
        """lm-eval's responses, one per repeat, from the answers to ask()."""
        repeats = instance.repeats or 1
        if instance.request_type == "generate_until":
            texts = [output.text for completion in completions for output in completion.outputs]
            return texts if len(texts) > 1 else texts * repeats
        total = sum(completion.loglikelihood or 0.0 for completion in completions)
        if instance.request_type == "loglikelihood_rolling":
            return [total] * repeats
        return [(total, bool(completions[0].is_greedy))] * repeats

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        """Through the strategy, where there is one."""
        if self.strategy is None:
            return self.engine.submit(requests)
        return self.strategy.submit(self.engine, requests)

    # lm-eval's own calls, for simple_evaluate(model=HarnessLM(engine))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return [answers[0] for answers in self._answer(requests)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        return [answers[0] for answers in self._answer(requests)]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Equal requests are draws of one request: lm-eval clones a request once per repeat."""
        first: dict[str, int] = {}
        draw: list[tuple[int, int]] = []
        counts: list[int] = []
        unique: list[Instance] = []
        for request in requests:
            key = json.dumps(request.args, default=str)
            place = first.setdefault(key, len(unique))
            if place == len(unique):
                unique.append(request)
                counts.append(0)
            draw.append((place, counts[place]))
            counts[place] += 1
        once = [
            replace(request, metadata=(request.task_name, request.doc_id, count), resps=[], filtered_resps={})
            for request, count in zip(unique, counts, strict=True)
        ]
        answers = self._answer(once)
        return [answers[place][number] for place, number in draw]

    def _answer(self, requests: Sequence[Instance]) -> list[list[Response]]:
        asked = self.ask(requests)
        futures = iter(self.submit([item for group in asked for item in group]))
        answers = []
        for request, group in zip(requests, asked, strict=True):
            answer = self.read(request, [next(futures).result() for _ in group])
            self.cache_hook.add_partial(request.request_type, request.args, answer[0])
            answers.append(answer)
        return answers

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Abstract in TemplateLM; loglikelihood() above does not need it, other code of lm-eval may."""
        pairs = [LoglikelihoodRequest(tuple(context), tuple(tail)) for _, context, tail in requests]
        done = [future.result() for future in self.submit(pairs)]
        return [(completion.loglikelihood or 0.0, bool(completion.is_greedy)) for completion in done]


_SAMPLING = {field.name for field in fields(Sampling)}


def _without_trailing_space(context: str, continuation: str) -> tuple[str, str]:
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + continuation
