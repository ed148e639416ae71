"""Attention as a matrix of weights: in float64 what a kernel must equal, in the type of the data the naive way."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from .exact import as_often_as_read


def banded(
    queries: int, keys: int, *, causal: bool, window: int | None, starts: Tensor | None
) -> Tensor:
    """Which keys every query sees (queries, keys); queries are the last of the keys."""
    place = torch.arange(queries) + keys - queries
    key = torch.arange(keys)
    apart = place[:, None] - key[None, :]
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if causal:
        seen &= apart >= 0
    if window is not None:
        seen &= apart.abs() < window
    if starts is not None:
        number = torch.bucketize(key, starts.cpu()[1:], right=True)
        seen &= number[place][:, None] == number[None, :]
    return seen


def _seen_on_axis(length: int, window: int, stride: int, dilation: int, causal: bool) -> Tensor:
    """One axis of generalized neighborhood attention, by its leaders (Hassani et al. 2025, section 3)."""
    seen = torch.zeros(length, length, dtype=torch.bool)
    for x in range(length):
        group, i = x % dilation, x // dilation
        size = len(range(group, length, dilation))
        first = i // stride * stride
        if causal:
            leader = min(first + stride - 1, size - 1)
            low, high = max(leader - window + 1, 0), i + 1
        else:
            leader = min(first + stride // 2, size - 1)
            left = window // 2
            right = left + window % 2 - 1
            low = min(max(leader, left), size - 1 - right) - left
            high = low + window
        seen[x, [group + dilation * j for j in range(low, high)]] = True
    return seen


def neighborhood(pattern: Any) -> Tensor:
    """Which tokens every token of a pattern's layout sees (tokens, tokens), row-major."""
    seen = torch.ones(1, 1, dtype=torch.bool)
    rows = zip(
        pattern.layout,
        pattern.window,
        pattern.stride,
        pattern.dilation,
        pattern.causal,
        strict=True,
    )
    for row in rows:
        axis = _seen_on_axis(*row)
        seen = (seen[:, None, :, None] & axis[None, :, None, :]).flatten(0, 1).flatten(1)
    assert len(seen) == prod(pattern.layout)
    return seen


def _weighed(scores: Tensor, seen: Tensor, weight: str) -> Tensor:
    """Weights of scores; a pair that is not seen has none, and a query that sees nothing gives zero."""
    if weight == "softmax":
        weights = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1)
        return torch.where(seen.any(-1, keepdim=True), weights, 0.0)
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "sigmoid": torch.sigmoid,
        "softplus": torch.nn.functional.softplus,
    }
    return torch.where(seen, kinds[weight](scores), 0.0)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor,
    *,
    weight: str,
    bias: float,
    scale: float,
    normalised: bool = False,
):
    """Σ_j w(s q·k_j + b) v_j over the keys that are seen; q, k, v (B, T, heads, channels)."""
    heads, seen = q.shape[2], seen.to(q.device)
    k, v = (as_often_as_read(x, heads) for x in (k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = q @ k.mT * scale
    scores = scores if weight == "softmax" else scores + bias
    weights = _weighed(scores, seen, weight)
    if normalised:
        weights = weights / weights.sum(-1, keepdim=True)
    return ((weights @ v).transpose(1, 2),)


def attention(
    q,
    k,
    v,
    *,
    weight="softmax",
    normalised=False,
    bias=0.0,
    causal=False,
    window=None,
    scale=1.0,
    starts=None,
):
    seen = banded(q.shape[1], k.shape[1], causal=causal, window=window, starts=starts)
    return attend(q, k, v, seen, weight=weight, bias=bias, scale=scale, normalised=normalised)


def neighborhood_attention(q, k, v, *, pattern, weight="softmax", scale=1.0):
    q, k, v = (x.flatten(1, pattern.rank) for x in (q, k, v))
    (y,) = attend(q, k, v, neighborhood(pattern), weight=weight, bias=0.0, scale=scale)
    return (y.unflatten(1, pattern.layout),)
