"""From what callers give to rows: every token as n micro-steps, n a power of two, and shapes that fit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels.contract import power_of_two
from dsf.kernels.shapes import accumulator

MOST = 16  # rows of a token: a chunk holds whole tokens


def checked(
    q: Tensor,
    streams: Mapping[str, Tensor],
    g: Tensor,
    state: Tensor | None,
    sequences: int,
) -> Tensor:
    """The initial state, zero where it is not given, once q, streams (B, T, h, R, ·) and gates fit.

    Every stream but `v` has as many channels as `q`. Raises `InvalidInput`.
    """
    B, T, _, K = q.shape
    if g.ndim not in (3, 4) or g.shape[:2] != (B, T) or (g.ndim == 4 and g.shape[3] != K):
        raise InvalidInput(
            f"gates and strengths are per head, ({B}, {T}, H), or `g` per key, ({B}, {T}, H, {K}); "
            f"got {tuple(g.shape)}"
        )
    H = g.shape[2]
    for name, x in ({"q": q[..., None, :]} | dict(streams)).items():
        if x.ndim != 5 or x.shape[:2] != (B, T):
            raise InvalidInput(
                f"`{name}` must be ({B}, {T}, heads, channels), or ({B}, {T}, heads, R, channels) "
                f"for several rows per token; got {tuple(x.squeeze(3).shape)}"
            )
        if not x.shape[2] or H % x.shape[2]:
            raise InvalidInput(f"the {H} heads of gates cannot share the {x.shape[2]} of `{name}`")
        if name != "v" and x.shape[4] != K:
            raise InvalidInput(f"`{name}` has {x.shape[4]} channels, `q` has {K}; they must agree")
    shape = (sequences, H, K, streams["v"].shape[4])
    if state is None:
        return torch.zeros(shape, device=q.device, dtype=accumulator(q))
    if state.shape != shape:
        raise InvalidInput(f"the state must be {shape}: (N, H, K, V); got {tuple(state.shape)}")
    return state.to(accumulator(q))


def rows_for(count: int) -> int:
    """The rows that a token of so many micro-steps has; raises `InvalidInput` beyond 16."""
    if not 1 <= count <= MOST:
        raise InvalidInput(
            f"a token has 1 to {MOST} rows (writes, and erases that act together with them); got {count}"
        )
    return power_of_two(count)


def in_rows(x: Tensor, rows: int) -> Tensor:
    """(B, T, h, R, ·) as (B, T rows, h, ·); rows beyond R are zero, and do nothing."""
    if rows > x.shape[3]:
        more = x.new_zeros(*x.shape[:3], rows - x.shape[3], x.shape[4])
        x = torch.cat([x, more], 3)
    return x.transpose(2, 3).flatten(1, 2)
