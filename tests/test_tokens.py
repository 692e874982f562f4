"""Batches of texts get the tokens that each text gets alone, whatever the tokenizer."""

from __future__ import annotations

import random

import pytest

from harness.tokens import LINEWISE, Encoder, encoder_of

CORPUS = [
    "The following are questions.\nA. Paris\nB. 42 + 7 = 49\nAnswer: A\n\nQuestion: who's there?\r\n  It is I.",
    "def f(x):\n    return x ** 2  # it's\n\n\nprint(f(12))\n \n\t\nend of the text 2024\nnext",
    "日本語の文\nÅngström e\u0301 naïve\n¿Qué?\n\u00a0\nfin9\n9fin",
] * 3
PIECES = [
    *"\n\r\t .,:?'<|>x9é日 ",
    "\n\n",
    "\r\n",
    "Answer:",
    " A",
    "it's",
    "42",
    "\n ",
    "<|eos|>",
    "e\u0301",
    "<s>",
]


def trained(pre_tokenizer, *, bos: bool = False, eos: bool = False, normalizer=None, **special):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=420, special_tokens=["<s>", "<|eos|>"], initial_alphabet=alphabet),
    )
    if special:
        tokenizer.add_special_tokens([AddedToken("<|eos|>", **special)])
    if bos or eos:
        single = f"{'<s> ' if bos else ''}$A{' <|eos|>' if eos else ''}"
        ids = [("<s>", 0), ("<|eos|>", 1)]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|eos|>")


def split_by(pattern: str):
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def kinds():
    from tokenizers import normalizers, pre_tokenizers

    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    llama3, qwen2 = sorted(LINEWISE, key=len, reverse=True)
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    return {
        "gpt2": (trained(gpt2), True),
        "gpt2 with both ends": (trained(gpt2, bos=True, eos=True), True),
        "llama3": (trained(split_by(llama3), bos=True), True),
        "qwen2": (trained(split_by(qwen2), normalizer=normalizers.NFC()), True),
        "smollm": (trained(digits), True),
        "prefix space": (trained(pre_tokenizers.ByteLevel(add_prefix_space=True)), False),
        "unknown pattern": (trained(split_by(r"\w+\s*|[^\w]+")), False),
        "metaspace": (trained(pre_tokenizers.Metaspace(), bos=True), False),
        "no split": (trained(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)), False),
        "token that strips": (trained(gpt2, rstrip=True), False),
        "lower case": (trained(gpt2, normalizer=normalizers.Lowercase()), False),
    }


def texts(n: int = 400) -> list[str]:
    draw = random.Random(7)
    made = ["".join(draw.choices(PIECES, k=draw.randint(0, 30))) for _ in range(n)]
    return ["", " ", "\n", "a\n", "\na", "<s>", *CORPUS, *made, *made[:20]]


@pytest.mark.parametrize("kind", list(kinds()))
@pytest.mark.parametrize("special", [True, False])
def test_a_batch_is_what_each_text_gives_alone(kind: str, special: bool) -> None:
    tokenizer, linewise = kinds()[kind]
    encoder = Encoder(tokenizer)
    assert encoder.linewise == linewise
    asked = texts()
    wanted = [tuple(tokenizer.encode(text, add_special_tokens=special)) for text in asked]
    assert encoder.encode(asked, special=special) == wanted
    assert encoder.encode(asked, special=special) == wanted, "and again, from what was kept"


def test_what_was_kept_is_forgotten_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.tokens.MOST_KEPT_CHARS", 200)
    tokenizer, _ = kinds()["gpt2"]
    encoder = Encoder(tokenizer)
    for text in texts(60):
        assert encoder.encode([text], special=True) == [tuple(tokenizer.encode(text))]
        assert encoder._kept_chars <= 200 + len(text)


def test_a_tokenizer_of_one_text_at_a_time() -> None:
    class Letters:
        __hash__ = None

        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return [0] * add_special_tokens + [ord(letter) for letter in text]

    assert encoder_of(Letters()).encode(["ab", "", "ab"], special=True) == [(0, 97, 98), (0,), (0, 97, 98)]
    assert encoder_of(Letters()).encode(["b"], special=False) == [(98,)]


def test_tasks_share_the_encoder_of_a_tokenizer() -> None:
    tokenizer, _ = kinds()["gpt2"]
    assert encoder_of(tokenizer) is encoder_of(tokenizer)
