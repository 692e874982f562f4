"""Attention over a tree of prefixes, put together from blocks whose softmax sums are known.

A token attends to its own piece and to every piece above it. Each of these is one block of dense attention, and blocks
are merged by their log-sum-exp, which is exact (Milakov and Gimelshein 2018, arXiv:1805.02867): so a prefix is never
copied to the rows that share it, and no score of a pair that may not see each other is computed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

NAME = "pareto_tree"
"""Under which transformers knows this attention."""
SCORE_BYTES = 256 << 20
"""Largest matrix of attention scores that the portable kernel makes at one time."""
NOTHING = float("-inf")


class How(NamedTuple):
    """What a layer wants of its attention."""

    scale: float
    window: int | None
    """Positions back that a token sees, itself included; None: all."""
    softcap: float | None
    sinks: torch.Tensor | None
    """(H,) logits of attention that goes nowhere."""


class Mask(NamedTuple):
    """Which keys a query may look at: (B or 1, 1, T or 1, S), True where it may."""

    seen: torch.Tensor
    bias: torch.Tensor
    """The same as 0 and -inf."""
    hollow: bool
    """Some query may see nothing at all in this block: it gets zeros and a log-sum-exp of -inf."""


def make_mask(seen: torch.Tensor, dtype: torch.dtype, *, hollow: bool) -> Mask:
    return Mask(
        seen, torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, NOTHING), hollow
    )


class Sight(NamedTuple):
    """Which keys of a block its queries see; all of them, unless it says otherwise."""

    causal: bool = False
    """Query i sees keys 0..i; there are as many keys as queries."""
    mask: Mask | None = None


ALL = Sight()
CAUSAL = Sight(causal=True)


class Part(NamedTuple):
    """Attention over some of the keys: (B, H, T, D) values and the (B, H, T) log-sum-exp of their scores, fp32."""

    out: torch.Tensor
    lse: torch.Tensor


class Step(Protocol):
    """One forward pass: knows which tokens see which."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How
    ) -> torch.Tensor:
        """(H, N, D) queries and (G, N, D) keys and values of N new tokens -> (H, N, D)."""
        ...


class _Active(threading.local):
    step: Step | None = None
    layer = 0


_active = _Active()


class running:
    """Every attention of this thread's model goes to the step, layer after layer."""

    def __init__(self, step: Step) -> None:
        self.step = step

    def __enter__(self) -> None:
        _active.step, _active.layer = self.step, 0

    def __exit__(self, *_: object) -> None:
        _active.step = None


def attention(  # noqa: PLR0913  transformers' signature of an attention function
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """(1, H, N, D) packed queries -> (1, N, H, D), as transformers' AttentionInterface has it."""
    step, layer = _active.step, _active.layer
    if step is None:
        raise RuntimeError("tree attention outside of a packed pass")
    _active.layer += 1
    how = How(
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=_window(module, layer, kwargs),
        softcap=kwargs.get("softcap"),
        sinks=kwargs.get("s_aux"),
    )
    out = step.attend(layer, query[0], key[0], value[0], how)
    return out.transpose(0, 1).unsqueeze(0).to(query.dtype), None


def _window(module: Any, layer: int, kwargs: dict[str, Any]) -> int | None:
    """Sliding window of a layer: what the model passes, else what its config says of the layer."""
    if kwargs.get("sliding_window") is not None:
        return int(kwargs["sliding_window"])
    config = getattr(module, "config", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[getattr(module, "layer_idx", layer)] == "sliding_attention":
        return int(config.sliding_window)  # type: ignore[union-attr]
    return None


def register() -> None:
    """Make transformers know this attention; it makes no mask for a name that has no mask function."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attention)


# Kernels


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    how: How,
    sight: Sight = ALL,
) -> Part:
    """Attention over one block of keys.

    Args:
        query: (B, H, T, D); key, value: (B, G, S, D), G a divisor of H.
    """
    groups = query.shape[1] // key.shape[1]
    folded = groups > 1 and not sight.causal and (sight.mask is None or sight.mask.seen.shape[2] == 1)
    shape = query.shape
    if folded:  # heads that share keys become rows of one larger product
        query = query.reshape(shape[0], key.shape[1], groups * shape[2], shape[3])
    part = _kernel(query, key, value, how)(query, key, value, how, sight)
    if folded:
        part = Part(part.out.reshape(shape[:-1] + value.shape[-1:]), part.lse.reshape(shape[:-1]))
    return part


Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, How, Sight], Part]


def _kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How) -> Kernel:
    if how.softcap is None and key.shape[-1] == value.shape[-1]:
        if query.device.type == "cpu":
            return _flash_cpu
        if query.device.type == "cuda" and cuda_kernel.fused:
            return _flash_cuda
    return _portable


class _CudaKernel:
    """Chosen when a model is loaded: PyTorch's fused attention where it is exact and faster, else plain products."""

    fused = False


cuda_kernel = _CudaKernel()


def _flash_cpu(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    how: How,
    sight: Sight,
) -> Part:
    """PyTorch's fused kernel, which gives the log-sum-exp beside the values."""
    if sight.mask is not None and (sight.mask.hollow or sight.causal):
        return _portable(query, key, value, how, sight)
    bias = None if sight.mask is None else sight.mask.bias
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, sight.causal, attn_mask=bias, scale=how.scale
    )
    return Part(out.float(), lse.float())


def _flash_cuda(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    how: How,
    sight: Sight,
) -> Part:
    if sight.mask is not None or query.shape[-1] % 8:
        return _portable(query, key, value, how, sight)
    key, value = _repeated(query, key, value)
    found = torch.ops.aten._scaled_dot_product_flash_attention(
        query, key, value, 0.0, sight.causal, False, scale=how.scale
    )
    return Part(found[0].float(), found[1].float())


def _repeated(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    groups = query.shape[1] // key.shape[1]
    if groups == 1:
        return key, value
    return key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)


def _portable(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    how: How,
    sight: Sight,
) -> Part:
    """Plain products, queries in slices so that the scores stay small; any device, any number type."""
    key, value = _repeated(query, key, value)
    batch, heads, length, _ = query.shape
    size = key.shape[2]
    seen = None if sight.mask is None else sight.mask.seen
    if sight.causal:
        below = torch.ones((length, size), dtype=torch.bool, device=query.device).tril()
        seen = below if seen is None else seen & below
    step = max(1, SCORE_BYTES // (4 * batch * heads * size))
    parts = []
    for at in range(0, length, step):
        rows = seen if seen is None or seen.shape[-2] == 1 else seen[..., at : at + step, :]
        parts.append(_portable_slice(query[:, :, at : at + step], key, value, how, rows))
    return Part(
        torch.cat([part.out for part in parts], dim=2), torch.cat([part.lse for part in parts], dim=2)
    )


def _portable_slice(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, how: How, seen: torch.Tensor | None
) -> Part:
    scores = torch.matmul(query, key.transpose(-1, -2)).float() * how.scale
    if how.softcap is not None:
        scores = how.softcap * torch.tanh(scores / how.softcap)
    if seen is not None:
        scores = scores.masked_fill(~seen, NOTHING)
    lse = scores.logsumexp(dim=-1)
    weights = (scores - lse.unsqueeze(-1)).exp()
    weights = torch.where(lse.unsqueeze(-1) == NOTHING, 0.0, weights)
    return Part(torch.matmul(weights.to(value.dtype), value).float(), lse)


# Merging


class Sums:
    """Attention of (H, N, D) queries, block after block.

    Args:
        like: the queries; value_size: D of the values.
    """

    def __init__(self, like: torch.Tensor, value_size: int) -> None:
        heads, tokens, _ = like.shape
        self.out = torch.zeros((heads, tokens, value_size), dtype=torch.float32, device=like.device)
        self.lse = torch.full((heads, tokens), NOTHING, dtype=torch.float32, device=like.device)

    def first(self, places: slice, part: Part) -> None:
        """The first block of some tokens: nothing to merge with."""
        self.out[:, places], self.lse[:, places] = part.out[0], part.lse[0]

    def first_rows(self, rows: slice, part: Part) -> None:
        """As first, for a block of one query per row: (n, H, 1, D)."""
        self.out[:, rows] = part.out[:, :, 0].transpose(0, 1)
        self.lse[:, rows] = part.lse[:, :, 0].T

    def first_at(self, where: torch.Tensor, part: Part, chosen: torch.Tensor) -> None:
        """As first, for a batch of runs: where, (m,) tokens; chosen, (m,) their place in the (B x T) part."""
        self.out[:, where], self.lse[:, where] = _flat(part, chosen)

    def add(self, places: slice, part: Part) -> None:
        out, lse = self.out[:, places], self.lse[:, places]
        merged = torch.logaddexp(lse, part.lse[0])
        out.mul_(_share(lse, merged)).add_(part.out[0] * _share(part.lse[0], merged))
        lse.copy_(merged)

    def add_rows(self, rows: slice | torch.Tensor, part: Part) -> None:
        """As add, for a run of queries, or for (m,) that do not stand in one."""
        if isinstance(rows, slice):
            self.add(rows, part)
        else:
            self.add_at(rows, part, torch.arange(len(rows), device=rows.device))

    def add_at(self, where: torch.Tensor, part: Part, chosen: torch.Tensor) -> None:
        out, lse = _flat(part, chosen)
        had = self.lse[:, where]
        merged = torch.logaddexp(had, lse)
        self.out[:, where] = self.out[:, where] * _share(had, merged) + out * _share(lse, merged)
        self.lse[:, where] = merged

    def finish(self, how: How) -> torch.Tensor:
        """(H, N, D). Sinks take their share of the attention and give nothing."""
        if how.sinks is None:
            return self.out
        sinks = how.sinks.float().unsqueeze(1).expand_as(self.lse)
        return self.out * _share(self.lse, torch.logaddexp(self.lse, sinks))


def _share(lse: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    share = (lse - total).exp().unsqueeze(-1)
    return torch.where((lse == NOTHING).unsqueeze(-1), 0.0, share)


def _flat(part: Part, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, H, T, D) -> (H, m, D), (H, m) at the chosen places of B x T."""
    out = part.out.transpose(0, 1).flatten(1, 2)
    lse = part.lse.transpose(0, 1).flatten(1, 2)
    return out[:, chosen], lse[:, chosen]
