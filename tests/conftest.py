"""Small real things that tests share: a tiny Llama with a tokenizer, the mirror of real benchmarks."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell's background job ignores Ctrl-C, and so would every process that the tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish() -> None:
    """Tests also run peers by themselves, whose event loops may leave a thread that Python would wait for."""
    from suites.from_inspect.quiet import end_workers

    end_workers()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """A thread that never ends would hang the run after its last line: say which, and fail."""
    deadline = time.monotonic() + 10
    while left := [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]:
        if time.monotonic() > deadline:
            faulthandler.dump_traceback(all_threads=True)
            print(f"threads that never end: {', '.join(thread.name for thread in left)}", file=sys.stderr)
            sys.stdout.flush()
            os._exit(3)
        time.sleep(0.1)


CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_tokenizer(*, chat: bool = True):
    """A byte-level tokenizer of 256 bytes and five special tokens: every text can be written in it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(["<|eos|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|eos|>",
        pad_token="<|eos|>",
        additional_special_tokens=["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"],
        model_max_length=4096,
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def build_llama(  # noqa: PLR0913  each names one fact of a small model
    folder: Path,
    *,
    seed: int = 0,
    chat: bool = True,
    hidden: int = 64,
    context: int = 4096,
    spread: float = 0.3,
) -> Path:
    """Write a random Llama of about 0.2 M parameters with its tokenizer to a folder.

    Args: spread: standard deviation of the weights; the larger, the surer the model is of its next token.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer(chat=chat)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=spread,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer Llama with a chat template."""
    return build_llama(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def tiny_llama_plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture without a chat template."""
    return build_llama(tmp_path_factory.mktemp("tiny") / "llama-plain", seed=1, chat=False)


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Folder of real benchmarks, laid out as dataset repositories; the test is skipped where there is none."""
    root = Path(os.environ.get("HARNESS_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data")
    if not (root / "openai" / "gsm8k").is_dir():
        pytest.skip(
            f"no benchmark mirror at {root}: set HARNESS_DATA_DIR to a folder of dataset repositories"
        )
    return root


@pytest.fixture(scope="session")
def plugin_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder into which the third-party package of tests/plugin_package is really installed by pip."""
    import subprocess
    import sys

    target = tmp_path_factory.mktemp("site")
    source = Path(__file__).parent / "plugin_package"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*command, str(target), str(source)], check=True, capture_output=True)
    return target


@pytest.fixture
def plugin(plugin_package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The third-party package, importable and registered in this process and its children."""
    from harness import registry

    monkeypatch.syspath_prepend(str(plugin_package))
    monkeypatch.setenv("PYTHONPATH", str(plugin_package))
    registry._entries.cache_clear()
    yield plugin_package
    registry._entries.cache_clear()
