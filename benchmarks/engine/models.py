"""Seeded random models, tokenizers and adapters for the engine's benchmarks, made once per work folder.

A tokenizer is a byte-level BPE trained on the mirror's text, with a BOS that it adds itself, as Llama's: prompts then
have about as many tokens as with a published tokenizer of the same vocabulary.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOS, EOS, PAD = 0, 1, 2
CONTEXT = 2048
# Writes the BOS, as most published templates do.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TEXTS = (
    ("openai/gsm8k/main/train.jsonl", ("question", "answer")),
    ("cais/mmlu/all/validation.jsonl", ("question",)),
    ("Rowan/hellaswag/default/validation.jsonl", ("ctx", "endings")),
    ("databricks/databricks-dolly-15k", ("instruction", "context", "response")),
    ("google/IFEval/default/train.jsonl", ("prompt",)),
)


@dataclass(frozen=True)
class Size:
    """An architecture. All heads are 64 wide."""

    kind: str
    vocabulary: int
    """Tokens of the tokenizer."""
    embeddings: int
    """Rows of the (tied) embedding matrix; those past the tokenizer's are never asked for."""
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    spread: float
    """Standard deviation of the weights: wide enough that the most probable token is not a near-tie."""


SIZES = {
    "4m": Size("llama", 4096, 4096, 256, 640, 4, 4, 4, 0.08),
    "88m": Size("llama", 32000, 32000, 768, 2048, 9, 12, 12, 0.05),
    "0.5b": Size("qwen2", 32000, 151936, 896, 4864, 24, 14, 2, 0.04),  # Qwen2.5-0.5B's
}


def model_folder(work: Path, size: str, data_dir: Path) -> Path:
    """A checkpoint of the size named, made if it is not in the work folder yet."""
    folder = work / "models" / size
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        spec = SIZES[size]
        tokenizer = train_tokenizer(spec.vocabulary, data_dir)
        build_model(spec).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "done").touch()
    return folder


def build_model(size: Size) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    classes = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
    make_config, make_model = classes[size.kind]
    torch.manual_seed(0)
    config = make_config(
        vocab_size=size.embeddings,
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=CONTEXT,
        initializer_range=size.spread,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    return make_model(config)


def train_tokenizer(vocabulary: int, data_dir: Path) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(data_dir), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=CONTEXT,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def texts(data_dir: Path) -> Iterator[str]:
    """Text of the mirror to train a tokenizer on."""
    for place, columns in TEXTS:
        path = data_dir / place
        files = [path] if path.is_file() else sorted(path.rglob("*.jsonl"))
        for file in files:
            with file.open(encoding="utf-8") as lines:
                for line in lines:
                    row = json.loads(line)
                    for column in columns:
                        value = row.get(column) or ""
                        yield from value if isinstance(value, list) else [value]


def adapter_folders(work: Path, size: str, data_dir: Path, count: int) -> list[Path]:
    """LoRA adapters of rank 8 on every attention projection, each with weights of its own."""
    base = model_folder(work, size, data_dir)
    folders = [work / "adapters" / size / f"lora{number}" for number in range(count)]
    for number, folder in enumerate(folders):
        if not (folder / "adapter_config.json").exists():
            build_adapter(base, number).save_pretrained(folder)
    return folders


def build_adapter(base: Path, seed: int) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1000 + seed)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    # init_lora_weights=False: B is random too, so that the adapter changes what the model says
    config = LoraConfig(
        r=8, lora_alpha=16, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM"
    )
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return get_peft_model(model, config)


@dataclass(frozen=True)
class Costs:
    """What a forward pass of a checkpoint costs, in floating point operations (a multiply-add is two)."""

    matrix_parameters: int
    """Weights of the layers' matrices: neither embeddings nor norms."""
    layers: int
    attention_width: int
    """Query heads times their width."""
    vocabulary: int
    width: int

    def flops(self, starts: int, tokens: int, scored: int) -> int:
        """Of `tokens` positions computed after `starts` cached ones, `scored` of them projected.

        A position attends to itself and to all before it: 2 for the scores, 2 for the sum, per head width.
        """
        attended = starts * tokens + tokens * (tokens + 1) // 2
        return (
            2 * self.matrix_parameters * tokens
            + 4 * self.layers * self.attention_width * attended
            + 2 * self.vocabulary * self.width * scored
        )


def costs_of(folder: Path) -> Costs:
    """Read from the headers of the weights and from the config."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    parameters = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as raw:
            header = json.loads(raw.read(struct.unpack("<Q", raw.read(8))[0]))
        shapes = [part["shape"] for name, part in header.items() if ".layers." in name]
        parameters += sum(math.prod(shape) for shape in shapes if len(shape) == 2)
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return Costs(
        parameters,
        config["num_hidden_layers"],
        config["num_attention_heads"] * head_dim,
        config["vocab_size"],
        config["hidden_size"],
    )
