"""The endpoint engine on real servers: vLLM's and `transformers serve`, beside the transformers engine on one model.

vLLM's server runs with the interpreter HARNESS_SERVER_PYTHON (this one by default); without vLLM its tests are skipped,
or fail with HARNESS_REQUIRE_VLLM=1. `transformers serve` needs the extra transformers[serving].
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from harness.datasets import Datasets
from harness.endpoints import checkpoint_of
from harness.engines.endpoint import EndpointEngine
from harness.engines.transformers import TransformersEngine
from harness.errors import BadCheckpoint, BadInput, EngineError
from harness.protocols import TaskContext, TaskRef
from harness.records import Checkpoint, GenerateRequest, LoglikelihoodRequest, Sampling
from harness.strategies.direct import Direct
from harness.suitefile import parse_task
from harness.testing import EngineConformance
from tests.conftest import build_llama, byte_tokenizer
from tests.suites.conftest import run_whole

pytestmark = pytest.mark.slow

PYTHON = os.environ.get("HARNESS_SERVER_PYTHON", sys.executable)
CONTEXT = 1024
WAIT_S = 120
TOLERANCE_NATS = 1e-3
PROMPTS = ["one", "a somewhat longer prompt than the others", "Ünïcödé, too", "x" * 40, "two\nlines\n\n"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """head_dim 32, which vLLM's CPU attention takes."""
    return build_llama(tmp_path_factory.mktemp("served") / "llama", hidden=128, context=CONTEXT)


@pytest.fixture(scope="module")
def reference(folder) -> Iterator[TransformersEngine]:
    checkpoint = Checkpoint(str(folder), "llama", str(folder), None, "served", "served")
    engine = TransformersEngine.load(checkpoint, {"threads": 1})
    yield engine
    engine.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(command: list[str], port: int, log: Path) -> Iterator[str]:
    """Run a server until its port answers; gives the API's root."""
    environment = {
        **os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }  # fmt: skip
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, cwd=log.parent, env=environment, stdout=out, stderr=out, start_new_session=True
        ) as server,
    ):
        try:
            deadline_s = time.monotonic() + 240
            while True:
                assert server.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline_s, log.read_text()[-2000:]
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


def has_vllm() -> bool:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    return subprocess.run([PYTHON, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def vllm(folder, tmp_path_factory) -> Iterator[str]:
    """Endpoint spec of vLLM's server on the model."""
    if not has_vllm():
        if os.environ.get("HARNESS_REQUIRE_VLLM") == "1":
            pytest.fail(f"HARNESS_REQUIRE_VLLM=1 and {PYTHON} has no vllm")
        pytest.skip(f"{PYTHON} has no vllm")
    port = free_port()
    command = [
        PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", "tiny",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", str(CONTEXT),
        "--enforce-eager",
    ]  # fmt: skip
    with served(command, port, tmp_path_factory.mktemp("vllm") / "log") as url:
        yield f"{url}#tiny"


@pytest.fixture(scope="module")
def serve(folder, tmp_path_factory) -> Iterator[str]:
    """Endpoint spec of `transformers serve` on the model."""
    missing = [name for name in ("openai", "fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"transformers[serving] is not installed: no {missing[0]}")
    port = free_port()
    main = "from transformers.cli.transformers import main; main()"
    command = [
        sys.executable, "-c", main, "serve", str(folder), "--device", "cpu", "--dtype", "float32",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    with served(command, port, tmp_path_factory.mktemp("serve") / "log") as url:
        yield f"{url}#{folder}"


@contextmanager
def engine_on(spec: str, **options) -> Iterator[EndpointEngine]:
    engine = EndpointEngine.load(checkpoint_of(spec), options)
    try:
        yield engine
    finally:
        engine.close()


def answers(engine, prompts, sampling):
    requests = [GenerateRequest(tuple(engine.tokenizer.encode(text)), sampling) for text in prompts]
    return [future.result(WAIT_S) for future in engine.submit(requests)]


def whole_letters(text: str) -> str:
    """Without what is left of a letter that the last token did not finish: servers keep it back."""
    return text.rstrip("\ufffd")


def same_answers(engine, reference, sampling):
    ours, theirs = answers(engine, PROMPTS, sampling), answers(reference, PROMPTS, sampling)
    for one, other in zip(ours, theirs, strict=True):
        assert whole_letters(one.outputs[0].text) == whole_letters(other.outputs[0].text)
        assert one.outputs[0].finish_reason == other.outputs[0].finish_reason
        assert (one.prompt_tokens, one.output_tokens) == (other.prompt_tokens, other.output_tokens)
    return ours


def likelihoods(engine, pairs):
    encode = engine.tokenizer.encode
    requests = [LoglikelihoodRequest(tuple(encode(a)), tuple(encode(b))) for a, b in pairs]
    return [future.result(WAIT_S) for future in engine.submit(requests)]


@pytest.mark.vllm
class TestVllm:
    def test_what_it_can_was_asked(self, vllm, folder):
        with engine_on(vllm) as engine:
            server = engine.describe()["server"]
        assert {name: server[name] for name in ("completions", "chat", "takes_ids", "tokenize", "draws")} == (
            dict.fromkeys(("completions", "chat", "takes_ids", "tokenize", "draws"), True)
        )
        assert (server["scoring"], server["max_model_len"], server["owner"]) == (
            "prompt_logprobs", CONTEXT, "vllm",
        )  # fmt: skip
        assert server["says"]["root"] == str(folder)

    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("own_tokenizer", [True, False])
    def test_greedy_answers_are_those_of_the_transformers_engine(
        self, vllm, reference, folder, stream, own_tokenizer
    ):
        options = {"tokenizer": str(folder)} if own_tokenizer else {}
        with engine_on(vllm, stream=stream, **options) as engine:
            done = same_answers(engine, reference, Sampling(max_tokens=24))
        if own_tokenizer:
            theirs = answers(reference, PROMPTS, Sampling(max_tokens=24))
            assert [c.outputs[0].token_ids for c in done] == [c.outputs[0].token_ids for c in theirs]
            assert [c.outputs[0].text for c in done] == [c.outputs[0].text for c in theirs]
            if stream:
                assert all(len(c.outputs[0].token_times_s) == c.output_tokens for c in done)

    @pytest.mark.parametrize("own_tokenizer", [True, False])
    def test_log_likelihoods_are_those_of_the_transformers_engine(
        self, vllm, reference, folder, own_tokenizer
    ):
        tails = ["", " and more", "é", "\n", "a", "b"]
        pairs = [(prompt, "-" + tail) for prompt in PROMPTS for tail in tails]
        greedy = [
            (p, whole_letters(answers(reference, [p], Sampling(max_tokens=3))[0].outputs[0].text))
            for p in PROMPTS
        ]
        pairs += [(p, tail) for p, tail in greedy if tail and "\ufffd" not in tail]
        options = {"tokenizer": str(folder)} if own_tokenizer else {}
        with engine_on(vllm, **options) as engine:
            ours, theirs = likelihoods(engine, pairs), likelihoods(reference, pairs)
        for one, other in zip(ours, theirs, strict=True):
            assert one.loglikelihood == pytest.approx(other.loglikelihood, abs=TOLERANCE_NATS)
            assert one.is_greedy == other.is_greedy

    def test_echo_gives_the_same_where_prompt_logprobs_are_not_to_be_had(self, vllm, reference):
        from dataclasses import replace

        pairs = [(prompt, " tail") for prompt in PROMPTS]
        with engine_on(vllm) as engine:
            target = engine._current
            for tokens in (0, 1):
                server = replace(
                    target.server, scoring="echo", echo_tokens=tokens, tokenize=False, takes_ids=False
                )
                target.scorer._server = server
                engine._current = target._replace(server=server)
                ours = likelihoods(engine, [pair for pair in pairs if pair[0].isascii()])
                theirs = likelihoods(reference, [pair for pair in pairs if pair[0].isascii()])
                for one, other in zip(ours, theirs, strict=True):
                    assert one.loglikelihood == pytest.approx(other.loglikelihood, abs=TOLERANCE_NATS)
                    assert one.is_greedy == other.is_greedy

    def test_a_prompt_beyond_the_context_is_cut_as_the_local_engine_cuts_it(self, vllm, reference):
        long = "abc " * CONTEXT
        with engine_on(vllm) as engine:
            (one,), (other,) = (answers(e, [long], Sampling(max_tokens=16)) for e in (engine, reference))
        assert one.dropped_prompt_tokens == other.dropped_prompt_tokens > 0
        assert whole_letters(one.outputs[0].text) == whole_letters(other.outputs[0].text)

    def test_another_tokenizer_is_refused(self, vllm, tmp_path):
        other = byte_tokenizer()
        other.add_tokens(["three", "probe"])
        other.save_pretrained(tmp_path)
        with pytest.raises(BadCheckpoint, match="disagrees with"), engine_on(vllm, tokenizer=str(tmp_path)):
            pass

    def test_chats_are_those_that_the_local_template_renders(self, vllm, reference):
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
        for more in ([], [{"role": "assistant", "content": "It is"}]):
            texts = []
            with engine_on(vllm) as engine:
                for one in (engine, reference):
                    text = one.tokenizer.apply_chat_template(
                        [*turns, *more],
                        tokenize=False,
                        add_generation_prompt=not more,
                        continue_final_message=bool(more),
                    )
                    ids = tuple(one.tokenizer.encode(text, add_special_tokens=False))
                    (future,) = one.submit([GenerateRequest(ids, Sampling(max_tokens=12))])
                    texts.append(whole_letters(future.result(WAIT_S).outputs[0].text))
            assert texts[0] == texts[1]


@pytest.mark.vllm
class TestVllmKeepsTheEnginesPromises(EngineConformance):
    @pytest.fixture
    def engine(self, vllm, folder):
        with engine_on(vllm, tokenizer=str(folder)) as engine:
            yield engine


class TestTransformersServe:
    def test_what_it_can_was_asked(self, serve):
        with engine_on(serve) as engine:
            server = engine.describe()["server"]
            assert engine.can_score is False
        assert (server["completions"], server["chat"]) == (True, True)
        assert (server["takes_ids"], server["scoring"], server["draws"]) == (False, None, False)

    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("own_tokenizer", [True, False])
    def test_greedy_answers_are_those_of_the_transformers_engine(
        self, serve, reference, folder, stream, own_tokenizer
    ):
        options = {"tokenizer": str(folder)} if own_tokenizer else {}
        with engine_on(serve, stream=stream, **options) as engine:
            same_answers(engine, reference, Sampling(max_tokens=24))

    def test_stop_strings_are_cut_though_the_server_sends_them(self, serve, reference):
        whole = answers(reference, ["one"], Sampling(max_tokens=24))[0].outputs[0].text
        stop = next(letter for letter in whole[4:] if letter.isascii() and letter not in whole[:4])
        with engine_on(serve) as engine:
            ours, theirs = (
                answers(e, ["one"], Sampling(max_tokens=24, stop=(stop,)))[0].outputs[0]
                for e in (engine, reference)
            )
        assert (
            (ours.text, ours.finish_reason)
            == (theirs.text, theirs.finish_reason)
            == (whole[: whole.index(stop)], "stop")
        )

    def test_what_it_does_not_have_is_said(self, serve):
        with engine_on(serve) as engine:
            with pytest.raises(BadInput, match="gives no log-likelihoods"):
                likelihoods(engine, [("a", "b")])
            ids = tuple(engine.tokenizer.encode("hi"))
            sampled, endless = engine.submit(
                [
                    GenerateRequest(ids, Sampling(max_tokens=4, temperature=1.0)),
                    GenerateRequest(ids, Sampling(max_tokens=4, ignore_eos=True)),
                ]
            )
            assert "does not sample" in str(sampled.exception(WAIT_S))
            problem = endless.exception(WAIT_S)
            assert isinstance(problem, EngineError)
            assert "ignore_eos" in str(problem)


# Latency


def latency(engine, checkpoint, tmp_path, **options):
    """Samples and metrics of the latency task, two requests in flight, prompts from a file."""
    from harness import registry

    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS))
    ref = TaskRef(
        "", "latency", {"prompts": str(file), "concurrencies": 2, "output_tokens": 8, **options}, "latency"
    )
    task = registry.load("task", "latency")(ref, TaskContext(engine, Direct(), Datasets(None), checkpoint))
    samples = run_whole(task)
    assert [sample.error for sample in samples if sample.error] == []
    return samples, task.aggregate(samples)


@pytest.mark.vllm
def test_the_log_of_vllms_server_has_every_token_and_the_count_apart(vllm, folder, tmp_path):
    for options in ({}, {"tokenizer": str(folder)}):
        with engine_on(vllm, **options) as engine:
            samples, metrics = latency(engine, checkpoint_of(vllm), tmp_path, requests=6)
        for sample in samples:
            *pieces, last = sample.metadata["log"]["chunks"]
            assert (last[1], last[3]) == ("usage", 8)
            assert 2 <= len(pieces) <= 8  # a busy server puts tokens together
            assert [at_s for at_s, *_ in pieces] == sorted(at_s for at_s, *_ in pieces)
            assert sum(tokens or 0 for _, _, tokens, _ in pieces) == (8 if options else 0)
        assert metrics["vllm_e2e_p50_ms@2"].n == 6
        assert metrics["vllm_ttft_p50_ms@2"].value < metrics["vllm_e2e_p50_ms@2"].value
        assert metrics["vllm_e2e_mean_ms@2"].value <= metrics["guidellm_e2e_mean_ms@2"].value


def test_the_count_of_transformers_serve_rides_on_a_piece(serve, folder, tmp_path):
    with engine_on(serve, stream=True) as engine:
        samples, metrics = latency(engine, checkpoint_of(serve), tmp_path, requests=2, ignore_eos=False)
    kinds = [kind for _, kind, _, _ in samples[-1].metadata["log"]["chunks"]]
    assert "usage" not in kinds
    assert samples[-1].metadata["log"]["output_tokens"] == samples[-1].output_tokens > 0
    assert metrics["guidellm_e2e_p50_ms@2"].value > 0


# Tasks


def scores(task_name, engine, checkpoint, mirror, **fields):
    suite_task = parse_task(task_name)
    from harness.taskfiles import load_task

    context = TaskContext(
        engine=engine,
        strategy=Direct(),
        data=Datasets(mirror),
        checkpoint=checkpoint,
        **{"limit": 3, **fields},
    )
    ref = getattr(suite_task, "ref", suite_task)
    return run_whole(load_task(ref, context))


@pytest.mark.mirror
@pytest.mark.vllm
@pytest.mark.parametrize(
    "task",
    [
        "lm_eval:arc_challenge,num_fewshot=1",
        "lm_eval:gsm8k,num_fewshot=1",
        "lm_eval:gsm8k,num_fewshot=1,chat=true",
    ],
)
def test_lm_evals_tasks_score_the_same_through_vllms_server(vllm, reference, mirror, task):
    with engine_on(vllm) as engine:
        ours = scores(task, engine, checkpoint_of(vllm), mirror, sampling={"max_tokens": 16})
        theirs = scores(task, reference, None, mirror, sampling={"max_tokens": 16})
    same_samples(ours, theirs)


@pytest.mark.mirror
@pytest.mark.parametrize("task", ["lm_eval:gsm8k,num_fewshot=1", "lettered:arc_challenge"])
def test_lm_evals_tasks_score_the_same_through_transformers_serve(serve, reference, mirror, task):
    with engine_on(serve, max_length=CONTEXT) as engine:
        ours = scores(task, engine, checkpoint_of(serve), mirror, sampling={"max_tokens": 8}, limit=2)
        theirs = scores(task, reference, None, mirror, sampling={"max_tokens": 8}, limit=2)
    same_samples([s for s, t in zip(ours, theirs, strict=True) if not t.dropped_prompt_tokens],
                 [t for t in theirs if not t.dropped_prompt_tokens])  # fmt: skip


@pytest.mark.mirror
def test_inspects_tasks_score_the_same_through_a_server(serve, reference, mirror):
    task = "inspect:gsm8k,fewshot=0"
    with engine_on(serve) as engine:
        ours = scores(task, engine, checkpoint_of(serve), mirror, sampling={"max_tokens": 8}, limit=2)
    theirs = scores(task, reference, None, mirror, sampling={"max_tokens": 8}, limit=2)
    same_samples(ours, theirs)


def same_samples(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.error is None
        assert other.error is None
        assert list(map(whole_letters, one.outputs)) == list(map(whole_letters, other.outputs))
        assert {n: s.value for n, s in one.scores.items()} == {n: s.value for n, s in other.scores.items()}
        for ours_, theirs_ in zip(
            one.metadata.get("responses", ()), other.metadata.get("responses", ()), strict=True
        ):
            assert ours_[0][0] == pytest.approx(theirs_[0][0], abs=TOLERANCE_NATS)
            assert ours_[0][1] == theirs_[0][1]
