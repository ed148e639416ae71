"""The way back of the fold of a chunk under diagonal gates, every product written out."""

from __future__ import annotations

import torch
from torch import Tensor

from .fold_gates import KeptFold
from .fold_rooms import Half, Level, in_pairs


def fold_gates_vjp(
    kept: KeptFold,
    of_grams: list[list[Tensor]],
    of_back: list[Tensor],
    of_onward: list[Tensor],
    of_total: Tensor,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    r"""Gradients of the gates (M, C, K), reads and writes, from those of grams, back, onward and total.

    The gradients of grams, back and onward are copied over the fold's results, unless they lie there already,
    and what is found lies in the workspace too. Where a read r of a right block became x = Λ r, with Λ the
    total of the left block, r̄ = Λ* x̄ + Ḡ w* and Λ̄ = Σ r* x̄ + Λ̄' Λ_R*; and so with the sides changed.
    """
    rooms, gates = kept.rooms, kept.gates.conj()
    pairs = zip(
        (*(x for row in rooms.grams for x in row), *rooms.back, *rooms.onward),
        (*(x for row in of_grams for x in row), *of_back, *of_onward),
        strict=True,
    )
    for x, given in pairs:
        if x is not given:
            x.copy_(given)
    below = of_total
    totals = [gates.flatten(0, 1), *(level.total.conj() for level in rooms.levels[:-1])]
    for level, total in reversed(list(zip(rooms.levels, totals, strict=False))):
        below = _of_level(level, below, in_pairs(total))
    of_gates = (below if rooms.levels else below.clone()).view(gates.shape)
    _of_steps(kept, of_gates)
    return of_gates, rooms.back, rooms.onward


def _of_steps(kept: KeptFold, of_gates: Tensor) -> None:
    """What single steps add: a read that is late was carried by its own step's gate, and saw its write."""
    rooms, gates = kept.rooms, kept.gates.conj()
    for r, late, of_r, row in zip(kept.reads, kept.after, rooms.back, rooms.grams, strict=True):
        if not late:
            continue
        of_gates.addcmul_(of_r, r.conj())
        of_r.mul_(gates)
        for w, of_w, of_gram in zip(kept.writes, rooms.onward, row, strict=True):
            diagonal = of_gram.diagonal(dim1=1, dim2=2)[..., None]
            of_r.addcmul_(diagonal, w.conj())
            of_w.addcmul_(diagonal, r.conj())


def _of_level(level: Level, of_total: Tensor, pair: Tensor) -> Tensor:
    """The gradient of the totals (2 N, K) of one size, and of its streams in their place."""
    torch.mul(of_total, pair[1], out=level.of_pair[0])
    torch.mul(of_total, pair[0], out=level.of_pair[1])
    for half, by in level.carried:
        if level.by_row:
            _uncarry_rows(half, pair[by], level.of_pair[by])
        else:
            product = torch.mul(half.place, half.met.conj(), out=half.product)
            level.of_pair[by].add_(product.sum(-2))
    for i, right in enumerate(level.right):
        for j, left in enumerate(level.left):
            level.blocks.copy_(level.lower[i][j])
            if level.by_row:
                _uncross_rows(right, left, level.cells)
            else:
                _product(level.block, left.met.conj(), right.product, first=j == 0)
                _product(level.block.mT, right.met.conj(), left.product, first=i == 0)
    if not level.by_row:
        for half, by in level.carried:
            total = pair[by][:, :, None]
            if level.right:
                torch.addcmul(half.product, half.place, total, out=half.place)
            else:
                half.place.mul_(total)
    return level.of_totals


def _uncarry_rows(half: Half, total: Tensor, of_total: Tensor) -> None:
    """From the gradient of carried rows that of the rows, in its place, and more of that of the total."""
    for x, row in half.rows:
        of_total.addcmul_(x, row.conj())
        x.mul_(total)


def _uncross_rows(right: Half, left: Half, cells: list[tuple[Tensor, ...]]) -> None:
    """More of the gradients of the rows that met, from that of their products."""
    for (of_r, r), own in zip(right.rows, cells, strict=True):
        for (of_w, w), cell in zip(left.rows, own, strict=True):
            of_r.addcmul_(cell, w.conj())
            of_w.addcmul_(cell, r.conj())


def _product(x: Tensor, y: Tensor, onto: Tensor, first: bool) -> None:
    """x y into `onto`, the first or one more."""
    if first:
        torch.bmm(x, y, out=onto)
    else:
        onto.baddbmm_(x, y)
