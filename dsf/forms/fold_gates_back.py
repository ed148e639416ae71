"""The way back of the fold of a chunk under diagonal gates, every product written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .fold_gates import Fold, KeptFold, Level, fold_gates_kept, halves, lower_block, scale
from .workspace import Workspace


def fold_gates_vjp(
    kept: KeptFold,
    of_grams: list[list[Tensor]],
    of_back: list[Tensor],
    of_onward: list[Tensor],
    of_total: Tensor,
    space: Workspace,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    r"""Gradients of the gates (M, C, K), reads and writes, from those of grams, back, onward and total.

    The last lie in rows of their own and are used up: `of_back` and `of_onward` become the gradients of
    the reads and writes, in their place. With x = Λ r of a right half's read and Λ the left half's total:
    r̄ = Λ* x̄ + Ḡ w*, Λ̄ = Σ r* x̄, and so with the sides changed.
    """
    gates, below = kept.gates.conj(), of_total
    for level in reversed(kept.levels):
        below = _of_level(level, below, of_grams, of_back, of_onward, space)
    of_gates = (below if kept.levels else below.clone()).view_as(kept.gates)
    for i, (x, late) in enumerate(zip(of_back, kept.after, strict=True)):
        if not late:
            continue
        of_gates.addcmul_(x, kept.reads[i].conj())
        x.mul_(gates)
        for j, w in enumerate(kept.writes):
            diagonal = of_grams[i][j].diagonal(dim1=1, dim2=2)[..., None]
            x.addcmul_(diagonal, w.conj())
            of_onward[j].addcmul_(diagonal, kept.reads[i].conj())
    return of_gates, of_back, of_onward


def _of_level(
    level: Level,
    of_total: Tensor,
    of_grams: list[list[Tensor]],
    of_back: list[Tensor],
    of_onward: list[Tensor],
    space: Workspace,
) -> Tensor:
    """The gradient of the totals of one size, in pairs (N, 2, K), and of its streams in their place."""
    size, totals = level.size, level.totals.conj()
    below = space(f"of total {size}", totals.shape, totals)
    torch.mul(of_total.view(-1, 1, of_total.shape[-1]), totals.flip(1), out=below)
    blocks = [
        [_block(g, size, f"{i} {j}", space) for j, g in enumerate(row)]
        for i, row in enumerate(of_grams)
    ]
    sides = (
        (0, 1, of_back, level.right, blocks, level.left),
        (
            1,
            0,
            of_onward,
            level.left,
            [[b.mT for b in c] for c in zip(*blocks, strict=True)],
            level.right,
        ),
    )
    for total, half, streams, rows, table, others in sides:
        for i, x in enumerate(streams):
            of_own = halves(x, size)[half]
            _share(of_own, rows[i].conj(), below[:, total], space)
            scale(of_own, totals[:, total], onto=of_own)
            for j, other in enumerate(others):
                _add_product(table[i][j], other.conj(), of_own, space)
    return below


def _block(gram: Tensor, size: int, name: str, space: Workspace) -> Tensor:
    """The blocks of one size in rows, (N, size, size)."""
    block = lower_block(gram, size)
    return space(f"of block {name}", block.shape, block).copy_(block).flatten(0, 1)


def _share(x: Tensor, rows: Tensor, onto: Tensor, space: Workspace) -> None:
    """Add Σ over the steps of rows ⊙ x."""
    if x.shape[1] <= 4:
        for row, own in zip(rows.unbind(1), x.unbind(1), strict=True):
            onto.addcmul_(row, own)
    else:
        product = torch.mul(x, rows, out=space("product", x.shape, x))
        onto.add_(product.sum(1))


def _add_product(block: Tensor, rows: Tensor, onto: Tensor, space: Workspace) -> None:
    """Add block (N, size, size) times rows (N, size, K)."""
    if block.shape[1] <= 2:
        for i, own in enumerate(onto.unbind(1)):
            for j, row in enumerate(rows.unbind(1)):
                own.addcmul_(block[:, i, j, None], row)
    else:
        onto.add_(torch.bmm(block, rows, out=space("product", onto.shape, onto)))


def differentiable(
    gates: Tensor, reads: list[Tensor], writes: list[Tensor], after: list[bool]
) -> Fold:
    """The same as `fold_gates`, in memory of its own and with a derivative."""
    return _table(_Fold.apply(after, gates, *reads, *writes), len(after))


class _Fold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, after: list[bool], gates: Tensor, *streams: Tensor) -> Any:
        reads, writes = list(streams[: len(after)]), list(streams[len(after) :])
        space = Workspace(keeps=True)
        (grams, back, onward, total), ctx.kept = fold_gates_kept(gates, reads, writes, after, space)
        return (*(gram for row in grams for gram in row), *back, *onward, total.clone())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        own = [x.clone(memory_format=torch.contiguous_format) for x in cotangents]
        found = _table(own, len(ctx.kept.after))
        of_gates, of_reads, of_writes = fold_gates_vjp(ctx.kept, *found, Workspace(keeps=False))
        return (None, of_gates, *of_reads, *of_writes)


def _table(flat: Sequence[Tensor], rows: int) -> Fold:
    columns = (len(flat) - 1 - rows) // (rows + 1)
    ends = list(flat[rows * columns : -1])
    grams = [list(flat[i * columns : (i + 1) * columns]) for i in range(rows)]
    return grams, ends[:rows], ends[rows:], flat[-1]
