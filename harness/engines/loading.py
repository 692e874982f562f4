"""Read a checkpoint's weights and tokenizer with transformers and PEFT."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError

from harness.checkpoints import tokenizer_folder
from harness.errors import BadCheckpoint, BadInput
from harness.protocols import Tokenizer
from harness.records import Checkpoint, Json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
UNREADABLE = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    ImportError,
    TypeError,
    AttributeError,
    ArithmeticError,
    StrictDataclassError,
)
"""What transformers raises over a checkpoint whose files are damaged or contradict each other."""
CGROUPS = Path("/sys/fs/cgroup")
LEFT_OUT = "_harness_left_out"
FALLBACK_LENGTH = 2048
"""Context assumed where neither the model nor the tokenizer names one, as in lm-eval."""


def pick_device(name: str) -> torch.device:
    """Raises: BadInput: a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise BadInput(f"no device {name!r}; use auto, cpu, cuda or cuda:N") from exc
    if device.type not in ("cpu", "cuda", "mps"):
        raise BadInput(f"no device {name!r}; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadInput(
            f"device {name!r} is not here: torch {torch.__version__} sees no GPU; use --device cpu"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"device {name!r} is not here: GPUs are cuda:0 to cuda:{torch.cuda.device_count() - 1}"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise BadInput(
            f"device {name!r} is not here: torch {torch.__version__} sees no Apple GPU; use --device cpu"
        )
    return device


def load_model(checkpoint: Checkpoint, device: torch.device, dtype: str) -> Any:
    """Base weights in eval mode. dtype auto: float32 on a CPU; on a GPU the checkpoint's own, where it is the faster.

    Raises: BadCheckpoint: the weights do not load, or do not fit the architecture.
    """
    try:
        wanted: Any = DTYPES.get(dtype) or (
            _cuda_dtype(checkpoint, device) if device.type == "cuda" else torch.float32
        )
        with _without_tables():
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                checkpoint.base,
                dtype=wanted,
                use_safetensors=None if checkpoint.allow_pickle else True,
                trust_remote_code=checkpoint.trust_remote_code,
                output_loading_info=True,
            )
    except UNREADABLE as exc:
        raise BadCheckpoint(f"{checkpoint.base!r} does not load as a causal LM: {first_line(exc)}") from exc
    missing = sorted(info["missing_keys"])
    if missing:
        raise BadCheckpoint(
            f"{checkpoint.base!r} lacks {len(missing)} weights of its architecture (first: {missing[0]}); "
            "they would be random: give a complete checkpoint"
        )
    setattr(model, LEFT_OUT, sorted(info["unexpected_keys"]))
    return model.to(device).eval()


@contextmanager
def _without_tables() -> Iterator[None]:
    """transformers prints a table of weights that do not fit; load_model says it in a line."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)


def left_out(model: Any) -> list[str]:
    """Names of the checkpoint's weights for which its architecture has no place: other layers, other heads."""
    return list(getattr(model, LEFT_OUT, ()))


def _cuda_dtype(checkpoint: Checkpoint, device: torch.device) -> Any:
    """The checkpoint's own number type, unless this GPU only emulates it: then float32, which holds every value."""
    config = transformers.AutoConfig.from_pretrained(
        checkpoint.base, trust_remote_code=checkpoint.trust_remote_code
    )
    own = config.get_text_config().dtype
    if own not in (torch.bfloat16, torch.float16):
        return "auto"
    return own if _is_faster(own, device) else torch.float32


@cache
def _is_faster(dtype: torch.dtype, device: torch.device) -> bool:
    """Than float32. Measured once, so that all loads of a process have one number type."""
    return _product_s(dtype, device) < _product_s(torch.float32, device)


def _product_s(dtype: torch.dtype, device: torch.device) -> float:
    """Best of three products of 2048 x 2048 matrices, seconds."""
    matrix = torch.ones((2048, 2048), dtype=dtype, device=device)
    best = float("inf")
    for attempt in range(4):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        matrix @ matrix
        torch.cuda.synchronize(device)
        if attempt:  # the first one warms up
            best = min(best, time.perf_counter() - start)
    return best


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The adapter's tokenizer where it brings one, else the base's.

    Raises: BadCheckpoint: there is none, or it does not load.
    """
    folder = tokenizer_folder(checkpoint)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=checkpoint.trust_remote_code
        )
    except UNREADABLE as exc:
        raise BadCheckpoint(f"the tokenizer of {folder!r} does not load: {first_line(exc)}") from exc
    return tokenizer  # type: ignore[no-any-return]


def first_line(exc: BaseException) -> str:
    text = str(exc).strip() or type(exc).__name__
    return text.splitlines()[0]


def context_length(model: Any, tokenizer: Any) -> int:
    """Longest sequence, tokens.

    Source: the attributes and the order that lm-eval 0.4.13 looks at (HFLM.max_length).
    """
    config = model.config.get_text_config()
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        value = getattr(config, name, None)
        if value:
            return int(value)
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if limit and limit < 1_000_000 else FALLBACK_LENGTH


def end_tokens(model: Any, tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens that end an answer: the generation config's and the tokenizer's."""
    ids: set[int] = set()
    for value in (model.generation_config.eos_token_id, tokenizer.eos_token_id):
        if value is not None:
            ids.update(value if isinstance(value, list) else [value])
    return frozenset(ids)


def cache_bytes_per_token(model: Any) -> int:
    """Bytes that one token of one row takes in the KV cache."""
    config = model.config.get_text_config()
    attention = getattr(config, "num_attention_heads", None)
    if attention is None or getattr(model, "_is_stateful", False):
        raise BadCheckpoint(
            f"{type(model).__name__} keeps a state instead of a KV cache; the transformers engine runs attention models"
        )
    heads = getattr(config, "num_key_value_heads", None) or attention
    size = getattr(config, "head_dim", None) or config.hidden_size // attention
    return int(2 * config.num_hidden_layers * heads * size * model.dtype.itemsize)


def pass_bytes_per_token(model: Any) -> int:
    """Rough bytes of activations that one token of a forward pass takes: a layer's inputs, products and scores."""
    config = model.config.get_text_config()
    width = int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * width)
    return int((12 * width + 4 * inner) * max(4, model.dtype.itemsize))


def free_bytes(device: torch.device) -> int:
    """Memory that is free now: of the GPU, or of the machine and of the limits that it sets for this process."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    limit = _cgroup_limit()
    if limit is not None:
        free = min(free, max(limit - int(psutil.Process().memory_info().rss), 0))
    return free


def _cgroup_limit() -> int | None:
    """Bytes that the control groups of this process allow (Slurm, containers); None: as much as there is.

    A limit on any group above counts: Slurm sets it on the job or the step, whose tasks have groups of their own.
    """
    found: list[int] = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            found += _limits_above(CGROUPS, group, "memory.max")
        elif "memory" in controllers.split(","):
            found += _limits_above(CGROUPS / "memory", group, "memory.limit_in_bytes")
    return min(found, default=None)


def _limits_above(root: Path, group: str, name: str) -> list[int]:
    """Limits of a control group and of all above it; a container may see its own as the root."""
    folder = root / group.strip("/")
    found = []
    for place in (folder, *folder.parents):
        if not place.is_relative_to(root):
            break
        try:
            text = (place / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            found.append(int(text))
    return found


def takes_positions(model: Any) -> bool:
    return "position_ids" in inspect.signature(model.forward).parameters


def choose_threads(model: Any, wanted: int | None) -> int:
    """Threads that run this model fastest on this machine, by a short measurement.

    A small model can be ten times slower on two threads than on one where cores are shared; a large one gains.
    The user's word (--threads, OMP_NUM_THREADS) comes first.
    """
    if wanted:
        return wanted
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return int(os.environ["OMP_NUM_THREADS"])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    candidates = sorted({1, max(1, cores // 2), cores})
    if len(candidates) == 1 or model.device.type != "cpu":
        return candidates[-1]
    speeds = {count: _probe_s(model, count) for count in candidates}
    return min(speeds, key=lambda count: speeds[count])


def _probe_s(model: Any, threads: int) -> float:
    """Best of three timings of a small forward pass, seconds."""
    torch.set_num_threads(threads)
    ids = torch.ones((4, 16), dtype=torch.long)
    best = float("inf")
    with torch.inference_mode():
        for attempt in range(4):
            start = time.perf_counter()
            model(input_ids=ids, use_cache=False)
            if attempt:  # the first one warms up
                best = min(best, time.perf_counter() - start)
    return best


def ignored_settings(model: Any) -> list[str]:
    """Settings of the checkpoint's generation config that change greedy answers and that this engine leaves out."""
    neutral = {"no_repeat_ngram_size": 0, "min_length": 0, "num_beams": 1, "encoder_no_repeat_ngram_size": 0}
    listed = (
        "suppress_tokens",
        "begin_suppress_tokens",
        "bad_words_ids",
        "sequence_bias",
        "forced_bos_token_id",
    )
    config = model.generation_config
    found = [name for name, value in neutral.items() if (getattr(config, name, None) or value) != value]
    return [*found, *(name for name in listed if getattr(config, name, None))]


def describe(model: Any, device: torch.device, threads: int) -> Mapping[str, Json]:
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": threads,
        "attention": getattr(model.config, "_attn_implementation", None),
        "architecture": type(model).__name__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
