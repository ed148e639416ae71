"""Attention on the CPU, a tile of queries at a time: forward, and its own backward, which makes weights again."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dsf.kernels.shapes import accumulator

from .geometry import Geometry
from .tiles import shape_of
from .weighing import Weighing

_SCORES = 1 << 24  # that are held at once, about


def forward(
    q: Tensor, k: Tensor, v: Tensor, geometry: Geometry, weighing: Weighing
) -> tuple[Tensor, Tensor]:
    """Outputs (B, Tq, H, V), and of each row its logarithm of the sum (softmax) or the inverse of its sum."""
    wide, lead = accumulator(q), q.shape[:3]
    o, row = q.new_zeros(*lead, v.shape[-1]), weighing.row(q, wide)
    for queries, keys, seen in geometry.blocks(_tile(q, k, geometry)):
        s = _scores(q, k, queries, keys, weighing)
        p, kept = _weights(s, seen, weighing)
        if kept is not None:
            row[:, queries] = kept.flatten(1, 2).mT
        found = torch.einsum("bhrij,bjhv->bihrv", p, _gathered(v, keys, wide))
        o[:, queries] = found.flatten(2, 3).to(o.dtype)
    return o, row


def backward(
    do: Tensor,
    o: Tensor,
    row: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    geometry: Geometry,
    weighing: Weighing,
) -> tuple[Tensor, Tensor, Tensor]:
    """dV = Pᵀ dO, dS = w' ∘ (dO Vᵀ - δ), dQ = s dS K, dK = s dSᵀ Q; sums in float32 or wider."""
    wide, heads = accumulator(q), k.shape[2]
    dq = torch.zeros_like(q)
    dk, dv = (torch.zeros_like(x, dtype=wide) for x in (k, v))
    delta = (do.to(wide) * o.to(wide)).sum(-1)
    for queries, keys, seen in geometry.blocks(_tile(q, k, geometry)):
        above = _split(do[:, queries].to(wide), heads)
        s = _scores(q, k, queries, keys, weighing)
        p, slope = _slopes(s, seen, weighing, _rows(row, queries, heads, weighing))
        dv.index_add_(1, keys, torch.einsum("bhrij,bihrv->bjhv", p, above))
        dp = torch.einsum("bihrv,bjhv->bhrij", above, _gathered(v, keys, wide))
        if weighing.normalised:
            dp = dp - _rows(delta, queries, heads, weighing)
        ds = slope * dp * weighing.scale
        found = torch.einsum("bhrij,bjhk->bihrk", ds, _gathered(k, keys, wide))
        dq[:, queries] = found.flatten(2, 3).to(q.dtype)
        own = _split(q[:, queries].to(wide), heads)
        dk.index_add_(1, keys, torch.einsum("bhrij,bihrk->bjhk", ds, own))
    return dq, dk.to(k.dtype), dv.to(v.dtype)


def _tile(q: Tensor, k: Tensor, geometry: Geometry) -> tuple[int, ...]:
    rows = max(16, min(256, _SCORES // max(1, q.shape[0] * q.shape[2] * k.shape[1])))
    return shape_of(1 << (rows.bit_length() - 1), geometry.rank)


def _split(x: Tensor, heads: int) -> Tensor:
    """Heads as (B, T, heads of keys, heads that share one, ·)."""
    return x.unflatten(2, (heads, -1))


def _gathered(x: Tensor, places: Tensor, dtype: torch.dtype) -> Tensor:
    return x[:, places].to(dtype)


def _scores(q: Tensor, k: Tensor, queries: Tensor, keys: Tensor, weighing: Weighing) -> Tensor:
    """s q·k + b as (B, Hk, heads that share, queries, keys)."""
    wide = accumulator(q)
    left, right = _split(q[:, queries].to(wide), k.shape[2]), k[:, keys].to(wide)
    return torch.einsum("bihrk,bjhk->bhrij", left, right) * weighing.scale + weighing.bias


def _weights(s: Tensor, seen: Tensor, weighing: Weighing) -> tuple[Tensor, Tensor | None]:
    """Weights of the visible pairs, and what the backward pass keeps of each row."""
    if weighing.weight == "softmax":
        s = s.masked_fill(~seen, -torch.inf)
        lowest = s.new_full((*s.shape[:-1], 1), -torch.inf)
        top = s.amax(-1, keepdim=True) if s.shape[-1] else lowest
        blind = torch.isneginf(top)  # rows that see nothing weigh nothing
        w = (s - top.masked_fill(blind, 0)).exp()
        sums = w.sum(-1, keepdim=True).masked_fill(blind, 1)
        return w / sums, (top + sums.log()).masked_fill(blind, torch.inf)[..., 0]
    # log(1 + e^s) as -log σ(-s): torch's own softplus is the identity above 20.
    w = (torch.sigmoid(s) if weighing.weight == "sigmoid" else -logsigmoid(-s)).masked_fill(
        ~seen, 0
    )
    if not weighing.normalised:
        return w, None
    sums = w.sum(-1, keepdim=True)
    inverse = torch.where(sums > 0, 1 / sums, 0.0)
    return w * inverse, inverse[..., 0]


def _rows(x: Tensor, queries: Tensor, heads: int, weighing: Weighing) -> Tensor:
    """A number per query and head beside its scores; 1 where rows keep none."""
    if not weighing.normalised:
        return x.new_ones(1)
    return _split(x[:, queries], heads).permute(0, 2, 3, 1)[..., None]


def _slopes(s: Tensor, seen: Tensor, weighing: Weighing, row: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the visible pairs and their derivatives by the score, the sum of a row held fast."""
    if weighing.weight == "softmax":
        p = (s.masked_fill(~seen, -torch.inf) - row).exp()
        return p, p
    up = torch.sigmoid(s).masked_fill(~seen, 0)
    if weighing.weight == "sigmoid":
        return up * row, up * torch.sigmoid(-s) * row
    return -logsigmoid(-s).masked_fill(~seen, 0) * row, up * row
