"""The fold of a chunk under diagonal gates, in place, with its own derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .workspace import Workspace, room

_TINY = 2  # blocks up to this size are summed: a batch of tiny matrix products costs more


def fold_gates(
    gates: Tensor,
    reads: list[Tensor],
    writes: list[Tensor],
    after: list[bool],
    space: Workspace | None = None,
) -> tuple[list[list[Tensor]], list[Tensor], list[Tensor], Tensor]:
    r"""Grams [i][j] (M, C, C), reads and writes (M, C, K) carried to the ends, and the total (M, K).

    `gates` (M, C, K), `reads` and `writes` (M, C, K) each, C a power of two. Read i sees the memory
    after its step's update where `after[i]`, else before. Every pair meets at one boundary, so both its
    factors are products towards it (`dsf.forms.fold`). With a workspace the streams are used up and
    nothing can be differentiated.
    """
    if space is not None:
        grams = _diagonals(reads, writes, after, space)
        for r, late in zip(reads, after, strict=True):
            if late:
                r.mul_(gates)
        total = _double(gates, grams, reads, writes, None)
        return grams, reads, writes, total
    found = _FoldGates.apply(tuple(after), gates, *reads, *writes)
    rows, columns = len(reads), len(writes)
    flat, ends = found[: rows * columns], found[rows * columns : -1]
    table = [list(flat[i * columns : (i + 1) * columns]) for i in range(rows)]
    return table, list(ends[:rows]), list(ends[rows:]), found[-1]


def _diagonals(
    reads: Sequence[Tensor],
    writes: Sequence[Tensor],
    after: Sequence[bool],
    space: Workspace | None,
) -> list[list[Tensor]]:
    """Gram matrices of single steps: the diagonal where a read sees its own step's write, else zero."""
    count, chunk, _ = writes[0].shape
    grams = []
    for i, (r, late) in enumerate(zip(reads, after, strict=True)):
        grams.append([])
        for j, w in enumerate(writes):
            gram = room(space, f"gram {i} {j}", (count, chunk, chunk), r).zero_()
            if late:
                gram.diagonal(dim1=1, dim2=2).copy_(torch.linalg.vecdot(r.conj(), w))
            grams[-1].append(gram)
    return grams


_Levels = list[tuple[Tensor, list[Tensor], list[Tensor]]]


def _double(
    gates: Tensor,
    grams: list[list[Tensor]],
    back: list[Tensor],
    onward: list[Tensor],
    levels: _Levels | None,
) -> Tensor:
    """Fold pairs of neighbours until one block is left, in place; the total (M, K).

    `levels` collects what the way back needs of each size.
    """
    total, size = gates, 1
    while size < gates.shape[1]:
        left_total, right_total = _halves(total, 1)
        right = [_halves(r, size)[1] for r in back]
        left = [_halves(w, size)[0] for w in onward]
        for row, r in zip(grams, right, strict=True):
            for gram, w in zip(row, left, strict=True):
                _lower_block(gram, size).copy_(_cross(r, w))
        if levels is not None:
            levels.append((total, [r.clone() for r in right], [w.clone() for w in left]))
        for r in right:
            r.mul_(left_total)
        for w in left:
            w.mul_(right_total)
        total = (right_total * left_total)[:, :, 0]
        size *= 2
    return total[:, 0]


class _FoldGates(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, after: tuple[bool, ...], gates: Tensor, *streams: Tensor) -> Any:
        reads, writes = streams[: len(after)], streams[len(after) :]
        grams = _diagonals(reads, writes, after, None)
        back = [r * gates if late else r.clone() for r, late in zip(reads, after, strict=True)]
        onward, levels = [w.clone() for w in writes], []
        total = _double(gates, grams, back, onward, levels)
        saved = [x for t, right, left in levels for x in (t, *right, *left)]
        ctx.save_for_backward(gates, *streams, *saved)
        ctx.after = after
        return (*(g for row in grams for g in row), *back, *onward, total.clone())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        after = ctx.after
        gates, *rest = ctx.saved_tensors
        rows = len(after)
        columns = (len(cotangents) - 1 - rows) // (rows + 1)
        reads, writes, saved = rest[:rows], rest[rows : rows + columns], rest[rows + columns :]
        grams = [cotangents[i * columns : (i + 1) * columns] for i in range(rows)]
        # In rows: a cotangent may lie in columns, on which products in place are slow.
        ends = [
            x.clone(memory_format=torch.contiguous_format) for x in cotangents[rows * columns : -1]
        ]
        d_back, d_onward, d_total = ends[:rows], ends[rows:], cotangents[-1][:, None]
        size, step = gates.shape[1], 1 + rows + columns
        for start in range(len(saved) - step, -1, -step):
            size //= 2
            total = saved[start].conj()
            right = [x.conj() for x in saved[start + 1 : start + 1 + rows]]
            left = [x.conj() for x in saved[start + 1 + rows : start + step]]
            left_total, right_total = _halves(total, 1)
            d_left, d_right = d_total[:, :, None] * right_total, d_total[:, :, None] * left_total
            blocks = [[_lower_block(g, size).contiguous() for g in row] for row in grams]
            for i, x in enumerate(d_back):
                half = _halves(x, size)[1]
                d_left = d_left + _share(half * right[i], left_total)
                half.mul_(left_total)
                for j, w in enumerate(left):
                    half.add_(_product(blocks[i][j], w))
            for j, x in enumerate(d_onward):
                half = _halves(x, size)[0]
                d_right = d_right + _share(half * left[j], right_total)
                half.mul_(right_total)
                for i, r in enumerate(right):
                    half.add_(_product(blocks[i][j].mT, r))
            d_total = torch.cat([d_left, d_right], 2).flatten(1, 2)
        d_gates, d_reads = d_total, []
        for i, (x, late) in enumerate(zip(d_back, after, strict=True)):
            if late:
                d_gates = d_gates + _share(x * reads[i].conj(), gates)
                x = x * gates.conj()
            d_reads.append(x)
        for i in (i for i, late in enumerate(after) if late):
            for j in range(columns):
                diagonal = grams[i][j].diagonal(dim1=1, dim2=2)[..., None]
                d_reads[i] = d_reads[i] + diagonal * writes[j].conj()
                d_onward[j] = d_onward[j] + diagonal * reads[i].conj()
        return (None, d_gates, *d_reads, *d_onward)


def _halves(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The left and right halves (M, B, size, K) of the blocks of 2 · size steps, as views."""
    left, right = x.unflatten(1, (-1, 2, size)).unbind(2)
    return left, right


def _lower_block(gram: Tensor, size: int) -> Tensor:
    """The blocks (M, B, size, size) that pair a right half's reads with its left half's writes, a view."""
    blocks = gram.shape[1] // (2 * size)
    pairs = gram.view(gram.shape[0], blocks, 2 * size, blocks, 2 * size)
    return pairs.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)[:, :, size:, :size]


def _cross(right: Tensor, left: Tensor) -> Tensor:
    if right.shape[-2] <= _TINY:
        return (right[:, :, :, None] * left[:, :, None]).sum(-1)
    return right @ left.mT


def _product(block: Tensor, stream: Tensor) -> Tensor:
    """block (…, s, s) times stream (…, s, K)."""
    if block.shape[-1] <= _TINY:
        return (block[..., None] * stream[..., None, :, :]).sum(-2)
    return block @ stream


def _share(x: Tensor, gates: Tensor) -> Tensor:
    """Gradient of the gates from the gradient of what they multiplied, summed where they are shared."""
    if x.ndim == 4:  # (M, B, size, K) from gates (M, B, 1, K)
        x = x.sum(2, keepdim=True)
    return x if gates.shape[-1] == x.shape[-1] else x.sum(-1, keepdim=True)
