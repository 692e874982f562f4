"""SamplingParams of vLLM for what the harness asks. vLLM is imported inside: this module is read without it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.engines.batching import Window
from harness.engines.vllm_scores import FORCED, ScoreAsk
from harness.protocols import Tokenizer
from harness.records import Sampling

FIRST_AND_LAST = 1 << 30
"""Tokens between two outputs of vLLM where nobody looks at the times in between."""


@dataclass(frozen=True)
class Voice:
    """How the active checkpoint answers."""

    tokenizer: Tokenizer
    eos_ids: frozenset[int]
    repetition_penalty: float
    max_length: int
    watches_numbers: bool
    """float16 overflows on some inputs alone: every answer's logprobs are looked at."""
    reads_prompts: bool
    """False: prompt logprobs end vLLM's process, as they do where the output matrix may have an adapter."""


def score_params(ask: ScoreAsk, *, replay: bool) -> Any:
    """vLLM's parameters for a score: greedy, so that the step that is not forced shows the most probable token."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    forced = list(ask.forced)
    return SamplingParams(
        temperature=0.0,
        max_tokens=len(forced) + 1,
        ignore_eos=True,
        detokenize=False,
        flat_logprobs=True,
        logprob_token_ids=ask.last_tokens,
        prompt_logprobs=0 if ask.in_prompt else None,
        trace_decode_token_ids=[*forced, ask.last_tokens[0]] if replay else None,
        extra_args={FORCED: forced} if forced and not replay else None,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def draw_params(window: Window, sampling: Sampling, draw: int, voice: Voice) -> Any:
    """vLLM's parameters for one continuation.

    End tokens are stop tokens here, so that they are the same ones as in the transformers engine; stop strings are
    looked for in the text with special tokens, as there.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    drawn = sampling.temperature > 0
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p if drawn else 1.0,
        top_k=sampling.top_k if drawn else 0,
        seed=seed_of(sampling.seed, draw, window.ids) if drawn else None,
        repetition_penalty=voice.repetition_penalty,
        max_tokens=window.max_tokens,
        stop=[text for text in sampling.stop if text] or None,
        ignore_eos=True,
        stop_token_ids=None if sampling.ignore_eos else sorted(voice.eos_ids),
        detokenize=any(sampling.stop),
        skip_special_tokens=False,
        include_stop_str_in_output=True,
        logprobs=0 if voice.watches_numbers else None,
        # times of single tokens cost one output a token: kept for requests that measure speed
        output_kind=RequestOutputKind.DELTA,
        stream_interval=1 if sampling.ignore_eos else FIRST_AND_LAST,
        skip_clone=True,
    )


def seed_of(seed: int, draw: int, prompt: Sequence[int]) -> int:
    """A draw depends on seed, draw and prompt alone. vLLM's own seeds of n draws (seed + i) would overlap."""
    key = f"{seed}:{draw}:{tuple(prompt)}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 2
