"""Classifiers: a self-made Detoxify checkpoint of the right form, hashes, pickles, and honest names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from harness import classifiers
from harness.classifiers import choose, chunks_by_length
from harness.errors import BadInput, HarnessError, UnsafeCheckpoint

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "you", "are", "kind", "awful", "today"]
TEXTS = ["you are awful", "you", "you are kind today today today", "", "awful awful"]


class Attack:
    """A pickle that would leave a file behind if it were opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o700)


def make_checkpoint(folder: Path, *, name: str = "own.ckpt", **extra: object) -> Path:
    """Two-layer BERT with six Jigsaw classes in Detoxify's form, config and tokenizer beside it."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, num_labels=6, initializer_range=0.5,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    config.save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    args = {
        "model_type": "bert-base-uncased", "model_name": "BertForSequenceClassification",
        "tokenizer_name": "BertTokenizer", "num_classes": 6,
    }  # fmt: skip
    classes = ["severe_toxic", "toxic", "obscene", "threat", "insult", "identity_hate"]
    content = {
        "config": {"arch": {"args": args}, "dataset": {"args": {"classes": classes}}},
        "state_dict": model.state_dict(),
    }
    torch.save({**content, **extra}, folder / name)
    return folder / name


def test_profanity_is_chosen_under_its_own_name_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    classifier = choose({})
    assert (classifier.name, classifier.metric_prefix) == ("profanity-check", "profanity")
    assert "not comparable with Detoxify" in classifier.note
    rude, kind = classifier.score(["you are a fucking idiot", "what a lovely day"])
    assert rude > 0.9
    assert kind < 0.1
    assert classifier.score([]) == []


def test_a_given_checkpoint_scores_like_the_model_asked_text_by_text(tmp_path):
    path = make_checkpoint(tmp_path)
    classifier = choose({"detoxify_checkpoint": path})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert classifier.metric_prefix == f"detoxify-{digest[:8]}"
    assert classifier.identity()["sha256"] == digest
    assert "not the published weights" in classifier.note

    model = BertForSequenceClassification(BertConfig.from_pretrained(tmp_path, num_labels=6)).eval()
    model.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    tokenizer = BertTokenizer.from_pretrained(tmp_path)
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
        expected.append(torch.sigmoid(logits)[1].item())
    scores = classifier.score(TEXTS)
    assert scores == pytest.approx(expected, abs=1e-6)
    assert len({round(score, 4) for score in scores}) == len(TEXTS)


def test_scores_equal_those_of_the_detoxify_package(tmp_path, monkeypatch):
    from detoxify import Detoxify

    path = make_checkpoint(tmp_path)
    content = torch.load(path, weights_only=True)
    content["config"]["arch"]["args"]["model_type"] = str(tmp_path)  # upstream reads its config from there
    torch.save(content, tmp_path / "upstream.ckpt")
    upstream = Detoxify(checkpoint=str(tmp_path / "upstream.ckpt"), huggingface_config_path=str(tmp_path))
    expected = upstream.predict(TEXTS)["toxicity"]
    assert choose({"detoxify_checkpoint": path}).score(TEXTS) == pytest.approx(expected, abs=1e-6)
    # in another order, with repeats, more of them than a batch holds
    places = [7 * i % len(TEXTS) for i in range(1000)]
    many = choose({"detoxify_checkpoint": path}).score([TEXTS[place] for place in places])
    assert many == pytest.approx([expected[place] for place in places], abs=1e-6)


def test_long_texts_are_cut_to_the_model(tmp_path):
    classifier = choose({"detoxify_checkpoint": make_checkpoint(tmp_path)})
    assert 0 < classifier.score(["awful " * 500])[0] < 1


def test_a_config_folder_named_after_the_file_serves_as_well(tmp_path):
    path = make_checkpoint(tmp_path / "made")
    moved = tmp_path / "model.ckpt"
    path.rename(moved)
    (tmp_path / "made").rename(tmp_path / "model")
    assert choose({"detoxify_checkpoint": moved}).score(["you"])[0] > 0


@pytest.mark.parametrize("name", ["toxic_original-c1212f89.ckpt", "mine-0123abcd.ckpt"])
def test_a_file_that_is_not_what_its_name_promises_is_refused(tmp_path, name):
    path = make_checkpoint(tmp_path, name=name)
    with pytest.raises(UnsafeCheckpoint, match=r"should have (c1212f89ac2330|0123abcd)"):
        choose({"detoxify_checkpoint": path, "allow_pickle": True})


def test_a_false_file_in_the_hub_cache_is_refused_and_not_replaced_by_profanity(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    make_checkpoint(tmp_path / "hub" / "checkpoints", name=classifiers.PUBLISHED_FILE)
    with pytest.raises(UnsafeCheckpoint, match="sha256"):
        choose({})


def test_a_pickle_is_refused_unopened(tmp_path):
    victim = tmp_path / "opened"
    path = make_checkpoint(tmp_path / "c", attack=Attack(victim))
    with pytest.raises(UnsafeCheckpoint, match="--allow-pickle"):
        choose({"detoxify_checkpoint": path})
    assert not victim.exists()
    choose({"detoxify_checkpoint": path, "allow_pickle": True})
    assert victim.exists()


def test_the_hub_directory_is_torchs_own(monkeypatch, tmp_path):
    for variable, value in (("TORCH_HOME", tmp_path / "t"), ("XDG_CACHE_HOME", tmp_path / "x")):
        monkeypatch.delenv("TORCH_HOME", raising=False)
        monkeypatch.setenv(variable, str(value))
        assert str(classifiers.hub_dir()) == torch.hub.get_dir()


def test_bad_checkpoints_get_one_clear_line(tmp_path):
    with pytest.raises(BadInput, match="no Detoxify checkpoint at"):
        choose({"detoxify_checkpoint": tmp_path / "none.ckpt"})
    path = make_checkpoint(tmp_path)
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    with pytest.raises(BadInput, match="not of Detoxify's form"):
        choose({"detoxify_checkpoint": tmp_path / "other.ckpt"})
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises((BadInput, UnsafeCheckpoint), match=r"text\.ckpt"):
        choose({"detoxify_checkpoint": tmp_path / "text.ckpt"})
    content = torch.load(path, weights_only=True)
    content["config"]["arch"]["args"]["model_name"] = "pipeline"
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(BadInput, match="refused"):
        choose({"detoxify_checkpoint": tmp_path / "odd.ckpt"})
    alone = tmp_path / "alone"
    alone.mkdir()
    path.rename(alone / "own.ckpt")
    with pytest.raises(BadInput, match=r"no config\.json beside"):
        choose({"detoxify_checkpoint": alone / "own.ckpt"})


def test_damaged_weights_do_not_become_scores(tmp_path):
    path = make_checkpoint(tmp_path)
    content = torch.load(path, weights_only=True)
    content["state_dict"]["classifier.bias"][:] = float("nan")
    torch.save(content, tmp_path / "nan.ckpt")
    with pytest.raises(HarnessError, match="no numbers"):
        choose({"detoxify_checkpoint": tmp_path / "nan.ckpt"}).score(["you"])


def test_chunks_hold_every_text_once_and_like_lengths_together():
    # sorted: 12 | 10 9 | 5 4 3 3 | 1 with width x count <= 20
    assert chunks_by_length([3, 10, 1, 4, 12, 3, 9, 5], 20) == [[4], [1, 6], [7, 3, 0, 5], [2]]
    assert chunks_by_length([], 20) == []
    assert chunks_by_length([500], 20) == [[0]]


def test_a_small_model_takes_larger_batches_than_a_large_one():
    base, small = (BertConfig(intermediate_size=size) for size in (3072, 64))
    per_thread = classifiers._chunk_tokens(base, "cpu") // torch.get_num_threads()
    assert per_thread == 1024  # x 3072 x 4 bytes: 12 MiB
    assert classifiers._chunk_tokens(small, "cpu") > classifiers._chunk_tokens(base, "cpu")
    assert classifiers._chunk_tokens(base, "cuda") == classifiers.CHUNK_TOKENS
