"""Toxicity classifiers behind one interface, and the choice among them. Shared by tasks and by the reward.

Detoxify's checkpoint is a pickle: it is opened only when its sha256 is the published one, when torch can read
it without unpickling objects, or when the user said --allow-pickle.
"""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from harness.errors import BadInput, HarnessError, UnsafeCheckpoint
from harness.records import Json

PUBLISHED_URL = (
    "https://github.com/unitaryai/detoxify/releases/download/v0.1-alpha/toxic_original-c1212f89.ckpt"
)
PUBLISHED_FILE = "toxic_original-c1212f89.ckpt"
PUBLISHED_SHA256 = "c1212f89ac23307ab33932ce29dc446a6e030fb3f384a500890bbe662b7b544a"
"""Of the 438,021,897 bytes behind PUBLISHED_URL; its first eight digits stand in the file's name (torch.hub)."""
TOXIC_CLASSES = ("toxic", "toxicity")
CHUNK_TOKENS = 65536
"""Most tokens of one padded batch, so that long texts do not take gigabytes."""
CACHED_BYTES = 12 << 20
"""Of activations per thread: on a CPU a larger batch takes up to twice the time per token, for it leaves the cache."""


class Classifier(Protocol):
    """Gives every text a number in [0, 1]; higher is worse."""

    name: str
    metric_prefix: str
    """First part of every metric's name: two classifiers never share one."""
    note: str
    """What a reader must know of the number."""

    def identity(self) -> Mapping[str, Json]:
        """What determines its scores: part of the fingerprint of a task."""
        ...

    def score(self, texts: Sequence[str]) -> list[float]:
        """One number per text, in order. Raises: HarnessError: a score that is no number."""
        ...


class Profanity:
    """The linear model that alt-profanity-check carries in its wheel: always there, needs no network."""

    name = "profanity-check"
    metric_prefix = "profanity"
    note = (
        "classifier: profanity-check, a stand-in that measures profanity and is not comparable with Detoxify's "
        "toxicity; for Detoxify give --detoxify-checkpoint PATH, or put its published weights into torch's hub "
        f"cache: python -c \"import torch; torch.hub.load_state_dict_from_url('{PUBLISHED_URL}')\""
    )

    def identity(self) -> Mapping[str, Json]:
        from importlib.metadata import version

        return {"name": self.name, "version": version("alt-profanity-check")}

    def score(self, texts: Sequence[str]) -> list[float]:
        if not texts:
            return []
        with warnings.catch_warnings():
            # scikit-learn warns that the shipped model was fitted by another release; its arithmetic is linear.
            warnings.simplefilter("ignore")
            from profanity_check import predict_prob

            return _checked(self.name, [float(p) for p in predict_prob(list(texts))])


class Weights(NamedTuple):
    """A Detoxify checkpoint that may be opened."""

    path: Path
    sha256: str
    config_dir: Path | None
    """Folder with the architecture's config and tokenizer; None: the hub's cache."""
    unpickle: bool


class Detoxify:
    """Detoxify (Hanu and Unitary, 2020), class `toxicity`: probability that a text is toxic."""

    def __init__(self, weights: Weights) -> None:
        published = weights.sha256 == PUBLISHED_SHA256
        # A checkpoint of the user's own is another classifier, so its metrics carry its hash.
        self.name = "detoxify original" if published else f"detoxify {weights.sha256[:8]}"
        self.metric_prefix = self.name.replace(" original", "").replace(" ", "-")
        self.note = f"classifier: {self.name}, sha256 {weights.sha256}" + (
            " (the published weights)"
            if published
            else f", from {weights.path.name}; not the published weights"
        )
        self._weights = weights

    def identity(self) -> Mapping[str, Json]:
        return {"name": self.name, "sha256": self._weights.sha256}

    def score(self, texts: Sequence[str]) -> list[float]:
        """Each text once, tokenised together, in batches of like length: predict() of the library would pad all of
        a batch to its longest. The scores are predict()'s but for rounding (benchmarks/detoxify)."""
        if not texts:
            return []
        unique = list(dict.fromkeys(texts))
        known = dict(zip(unique, self._score_unique(unique), strict=True))
        return _checked(self.name, [known[text] for text in texts])

    def _score_unique(self, texts: Sequence[str]) -> list[float]:
        import torch

        loaded = self._loaded
        encoded = loaded.tokenizer(list(texts), truncation=True, max_length=loaded.max_length)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        scores = [0.0] * len(texts)
        with torch.inference_mode():
            for chunk in chunks_by_length(lengths, loaded.chunk_tokens):
                rows = {name: [column[i] for i in chunk] for name, column in encoded.items()}
                batch = loaded.tokenizer.pad(rows, return_tensors="pt").to(loaded.device)
                column = torch.sigmoid(loaded.model(**batch)[0].float())[:, loaded.toxic_class]
                for index, value in zip(chunk, column.tolist(), strict=True):
                    scores[index] = value
        return scores

    @cached_property
    def _loaded(self) -> _Loaded:
        return _load(self._weights)


class _Loaded(NamedTuple):
    model: Any
    tokenizer: Any
    toxic_class: int
    max_length: int
    device: str
    chunk_tokens: int


def choose(settings: Mapping[str, Json]) -> Classifier:
    """The best classifier to be had: the checkpoint given, else the published one, else profanity-check.

    Args:
        settings: `detoxify_checkpoint` (path or None) and `allow_pickle` (bool) are read.
    Raises:
        BadInput: the checkpoint given is not there or is no Detoxify checkpoint.
        UnsafeCheckpoint: it would have to be unpickled, or its bytes are not those its name promises.
    """
    given = settings.get("detoxify_checkpoint")
    if given is not None:
        return _detoxify(Path(str(given)).expanduser(), bool(settings.get("allow_pickle")))
    published = hub_dir() / "checkpoints" / PUBLISHED_FILE
    if published.is_file() and (_config_dir(published) or _bert_is_cached()):
        return _detoxify(published, False)
    return _profanity()


def hub_dir() -> Path:
    """torch.hub.get_dir(), found without importing torch."""
    cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("TORCH_HOME") or Path(cache_home, "torch")).expanduser() / "hub"


def chunks_by_length(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Indices in chunks of similar length, longest first, of at most most_tokens with their padding."""
    chunks: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if chunks and (len(chunks[-1]) + 1) * longest <= most_tokens:
            chunks[-1].append(index)
        else:
            chunks.append([index])
            longest = lengths[index]
    return chunks


def _chunk_tokens(config: Any, device: str) -> int:
    """Tokens per batch: as many as the device likes; on a CPU those whose widest activation stays in the cache."""
    import torch

    if device != "cpu":
        return CHUNK_TOKENS
    widest = int(getattr(config, "intermediate_size", 0) or 4 * config.hidden_size)
    return min(CHUNK_TOKENS, max(512, CACHED_BYTES // (4 * widest)) * torch.get_num_threads())


@cache
def _profanity() -> Profanity:
    return Profanity()


@cache
def _detoxify(path: Path, allow_pickle: bool) -> Detoxify:
    """Everything that can be refused is refused here, before an hour of generation, not after it."""
    if not path.is_file():
        raise BadInput(
            f"no Detoxify checkpoint at {path}; give --detoxify-checkpoint the path of a .ckpt file"
        )
    sha256 = _sha256(path)
    _check_name(path, sha256)
    config_dir = _config_dir(path)
    if config_dir is None and not _bert_is_cached():
        raise BadInput(
            f"no config.json beside the Detoxify checkpoint {path}; put the config and tokenizer files of its "
            f"architecture (bert-base-uncased for 'original') into {path.parent} or {path.with_suffix('')}"
        )
    trusted = sha256 == PUBLISHED_SHA256
    weights = Weights(path, sha256, config_dir, trusted or allow_pickle)
    if not trusted:
        _form(path, _open(weights, device="meta"))
    return Detoxify(weights)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_name(path: Path, sha256: str) -> None:
    """torch.hub's convention: NAME-HASH.ckpt promises the first digits of the file's sha256."""
    promised = PUBLISHED_SHA256 if path.name == PUBLISHED_FILE else ""
    if match := re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name):
        promised = promised or match[1]
    if not sha256.startswith(promised):
        raise UnsafeCheckpoint(
            f"{path} has sha256 {sha256} and should have {promised}; it is damaged or not what its name says: "
            f"delete it and fetch it again from {PUBLISHED_URL}"
        )


def _config_dir(path: Path) -> Path | None:
    folders = (path.with_suffix(""), path.parent)
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def _bert_is_cached() -> bool:
    """Whether the config and the tokenizer of bert-base-uncased lie in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    def cached(name: str) -> bool:
        return isinstance(try_to_load_from_cache("bert-base-uncased", name), str)

    return cached("config.json") and (cached("vocab.txt") or cached("tokenizer.json"))


def _open(weights: Weights, device: str) -> Any:
    import torch

    fix = f"if you trust {weights.path}, say --allow-pickle"
    try:
        return torch.load(weights.path, map_location=device, weights_only=not weights.unpickle)
    except pickle.UnpicklingError as exc:
        raise UnsafeCheckpoint(
            f"the Detoxify checkpoint {weights.path} would have to be unpickled; {fix}"
        ) from exc
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, OSError) as exc:
        raise BadInput(
            f"{weights.path} is no torch checkpoint: {exc}; give the .ckpt file of a release"
        ) from exc


def _form(path: Path, content: Any) -> tuple[dict[str, Any], int]:
    """(architecture arguments, index of the toxic class) of a checkpoint's config.

    Raises: BadInput: not of Detoxify's form, or names classes that are no text classifier.
    """
    try:
        arch = dict(content["config"]["arch"]["args"])
        classes = list(content["config"]["dataset"]["args"]["classes"])
        content["state_dict"]
        toxic = next(i for i, name in enumerate(classes) if name in TOXIC_CLASSES)
        # The names are looked up in transformers: nothing but a classifier and a tokenizer may be built.
        right = re.fullmatch(r"\w+ForSequenceClassification", arch["model_name"])
        right = right and re.fullmatch(r"\w+Tokenizer(Fast)?", arch["tokenizer_name"])
    except (KeyError, TypeError, StopIteration) as exc:
        raise BadInput(
            f"{path} is not of Detoxify's form (config.arch.args, config.dataset.args.classes with one of "
            f"{', '.join(TOXIC_CLASSES)}, state_dict): {type(exc).__name__} {exc}"
        ) from exc
    if not right:
        raise BadInput(
            f"{path} wants the classes {arch['model_name']!r}, {arch['tokenizer_name']!r}: refused"
        )
    return arch, toxic


def _load(weights: Weights) -> _Loaded:
    import torch
    import transformers

    content = _open(weights, device="cpu")
    arch, toxic = _form(weights.path, content)
    source = str(weights.config_dir or arch["model_type"])
    model_class = getattr(transformers, arch["model_name"])
    config = model_class.config_class.from_pretrained(
        source, num_labels=arch["num_classes"], local_files_only=True
    )
    model = model_class(config)
    state = {k: v for k, v in content["state_dict"].items() if not k.endswith("position_ids")}
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as exc:
        line = " ".join(str(exc).split())[:300]
        raise BadInput(f"weights of {weights.path} do not fit the config in {source}: {line}") from exc
    tokenizer = getattr(transformers, arch["tokenizer_name"]).from_pretrained(source, local_files_only=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    longest = min(int(tokenizer.model_max_length), int(config.max_position_embeddings))
    return _Loaded(model.eval().to(device), tokenizer, toxic, longest, device, _chunk_tokens(config, device))


def _checked(name: str, scores: list[float]) -> list[float]:
    broken = sum(not math.isfinite(score) for score in scores)
    if broken:
        raise HarnessError(f"{name} gave {broken} scores that are no numbers; its weights are damaged")
    return scores
