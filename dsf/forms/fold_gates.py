"""The fold of a chunk under diagonal gates, in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .workspace import Workspace

Fold = tuple[list[list[Tensor]], list[Tensor], list[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Level:
    """N pairs of neighbouring blocks of one size, before they are folded.

    `totals` (N, 2, K) of the left and the right block, and in rows (N, size, K) the right blocks' reads
    and the left blocks' writes.
    """

    size: int
    totals: Tensor
    right: list[Tensor]
    left: list[Tensor]


@dataclass(frozen=True, eq=False)
class KeptFold:
    """What the way back of a fold needs (`dsf.forms.fold_gates_back`)."""

    gates: Tensor
    reads: list[Tensor]
    writes: list[Tensor]
    after: list[bool]
    levels: list[Level]


def fold_gates(
    gates: Tensor, reads: list[Tensor], writes: list[Tensor], after: list[bool], space: Workspace
) -> Fold:
    r"""Grams [i][j] (M, C, C), reads and writes (M, C, K) carried to the ends, and the total (M, K).

    `gates` (M, C, K), `reads` and `writes` (M, C, K) each, C a power of two. Read i sees the memory
    after its step's update where `after[i]`, else before. Every pair meets at one boundary, so both its
    factors are products towards it (`dsf.forms.fold`). The streams are used up.
    """
    grams = _diagonals(reads, writes, after, space)
    for r, late in zip(reads, after, strict=True):
        if late:
            r.mul_(gates)
    return grams, reads, writes, _double(gates, grams, reads, writes, space, None)


def fold_gates_kept(
    gates: Tensor, reads: list[Tensor], writes: list[Tensor], after: list[bool], space: Workspace
) -> tuple[Fold, KeptFold]:
    """The same with the inputs left as they are, and what `fold_gates_vjp` needs, all in the workspace."""
    grams = _diagonals(reads, writes, after, space)
    back, onward = [], []
    for i, (r, late) in enumerate(zip(reads, after, strict=True)):
        own = space(f"back {i}", r.shape, r)
        back.append(torch.mul(r, gates, out=own) if late else own.copy_(r))
    for j, w in enumerate(writes):
        onward.append(space(f"onward {j}", w.shape, w).copy_(w))
    levels: list[Level] = []
    total = _double(gates, grams, back, onward, space, levels)
    return (grams, back, onward, total), KeptFold(gates, reads, writes, after, levels)


def _diagonals(
    reads: Sequence[Tensor], writes: Sequence[Tensor], after: Sequence[bool], space: Workspace
) -> list[list[Tensor]]:
    """Gram matrices of single steps: the diagonal where a read sees its own step's write, else zero."""
    count, chunk, _ = writes[0].shape
    grams = []
    for i, (r, late) in enumerate(zip(reads, after, strict=True)):
        grams.append([])
        for j, w in enumerate(writes):
            gram = space(f"gram {i} {j}", (count, chunk, chunk), r).zero_()
            if late:
                gram.diagonal(dim1=1, dim2=2).copy_(torch.linalg.vecdot(r.conj(), w))
            grams[-1].append(gram)
    return grams


def _double(
    gates: Tensor,
    grams: list[list[Tensor]],
    back: list[Tensor],
    onward: list[Tensor],
    space: Workspace,
    levels: list[Level] | None,
) -> Tensor:
    """Fold pairs of neighbours until one block is left, in place; the total (M, K).

    `levels` collects what the way back needs of each size.
    """
    count, chunk, _ = gates.shape
    total, size = gates.flatten(0, 1), 1
    while size < chunk:
        pairs = total.unflatten(0, (-1, 2))
        left_total, right_total = pairs.unbind(1)
        right, left = [halves(r, size)[1] for r in back], [halves(w, size)[0] for w in onward]
        level = _met(size, pairs, right, left, space, levels is not None)
        if levels is not None:
            levels.append(level)
        for row, r in zip(grams, level.right, strict=True):
            for gram, w in zip(row, level.left, strict=True):
                lower_block(gram, size).copy_(_cross(r, w, space).view(count, -1, size, size))
        for x, kept in zip(right, level.right, strict=True):
            scale(kept, left_total, onto=x)
        for x, kept in zip(left, level.left, strict=True):
            scale(kept, right_total, onto=x)
        own = space(f"total {size}", left_total.shape, gates)
        total = torch.mul(right_total, left_total, out=own)
        size *= 2
    return total


def _met(
    size: int,
    totals: Tensor,
    right: list[Tensor],
    left: list[Tensor],
    space: Workspace,
    keeps: bool,
) -> Level:
    """The halves that meet at a boundary, in rows of their own: they are about to change."""
    tag = f" {size}" if keeps else ""
    return Level(
        size,
        totals,
        [space(f"right {i}{tag}", x.shape, x).copy_(x) for i, x in enumerate(right)],
        [space(f"left {j}{tag}", x.shape, x).copy_(x) for j, x in enumerate(left)],
    )


def halves(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The left and right halves (N, size, K) of the blocks of 2 · size steps, as views."""
    left, right = x.view(-1, 2, size, x.shape[-1]).unbind(1)
    return left, right


def lower_block(gram: Tensor, size: int) -> Tensor:
    """The blocks (M, B, size, size) that pair a right half's reads with its left half's writes, a view."""
    count, chunk, _ = gram.shape
    row, column = gram.stride(1), gram.stride(2)
    shape = (count, chunk // (2 * size), size, size)
    strides = (gram.stride(0), 2 * size * (row + column), row, column)
    return gram.as_strided(shape, strides, gram.storage_offset() + size * row)


def scale(x: Tensor, total: Tensor, onto: Tensor) -> None:
    """Rows (N, size, K) times a total (N, K)."""
    if x.shape[1] > 2:
        torch.mul(x, total[:, None], out=onto)
    else:  # row by row: torch is slow on a middle axis that short
        for row, own in zip(x.unbind(1), onto.unbind(1), strict=True):
            torch.mul(row, total, out=own)


def _cross(right: Tensor, left: Tensor, space: Workspace) -> Tensor:
    """right leftᵀ, (N, size, size)."""
    count, size, _ = right.shape
    onto = space("block", (count, size, size), right)
    if size > 2:
        return torch.bmm(right, left.mT, out=onto)
    for i, r in enumerate(right.conj().unbind(1)):
        for j, w in enumerate(left.unbind(1)):
            onto[:, i, j] = torch.linalg.vecdot(r, w)
    return onto
