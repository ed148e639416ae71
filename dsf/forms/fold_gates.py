"""The fold of a chunk under diagonal gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .fold_rooms import FoldRooms, Half, Level, in_pairs
from .workspace import Workspace

Fold = tuple[list[list[Tensor]], list[Tensor], list[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class KeptFold:
    """What the way back of a fold needs (`dsf.forms.fold_gates_back`)."""

    rooms: FoldRooms
    gates: Tensor
    reads: list[Tensor]
    writes: list[Tensor]
    after: list[bool]


def fold_gates(
    gates: Tensor,
    reads: list[Tensor],
    writes: list[Tensor],
    after: list[bool],
    space: Workspace,
    tag: str = "",
) -> Fold:
    r"""Grams [i][j] (M, C, C), reads and writes (M, C, K) carried to the ends, and the total (M, K).

    `gates` (M, C, K), `reads` and `writes` (M, C, K) each, of one type, C a power of two. Read i sees the
    memory after its step's update where `after[i]`, else before. Every pair meets at one boundary, so both
    its factors are products towards it (`dsf.forms.fold`). The streams are used up; what is found lies
    there and in the workspace, under `tag`.
    """
    places = tuple((x.data_ptr(), x.stride(), x.shape, x.dtype) for x in (*reads, *writes))
    key = "fold", tag, len(reads), places
    rooms = space.once(key, lambda: FoldRooms(reads, writes, keeps=False))
    _diagonals(reads, writes, after, rooms.grams)
    for r, late in zip(reads, after, strict=True):
        if late:
            r.mul_(gates)
    return rooms.grams, rooms.back, rooms.onward, _double(rooms, gates)


def fold_gates_kept(
    gates: Tensor,
    reads: list[Tensor],
    writes: list[Tensor],
    after: list[bool],
    space: Workspace,
    tag: str = "",
) -> tuple[Fold, KeptFold]:
    """The same, with all that `fold_gates_vjp` needs; the inputs stay as they are, and must until then."""

    def make() -> FoldRooms:
        streams = gates.new_empty((len(reads) + len(writes), *gates.shape)).unbind()
        return FoldRooms(list(streams[: len(reads)]), list(streams[len(reads) :]), keeps=True)

    key = "kept fold", tag, len(reads), len(writes), gates.shape, gates.dtype, gates.device
    rooms = space.once(key, make)
    _diagonals(reads, writes, after, rooms.grams)
    for r, late, onto in zip(reads, after, rooms.back, strict=True):
        if late:
            torch.mul(r, gates, out=onto)
        else:
            onto.copy_(r)
    for w, onto in zip(writes, rooms.onward, strict=True):
        onto.copy_(w)
    results = rooms.grams, rooms.back, rooms.onward, _double(rooms, gates)
    return results, KeptFold(rooms, gates, reads, writes, after)


def _diagonals(
    reads: Sequence[Tensor],
    writes: Sequence[Tensor],
    after: Sequence[bool],
    grams: list[list[Tensor]],
) -> None:
    """Gram matrices of single steps: the diagonal where a read sees its own step's write, else zero."""
    for r, row, late in zip(reads, grams, after, strict=True):
        for w, gram in zip(writes, row, strict=True):
            gram.zero_()
            if late:
                gram.diagonal(dim1=1, dim2=2).copy_(torch.linalg.vecdot(r.conj(), w))


def _double(rooms: FoldRooms, gates: Tensor) -> Tensor:
    """Fold pairs of neighbours until one block is left, in place; its total (M, K)."""
    total = gates.flatten(0, 1)
    for level in rooms.levels:
        pair = in_pairs(total)
        for half, _ in level.carried:
            if half.moves:
                half.met.copy_(half.place)
        for r, row in zip(level.right, level.lower, strict=True):
            for w, lower in zip(level.left, row, strict=True):
                _cross(r, w, level)
                lower.copy_(level.blocks)
        for half, by in level.carried:
            _carry(half, pair[by], level.by_row)
        total = torch.mul(pair[1], pair[0], out=level.total)
    return total


def _cross(right: Half, left: Half, level: Level) -> None:
    """right leftᵀ, in the level's block."""
    if not level.by_row:
        torch.bmm(right.met, left.met.mT, out=level.block)
        return
    for (_, r), cells in zip(right.rows, level.cells, strict=True):
        for (_, w), cell in zip(left.rows, cells, strict=True):
            torch.linalg.vecdot(r.conj(), w, out=cell[:, 0])


def _carry(half: Half, total: Tensor, by_row: bool) -> None:
    """The halves that met, times the totals (S, N, K) of the blocks that they cross."""
    if by_row:
        for onto, row in half.rows:
            torch.mul(row, total, out=onto)
    else:
        torch.mul(half.met, total[:, :, None], out=half.place)
