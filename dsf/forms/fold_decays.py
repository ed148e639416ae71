"""The fold of a chunk under a decay that all keys share: one table of decays between steps masks the Gram matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .workspace import Workspace, room


def fold_decays(
    decay: Tensor,
    reads: list[Tensor],
    writes: list[Tensor],
    after: list[bool],
    space: Workspace | None = None,
) -> tuple[list[list[Tensor]], list[Tensor], list[Tensor], Tensor]:
    r"""Grams [i][j] (M, C, C), reads and writes (M, C, K) carried to the ends, and the total (M).

    `decay` (M, C), `reads` and `writes` (M, C, K) each, C a power of two. Read i sees the memory after
    its step's update where `after[i]`, else before. With Γ_ij = a_i … a_{j+1}: gram = (R Wᵀ) ⊙ Γ, the
    reads' factor is Γ's first column times a_1, the writes' its last row. With a workspace the streams
    are used up and nothing can be differentiated.
    """
    if space is not None:
        return _in_place(decay, reads, writes, after, space)
    found = _FoldDecays.apply(tuple(after), decay, *reads, *writes)
    rows, columns = len(reads), len(writes)
    grams, ends = found[: rows * columns], found[rows * columns : -1]
    table = [list(grams[i * columns : (i + 1) * columns]) for i in range(rows)]
    return table, list(ends[:rows]), list(ends[rows:]), found[-1]


def products(
    reads: Sequence[Tensor], writes: Sequence[Tensor], space: Workspace | None
) -> list[list[Tensor]]:
    """R Wᵀ (M, C, C) of each read stream with each write stream."""
    if space is None:
        return [[torch.bmm(r, w.mT) for w in writes] for r in reads]
    return [
        [
            torch.bmm(r, w.mT, out=space(f"gram {i} {j}", (*r.shape[:2], w.shape[1]), r))
            for j, w in enumerate(writes)
        ]
        for i, r in enumerate(reads)
    ]


def _in_place(
    decay: Tensor, reads: list[Tensor], writes: list[Tensor], after: list[bool], space: Workspace
) -> tuple[list[list[Tensor]], list[Tensor], list[Tensor], Tensor]:
    between = between_steps(decay, space)
    reach = between[:, :, 0] * decay[:, :1]
    grams = products(reads, writes, space)
    for row, r, late in zip(grams, reads, after, strict=True):
        for product in row:
            _mask(product, between, late, onto=product)
        if late:
            r.mul_(reach[..., None])
        else:
            r[:, 1:].mul_(reach[:, :-1, None])
    for w in writes:
        w.mul_(between[:, -1, :, None])
    return grams, reads, writes, reach[:, -1]


class _FoldDecays(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, after: tuple[bool, ...], decay: Tensor, *streams: Tensor) -> Any:
        reads, writes = streams[: len(after)], streams[len(after) :]
        between = between_steps(decay, None)
        reach = between[:, :, 0] * decay[:, :1]
        onward = between[:, -1, :, None]
        table = products(reads, writes, None)
        grams = [
            _mask(product, between, late, onto=torch.empty_like(product))
            for row, late in zip(table, after, strict=True)
            for product in row
        ]
        back = [
            r * (reach if late else _before(reach, 1))[..., None]
            for r, late in zip(reads, after, strict=True)
        ]
        ctx.after = after
        raw = [product for row in table for product in row]
        ctx.save_for_backward(decay, between, reach, *streams, *raw)
        return (*grams, *back, *(w * onward for w in writes), reach[:, -1].clone())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        after = ctx.after
        decay, between, reach, *rest = (x.conj() for x in ctx.saved_tensors)
        rows = len(after)
        columns = (len(cotangents) - 1 - rows) // (rows + 1)
        reads, writes, raw = rest[:rows], rest[rows : rows + columns], rest[rows + columns :]
        of_grams, of_back = cotangents[: rows * columns], cotangents[rows * columns :][:rows]
        of_onward = cotangents[rows * columns + rows : -1]
        onward = between[:, -1, :, None]
        of_between, of_reach = torch.zeros_like(between), torch.zeros_like(reach)
        of_reach[:, -1] = cotangents[-1]
        of_reads, of_writes = [], [(d * onward).contiguous() for d in of_onward]
        for i, (r, late, d) in enumerate(zip(reads, after, of_back, strict=True)):
            own = (d * (reach if late else _before(reach, 1))[..., None]).contiguous()
            _add_late(of_reach, _dot(d, r), late)
            for j, w in enumerate(writes):
                of_gram = of_grams[i * columns + j]
                _add_late(of_between, of_gram * raw[i * columns + j], late)
                of_product = _mask(of_gram, between, late, onto=torch.empty_like(of_gram))
                own.baddbmm_(of_product, w)
                of_writes[j].baddbmm_(of_product.mT, r)
            of_reads.append(own)
        for d, w in zip(of_onward, writes, strict=True):
            of_between[:, -1] += _dot(d, w)
        of_between[:, :, 0].addcmul_(of_reach, decay[:, :1])
        of_decay = between_vjp(decay, between, of_between)
        of_decay[:, 0] += (of_reach * between[:, :, 0]).sum(-1)
        return (None, of_decay, *of_reads, *of_writes)


def between_steps(decay: Tensor, space: Workspace | None) -> Tensor:
    """Γ_ij = a_i … a_{j+1} for j ≤ i, else 0 (M, C, C), by doubling: each product ends at one boundary."""
    count, chunk = decay.shape

    def table() -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
        between = room(space, "between", (count, chunk, chunk), decay)
        return between, [_pieces(between, 1 << level) for level in range(chunk.bit_length() - 1)]

    key = ("between", count, chunk, decay.dtype)
    between, levels = table() if space is None else space.once(key, table)
    between.zero_().diagonal(dim1=1, dim2=2).fill_(1)
    for level, (column, row, block) in enumerate(levels):
        onto = (column * _first(decay, 1 << level))[..., None]
        torch.mul(onto, row[..., None, :], out=block)
    return between


def between_vjp(
    decay: Tensor, between: Tensor, of_between: Tensor, space: Workspace | None = None
) -> Tensor:
    r"""The gradient of the decays; `of_between` is used up. The first two are conjugated already.

    Of a_t it is Σ_{i ≥ t > j} Γ_it dΓ_ij Γ_{t-1,j}, a product of matrices and a sum over i.
    """
    of_decay = torch.zeros_like(decay)
    if decay.shape[1] > 1:
        before = room(space, "of between before", between.shape, between)
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


def _mask(product: Tensor, between: Tensor, late: bool, onto: Tensor) -> Tensor:
    """product ⊙ Γ, or with the rows of Γ one step later where the read is before the update."""
    if late:
        return torch.mul(product, between, out=onto)
    torch.mul(product[:, 1:], between[:, :-1], out=onto[:, 1:])
    onto[:, 0] = 0
    return onto


def _before(x: Tensor, first: float) -> Tensor:
    """x one step later: `first`, x_1, …, x_{C-1}."""
    return torch.cat([torch.full_like(x[:, :1], first), x[:, :-1]], 1)


def _add_late(onto: Tensor, x: Tensor, late: bool) -> None:
    """The way back of a row that was read as it is (`late`) or one step later."""
    if late:
        onto += x
    else:
        onto[:, :-1] += x[:, 1:]


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Σ_k x_k y_k, without conjugation (torch's vecdot conjugates the first)."""
    return torch.linalg.vecdot(y.conj(), x)
