"""A transformers model that computes packed tokens under tree attention; checked against itself when it is loaded."""

from __future__ import annotations

import time
from typing import Any

import torch

from harness.engines import attention
from harness.engines.attention import Step, running
from harness.engines.loading import first_line, takes_positions
from harness.engines.passes import TreePass
from harness.engines.trie import Tree, build_tree

LOGIT_BYTES = 256 << 20
"""Largest block of fp32 logits that exists at one time."""
LAYER_KINDS = {"full_attention", "sliding_attention"}
LENGTH_BOUND_ROPE = {"dynamic", "longrope"}
"""Rotary embeddings that move with the longest row of a batch: rows of different lengths cannot share a pass."""
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of logits against the model's own attention, in standard deviations of the logits."""
LOW_PRECISION_TOLERANCE = 0.15
Failure = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError, NotImplementedError)


class Unfit(Exception):
    """Why a model cannot compute packed tokens; the engine says so and pads batches instead."""


class PackedModel:
    """A decoder and its output matrix over packed tokens.

    Raises: Unfit: the model does not go through transformers' attention interface, or gives other logits there.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.dtype = model.dtype
        _check_kind(model)
        self.decoder: Any = getattr(model, model.base_model_prefix, None)
        self.head = model.get_output_embeddings()
        self.split = False
        own = model.config._attn_implementation
        expected = _plain_logits(model, device)
        attention.register()
        try:
            model.set_attn_implementation(attention.NAME)
            self.split = self._verify(expected)
        except Failure as exc:
            model.set_attn_implementation(own)
            raise Unfit(f"tree attention fails ({type(exc).__name__}: {first_line(exc)})") from exc
        except Unfit:
            model.set_attn_implementation(own)
            raise
        self.rows_per_block = max(1, LOGIT_BYTES // (4 * model.config.get_text_config().vocab_size))

    def adopt(self, model: Any) -> None:
        """Read the decoder and the output matrix anew: an adapter was put into the model or taken out."""
        self.model = model
        self.decoder = getattr(model, model.base_model_prefix, None)
        self.head = model.get_output_embeddings()
        self.split = False
        self.split = self._splits(self._probe())

    def states(self, step: Step, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """(1, N) ids and positions -> (N, W) hidden states. Only where split."""
        with running(step):
            out = self.decoder(
                input_ids=ids.to(self.device), position_ids=positions.to(self.device), use_cache=False
            )
        return out.last_hidden_state[0]  # type: ignore[no-any-return]

    def project(self, states: torch.Tensor) -> torch.Tensor:
        """(n, W) -> (n, V) fp32 logits. Only where split."""
        return self.head(states).float()  # type: ignore[no-any-return]

    def logits(
        self, step: Step, ids: torch.Tensor, positions: torch.Tensor, at: torch.Tensor
    ) -> torch.Tensor:
        """(n, V) fp32 logits at n places of the pass."""
        if self.split:
            return self.project(self.states(step, ids, positions)[at.to(self.device)])
        with running(step):
            out = self.model(
                input_ids=ids.to(self.device),
                position_ids=positions.to(self.device),
                use_cache=False,
                logits_to_keep=at.to(self.device),
            )
        return out.logits[0].float()  # type: ignore[no-any-return]

    def _verify(self, expected: torch.Tensor) -> bool:
        """Whether decoder and output matrix apart give the model's logits. Raises: Unfit: nothing does."""
        whole = self._probe()
        worst = _distance(whole, expected)
        if not worst <= TOLERANCE.get(self.dtype, LOW_PRECISION_TOLERANCE):
            raise Unfit(
                f"tree attention gives other logits than the model's own ({worst:.2g} of their spread)"
            )
        return self._splits(whole)

    def _splits(self, whole: torch.Tensor) -> bool:
        if self.decoder is None or self.head is None:
            return False
        self.split = True
        try:
            apart = self._probe()
        except Failure:
            return False
        return apart.shape == whole.shape and bool(torch.allclose(apart, whole, atol=1e-5, rtol=1e-4))

    def _check_window(self, step: TreePass) -> None:
        """Raises: Unfit: the window stands in the model's mask alone, which tree attention makes anew."""
        if step.windows == {None} and _slides(self.model.config.get_text_config()):
            raise Unfit("its layers do not tell attention of their sliding window")

    def _probe(self) -> torch.Tensor:
        """(n, V) logits behind the last token of each probe sequence, in a pass that keeps and one that looks back."""
        sequences, tree = _probe_tree(self.model)
        count = len(tree.pieces)
        kept: dict[int, Any] = {}
        found: dict[int, torch.Tensor] = {}
        with torch.inference_mode():
            for chosen in ([0], list(range(1, count))):
                step = TreePass(tree, chosen, kept, [0] if chosen == [0] else [], self.dtype)
                ends = [step.at[i] + len(tree.pieces[i].ids) - 1 for i in chosen]
                logits = self.logits(step, step.ids, step.positions, torch.tensor(ends))
                self._check_window(step)
                kept |= step.stored
                found |= dict(zip(chosen, logits, strict=True))
        return torch.stack([found[tree.last[i]] for i in range(len(sequences))])


def _slides(config: Any) -> bool:
    """Whether any layer sees no further than config.sliding_window."""
    if not getattr(config, "sliding_window", None) or getattr(config, "use_sliding_window", True) is False:
        return False
    kinds = getattr(config, "layer_types", None)
    return kinds is None or "sliding_attention" in kinds


def _check_kind(model: Any) -> None:
    """Raises: Unfit: tokens of this model depend on more than the pieces above them."""
    config = model.config.get_text_config()
    if not model._can_set_attn_implementation():
        raise Unfit("its attention cannot be replaced")
    if not takes_positions(model):
        raise Unfit("it takes no position ids")
    strange = set(getattr(config, "layer_types", None) or ()) - LAYER_KINDS
    if strange or getattr(config, "attention_chunk_size", None):
        raise Unfit(f"it has layers of kind {', '.join(sorted(strange)) or 'chunked attention'}")
    rope = str(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or "")
    for kind in LENGTH_BOUND_ROPE:
        if f"'{kind}'" in rope:
            raise Unfit(f"its rotary embedding is {kind}: it moves with the longest row")


def _probe_tree(model: Any) -> tuple[list[tuple[int, ...]], Tree]:
    """A prefix of 24 tokens with three sequels, one of which branches again."""
    vocab = model.get_input_embeddings().weight.shape[0]
    size = min(vocab, 1000)
    numbers = [(7 * i * i + 3 * i + 1) % size for i in range(80)]
    prefix, branch = tuple(numbers[:24]), tuple(numbers[24:34])
    sequences = [
        (*prefix, *branch, *numbers[40:42]),
        (*prefix, *branch, (numbers[40] + 1) % size, *numbers[50:57]),
        (*prefix, (numbers[24] + 1) % size, *numbers[60:75]),
    ]
    return sequences, build_tree(sequences, longest=64, min_saved=4)


def _plain_logits(model: Any, device: torch.device) -> torch.Tensor:
    """(n, V) logits behind each probe sequence alone, by the model's own attention."""
    sequences, _ = _probe_tree(model)
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        # transformers' sdpa leaves the cap out in silence; eager has it, as the model was trained
        model.set_attn_implementation("eager")
    with torch.inference_mode():
        rows = [
            model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, -1]
            for ids in sequences
        ]
    return torch.stack(rows).float()


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    spread = float(expected.std())
    return float((found - expected).abs().max()) / spread if spread > 0 else float("nan")


def choose_cuda_kernel(packed: PackedModel) -> str:
    """Fused attention where it gives the same logits and is not slower than plain products; measured once."""
    seconds: dict[bool, float] = {}
    reference = packed._probe()
    for fused in (False, True):
        attention.cuda_kernel.fused = fused
        try:
            same = _distance(packed._probe(), reference) <= LOW_PRECISION_TOLERANCE
        except Failure:
            same = False
        if same:
            seconds[fused] = _probe_seconds(packed)
    attention.cuda_kernel.fused = min(seconds, key=lambda fused: seconds[fused], default=False)
    return "fused" if attention.cuda_kernel.fused else "plain"


def _probe_seconds(packed: PackedModel) -> float:
    """Best of three passes over 2,048 tokens."""
    vocab = packed.model.get_input_embeddings().weight.shape[0]
    tree = build_tree([tuple(i % vocab for i in range(2048))], longest=2048)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(3):
            step = TreePass(tree, [0], {}, [], packed.dtype)
            torch.cuda.synchronize()
            start = time.perf_counter()
            packed.logits(step, step.ids, step.positions, torch.tensor([0]))
            torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
    return best
