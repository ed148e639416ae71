"""The fold of a chunk under a decay that all keys share: one table of decays between steps masks the Gram matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class Kept:
    """What the way back needs: the streams as given, Γ, its reach, and the products R Wᵀ without Γ."""

    decay: Tensor
    between: Tensor
    reach: Tensor
    reads: list[Tensor]
    writes: list[Tensor]
    after: list[bool]
    raw: list[list[Tensor]]


def fold_decays_kept(
    decay: Tensor,
    reads: list[Tensor],
    writes: list[Tensor],
    after: list[bool],
    space: Workspace,
) -> tuple[tuple[list[list[Tensor]], list[Tensor], list[Tensor], Tensor], Kept]:
    """The same as `fold_decays`, but nothing is used up, and what `fold_decays_vjp` needs."""
    between = between_steps(decay, space)
    reach = between[:, :, 0] * decay[:, :1]
    raw = products(reads, writes, space)
    grams, back, onward = [], [], []
    for i, (row, r, late) in enumerate(zip(raw, reads, after, strict=True)):
        grams.append(
            [
                _mask(x, between, late, onto=space(f"masked {i} {j}", x.shape, x))
                for j, x in enumerate(row)
            ]
        )
        back.append(space(f"back {i}", r.shape, r))
        if late:
            torch.mul(r, reach[..., None], out=back[i])
        else:
            torch.mul(r[:, 1:], reach[:, :-1, None], out=back[i][:, 1:])
            back[i][:, 0] = r[:, 0]
    for j, w in enumerate(writes):
        onward.append(torch.mul(w, between[:, -1, :, None], out=space(f"onward {j}", w.shape, w)))
    kept = Kept(decay, between, reach, reads, writes, after, raw)
    return (grams, back, onward, reach[:, -1]), kept


def fold_decays_vjp(
    kept: Kept,
    of_grams: list[list[Tensor]],
    of_back: list[Tensor],
    of_onward: list[Tensor],
    of_total: Tensor,
    space: Workspace,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Gradients of the decays, the reads and the writes; those of the results are used up."""
    reads, writes = kept.reads, kept.writes
    decay, between, reach = (x.conj() for x in (kept.decay, kept.between, kept.reach))
    of_between = space("of between", between.shape, between).zero_()
    of_reach = torch.zeros_like(reach)
    of_reach[:, -1] = of_total
    for w, d in zip(writes, of_onward, strict=True):
        of_between[:, -1] += torch.linalg.vecdot(w, d)
        d.mul_(between[:, -1, :, None])
    for i, (r, d, late) in enumerate(zip(reads, of_back, kept.after, strict=True)):
        along = torch.linalg.vecdot(r, d)
        if late:
            of_reach += along
            d.mul_(reach[..., None])
        else:
            of_reach[:, :-1] += along[:, 1:]
            d[:, 1:].mul_(reach[:, :-1, None])
        for x, raw in zip(of_grams[i], kept.raw[i], strict=True):
            if late:
                of_between.addcmul_(x, raw.conj())
            else:
                of_between[:, :-1].addcmul_(x[:, 1:], raw[:, 1:].conj())
            _mask(x, between, late, onto=x)
    products_vjp(reads, writes, of_grams, of_back, of_onward)
    of_between[:, :, 0].addcmul_(of_reach, decay[:, :1])
    of_decay = between_vjp(decay, between, of_between)
    of_decay[:, 0] += (of_reach * between[:, :, 0]).sum(-1)
    return of_decay, of_back, of_onward


def products_vjp(
    reads: Sequence[Tensor],
    writes: Sequence[Tensor],
    of_products: list[list[Tensor]],
    of_reads: Sequence[Tensor],
    of_writes: Sequence[Tensor],
) -> None:
    """Add the gradients that the reads and the writes get from those of R Wᵀ."""
    for r, row, of_read in zip(reads, of_products, of_reads, strict=True):
        for w, x, of_write in zip(writes, row, of_writes, strict=True):
            of_read.baddbmm_(x, w.conj())
            of_write.baddbmm_(x.mT, r.conj())


class _FoldDecays(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, after: tuple[bool, ...], decay: Tensor, *streams: Tensor) -> Any:
        reads, writes = list(streams[: len(after)]), list(streams[len(after) :])
        folded, ctx.kept = fold_decays_kept(decay, reads, writes, list(after), Workspace(keeps=True))
        grams, back, onward, total = folded
        return (*(x for row in grams for x in row), *back, *onward, total.clone())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        rows, columns = len(ctx.kept.reads), len(ctx.kept.writes)
        own = [x.clone(memory_format=torch.contiguous_format) for x in cotangents]
        grams, ends = own[: rows * columns], own[rows * columns : -1]
        table = [grams[i * columns : (i + 1) * columns] for i in range(rows)]
        of_decay, of_reads, of_writes = fold_decays_vjp(
            ctx.kept, table, ends[:rows], ends[rows:], own[-1], Workspace(keeps=True)
        )
        return (None, of_decay, *of_reads, *of_writes)


def between_steps(decay: Tensor, space: Workspace | None) -> Tensor:
    """Γ_ij = a_i … a_{j+1} for j ≤ i, else 0 (M, C, C), by doubling: each product ends at one boundary."""
    count, chunk = decay.shape
    between = room(space, "between", (count, chunk, chunk), decay).zero_()
    between.diagonal(dim1=1, dim2=2).fill_(1)
    size = 1
    while size < chunk:
        column, row, block = _pieces(between, size)
        torch.mul((column * _first(decay, size))[..., None], row[..., None, :], out=block)
        size *= 2
    return between


def between_vjp(decay: Tensor, between: Tensor, of_between: Tensor) -> Tensor:
    """The gradient of the decays; `of_between` is used up. The first two are conjugated already."""
    of_decay, size = torch.zeros_like(decay), decay.shape[1] // 2
    while size:
        column, row, _ = _pieces(between, size)
        of_column, of_row, of_block = _pieces(of_between, size)
        first = _first(decay, size)
        of_carried = (of_block * row[..., None, :]).sum(-1)
        of_row += (of_block * (column * first)[..., None]).sum(-2)
        of_column.addcmul_(of_carried, first)
        _first(of_decay, size)[...] += (of_carried * column).sum(-1, keepdim=True)
        size //= 2
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
