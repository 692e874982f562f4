"""vLLM by itself: LLM.generate on the very prompts of an lm-eval task, and nothing around it."""

from __future__ import annotations

import time
from typing import Any

from lm_eval.api.model import LM
from lm_eval_side import evaluate, read_back


class Replay(LM):
    """Hands lm-eval texts that were generated before; on the first call it only writes down what is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.texts: list[str] | None = None

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        self.requests = [request.args for request in requests]
        return self.texts if self.texts is not None else [""] * len(requests)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        raise NotImplementedError


class RawGenerate:
    """The clock runs for LLM.generate alone: prompts are built before, answers are scored after."""

    def __init__(self, job: dict[str, Any]) -> None:
        from vllm import LLM

        self.job = job
        self.replay = Replay()
        evaluate(self.replay, job["tasks"], job["limit"], job)
        self.llm = LLM(model=job["model"], dtype=job["dtype"], **job["vllm"])

    def _generate(self, prompts: list[str], stop: list[str], max_tokens: int) -> list[str]:
        from vllm import SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=max_tokens, stop=stop)
        return [answer.outputs[0].text for answer in self.llm.generate(prompts, params, use_tqdm=False)]

    def warm(self) -> None:
        self._generate(["Warm", "Up"], [], 4)

    def run(self) -> dict[str, Any]:
        prompts = [context for context, _ in self.replay.requests]
        settings = self.replay.requests[0][1]
        stop = [*settings["until"], "</s>"]
        start = time.perf_counter()
        self.replay.texts = self._generate(prompts, list(dict.fromkeys(stop)), settings["max_gen_toks"])
        seconds = time.perf_counter() - start
        _, result = evaluate(self.replay, self.job["tasks"], self.job["limit"], self.job)
        self.replay.texts = None
        return {"seconds": seconds, **read_back(result), "facts": {"prompts": len(prompts)}}
