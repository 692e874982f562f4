"""Answers over a tree of prefixes equal those of the same model, asked plainly, one sequence at a time."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.engines.transformers import TransformersEngine
from harness.errors import OutOfMemory
from harness.records import GenerateRequest, LoglikelihoodRequest, Sampling
from tests.conftest import build_llama, byte_tokenizer
from tests.engines.test_transformers import checkpoint

VOCAB = 261
SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GPT = {"vocab_size": VOCAB, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
TREES: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "mistral": {**SMALL, "sliding_window": 6},
    "qwen2": {**SMALL, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    "qwen3": {**SMALL, "head_dim": 16},
    "gemma2": {**SMALL, "head_dim": 16, "sliding_window": 5, "attn_logit_softcapping": 2.0},
    "gemma3_text": {**SMALL, "head_dim": 16, "sliding_window": 5},
    "gpt2": {**GPT, "n_embd": 64, "n_positions": 512},
    "gpt_neox": SMALL,
    "cohere2": {**SMALL, "sliding_window": 5},
    "gpt_oss": {
        **SMALL,
        "head_dim": 16,
        "sliding_window": 5,
        "num_local_experts": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
PADDED: dict[str, dict[str, Any]] = {
    "bloom": {**GPT, "hidden_size": 64},
    "falcon": {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "eos_token_id": 0,
    },
    # its window stands in its mask alone
    "phimoe": {**SMALL, "sliding_window": 6, "num_local_experts": 2, "num_experts_per_tok": 1},
    "llama": {**SMALL, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}},
}


def random_model(folder: Path, kind: str, settings: dict[str, Any]) -> Path:
    """A random model of an architecture, with weights large enough that its answers differ."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def plain_model(folder: Path) -> Any:
    """The same model by transformers alone; eager where its sdpa leaves out what the model was trained with."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if getattr(model.config, "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")
    return model


def questions(seed: int = 1) -> list[LoglikelihoodRequest]:
    """Choices that share questions that share shots; some continuations begin alike, some requests are equal."""
    rng = random.Random(seed)

    def draw(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.choices(range(1, VOCAB), k=rng.randint(low, high)))

    shots = draw(60, 60)
    found = []
    for _ in range(6):
        context, start = shots + draw(3, 40), draw(20, 20)
        found += [LoglikelihoodRequest(context, draw(1, 6)) for _ in range(3)]
        found += [LoglikelihoodRequest(context, start + draw(1, 3)) for _ in range(2)]
    return [*found, LoglikelihoodRequest(shots[:5], shots[5:40]), found[2]]


def loglikelihood(model: Any, request: LoglikelihoodRequest) -> tuple[float, bool]:
    ids = request.context_ids + request.continuation_ids
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    at = [(len(request.context_ids) - 1 + i, token) for i, token in enumerate(request.continuation_ids)]
    total = sum(logprobs[place, token].item() for place, token in at)
    return total, all(int(logprobs[place].argmax()) == token for place, token in at)


CASES = [(kind, settings, True) for kind, settings in TREES.items()]
CASES += [(kind, settings, False) for kind, settings in PADDED.items()]


@pytest.mark.parametrize(("kind", "settings", "tree"), CASES, ids=[f"{k}-{t}" for k, _, t in CASES])
def test_architectures_answer_as_transformers_does(kind, settings, tree, tmp_path):
    folder = random_model(tmp_path / kind, kind, settings)
    model = plain_model(folder)
    requests = questions()
    prompts = [request.context_ids for request in requests[::5]] * 2
    # a pass of 50 tokens cuts the shots in two, keeps pieces for later passes and refills slots
    for options in ({"threads": 1}, {"threads": 1, "batch_tokens": 50}):
        engine = TransformersEngine.load(checkpoint(folder), options)
        try:
            notes = engine.describe().get("notes", [])
            assert any("one by one" in note for note in notes) is not tree
            for request, future in zip(requests, engine.submit(requests), strict=True):
                expected, greedy = loglikelihood(model, request)
                found = future.result(120)
                assert found.loglikelihood == pytest.approx(expected, abs=1e-4)
                assert found.is_greedy == greedy
            asked = [GenerateRequest(prompt, Sampling(max_tokens=9 + i)) for i, prompt in enumerate(prompts)]
            for request, future in zip(asked, engine.submit(asked), strict=True):
                whole = model.generate(
                    torch.tensor([request.prompt_ids]),
                    max_new_tokens=request.sampling.max_tokens,
                    do_sample=False,
                )
                expected_ids = whole[0, len(request.prompt_ids) :].tolist()
                assert list(future.result(120).outputs[0].token_ids) == expected_ids
        finally:
            engine.close()


@pytest.fixture(scope="module")
def engine(tiny_llama: Path):
    engine = TransformersEngine.load(checkpoint(tiny_llama), {"threads": 1})
    yield engine
    engine.close()


def test_what_is_shared_is_computed_once(engine):
    shots = tuple(range(1, 201))
    requests = [
        LoglikelihoodRequest((*shots, 50 + question, 7), (100 + choice, 3))
        for question in range(5)
        for choice in range(4)
    ]
    found = [future.result(60) for future in engine.submit(requests)]
    computed = sum(one.prompt_tokens - one.cached_tokens for one in found)
    # the shots once; per question its two tokens and the first token of four choices (the last is only predicted),
    # where the two tokens are too few to be worth sharing
    assert computed == 200 + 5 * 4 * 3
    assert sum(one.prompt_tokens for one in found) == 20 * 203
    asked = [
        GenerateRequest((*shots, 50 + q), Sampling(max_tokens=3, n=4, temperature=1.0)) for q in range(3)
    ]
    answers = [future.result(60) for future in engine.submit(asked)]
    assert sum(one.prompt_tokens - one.cached_tokens for one in answers) == 200 + 3
    assert all(one.output_tokens == 12 for one in answers if all(len(o.token_ids) == 3 for o in one.outputs))


def test_rows_that_come_and_go_do_not_disturb_each_other(engine, tiny_llama):
    """More rows than the cache holds at a time, of very different lengths, sharing prefixes of several depths."""
    rng = random.Random(5)
    shots = [tuple(rng.choices(range(1, 250), k=70)) for _ in range(2)]
    requests = []
    for i in range(30):
        prompt = shots[i % 2] + tuple(rng.choices(range(1, 250), k=rng.randint(1, 50)))
        requests.append(GenerateRequest(prompt, Sampling(max_tokens=rng.randint(1, 40), ignore_eos=True)))
    alone = [engine.submit([request])[0].result(60).outputs[0].token_ids for request in requests]
    small = TransformersEngine.load(checkpoint(tiny_llama), {"threads": 1, "batch_tokens": 300})
    try:
        together = [future.result(60).outputs[0].token_ids for future in small.submit(requests)]
    finally:
        small.close()
    assert together == alone
    assert [len(ids) for ids in alone] == [request.sampling.max_tokens for request in requests]


def test_requests_that_come_in_later_join_those_in_flight(engine):
    """They look at the prefix that is there, are done first, and their answers are those that they get alone."""
    shots = tuple(range(1, 81))
    first = [GenerateRequest((*shots, 90 + q), Sampling(max_tokens=400, ignore_eos=True)) for q in range(2)]
    later = [GenerateRequest((*shots, 100 + q, 7), Sampling(max_tokens=5 + q)) for q in range(3)]
    later.append(first[0])  # a prompt that is being answered already
    alone = [engine.submit([request])[0].result(60).outputs for request in (*first, *later)]
    long = engine.submit(first)
    while long[0].running() or engine._queue._waiting:
        time.sleep(0.001)
    time.sleep(0.02)
    short = engine.submit(later)
    found = [future.result(60) for future in short[:3]]
    assert not any(future.done() for future in long)
    assert all(one.cached_tokens == len(shots) for one in found)
    together = [future.result(60) for future in (*long, *short)]
    assert [[o.token_ids for o in one.outputs] for one in together] == [
        [o.token_ids for o in outputs] for outputs in alone
    ]


def test_slots_take_no_more_memory_than_the_limit(tiny_llama, monkeypatch):
    """Rows that grow through all sizes, and leave one by one."""
    from harness.engines.tree_generation import TreeGeneration

    step, taken = TreeGeneration._step, []

    def watched(work):
        step(work)
        pools = work.state.slots._pools.values()
        taken.append(sum(keys.shape[0] * keys.shape[2] for pool in pools for keys, _ in pool._layers[:1]))

    monkeypatch.setattr(TreeGeneration, "_step", watched)
    small = TransformersEngine.load(checkpoint(tiny_llama), {"threads": 1, "batch_tokens": 20 * 256})
    try:
        asked = [
            GenerateRequest((5 + i, 6, 7 + i), Sampling(max_tokens=100 + 4 * i, ignore_eos=True))
            for i in range(38)
        ]
        for future in small.submit(asked):
            future.result(120)
    finally:
        small.close()
    assert 0.5 * 20 * 256 < max(taken) <= 1.25 * 20 * 256
    assert taken[-1] < 0.5 * max(taken)


def test_a_damaged_pass_fails_its_own_requests_alone(engine, monkeypatch):
    """An error that is not for want of memory: requests of other passes are answered."""
    from harness.engines import tree_scoring

    original, calls = tree_scoring._read_pass, []

    def broken(packed, plan, chosen, step):
        calls.append(chosen)
        if len(calls) == 1:
            raise RuntimeError("a kernel went wrong")
        return original(packed, plan, chosen, step)

    monkeypatch.setattr(tree_scoring, "_read_pass", broken)
    monkeypatch.setattr(engine._work.limits, "pass_tokens", 150)
    requests = [LoglikelihoodRequest((i, *range(1, 100)), (5,)) for i in range(1, 4)]
    outcomes = [future.exception(60) for future in engine.submit(requests)]
    assert [str(problem) if problem else None for problem in outcomes] == [
        "RuntimeError: a kernel went wrong", None, None,
    ]  # fmt: skip


MEMORY_SCRIPT = """
import json, resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from harness.engines.transformers import TransformersEngine
from harness.records import GenerateRequest, LoglikelihoodRequest, Sampling
from tests.engines.test_transformers import checkpoint

folder, room = Path(sys.argv[1]), int(sys.argv[2])
engine = TransformersEngine.load(checkpoint(folder), {"threads": 1, "batch_tokens": 60000})
engine.submit([LoglikelihoodRequest((1, 2), (3,))])[0].result(60)
requests = [LoglikelihoodRequest((i, *([7, 8, 9, 10] * 400)), (5, 6)) for i in range(1, 9)]
requests += [GenerateRequest((i, *([7, 8, 9, 10] * 200)), Sampling(max_tokens=4, ignore_eos=True)) for i in range(1, 9)]
if room:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
futures = engine.submit(requests)
found = []
for future in futures:
    problem = future.exception(300)
    if problem is not None:
        found.append(type(problem).__name__)
    else:
        done = future.result()
        found.append(done.loglikelihood if done.outputs == () else list(done.outputs[0].token_ids))
print(json.dumps([found, engine.describe()["batch_tokens"]]))
engine.close()
"""


def with_memory(folder: Path, room: int) -> Any:
    """Run the script in a process that may allocate so many bytes beyond what loading took; 0: all it wants."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT, str(folder), str(room)],
        capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_when_memory_runs_out_passes_are_halved_and_answers_stay(tmp_path):
    """The operating system really refuses the memory: a pass of 12,800 tokens does not fit, smaller ones do."""
    folder = build_llama(tmp_path / "wide", hidden=128)
    plenty, tokens = with_memory(folder, 0)
    assert tokens == 60000
    short, halved = with_memory(folder, 10 << 20)
    assert halved < tokens, "the limit was not felt"
    assert short[8:] == plenty[8:]
    assert short[:8] == pytest.approx(plenty[:8], abs=1e-4)


def test_a_request_that_never_fits_fails_with_one_line(engine, monkeypatch):
    from harness.engines import tree_scoring

    def too_large(packed, plan, chosen, step):
        raise torch.OutOfMemoryError("DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr(tree_scoring, "_read_pass", too_large)
    before = engine._work.limits.pass_tokens
    problem = engine.submit([LoglikelihoodRequest((1, 2), (3,))])[0].exception(60)
    engine._work.limits.pass_tokens = before
    assert isinstance(problem, OutOfMemory)
    assert "shorten it" in str(problem)
