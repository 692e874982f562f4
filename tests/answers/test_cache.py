"""Answers of a tiny real model that come back are the answers that went in, and are nobody else's."""

from __future__ import annotations

import gc
import time
import tracemalloc
from dataclasses import fields, replace

import pytest

from harness.answers.entries import shares
from harness.answers.files import ABOUT, Segment, seal, segments
from harness.answers.index import Index
from harness.answers.keys import draws_of, keys_of, model_identity
from harness.errors import BadInput, EngineError
from harness.plan import EngineSpec
from harness.records import Completion, GenerateRequest, LoglikelihoodRequest, Output, Sampling
from tests.answers.conftest import DRAWN, PROMPT, ask, not_loaded, requests, told


def keep(open_answers, asked, engine) -> list[Completion]:
    answers = open_answers(reads=False)
    found = ask(answers, asked, lambda: engine)
    answers.close()
    return found


def test_answers_come_back_bit_for_bit_without_the_engine(engine, open_answers):
    computed = keep(open_answers, requests(), engine)
    assert all(completion.reused == 0 for completion in computed)
    answers = open_answers()
    held = ask(answers, requests())
    assert [told(c) for c in held] == [told(c) for c in computed]
    assert [c.reused for c in held] == [1, 1, 1, 1, 4, 1, 2]
    assert [c.reused_tokens for c in held] == [c.output_tokens for c in computed]
    assert all(c.first_token_s is None and not any(o.token_times_s for o in c.outputs) for c in held)
    assert answers.counts == (11, 0)


def test_a_cache_that_only_writes_answers_nothing(engine, open_answers):
    keep(open_answers, requests(), engine)
    answers = open_answers(reads=False)
    with pytest.raises(pytest.fail.Exception, match="engine was asked for"):
        answers.submit(requests(), not_loaded)


def test_hits_and_misses_of_one_call_keep_their_places(engine, open_answers):
    keep(open_answers, requests()[::2], engine)
    fresh = [told(future.result(60)) for future in engine.submit(requests())]
    before = engine.stats().requests
    mixed = ask(open_answers(), requests(), lambda: engine)
    assert engine.stats().requests - before == 3
    for got, expected in zip(map(told, mixed), fresh, strict=True):
        # computed in other company, a sum of logarithms differs in its last bits
        assert got.pop("loglikelihood") == pytest.approx(expected.pop("loglikelihood"), abs=1e-4)
        assert got == expected
    assert [bool(c.reused) for c in mixed] == [True, False, True, False, True, False, True]


def test_four_draws_serve_two_and_are_gone_on_with_to_eight(engine, open_answers):
    four, eight = GenerateRequest(PROMPT, DRAWN), GenerateRequest(PROMPT, replace(DRAWN, n=8))
    fresh = told(engine.submit([eight])[0].result(60))
    assert len(set(fresh["outputs"])) == 8, "draws that are alike prove nothing"
    keep(open_answers, [four], engine)
    (two,) = ask(open_answers(), [replace(four, sampling=replace(DRAWN, n=2))])
    assert told(two)["outputs"] == fresh["outputs"][:2]
    before = engine.stats()
    answers = open_answers()
    (whole,) = ask(answers, [eight], lambda: engine)
    after = engine.stats()
    assert told(whole) == fresh
    assert (whole.reused, whole.reused_tokens) == (4, sum(len(o.token_ids) for o in whole.outputs[:4]))
    assert after.output_tokens - before.output_tokens == whole.output_tokens - whole.reused_tokens
    assert answers.counts == (4, 4)
    answers.close()
    (again,) = ask(open_answers(), [eight])
    assert told(again) == fresh


class Plain:
    """The engine without takes_first_draw."""

    def __init__(self, engine):
        for name in ("submit", "describe", "tokenizer", "max_length"):
            setattr(self, name, getattr(engine, name))


def test_an_engine_that_cannot_draw_later_draws_alone_draws_all(engine, open_answers):
    keep(open_answers, [GenerateRequest(PROMPT, DRAWN)], engine)
    eight = GenerateRequest(PROMPT, replace(DRAWN, n=8))
    (whole,) = ask(open_answers(), [eight], lambda: Plain(engine))
    assert told(whole) == told(engine.submit([eight])[0].result(60))
    assert whole.reused == 0


def test_what_is_kept_in_this_process_is_found_by_it(engine, open_answers):
    answers = open_answers()
    ask(answers, requests(), lambda: engine)
    answers.settle()
    assert [c.reused > 0 for c in ask(answers, requests())] == [True] * 7


class In:
    """The engine, loaded in another number type than it says."""

    def __init__(self, engine, dtype):
        self._engine, self._dtype = engine, dtype

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def describe(self):
        return {**self._engine.describe(), "dtype": self._dtype}


def test_answers_in_another_number_type_are_not_used(engine, open_answers):
    keep(open_answers, requests()[:6], In(engine, "bfloat16"))
    answers = open_answers()
    (done,) = ask(answers, requests()[:1])  # alone they may be read without a load
    assert done.reused == 1
    mixed = open_answers()
    found = ask(mixed, requests(), lambda: In(engine, "float32"))  # the last one is not kept
    assert [completion.reused for completion in found] == [0] * 7
    assert mixed.counts.hits == 0
    mixed.settle()
    # both are kept now: only a load tells which of them is meant
    both = open_answers()
    with pytest.raises(pytest.fail.Exception):
        both.submit(requests()[:1], not_loaded)
    for dtype, reused in (("float32", True), ("bfloat16", True), ("float16", False)):
        (done,) = ask(open_answers(), requests()[:1], lambda dtype=dtype: In(engine, dtype))
        assert bool(done.reused) is reused


def test_answers_of_two_number_types_are_not_mixed_in_one_run(engine, open_answers):
    keep(open_answers, requests()[:1], In(engine, "bfloat16"))
    answers = open_answers()
    ask(answers, requests()[:1])
    with pytest.raises(
        BadInput, match=r"computed in bfloat16, and dtype auto is float32 here: name one with --dtype"
    ):
        ask(answers, requests()[1:2], lambda: In(engine, "float32"))


def test_an_engine_loaded_anew_in_another_number_type_keeps_its_answers_apart(engine, open_answers):
    first, second = In(engine, "bfloat16"), In(engine, "float32")
    writes = open_answers(reads=False)
    ask(writes, requests()[:1], lambda: first)
    ask(writes, requests()[1:2], lambda: second)
    writes.close()
    held = [ask(open_answers(), [request], lambda: first)[0].reused for request in requests()[:2]]
    assert held == [1, 0]


def test_an_answer_is_written_once(engine, open_answers, tmp_path):
    for _ in range(2):
        keep(open_answers, requests(), engine)
    (first,) = tmp_path.glob(".answers/*/*")
    keys = [line.split(b" ")[1] for line in first.read_bytes().splitlines()]
    assert len(keys) == len(set(keys)) == 1 + 10  # the greedy pair is one answer


def test_a_request_that_fails_is_not_kept(engine, open_answers):
    too_long = LoglikelihoodRequest((1,), tuple([5] * 5000))
    answers = open_answers()
    with pytest.raises(EngineError):
        ask(answers, [too_long], lambda: engine)
    answers.settle()
    with pytest.raises(pytest.fail.Exception):
        answers.submit([too_long], not_loaded)


def test_a_prompt_longer_than_the_context_comes_back_with_what_was_cut(engine, open_answers):
    long = GenerateRequest(tuple([7] * 5000), Sampling(max_tokens=4))
    (computed,) = keep(open_answers, [long], engine)
    assert computed.dropped_prompt_tokens == 5000 + 4 - 4096
    assert told(ask(open_answers(), [long])[0]) == told(computed)


# Keys


@pytest.mark.parametrize(
    "other",
    [
        {"max_tokens": 13}, {"temperature": 0.9}, {"top_p": 0.5}, {"top_k": 5}, {"stop": ("x",)}, {"seed": 4},
        {"ignore_eos": True},
    ],
)  # fmt: skip
def test_another_setting_is_another_answer(other):
    first, second = GenerateRequest(PROMPT, DRAWN), GenerateRequest(PROMPT, replace(DRAWN, **other))
    assert not set(keys_of(first, draws_of(first))) & set(keys_of(second, draws_of(second)))


def test_every_setting_of_sampling_is_tried_above():
    known = {"max_tokens", "temperature", "top_p", "top_k", "stop", "seed", "ignore_eos", "n"}
    assert {item.name for item in fields(Sampling)} == known, "a new setting: add it to the test above"


def test_greedy_answers_do_not_depend_on_what_draws_depend_on():
    greedy = GenerateRequest(PROMPT, Sampling())
    for other in ({"seed": 9}, {"top_k": 3}, {"top_p": 0.1}, {"n": 5}, {"temperature": 0}):
        same = replace(greedy, sampling=replace(greedy.sampling, **other))
        assert list(keys_of(same, draws_of(same))) == list(keys_of(greedy, draws_of(greedy)))


def test_a_draw_has_one_key_whoever_asks_for_it():
    eight = GenerateRequest(PROMPT, replace(DRAWN, n=8))
    later = replace(eight, sampling=replace(DRAWN, n=3), first_draw=5)
    keys = list(keys_of(eight, draws_of(eight)))
    assert len(set(keys)) == 8
    assert list(keys_of(later, draws_of(later))) == keys[5:]


def test_where_the_context_ends_is_part_of_a_loglikelihoods_key():
    cuts = [LoglikelihoodRequest(PROMPT[:end], PROMPT[end:]) for end in range(1, 20)]
    assert len({next(keys_of(cut, range(1))) for cut in cuts}) == 19
    prompt = GenerateRequest(PROMPT)
    assert next(keys_of(prompt, range(1))) not in {next(keys_of(cut, range(1))) for cut in cuts}


def test_the_model_and_the_engine_are_part_of_the_identity(checkpoint):
    spec = EngineSpec()
    plain = model_identity(checkpoint, spec, "pareto-harness 1", "cpu")
    assert plain["versions"].keys() >= {"torch", "transformers"}
    others = [
        model_identity(replace(checkpoint, fingerprint="other"), spec, "pareto-harness 1", "cpu"),
        model_identity(checkpoint, EngineSpec(dtype="bfloat16"), "pareto-harness 1", "cpu"),
        model_identity(checkpoint, EngineSpec(options={"a": 1}), "pareto-harness 1", "cpu"),
        model_identity(checkpoint, EngineSpec(name="vllm"), "pareto-harness 1", "cpu"),
        model_identity(checkpoint, spec, "pareto-harness 2", "cpu"),
        model_identity(checkpoint, spec, "pareto-harness 1", "cuda"),
    ]
    assert all(other != plain for other in others)
    same = model_identity(checkpoint, EngineSpec(threads=2, batch_tokens=64), "pareto-harness 1", "cpu")
    assert same == plain


def test_the_tokenizer_and_the_template_are_part_of_the_fingerprint(tiny_llama, tmp_path, checkpoint):
    import shutil

    from harness.checkpoints import resolve

    for name, text in (("chat_template.jinja", "{{ 1 }}"), ("tokenizer_config.json", '{"eos_token": "a"}')):
        copy = shutil.copytree(tiny_llama, tmp_path / name)
        (copy / name).write_text(text)
        assert resolve(str(copy)).fingerprint != checkpoint.fingerprint


def test_output_tokens_are_shared_out_where_the_engine_sees_none():
    outputs = (Output("a", (), "stop"), Output("b", (), "stop"))
    assert shares(Completion(outputs=outputs, output_tokens=5)) == [3, 2]
    outputs = (Output("a", (1, 2, 3, 4), "stop"), Output("b", (1,), "stop"))
    assert shares(Completion(outputs=outputs, output_tokens=5)) == [4, 1]


# Size


def test_a_hundred_thousand_answers_take_little_memory_and_open_at_once(tmp_path):
    segment = Segment.new(tmp_path)
    lines = [seal(b"%032x" % (i * 2**70), b'{"text":"%d"}' % i) for i in range(1, 100_001)]
    segment.append(seal(ABOUT, b"{}") + b"".join(lines))
    segment.close()
    gc.collect()
    tracemalloc.start()
    index = Index(lambda: [tmp_path])
    begun = time.perf_counter()
    index.refresh()
    seconds = time.perf_counter() - begun
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(index) == 100_000
    assert used < 40e6
    assert seconds < 20  # a gross slip; a tenth of a second without tracemalloc
    assert index.find(b"%032x" % (77 * 2**70)) == {"text": "77"}
    assert index.find(b"%032x" % (77 * 2**70 + 1)) is None, "the same first 64 bits are not the same key"
    assert segments(tmp_path) == [segment.path]
