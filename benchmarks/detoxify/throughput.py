"""How much faster does the harness read texts with Detoxify than `predict` over unsorted chunks of 64?

    python benchmarks/detoxify/throughput.py [--data-dir FOLDER] [--texts 2000] [--repeats 3]

Both sides load one checkpoint of the published architecture (BERT base, six classes) with random weights and a
tokenizer trained on the texts: speed does not depend on what the weights know. The texts are real, shuffled, each
once. `statements`: openings and continuations of RealToxicityPrompts and statements of ToxiGen, a sentence or two of
about one length. `answers`: the same number of them and of assistants' replies (hh-rlhf, harmless-base), a word to a
page, as a model's answers are. What batches of like length can save is the padding; so with each set stands what
padding costs `predict`: tokens with padding over tokens. The sides take turns, `repeats` times; each turn reads all
texts. Printed: seconds and texts per second of either side, the ratio of the medians, the largest difference between
the two sides' scores, and some scores of both.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CHUNK = 64
Side = Callable[[Sequence[str]], list[float]]
CLASSES = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]


def mirror_texts(root: Path, n: int, seed: int) -> dict[str, list[str]]:
    """n statements, and n texts half of which are replies; no text twice, shuffled."""
    short: list[str] = []
    for row in _rows(root / "allenai/real-toxicity-prompts/default/train.jsonl"):
        opening, rest = row["prompt"]["text"], row["continuation"]["text"]
        short += [opening, rest, opening + rest]
    short += [row["text"] for row in _rows(root / "microsoft/SafeNLP/toxiGen/train.jsonl")]
    replies = [
        row[side].rpartition("\n\nAssistant:")[2].strip()
        for row in _rows(root / "Anthropic/hh-rlhf/harmless-base/test.jsonl")
        for side in ("chosen", "rejected")
    ]
    rng = random.Random(seed)
    short, replies = (list(dict.fromkeys(filter(None, texts))) for texts in (short, replies))
    rng.shuffle(short)
    rng.shuffle(replies)
    mixed = list(dict.fromkeys(short[: n - n // 2] + replies[: n // 2]))
    rng.shuffle(mixed)
    return {"statements": short[:n], "answers": mixed}


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def padding(lengths: Sequence[int]) -> float:
    """Tokens with padding over tokens, in chunks of CHUNK in the order given."""
    chunks = [lengths[start : start + CHUNK] for start in range(0, len(lengths), CHUNK)]
    return sum(max(chunk) * len(chunk) for chunk in chunks) / sum(lengths)


def make_checkpoint(folder: Path, texts: Sequence[str], layers: int, hidden: int) -> Path:
    """A checkpoint in Detoxify's form, its config and its tokenizer beside it; weights spread so that scores do."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    words = BertWordPieceTokenizer(lowercase=True)
    words.train_from_iterator(texts, vocab_size=30522, show_progress=False)
    words.save_model(str(folder))
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        intermediate_size=4 * hidden,
        num_labels=len(CLASSES),
    )
    model = BertForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    config.save_pretrained(folder)
    arch = {
        "model_type": str(folder),
        "model_name": "BertForSequenceClassification",
        "tokenizer_name": "BertTokenizer",
        "num_classes": len(CLASSES),
    }
    content = {
        "config": {"arch": {"args": arch}, "dataset": {"args": {"classes": CLASSES}}},
        "state_dict": model.state_dict(),
    }
    torch.save(content, folder / "random.ckpt")
    return folder / "random.ckpt"


def naive_side(checkpoint: Path) -> Side:
    """The library's own predict, 64 texts at a time, in the order in which they come."""
    from detoxify import Detoxify

    model = Detoxify(checkpoint=str(checkpoint), huggingface_config_path=str(checkpoint.parent))

    def score(texts: Sequence[str]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(texts), CHUNK):
            found += model.predict(list(texts[start : start + CHUNK]))["toxicity"]
        return found

    return score


def harness_side(checkpoint: Path) -> Side:
    from harness.classifiers import choose

    return choose({"detoxify_checkpoint": checkpoint}).score


def timed(score: Side, texts: Sequence[str]) -> tuple[float, list[float]]:
    start = time.perf_counter()
    values = score(texts)
    return time.perf_counter() - start, values


def measure(
    texts: Sequence[str], sides: dict[str, Side], repeats: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Both sides by turns. Returns: seconds of every turn and scores, by side."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    scores: dict[str, list[float]] = {}
    for turn in range(repeats):
        for name in sorted(sides, reverse=bool(turn % 2)):
            taken, scores[name] = timed(sides[name], texts)
            seconds[name].append(taken)
            print(f"turn {turn + 1} {name:8} {taken:8.2f} s", file=sys.stderr, flush=True)
    return seconds, scores


def report(seconds: dict[str, list[float]], scores: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    naive, ours = scores["predict"], scores["harness"]
    for name, median in medians.items():
        turns = " ".join(f"{taken:.2f}" for taken in seconds[name])
        print(f"{name:8} {median:8.2f} s {len(naive) / median:8.1f} texts/s   turns: {turns}")
    print(f"ratio    {medians['predict'] / medians['harness']:8.2f}")
    print(f"largest difference of scores {max(abs(a - b) for a, b in zip(naive, ours, strict=True)):.1e}")
    print(f"scores from {min(naive):.4f} to {max(naive):.4f}; the first four of either side:")
    print(f"predict  {[round(value, 6) for value in naive[:4]]}")
    print(f"harness  {[round(value, 6) for value in ours[:4]]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--texts", type=int, default=2000, help="of either set")
    parser.add_argument("--sets", default="statements,answers")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import torch
    from transformers import BertTokenizer

    found = mirror_texts(args.data_dir, args.texts, args.seed)
    with TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(
            Path(folder), [text for texts in found.values() for text in texts], args.layers, args.hidden
        )
        tokenizer = BertTokenizer.from_pretrained(folder)
        sides = {"predict": naive_side(checkpoint), "harness": harness_side(checkpoint)}
        for score in sides.values():
            score(found["statements"][:CHUNK])  # loads, warms up
        print(
            f"{args.layers} layers of {args.hidden}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        )
        for name in args.sets.split(","):
            lengths = [
                len(ids) for ids in tokenizer(found[name], truncation=True, max_length=512)["input_ids"]
            ]
            print(
                f"\n{name}: {len(lengths)} texts, {sum(lengths) / len(lengths):.1f} tokens each, "
                f"{max(lengths)} at most; padding costs predict {padding(lengths):.2f}x"
            )
            report(*measure(found[name], sides, args.repeats))


if __name__ == "__main__":
    main()
