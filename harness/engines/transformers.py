"""The transformers engine: one base model, one queue, one thread that computes."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import torch

from harness.checkpoints import tokenizer_folder
from harness.engines import generation, loading, scoring
from harness.engines.adapters import Adapters
from harness.engines.packed import Failure, PackedModel, Unfit, choose_cuda_kernel
from harness.engines.padded_work import PaddedWork
from harness.engines.queue import Queued, RequestQueue
from harness.engines.transformers_options import check_options
from harness.engines.tree_generation import Limits
from harness.engines.tree_work import TreeWork
from harness.engines.work import Counts, Work
from harness.errors import BadCheckpoint, EngineError
from harness.protocols import EngineStats, Tokenizer
from harness.records import Checkpoint, Completion, GenerateRequest, Json, LoglikelihoodRequest, Request

PASS_TOKENS = {"cpu": 4096, "cuda": 16384}
"""Tokens of one forward pass."""
CACHE_BYTES = {"cpu": 2 << 30, "cuda": 16 << 30}
"""KV cache of the rows that are being answered."""
MOST_ROWS = {"cpu": 256, "cuda": 512}


class TransformersEngine:
    """Loads a base once; answers loglikelihood and generation requests over a tree of their prefixes.

    Results depend on the requests alone: draws are seeded per request, and passes are planned from what is queued.
    """

    name = "transformers"
    takes_first_draw = True

    def __init__(self, checkpoint: Checkpoint, options: Mapping[str, Json]) -> None:
        check_options(options)
        self.device = loading.pick_device(options.get("device") or "auto")
        self._dtype = str(options.get("dtype") or "auto")
        self.model = loading.load_model(checkpoint, self.device, self._dtype)
        self.tokenizer: Tokenizer = loading.load_tokenizer(checkpoint)
        self._tokenizer_folder = tokenizer_folder(checkpoint)
        self.max_length = loading.context_length(self.model, self.tokenizer)
        self.threads = loading.choose_threads(self.model, options.get("threads"))
        torch.set_num_threads(self.threads)
        self._limits = limits(self.model, self.device, options.get("batch_tokens"))
        self._base_fingerprint = checkpoint.base_fingerprint
        self._adapters = Adapters(
            self.model, lambda: loading.load_model(checkpoint, self.device, self._dtype)
        )
        self._embeddings = int(self.model.get_input_embeddings().weight.shape[0])
        self._queue: RequestQueue | None = None
        self._counts = Counts()
        self._packed: PackedModel | None = None
        self._unfit = ""
        self._kernel = ""
        self._take_over()
        self.activate(checkpoint)
        # OpenMP keeps the thread count per thread, so the one that computes sets its own
        self._queue = RequestQueue(self._compute, lambda: torch.set_num_threads(self.threads))

    @classmethod
    def load(cls, checkpoint: Checkpoint, options: Mapping[str, Json]) -> TransformersEngine:
        return cls(checkpoint, options)

    def _take_over(self) -> None:
        """Put tree attention into the model where it gives the same logits."""
        try:
            self._packed = PackedModel(self.model, self.device)
        except Unfit as exc:
            self._packed, self._unfit = None, str(exc)
            return
        if self.device.type == "cuda":
            self._kernel = choose_cuda_kernel(self._packed)

    # Adapters

    def activate(self, checkpoint: Checkpoint) -> None:
        """Answer as this checkpoint from now on; waits until the queue is empty.

        Raises: BadCheckpoint: another base, or an adapter that does not load on it.
        """
        if checkpoint.base_fingerprint != self._base_fingerprint:
            raise BadCheckpoint(
                f"{checkpoint.spec!r} is of another base than the one loaded; load it by itself"
            )
        if self._queue is not None:
            self._queue.drain()
        self._adapters.activate(checkpoint)
        folder = tokenizer_folder(checkpoint)
        if folder != self._tokenizer_folder:
            self.tokenizer, self._tokenizer_folder = loading.load_tokenizer(checkpoint), folder
        try:
            self._adopt()
        except Failure as exc:
            self._adapters.discard()
            self._adopt()
            raise BadCheckpoint(
                f"adapter {checkpoint.adapter!r} does not compute on {checkpoint.base!r}: {loading.first_line(exc)}"
            ) from exc
        self._work = self._make_work()

    def _adopt(self) -> None:
        """Compute with the model as it is now, after adapters came or went."""
        if self.model is not self._adapters.model:  # loaded afresh
            self.model = self._adapters.model
            self._take_over()
        elif self._packed is not None:
            self._packed.adopt(self.model)  # an adapter may replace the output matrix

    def _make_work(self) -> Work:
        eos = loading.end_tokens(self.model, self.tokenizer)
        pad = getattr(self.tokenizer, "pad_token_id", None)
        decoding = generation.Decoding(
            model=self.model,
            tokenizer=self.tokenizer,
            eos_ids=eos,
            pad_id=pad if pad is not None else min(eos, default=0),
            repetition_penalty=float(self.model.generation_config.repetition_penalty or 1.0),
            takes_positions=loading.takes_positions(self.model),
            device=self.device,
            prefill_tokens=self._limits.pass_tokens,
        )
        if self._packed is not None:
            tree = TreeWork(decoding, self.max_length, self._counts, lambda: self._closed)
            tree.packed, tree.limits, tree.arrivals = self._packed, self._limits, self._arrivals
            return tree
        padded = PaddedWork(decoding, self.max_length, self._counts, lambda: self._closed)
        padded.limits = self._limits
        padded.projection = scoring.Projection(self.model, self.model.config.get_text_config().vocab_size)
        return padded

    # The queue

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        """Queue requests; an impossible one fails its own future."""
        if self._queue is None:
            raise EngineError("the engine is closed")
        queued = self._queue.put(requests, self._impossible)
        self._counts.requests += len(queued)
        return [item.future for item in queued]

    def _impossible(self, request: Request) -> str | None:
        ids = (
            request.prompt_ids
            if isinstance(request, GenerateRequest)
            else request.context_ids + request.continuation_ids
        )
        if ids and max(ids) >= self._embeddings:
            return f"token {max(ids)} is beyond the model's {self._embeddings} embeddings: the tokenizer does not fit"
        if isinstance(request, GenerateRequest):
            if not request.prompt_ids:
                return "empty prompt: the tokenizer made no token of it"
            if request.sampling.max_tokens < 1 or request.sampling.n < 1:
                return "max_tokens and n must be at least 1"
            return None
        if not request.context_ids or not request.continuation_ids:
            return "a loglikelihood needs at least one context token and one continuation token"
        if len(request.continuation_ids) > self.max_length:
            return f"a continuation of {len(request.continuation_ids)} tokens exceeds the context ({self.max_length})"
        return None

    def _compute(self, taken: list[Queued]) -> None:
        with torch.inference_mode():
            self._work.score([q for q in taken if isinstance(q.request, LoglikelihoodRequest)])
            self._work.generate([q for q in taken if isinstance(q.request, GenerateRequest)])

    def _arrivals(self, least: int, most: int) -> list[Queued]:
        """Generation requests that may join those in flight."""
        if self._queue is None or most < 1:
            return []
        return self._queue.join(least, most, lambda request: isinstance(request, GenerateRequest))

    @property
    def _closed(self) -> bool:
        return self._queue is None or self._queue.closed

    # Facts

    def stats(self) -> EngineStats:
        if self.device.type == "cuda":
            peak = int(torch.cuda.max_memory_allocated(self.device))
        else:
            unit = 1 if sys.platform == "darwin" else 1024
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        counts = self._counts
        return EngineStats(
            self._queue.busy_s if self._queue else 0.0,
            counts.requests,
            counts.prompt,
            counts.cached,
            counts.output,
            peak,
        )

    def describe(self) -> Mapping[str, Json]:
        facts = dict(loading.describe(self.model, self.device, self.threads))
        notes = []
        if self._packed is None:
            notes.append(f"prompts that begin alike are computed one by one: {self._unfit}")
        else:
            facts["attention"] = f"tree {self._kernel}".strip()
        left_out = loading.left_out(self.model)
        if left_out:
            notes.append(
                f"{len(left_out)} weights of the checkpoint have no place in its architecture and were left out "
                f"(first: {left_out[0]})"
            )
        ignored = loading.ignored_settings(self.model)
        if ignored:
            notes.append(
                f"the checkpoint's generation config asks for {', '.join(ignored)}, which is left out"
            )
        if notes:
            facts["notes"] = notes
        sizes = {"batch_tokens": self._limits.pass_tokens, "cache_tokens": self._limits.cache_tokens}
        return {"name": self.name, **sizes, "max_length": self.max_length, **facts}

    def close(self) -> None:
        """Stop after the batch in flight; what is still queued fails with EngineError."""
        if self._queue is not None:
            self._queue.close()
        with contextlib.suppress(AttributeError):
            del self.model, self._work, self._packed, self._adapters


def limits(model: Any, device: torch.device, batch_tokens: int | None) -> Limits:
    """Tokens of a pass and of the cache: fixed by the kind of device, less where memory is short.

    They are no function of the requests or of the moment, so that the same requests are planned alike.
    """
    kind = device.type if device.type in PASS_TOKENS else "cpu"
    bound = loading.free_bytes(device) // 4
    per_token = loading.cache_bytes_per_token(model)
    fitting = max(1, bound // loading.pass_bytes_per_token(model))
    return Limits(
        pass_tokens=batch_tokens or min(PASS_TOKENS[kind], fitting),
        cache_tokens=batch_tokens or max(1, min(CACHE_BYTES[kind], bound) // per_token),
        rows=MOST_ROWS[kind],
    )
