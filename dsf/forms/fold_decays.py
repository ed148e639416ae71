"""The fold of a chunk under a decay that all keys share: one table of decays between steps masks the Gram matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .workspace import Workspace


def fold_decays(
    decay: Tensor, reads: list[Tensor], writes: list[Tensor], space: Workspace
) -> tuple[list[list[Tensor]], list[Tensor], list[Tensor], Tensor]:
    r"""Grams [i][j] (M, C, C), reads and writes (M, C, K) carried to the ends, and the total (M).

    `decay` (M, C), `reads` and `writes` (M, C, K) each, C a power of two; the streams are used up. With
    Γ_ij = a_i … a_{j+1}: gram = (R Wᵀ) ⊙ Γ, the reads' factor is Γ's first column times a_1, the writes' its
    last row.
    """
    between = between_steps(decay, space)
    reach = between[:, :, 0] * decay[:, :1]
    grams = products(reads, writes, space)
    for product in (x for row in grams for x in row):
        product.mul_(between)
    for r in reads:
        r.mul_(reach[..., None])
    for w in writes:
        w.mul_(between[:, -1, :, None])
    return grams, reads, writes, reach[:, -1]


def products(
    reads: Sequence[Tensor], writes: Sequence[Tensor], space: Workspace
) -> list[list[Tensor]]:
    """R Wᵀ (M, C, C) of each read stream with each write stream."""
    return [
        [
            torch.bmm(r, w.mT, out=space(f"gram {i} {j}", (*r.shape[:2], w.shape[1]), r))
            for j, w in enumerate(writes)
        ]
        for i, r in enumerate(reads)
    ]


def between_steps(decay: Tensor, space: Workspace) -> Tensor:
    """Γ_ij = a_i … a_{j+1} for j ≤ i, else 0 (M, C, C), by doubling: each product ends at one boundary."""
    count, chunk = decay.shape

    def table() -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
        between = space("between", (count, chunk, chunk), decay)
        return between, [_pieces(between, 1 << level) for level in range(chunk.bit_length() - 1)]

    key = ("between", count, chunk, decay.dtype)
    between, levels = space.once(key, table)
    between.zero_().diagonal(dim1=1, dim2=2).fill_(1)
    for level, (column, row, block) in enumerate(levels):
        onto = (column * _first(decay, 1 << level))[..., None]
        torch.mul(onto, row[..., None, :], out=block)
    return between


def between_vjp(decay: Tensor, between: Tensor, of_between: Tensor, space: Workspace) -> Tensor:
    r"""The gradient of the decays; `of_between` is used up. The first two are conjugated already.

    Of a_t it is Σ_{i ≥ t > j} Γ_it dΓ_ij Γ_{t-1,j}, a product of matrices and a sum over i.
    """
    of_decay = torch.zeros_like(decay)
    if decay.shape[1] > 1:
        before = space("of between before", between.shape, between)
        torch.bmm(of_between.tril_(-1), between.mT, out=before)
        torch.sum(before[:, :, :-1].mul_(between[:, :, 1:]), 1, out=of_decay[:, 1:])
    return of_decay


def _pieces(table: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each pair of neighbours, views: the right's first column, the left's last row, and the block
    (M, B, size, size) between them."""
    count, chunk, _ = table.shape
    along, down = 2 * size * (chunk + 1), chunk
    shape, strides = (count, chunk // (2 * size), size), (chunk * chunk, along)
    at = table.storage_offset()
    column = table.as_strided(shape, (*strides, down), at + size * (chunk + 1))
    row = table.as_strided(shape, (*strides, 1), at + (size - 1) * chunk)
    block = table.as_strided((*shape, size), (*strides, down, 1), at + size * chunk)
    return column, row, block


def _first(decay: Tensor, size: int) -> Tensor:
    """The decay of each right half's first step, (M, B, 1), a view."""
    return decay[:, size :: 2 * size, None]
