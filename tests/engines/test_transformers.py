"""The transformers engine against transformers itself: same text, same log probabilities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.engines.transformers import TransformersEngine
from harness.errors import BadCheckpoint, BadInput, EngineError
from harness.records import Checkpoint, GenerateRequest, LoglikelihoodRequest, Sampling

TEXTS = ["one", "a somewhat longer prompt than the others", "two words", "x" * 40]


def checkpoint(folder: Path, adapter: Path | None = None) -> Checkpoint:
    return Checkpoint(
        spec=str(folder),
        name=folder.name,
        base=str(folder),
        adapter=str(adapter) if adapter else None,
        fingerprint=f"{folder}+{adapter}",
        base_fingerprint=str(folder),
    )


@pytest.fixture(scope="module")
def engine(tiny_llama: Path):
    engine = TransformersEngine.load(checkpoint(tiny_llama), {"threads": 1})
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reference(tiny_llama: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama).eval()


def encode(engine: TransformersEngine, text: str) -> tuple[int, ...]:
    return tuple(engine.tokenizer.encode(text, add_special_tokens=False))


def test_greedy_tokens_equal_those_of_generate(engine, reference):
    prompts = [encode(engine, text) for text in TEXTS]
    futures = engine.submit([GenerateRequest(ids, Sampling(max_tokens=24)) for ids in prompts])
    for ids, future in zip(prompts, futures, strict=True):
        expected = reference.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)[
            0, len(ids) :
        ].tolist()
        output = future.result(timeout=60).outputs[0]
        assert list(output.token_ids) == expected
        assert output.finish_reason == ("stop" if len(expected) < 24 else "length")
        assert len(output.token_times_s) == len(expected)
        assert list(output.token_times_s) == sorted(output.token_times_s)


def test_loglikelihood_equals_a_forward_pass_of_its_own(engine, reference):
    pairs = [
        (encode(engine, text), encode(engine, tail)) for text in TEXTS for tail in (" yes", " no", "!", "?")
    ]
    futures = engine.submit([LoglikelihoodRequest(context, tail) for context, tail in pairs])
    for (context, tail), future in zip(pairs, futures, strict=True):
        with torch.inference_mode():
            logprobs = reference(torch.tensor([context + tail])).logits[0].log_softmax(-1)
        at = range(len(context) - 1, len(context) + len(tail) - 1)
        expected = sum(logprobs[i, token].item() for i, token in zip(at, tail, strict=True))
        greedy = all(logprobs[i].argmax().item() == token for i, token in zip(at, tail, strict=True))
        completion = future.result(timeout=60)
        assert completion.loglikelihood == pytest.approx(expected, abs=1e-4)
        assert completion.is_greedy == greedy


def test_choices_that_differ_in_the_last_token_share_one_pass(engine):
    context = encode(engine, "which letter?")
    completions = [
        f.result(60)
        for f in engine.submit([LoglikelihoodRequest(context, encode(engine, c)) for c in "ABCD"])
    ]
    assert sorted(c.cached_tokens for c in completions) == [0] + [len(context)] * 3


def test_a_context_longer_than_the_model_is_cut_from_the_left_and_counted(tiny_llama, reference):
    from tests.conftest import build_llama

    folder = build_llama(tiny_llama.parent / "short", context=32)
    engine = TransformersEngine.load(checkpoint(folder), {"threads": 1})
    try:
        long = encode(engine, "y" * 50)
        scored, generated = engine.submit(
            [LoglikelihoodRequest(long, encode(engine, "ab")), GenerateRequest(long, Sampling(max_tokens=8))]
        )
        assert scored.result(60).dropped_prompt_tokens == 50 + 2 - 33
        assert scored.result(60).prompt_tokens == 32
        assert generated.result(60).dropped_prompt_tokens == 50 - (32 - 8)
        assert generated.result(60).prompt_tokens == 24
    finally:
        engine.close()


def test_seeded_draws_do_not_depend_on_the_batch(engine):
    sampling = Sampling(max_tokens=12, temperature=1.0, top_p=0.9, seed=7, n=3)
    requests = [GenerateRequest(encode(engine, text), sampling) for text in TEXTS]
    together = [f.result(60) for f in engine.submit(requests)]
    alone = [engine.submit([request])[0].result(60) for request in requests]
    assert [c.outputs[2].token_ids for c in together] == [c.outputs[2].token_ids for c in alone]
    first = together[0].outputs
    assert len({output.token_ids for output in first}) == 3, "three draws of one prompt must differ"
    other = engine.submit([GenerateRequest(requests[0].prompt_ids, replace(sampling, seed=8))])[0].result(60)
    assert [o.token_ids for o in other.outputs] != [o.token_ids for o in first]


def test_a_stop_string_ends_the_row_and_is_cut_away(engine):
    prompt = encode(engine, TEXTS[0])
    whole = engine.submit([GenerateRequest(prompt, Sampling(max_tokens=24))])[0].result(60).outputs[0]
    stop = whole.text[5:7]
    cut = (
        engine.submit([GenerateRequest(prompt, Sampling(max_tokens=24, stop=(stop,)))])[0]
        .result(60)
        .outputs[0]
    )
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert len(cut.token_ids) < len(whole.token_ids)


def test_a_prefill_cut_into_parts_gives_the_same_tokens(engine, tiny_llama):
    small = TransformersEngine.load(checkpoint(tiny_llama), {"threads": 1, "batch_tokens": 50})
    try:
        requests = [GenerateRequest(encode(engine, text), Sampling(max_tokens=10, n=2)) for text in TEXTS]
        whole = [f.result(60).outputs for f in engine.submit(requests)]
        parts = [f.result(60).outputs for f in small.submit(requests)]
        assert [[o.token_ids for o in one] for one in parts] == [[o.token_ids for o in one] for one in whole]
    finally:
        small.close()


def test_batches_keep_to_budget_and_rows():
    from harness.engines.batching import cut

    assert cut([5, 4, 3, 2, 1], lambda x: x, 10) == [[5, 4], [3, 2, 1]]
    assert cut([5, 4, 3, 2, 1], lambda x: x, 100, most=2) == [[5, 4], [3, 2], [1]]
    assert cut([50, 1], lambda x: x, 10) == [[50], [1]]
    assert cut([], lambda x: x, 10) == []


def test_sampling_follows_the_distribution():
    from harness.engines.generation import sample

    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05])).repeat(4000, 1)
    u = torch.linspace(0, 1, 4001, dtype=torch.float64)[:-1]
    shares = torch.bincount(sample(logits, Sampling(temperature=1.0), u), minlength=4) / 4000
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=1e-3)
    nucleus = torch.bincount(sample(logits, Sampling(temperature=1.0, top_p=0.8), u), minlength=4) / 4000
    assert nucleus.tolist() == pytest.approx([0.625, 0.375, 0, 0], abs=1e-3)
    top2 = torch.bincount(sample(logits, Sampling(temperature=1.0, top_k=1), u), minlength=4)
    assert top2.tolist() == [4000, 0, 0, 0]


def test_impossible_requests_fail_their_own_future(engine):
    good = encode(engine, "fine")
    bad, fine = engine.submit([GenerateRequest(()), GenerateRequest(good, Sampling(max_tokens=2))])
    with pytest.raises(EngineError, match="empty prompt"):
        bad.result(60)
    assert fine.result(60).output_tokens == 2


def test_adapters_share_the_base_and_equal_peft(tiny_llama, engine, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    lora = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_llama),
        LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False),
    )
    lora.save_pretrained(tmp_path / "lora")
    prompt = encode(engine, TEXTS[1])
    request = GenerateRequest(prompt, Sampling(max_tokens=16))
    before = engine.submit([request])[0].result(60).outputs[0].token_ids
    engine.activate(checkpoint(tiny_llama, tmp_path / "lora"))
    adapted = engine.submit([request])[0].result(60).outputs[0].token_ids
    engine.activate(checkpoint(tiny_llama))
    after = engine.submit([request])[0].result(60).outputs[0].token_ids
    peft = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_llama), tmp_path / "lora"
    ).eval()
    expected = peft.generate(input_ids=torch.tensor([prompt]), max_new_tokens=16, do_sample=False)[
        0, len(prompt) :
    ]
    assert list(adapted) == expected.tolist()
    assert after == before
    assert adapted != before


def test_repetition_penalty_of_the_generation_config_is_honoured(tiny_llama, tmp_path):
    import shutil

    from transformers import AutoModelForCausalLM

    folder = tmp_path / "penalised"
    shutil.copytree(tiny_llama, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.repetition_penalty = 1.5
    model.save_pretrained(folder)
    engine = TransformersEngine.load(checkpoint(folder), {"threads": 1})
    try:
        ids = encode(engine, TEXTS[1])
        got = (
            engine.submit([GenerateRequest(ids, Sampling(max_tokens=20))])[0].result(60).outputs[0].token_ids
        )
        assert "notes" not in engine.describe()
        engine.model.generation_config.no_repeat_ngram_size = 3
        assert "no_repeat_ngram_size" in engine.describe()["notes"][0]
        reference = AutoModelForCausalLM.from_pretrained(folder).eval()
        assert (
            list(got)
            == reference.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)[
                0, len(ids) :
            ].tolist()
        )
    finally:
        engine.close()


def test_another_base_and_unknown_options_are_refused(engine, tiny_llama, tiny_llama_plain):
    with pytest.raises(BadCheckpoint, match="another base"):
        engine.activate(checkpoint(tiny_llama_plain))
    with pytest.raises(BadInput, match="'batchsize'"):
        TransformersEngine.load(checkpoint(tiny_llama), {"batchsize": 3})


def test_closing_fails_what_is_still_queued(tiny_llama):
    engine = TransformersEngine.load(checkpoint(tiny_llama), {"threads": 1, "batch_tokens": 64})
    requests = [
        GenerateRequest(encode(engine, f"{i} {'z' * 30}"), Sampling(max_tokens=30)) for i in range(40)
    ]
    futures = engine.submit(requests)
    futures[0].exception(60)
    engine.close()
    failed = [f for f in futures if f.exception(0) is not None]
    assert 0 < len(failed) < len(futures), "the first batch was answered, the rest must fail"
    assert all(isinstance(f.exception(), EngineError) for f in failed)
    with pytest.raises(EngineError, match="closed"):
        engine.submit(requests)


def copy_of(folder: Path, target: Path, change) -> Path:
    """The same checkpoint with its tensors changed."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target)
    tensors = load_file(target / "model.safetensors")
    save_file(change(tensors), target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_a_model_that_gives_nan_fails_its_requests(tiny_llama, tmp_path):
    def poison(tensors):
        tensors["model.norm.weight"][0] = float("nan")
        return tensors

    engine = TransformersEngine.load(
        checkpoint(copy_of(tiny_llama, tmp_path / "nan", poison)), {"threads": 1}
    )
    try:
        ids = encode(engine, TEXTS[0])
        drawn = Sampling(max_tokens=4, temperature=1.0)
        requests = [LoglikelihoodRequest(ids, ids), GenerateRequest(ids), GenerateRequest(ids, drawn)]
        for future in engine.submit(requests):
            with pytest.raises(EngineError, match="gave NaN"):
                future.result(60)
    finally:
        engine.close()


def test_whatever_breaks_in_the_thread_fails_the_requests_and_hangs_nobody(engine, monkeypatch):
    monkeypatch.setattr(engine._work, "_stop_tail", lambda stops: 1 / 0)
    request = GenerateRequest(encode(engine, TEXTS[0]), Sampling(max_tokens=2))
    with pytest.raises(EngineError, match="ZeroDivisionError"):
        engine.submit([request])[0].result(60)
    monkeypatch.undo()
    assert engine.submit([request])[0].result(60).output_tokens == 2


def test_a_token_beyond_the_embeddings_fails_alone(engine):
    good = GenerateRequest(encode(engine, TEXTS[0]), Sampling(max_tokens=2))
    bad, fine = engine.submit([GenerateRequest((1, 99_999), Sampling(max_tokens=2)), good])
    with pytest.raises(EngineError, match="99999 is beyond"):
        bad.result(60)
    assert fine.result(60).output_tokens == 2


def test_a_special_token_may_be_a_stop_string(engine):
    """As with lm-eval, whose tasks name <|im_end|> among their stop strings."""
    from harness.engines.batching import Window
    from harness.engines.generation import Row, _append, finish_output

    tokenizer = engine.tokenizer
    ids = [*encode(engine, "an answer"), *tokenizer.encode("<|end|>", add_special_tokens=False)]
    row = Row(0, 0, Window((1,), 0, 50), Sampling(max_tokens=50, stop=("<|end|>",)), 0.0, None, 12)
    for token in ids:
        assert row.finish is None
        _append(engine._work.decoding, row, token, 1.0)
    assert row.finish == "stop"
    assert finish_output(engine._work.decoding, row).text == "an answer"


def test_draws_do_not_swap_near_ties_with_float_noise():
    from harness.engines.generation import sample

    torch.manual_seed(0)
    logits = torch.randn(64, 5000)
    noisy = logits + 1e-6 * torch.randn_like(logits)
    u = torch.rand(64, dtype=torch.float64)
    drawn = sample(logits, Sampling(temperature=1.0), u)
    assert (drawn == sample(noisy, Sampling(temperature=1.0), u)).all()


def test_an_adapter_whose_tensors_have_no_place_is_refused_and_the_base_stays_whole(
    tiny_llama, engine, tmp_path
):
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_llama), config).save_pretrained(
        tmp_path / "lora"
    )
    path = tmp_path / "lora" / "adapter_model.safetensors"
    renamed = {
        key.replace("model.layers", "model.text.layers"): value for key, value in load_file(path).items()
    }
    save_file(renamed, path, metadata={"format": "pt"})
    request = GenerateRequest(encode(engine, TEXTS[1]), Sampling(max_tokens=8))
    before = engine.submit([request])[0].result(60).outputs[0].token_ids
    with pytest.raises(BadCheckpoint, match="does not fit"):
        engine.activate(checkpoint(tiny_llama, tmp_path / "lora"))
    engine.activate(checkpoint(tiny_llama))
    assert engine.submit([request])[0].result(60).outputs[0].token_ids == before


def test_a_model_without_a_kv_cache_is_refused_in_one_line(tmp_path):
    from transformers import MambaConfig, MambaForCausalLM

    from tests.conftest import byte_tokenizer

    config = MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, state_size=4)
    MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    byte_tokenizer().save_pretrained(tmp_path / "mamba")
    with pytest.raises(BadCheckpoint, match="keeps a state instead of a KV cache"):
        TransformersEngine.load(checkpoint(tmp_path / "mamba"), {"threads": 1})


def test_a_stop_string_is_found_wherever_tokens_part_it(engine):
    """In the middle of a character, across tokens, at a space: as if the whole text were searched at every token."""
    from harness.engines.batching import Window
    from harness.engines.generation import Row, _append

    for text, stop in [("so。 and", "。"), ("a b c", "b "), ("x\n\ny", "\n\n"), ("Q: A:", "A:"), ("né", "é")]:
        ids = encode(engine, text)
        row = Row(0, 0, Window((1,), 0, 99), Sampling(max_tokens=99, stop=(stop,)), 0.0, None, 12)
        for count, token in enumerate(ids, 1):
            _append(engine._work.decoding, row, token, 1.0)
            whole = engine.tokenizer.decode(ids[:count])
            assert (row.finish == "stop") == (stop in whole)
            if row.finish:
                break
        assert row.finish == "stop"


def test_a_long_answer_with_stop_strings_is_decoded_a_few_times(engine):
    """Not once for every token: an answer of a thousand tokens would hold up the engine for a fifth of a second."""
    from harness.engines import generation
    from harness.engines.batching import fit_prompt

    class Counting:
        def __init__(self, tokenizer) -> None:
            self.tokenizer, self.calls = tokenizer, 0

        def decode(self, *args, **kwargs) -> str:
            self.calls += 1
            return self.tokenizer.decode(*args, **kwargs)

    decoding = replace(engine._work.decoding, tokenizer=Counting(engine.tokenizer))
    stop = engine.tokenizer.convert_tokens_to_ids("<|end|>")
    body = list(encode(engine, "abc " * 250))
    for ids, stops, finish in (
        ([*body, engine.tokenizer.eos_token_id], ("Question:",), "stop"),
        ([*body, stop], ("<|end|>",), "stop"),
    ):
        request = GenerateRequest((5,), Sampling(max_tokens=2000, stop=stops))
        (row,) = generation.make_rows(0, fit_prompt(request, 4096), request, 0.0, 8)
        row.ids, row.times_s, row.finish = ids, [0.0] * len(ids), finish
        decoding.tokenizer.calls = 0
        assert generation.finish_output(decoding, row).text == "abc " * 250
        assert decoding.tokenizer.calls <= 15
