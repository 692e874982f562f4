"""Requests of the harness -> requests of vLLM -> completions. Runs in the loop of vllm_core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from harness.engines.batching import Window, fit_prompt
from harness.engines.generation import Decoding, Row, finish_output
from harness.engines.loading import first_line
from harness.engines.queue import CLOSED, Queued
from harness.engines.vllm_core import TRACE_REPLAY, Core
from harness.engines.vllm_params import Voice, draw_params, score_params
from harness.engines.vllm_scores import How, ScoreAsk, Scored, is_number, read_scores, score_asks
from harness.engines.work import NOT_A_NUMBER
from harness.errors import EngineError
from harness.records import Completion, GenerateRequest, LoglikelihoodRequest, Output, Sampling

Finish = Callable[[Queued, Completion | EngineError], None]


class Drawn(NamedTuple):
    """A continuation, and what vLLM says of its making."""

    output: Output
    first_token_s: float
    """time.perf_counter()"""
    cached: int


class Asker:
    """Answers queued requests as one checkpoint.

    Args: finish: takes every request once, with its completion or its error.
    """

    def __init__(self, core: Core, voice: Voice, lora: Any, finish: Finish) -> None:
        self.core = core
        self.voice = voice
        self.lora = lora
        self.finish = finish
        self.how = How(replay=core.forcing == TRACE_REPLAY, reads_prompts=voice.reads_prompts)
        self._tasks: set[asyncio.Task[None]] = set()

    def probe(self) -> str | None:
        """What is wrong with the model, found by scoring one token. Also pays for what vLLM compiles on first use."""
        ask = ScoreAsk((0,), (), 0, [(0, 0)], [0])
        try:
            scores, _ = self.core.run(self._scores(ask))
        except EngineError as exc:
            return str(exc)
        return None if is_number(scores[0]) else NOT_A_NUMBER

    def answer(self, queued: Sequence[Queued]) -> None:
        """Ask vLLM everything; returns at once."""
        scored = [item for item in queued if isinstance(item.request, LoglikelihoodRequest)]
        requests = [item.request for item in scored if isinstance(item.request, LoglikelihoodRequest)]
        for ask in score_asks(requests, self.voice.max_length, self.how):
            concerned = [scored[index] for index, _ in ask.targets]
            self._keep(self._score(ask, concerned), concerned)
        for item in queued:
            if isinstance(item.request, GenerateRequest):
                self._keep(self._generate(item, item.request), [item])

    def _keep(self, work: Any, concerned: Sequence[Queued]) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(work, concerned))
        self._tasks.add(task)  # asyncio itself holds its tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Any, concerned: Sequence[Queued]) -> None:
        """Whatever happens, every request concerned is finished."""
        try:
            await work
            return
        except EngineError as exc:
            problem = exc
        except asyncio.CancelledError:
            problem = EngineError(CLOSED)
        except Exception as exc:  # noqa: BLE001  a task that dies would leave whoever waits hanging
            problem = EngineError(f"{type(exc).__name__}: {first_line(exc)}")
        finally:
            work.close()
        for item in concerned:
            self.finish(item, problem)

    async def _outputs(self, prompt: tuple[int, ...], params: Any) -> Any:
        """The outputs of one request of vLLM. Raises: EngineError: the engine process died."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            async for answer in await self.core.ask(prompt, params, self.lora):
                yield answer
        except EngineDeadError as exc:
            words = self.core.last_words()
            raise EngineError(
                "vLLM's engine process died" + (f"; its last words: {words}" if words else "")
            ) from exc

    # Scoring

    async def _scores(self, ask: ScoreAsk) -> tuple[list[Scored], int]:
        """One score per target, and the prompt tokens that came from the cache."""
        replayed = self.how.replay and bool(ask.forced)
        params = score_params(ask, replay=replayed)
        last = None
        async for answer in self._outputs(ask.prompt, params):
            last = answer
        if last is None or not last.outputs[0].token_ids:
            raise EngineError("vLLM gave no answer")
        try:
            scores = read_scores(ask, last.outputs[0], last.prompt_logprobs, replay=replayed)
        except (ValueError, KeyError, IndexError) as exc:
            raise EngineError(f"vLLM's logprobs do not fit the request: {exc}") from exc
        return scores, int(last.num_cached_tokens or 0)

    async def _score(self, ask: ScoreAsk, concerned: Sequence[Queued]) -> None:
        started = time.perf_counter()
        scores, cached = await self._scores(ask)
        done = time.perf_counter()
        length = len(ask.prompt) + len(ask.forced)
        for place, (item, score) in enumerate(zip(concerned, scores, strict=True)):
            if not is_number(score):
                self.finish(item, EngineError(NOT_A_NUMBER))
                continue
            completion = Completion(
                loglikelihood=score.loglikelihood,
                is_greedy=score.is_greedy,
                prompt_tokens=length,
                cached_tokens=length if place else cached,
                dropped_prompt_tokens=ask.dropped[place],
                queued_s=item.queued_s,
                started_s=started,
                done_s=done,
            )
            self.finish(item, completion)

    # Generation

    async def _generate(self, item: Queued, request: GenerateRequest) -> None:
        started = time.perf_counter()
        window, sampling = fit_prompt(request, self.voice.max_length), request.sampling
        draws = range(request.first_draw, request.first_draw + sampling.n)
        if sampling.temperature > 0:
            rows = await asyncio.gather(*(self._draw(item, window, sampling, draw) for draw in draws))
        else:
            rows = [await self._draw(item, window, sampling, request.first_draw)] * sampling.n
        done = time.perf_counter()
        outputs = tuple(row.output for row in rows)
        completion = Completion(
            outputs=outputs,
            prompt_tokens=len(window.ids),
            cached_tokens=min(row.cached for row in rows),
            output_tokens=sum(len(output.token_ids) for output in outputs),
            dropped_prompt_tokens=window.dropped,
            queued_s=item.queued_s,
            started_s=started,
            first_token_s=min(row.first_token_s for row in rows),
            done_s=done,
        )
        self.finish(item, completion)

    async def _draw(self, item: Queued, window: Window, sampling: Sampling, draw: int) -> Drawn:
        """One continuation."""
        params = draw_params(window, sampling, draw, self.voice)
        ids: list[int] = []
        times: list[float] = []
        last = None
        async for answer in self._outputs(window.ids, params):
            last = answer
            now = time.perf_counter()
            ids += answer.outputs[0].token_ids
            times += [now - item.queued_s] * (len(ids) - len(times))
        reason = last.outputs[0].finish_reason if last is not None else None
        if reason not in ("stop", "length") or not ids or last is None:
            raise EngineError(f"vLLM ended the answer with {reason!r}")
        probability = last.outputs[0].cumulative_logprob
        if probability is not None and probability != probability:
            raise EngineError(NOT_A_NUMBER)
        row = Row(0, draw, window, sampling, item.queued_s, None, 0, ids=ids, finish=reason)
        if sampling.ignore_eos:
            row.times_s = times
        output = finish_output(decoding_of(self.voice), row)
        return Drawn(output, item.queued_s + times[0], int(last.num_cached_tokens or 0))


def decoding_of(voice: Voice) -> Decoding:
    """What finishing a text needs; there is no model in this process."""
    return Decoding(
        model=None,
        tokenizer=voice.tokenizer,
        eos_ids=voice.eos_ids,
        pad_id=0,
        repetition_penalty=voice.repetition_penalty,
        takes_positions=False,
        device=torch.device("cpu"),
        prefill_tokens=0,
    )
