"""The vLLM engine, really run on the CPU, against the transformers engine and PEFT: same text, same scores."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness import registry
from harness.checkpoints import resolve
from harness.errors import BadCheckpoint, BadInput, EngineError
from harness.records import GenerateRequest, LoglikelihoodRequest, Sampling
from harness.testing import EngineConformance
from tests.vllm_here import build_wide_llama, require_vllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]

CONTEXT = 512
TOLERANCE_NATS = 1e-3
TEXTS = ["one", "a somewhat longer prompt than the others", "two words", "x" * 40]
SPECIAL = ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
TAILS = [" yes", " no", " nope", "A", "B", "C", "D"]


@pytest.fixture(scope="module", autouse=True)
def installed():
    require_vllm()


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_wide_llama(tmp_path_factory.mktemp("vllm") / "llama", context=CONTEXT)


def make_adapter(base: Path, folder: Path, *, seed: int, r: int, **settings) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=r, target_modules="all-linear", init_lora_weights=False, **settings)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapters(base: Path) -> list[Path]:
    return [make_adapter(base, base.parent / f"lora{r}", seed=r, r=r) for r in (4, 16)]


def load(name: str, spec: str, **options):
    return registry.load("engine", name).load(resolve(spec), {"threads": 1, **options})


@pytest.fixture(scope="module")
def engine(base: Path, installed):
    engine = load("vllm", str(base), max_lora_rank=16)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reference(base: Path):
    engine = load("transformers", str(base))
    yield engine
    engine.close()


@pytest.fixture
def on_base(engine, base):
    """The engine answering as the base, whatever a test before made of it."""
    engine.activate(resolve(str(base)))
    return engine


def encode(engine, text: str) -> tuple[int, ...]:
    return tuple(engine.tokenizer.encode(text, add_special_tokens=False))


def ask(engine, requests):
    return [future.result(timeout=120) for future in engine.submit(requests)]


def assert_same_scores(engine, reference, requests) -> None:
    for found, expected, request in zip(
        ask(engine, requests), ask(reference, requests), requests, strict=True
    ):
        assert found.loglikelihood == pytest.approx(expected.loglikelihood, abs=TOLERANCE_NATS), request
        assert found.is_greedy == expected.is_greedy
        assert found.prompt_tokens == expected.prompt_tokens
        assert found.dropped_prompt_tokens == expected.dropped_prompt_tokens


def assert_same_texts(engine, reference, requests) -> None:
    for found, expected in zip(ask(engine, requests), ask(reference, requests), strict=True):
        assert found.prompt_tokens == expected.prompt_tokens
        assert found.dropped_prompt_tokens == expected.dropped_prompt_tokens
        assert found.output_tokens == expected.output_tokens
        assert [replace(o, token_times_s=()) for o in found.outputs] == [
            replace(o, token_times_s=()) for o in expected.outputs
        ]


def pairs(engine, texts=TEXTS) -> list[LoglikelihoodRequest]:
    return [
        LoglikelihoodRequest(encode(engine, text), encode(engine, tail)) for text in texts for tail in TAILS
    ]


class TestConformance(EngineConformance):
    @pytest.fixture
    def engine(self, on_base):
        return on_base


def test_greedy_texts_equal_those_of_the_transformers_engine(on_base, reference):
    requests = [GenerateRequest(encode(on_base, text), Sampling(max_tokens=24, n=2)) for text in TEXTS]
    assert_same_texts(on_base, reference, requests)


def test_scores_and_greedy_flags_equal_those_of_the_transformers_engine(on_base, reference):
    # continuations that the model itself would write: otherwise no flag would ever be True
    prompts = [encode(on_base, text) for text in TEXTS]
    written = ask(reference, [GenerateRequest(ids, Sampling(max_tokens=40)) for ids in prompts])
    greedy = [
        LoglikelihoodRequest(ids, done.outputs[0].token_ids[:n])
        for ids, done in zip(prompts, written, strict=True)
        for n in (1, 3, 40)
    ]
    assert all(c.is_greedy for c in ask(on_base, greedy))
    near = [
        replace(r, continuation_ids=(*r.continuation_ids[:-1], 7))
        for r in greedy
        if r.continuation_ids[-1] != 7
    ]
    assert not any(c.is_greedy for c in ask(on_base, near))
    assert_same_scores(on_base, reference, pairs(on_base) + greedy + near)


def test_choices_of_a_question_are_one_request_on_one_prefill(on_base):
    context = encode(on_base, "which letter is it? " * 8)  # 160 tokens: five blocks of the cache
    letters = ask(on_base, [LoglikelihoodRequest(context, encode(on_base, c)) for c in "ABCD"])
    assert [c.cached_tokens for c in letters[1:]] == [len(context)] * 3
    endings = ask(on_base, [LoglikelihoodRequest(context, encode(on_base, e)) for e in ("xy", "zw")])
    assert [c.cached_tokens for c in endings] == [128, 128], (
        "all full blocks but the last come from the cache"
    )


def test_the_cache_serves_siblings_that_come_together(on_base):
    context = encode(on_base, "a context that nobody has asked about before. " * 5)
    endings = ask(on_base, [LoglikelihoodRequest(context, encode(on_base, e)) for e in ("ab", "cd", "ef")])
    blocks = len(context) // 32 * 32
    assert sorted(c.cached_tokens for c in endings) == [0, blocks, blocks]


def test_prompts_and_pairs_that_are_too_long_are_cut_alike(on_base, reference):
    long = encode(on_base, "abcdefg " * 90)
    assert len(long) > CONTEXT
    requests = [
        LoglikelihoodRequest(long, encode(on_base, " yes")),
        LoglikelihoodRequest(long[: CONTEXT - 2], encode(on_base, "abc")),  # one longer than the context
        LoglikelihoodRequest(long[:1], long[: CONTEXT - 1]),
        LoglikelihoodRequest(long[:1], long[:CONTEXT]),  # a rolling window: all but one token are scored
    ]
    assert_same_scores(on_base, reference, requests)
    budgets = (8, CONTEXT // 2, CONTEXT, 4 * CONTEXT)
    generated = [
        GenerateRequest(long, Sampling(max_tokens=budget, stop=("a" * 9,))) for budget in budgets[:2]
    ]
    assert_same_texts(on_base, reference, generated)
    whole = [GenerateRequest(long[:500], Sampling(max_tokens=budget)) for budget in budgets[2:]]
    assert_same_texts(on_base, reference, whole)


def test_stop_strings_cut_alike_also_where_they_are_special_tokens(on_base, reference):
    requests = []
    for text in TEXTS:
        prompt = encode(on_base, text)
        (whole,) = ask(reference, [GenerateRequest(prompt, Sampling(max_tokens=40))])
        # the model writes any bytes: a stop string of half a character is none that a task would give
        words = [word for word in whole.outputs[0].text.split("\ufffd") if word]
        stops = [
            (words[1][:2],),
            (words[-1], words[0][-1]),
            SPECIAL,
            ("never there",),
        ]
        requests += [GenerateRequest(prompt, Sampling(max_tokens=40, stop=stop)) for stop in stops]
    assert_same_texts(on_base, reference, requests)
    reasons = {c.outputs[0].finish_reason for c in ask(on_base, requests)}
    assert reasons == {"stop", "length"}


def test_an_end_token_ends_and_can_be_ignored(on_base, reference, base):
    """The tokenizer's end token is drawn sooner or later at a temperature; then it ends the answer."""
    prompt = encode(on_base, TEXTS[0])
    drawn = Sampling(max_tokens=400, temperature=1.5, n=4)
    ended = ask(on_base, [GenerateRequest(prompt, drawn)])[0].outputs
    eos = on_base.tokenizer.eos_token_id
    stopped = [o for o in ended if o.finish_reason == "stop"]
    assert stopped
    assert all(o.token_ids[-1] == eos and eos not in o.token_ids[:-1] for o in stopped)
    going_on = ask(on_base, [GenerateRequest(prompt, replace(drawn, ignore_eos=True))])[0].outputs
    assert all(len(o.token_ids) == 400 for o in going_on)
    assert any(eos in o.token_ids for o in going_on)


def test_token_times_come_where_speed_is_measured(on_base):
    sampling = Sampling(max_tokens=12, ignore_eos=True)
    done = ask(on_base, [GenerateRequest(encode(on_base, TEXTS[1]), sampling)])[0]
    times = done.outputs[0].token_times_s
    assert len(times) == 12
    assert list(times) == sorted(times)
    assert 0 < times[0] < times[-1]
    assert done.first_token_s == pytest.approx(done.queued_s + times[0])


def test_the_latency_task_finds_every_token_of_an_open_and_a_closed_loop(on_base):
    from harness.datasets import Datasets
    from harness.protocols import TaskContext, TaskRef
    from harness.strategies.direct import Direct
    from tests.suites.conftest import run_whole

    options = {
        "concurrencies": 2, "utilisations": 0.5, "requests": 6, "warmup": 1, "prompt_tokens": 16, "output_tokens": 8,
    }  # fmt: skip
    context = TaskContext(on_base, Direct(), Datasets(None))
    task = registry.load("task", "latency")(TaskRef("", "latency", options, "latency"), context)
    samples = run_whole(task)
    for sample in samples:
        assert sample.error is None
        assert sum(tokens for _, _, tokens, _ in sample.metadata["log"]["chunks"]) == 8
    metrics = task.aggregate(samples)
    for load in ("2", "0.5load"):
        assert metrics[f"vllm_e2e_p50_ms@{load}"].n == 6
        assert metrics[f"vllm_ttft_p50_ms@{load}"].value < metrics[f"vllm_e2e_p50_ms@{load}"].value


def test_seeded_draws_repeat_themselves_and_each_draw_can_be_asked_alone(on_base):
    sampling = Sampling(max_tokens=12, temperature=1.0, top_p=0.9, top_k=50, seed=7, n=3)
    requests = [GenerateRequest(encode(on_base, text), sampling) for text in TEXTS]
    together = ask(on_base, requests)
    alone = [ask(on_base, [request])[0] for request in requests]
    assert [c.outputs for c in together] == [c.outputs for c in alone]
    first = together[0].outputs
    assert len({output.token_ids for output in first}) == 3
    third = ask(on_base, [replace(requests[0], sampling=replace(sampling, n=1), first_draw=2)])[0]
    assert third.outputs[0].token_ids == first[2].token_ids


def test_draws_follow_the_distribution(on_base, reference):
    prompt = encode(on_base, TEXTS[1])
    vocab = len(on_base.tokenizer)
    scores = ask(reference, [LoglikelihoodRequest(prompt, (token,)) for token in range(vocab)])
    import math

    top = max(range(vocab), key=lambda token: scores[token].loglikelihood)
    expected = math.exp(scores[top].loglikelihood)
    n = 600
    drawn = ask(on_base, [GenerateRequest(prompt, Sampling(max_tokens=1, temperature=1.0, n=n))])[0].outputs
    share = sum(o.token_ids == (top,) for o in drawn) / n
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_impossible_requests_fail_their_own_future(on_base):
    ids = encode(on_base, "fine")
    bad = [
        (GenerateRequest(()), "empty prompt"),
        (GenerateRequest((1, 99_999)), "99999 is beyond"),
        (LoglikelihoodRequest(ids, (99_999,)), "99999 is beyond"),
        (LoglikelihoodRequest(ids, ()), "at least one"),
        (LoglikelihoodRequest(ids, ids * CONTEXT), "exceeds the context"),
        (GenerateRequest(ids, Sampling(max_tokens=0)), "max_tokens"),
    ]
    *failed, fine = on_base.submit(
        [request for request, _ in bad] + [GenerateRequest(ids, Sampling(max_tokens=2))]
    )
    for future, (_, message) in zip(failed, bad, strict=True):
        with pytest.raises(EngineError, match=message):
            future.result(60)
    assert fine.result(60).output_tokens == 2


def test_adapters_and_base_on_one_load_equal_runs_of_their_own(engine, base, adapters):
    specs = [str(base), *(f"{base}+{adapter}" for adapter in adapters), str(base)]
    texts = [GenerateRequest(encode(engine, text), Sampling(max_tokens=16)) for text in TEXTS]
    seen = set()
    for spec in specs:
        engine.activate(resolve(spec))
        own = load("transformers", spec)
        try:
            assert_same_scores(engine, own, pairs(engine, TEXTS[:2]))
            assert_same_texts(engine, own, texts)
        finally:
            own.close()
        seen.add(ask(engine, texts[:1])[0].outputs[0].token_ids)
    assert len(seen) == 3, "base and adapters must answer differently"
    assert engine.describe()["loads"] == 1


def test_an_adapter_that_vllm_does_not_compute_is_refused_and_the_engine_lives_on(engine, base, tmp_path):
    from safetensors.torch import load_file, save_file

    request = GenerateRequest(encode(engine, TEXTS[0]), Sampling(max_tokens=6))
    engine.activate(resolve(str(base)))
    before = ask(engine, [request])[0].outputs
    dora = make_adapter(base, tmp_path / "dora", seed=1, r=4, use_dora=True)
    whole = make_adapter(base, tmp_path / "whole", seed=1, r=4, modules_to_save=["lm_head"])
    broken = make_adapter(base, tmp_path / "broken", seed=1, r=4)
    tensors = load_file(broken / "adapter_model.safetensors")
    renamed = {key.replace("q_proj", "no_proj"): value for key, value in tensors.items()}
    save_file(renamed, broken / "adapter_model.safetensors")
    for folder, message in ((dora, "DoRA"), (whole, "modules_to_save"), (broken, "does not")):
        with pytest.raises(BadCheckpoint, match=message):
            engine.activate(replace(resolve(str(base)), adapter=str(folder), fingerprint=folder.name))
    engine.activate(resolve(str(base)))
    assert ask(engine, [request])[0].outputs == before


def test_the_memory_of_a_gpu_is_asked_of_its_workers(on_base, monkeypatch):
    core = on_base._core
    resident = core.peak_bytes()
    monkeypatch.setitem(core.facts, "device", "NVIDIA of some kind")
    monkeypatch.setattr(core, "_peak_bytes", None)
    # the worker here is on a CPU, and says its peak resident set: the one process that the engine has
    assert core.peak_bytes() == pytest.approx(resident, rel=0.1)
    assert on_base.stats().peak_memory_bytes >= core.peak_bytes()
    monkeypatch.setattr(core, "_peak_bytes", None)
    monkeypatch.setattr(on_base, "_peak_bytes", None)
    monkeypatch.setattr(type(core), "dead", True)
    assert on_base.stats().peak_memory_bytes is None  # not known, which is not 0


def test_stats_and_description_are_true(on_base):
    before = on_base.stats()
    requests = [GenerateRequest(encode(on_base, TEXTS[0]), Sampling(max_tokens=30)) for _ in range(3)]
    start = time.perf_counter()
    done = ask(on_base, requests)
    wall = time.perf_counter() - start
    after = on_base.stats()
    assert after.requests - before.requests == 3
    assert after.prompt_tokens - before.prompt_tokens == sum(c.prompt_tokens for c in done)
    assert after.output_tokens - before.output_tokens == sum(c.output_tokens for c in done) > 0
    assert 0.5 * wall < after.busy_s - before.busy_s <= wall + 0.05
    assert 100 << 20 < after.peak_memory_bytes < 16 << 30
    facts = on_base.describe()
    assert facts["dtype"] == "float32"
    assert facts["device"] == "cpu"
    assert facts["threads"] == 1
    assert facts["max_length"] == CONTEXT
    assert "logits processor" in facts["scoring"]
    json.dumps(facts)


def test_unknown_options_and_another_base_are_refused(engine, base, tmp_path):
    with pytest.raises(BadInput, match="'batchsize'"):
        load("vllm", str(base), batchsize=3)
    with pytest.raises(BadInput, match="max_model_len"):
        load("vllm", str(base), max_model_len="long")
    with pytest.raises(BadInput, match="not what this vLLM computes"):
        load("vllm", str(base), device="cuda")
    other = build_wide_llama(tmp_path / "other", seed=5)
    with pytest.raises(BadCheckpoint, match="another base"):
        engine.activate(resolve(str(other)))


def test_a_task_of_lm_eval_through_the_command_line(base, mirror, tmp_path):
    """The same scores as with the transformers engine, sample by sample."""
    answers = {}
    for name in ("vllm", "transformers"):
        command = [
            sys.executable, "-m", "harness", "eval", "--engine", name, "--tasks", "lm_eval:arc_challenge",
            "--limit", "5", "--num-fewshot", "0", "--data-dir", str(mirror), "--runs", str(tmp_path / name),
            "--json", "--threads", "1", str(base),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert not re.search("warning|triton|enginecore", done.stderr, re.IGNORECASE), "vLLM is quiet"
        answers[name] = json.loads(done.stdout)["runs"][0]
    scores = {name: run["metrics"] for name, run in answers.items()}
    assert scores["vllm"] == scores["transformers"]


# Last in the file: these end the engine that the others share


def processes_of(engine) -> list[int]:
    return engine._core.pids


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def gone(pids: list[int], within_s: float = 20) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and any(map(alive, pids)):
        time.sleep(0.1)
    return not any(map(alive, pids))


def test_a_killed_engine_process_fails_its_requests_and_activating_starts_another(engine, base):
    engine.activate(resolve(str(base)))
    request = GenerateRequest(encode(engine, TEXTS[1]), Sampling(max_tokens=6))
    before = ask(engine, [request])[0].outputs
    pids = processes_of(engine)
    assert pids
    long = GenerateRequest(encode(engine, TEXTS[0]), Sampling(max_tokens=450, ignore_eos=True))
    futures = engine.submit([long] * 300)
    time.sleep(0.5)
    os.kill(pids[0], signal.SIGKILL)
    killed = time.perf_counter()
    failures = [future.exception(timeout=30) for future in futures]
    assert time.perf_counter() - killed < 20
    assert any(failures)
    assert all(failure is None or isinstance(failure, EngineError) for failure in failures)
    assert any("engine process died" in str(failure) for failure in failures)
    (late,) = engine.submit([request])
    assert isinstance(late.exception(timeout=30), EngineError)
    engine.activate(resolve(str(base)))
    assert ask(engine, [request])[0].outputs == before


def test_closing_fails_what_is_open_and_leaves_no_process(engine):
    pids = processes_of(engine)
    long = GenerateRequest(encode(engine, TEXTS[0]), Sampling(max_tokens=450, ignore_eos=True))
    futures = engine.submit([long] * 300)
    time.sleep(0.3)
    engine.close()
    failures = [future.exception(timeout=10) for future in futures]
    assert any(failures)
    assert all(failure is None or isinstance(failure, EngineError) for failure in failures)
    assert gone(pids)
    with pytest.raises(EngineError, match="closed"):
        engine.submit([long])
    assert "LD_PRELOAD" not in os.environ
