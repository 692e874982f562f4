"""Batches of lm-eval's requests get the tokens that lm-eval gives each of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import has_bos_prefix

from harness.records import GenerateRequest, LoglikelihoodRequest
from suites.from_lm_eval.model import HarnessLM
from tests.test_tokens import kinds, texts

NAMES = ["gpt2", "gpt2 with both ends", "llama3", "qwen2", "metaspace", "prefix space"]


def lm_on(kind: str) -> HarnessLM:
    return HarnessLM(SimpleNamespace(tokenizer=kinds()[kind][0], max_length=16))


class OneByOne(TemplateLM):
    """lm-eval's own way: HFLM.tok_encode of 0.4.13 under TemplateLM's pairing."""

    def __init__(self, lm: HarnessLM) -> None:
        super().__init__()
        self.lm = lm

    eot_token_id = property(lambda self: self.lm.eot_token_id)
    backend = "causal"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs) -> list[int]:
        bos = self.lm.tokenizer.decode(self.lm.prefix_token_id)
        if add_special_tokens is None and has_bos_prefix(string, bos):
            add_special_tokens = False
        given = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return self.lm.tokenizer.encode(string, **given)

    def _loglikelihood_tokens(self, requests, **kwargs): ...

    loglikelihood_rolling = generate_until = _loglikelihood_tokens


def pairs() -> list[tuple[str, str]]:
    made = [text for text in texts() if text.strip()]
    fixed = [("Q: a \n ", " b"), ("<s>Q\nA", " b"), ("Answer:", " A"), ("one\n\n", "\ntwo"), ("x", "")]
    return [*fixed, *zip(made, reversed(made), strict=True), *((made[0], tail) for tail in (" A", " B"))]


@pytest.mark.parametrize("kind", NAMES)
def test_pairs(kind: str) -> None:
    lm = lm_on(kind)
    alone = OneByOne(lm)
    wanted = [tuple(map(tuple, alone._encode_pair(*pair))) for pair in pairs()]
    assert [(r.context_ids, r.continuation_ids) for r in lm.encode_pairs(pairs())] == wanted


@pytest.mark.parametrize("kind", NAMES)
def test_prompts_and_windows(kind: str) -> None:
    lm = lm_on(kind)
    alone = OneByOne(lm)
    asked = [text for text in texts() if text]
    prompts = [
        tuple(lm.tokenizer.encode(text, add_special_tokens=not text.startswith(lm.tokenizer.bos_token)))
        for text in asked
    ]
    assert lm.encode_prompts(asked) == prompts
    for text, windows in zip(asked, lm.encode_windows(asked), strict=True):
        assert [i for w in windows for i in w.continuation_ids] == alone.tok_encode(text)
        assert all(len(w.context_ids) + len(w.continuation_ids) <= 17 for w in windows)


def test_requests_of_all_kinds_keep_their_places() -> None:
    lm = lm_on("llama3")
    given = [
        ("generate_until", ("Q", {"until": ["\n"]})),
        ("loglikelihood", ("Q", " a")),
        ("loglikelihood_rolling", ("it's 42",)),
        ("loglikelihood", ("", "b")),
    ]
    instances = [Instance(kind, {}, args, i) for i, (kind, args) in enumerate(given)]
    one, two, windows, three = lm.ask(instances)
    assert one == [GenerateRequest(tuple(lm.tokenizer.encode("Q")), lm.sampling({"until": ["\n"]}))]
    assert two == lm.encode_pairs([("Q", " a")])
    assert windows == lm.encode_windows(["it's 42"])[0]
    assert three == [LoglikelihoodRequest((0,), tuple(lm.tokenizer.encode("b", add_special_tokens=False)))]
