"""The fold of chunks with several reads and writes per step, as one table, and the way back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.structure import Diagonal, Identity, Scalar

from .fold_decays import between_steps, between_vjp
from .fold_gates import fold_gates, fold_gates_kept
from .fold_gates_back import fold_gates_vjp
from .workspace import Workspace

Gradients = tuple[Tensor | None, list[Tensor], list[Tensor]]


@dataclass(frozen=True, eq=False)
class Rows:
    """Vectors of M chunks, one stream after another: reads (M, y C, K) and writes (M, w C, K).

    The first `late` read streams see the memory after the update of their step, the others before it.
    """

    reads: Tensor
    writes: Tensor
    chunk: int
    late: int

    def products(self, space: Workspace) -> Tensor:
        """R Wᵀ (M, y C, w C)."""
        r, w = self.reads, self.writes
        return torch.bmm(r, w.mT, out=space("products", (len(r), r.shape[1], w.shape[1]), r))

    def products_vjp(self, of_products: Tensor, of_reads: Tensor, of_writes: Tensor) -> None:
        """Add the gradients that R and W get from those of R Wᵀ."""
        of_reads.baddbmm_(of_products, self.writes.conj())
        of_writes.baddbmm_(of_products.mT, self.reads.conj())

    def apart(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """Views (M, ·, C, …) of the rows that are late and of those that are early."""
        first = self.late * self.chunk
        late, early = table[:, :first], table[:, first:]
        return (
            late.unflatten(1, (self.late, self.chunk)),
            early.unflatten(1, (early.shape[1] // self.chunk, self.chunk)),
        )

    def streams(self, rows: Tensor) -> list[Tensor]:
        """Views (M, C, ·) of each stream."""
        return list(rows.unflatten(1, (-1, self.chunk)).unbind(1))


class FoldedRows(ABC):
    """Folded chunks (`dsf.forms.fold`): `table` of Gram matrices (M, y C, w C), `reads` at the start, `writes`
    at the end, and the `total` transition (M)."""

    table: Tensor
    reads: Tensor
    writes: Tensor
    total: Identity | Scalar | Diagonal

    @abstractmethod
    def vjp(
        self, of_table: Tensor, of_reads: Tensor, of_writes: Tensor, of_total: Tensor | None
    ) -> Gradients:
        """Gradients of the gate in linear space (M, C, …) and of each read and write stream; those given are used up."""


def fold_rows(
    gate: Identity | Scalar | Diagonal, rows: Rows, space: Workspace, keeps: bool
) -> FoldedRows:
    """Fold; where nothing is to be kept for the way back, the rows are used up."""
    if isinstance(gate, Scalar):
        return _Decayed(gate.decay, rows, space, keeps)
    if isinstance(gate, Diagonal):
        return _Gated(gate.decay, rows, space, keeps)
    return _Unchanged(gate, rows, space)


class _Unchanged(FoldedRows):
    def __init__(self, gate: Identity, rows: Rows, space: Workspace) -> None:
        self.rows, self.total = rows, gate
        self.reads, self.writes = rows.reads, rows.writes
        self.table = self._masked(rows.products(space))

    def _masked(self, table: Tensor) -> Tensor:
        for part, diagonal in zip(self.rows.apart(table), (0, -1), strict=True):
            for rows in part.unbind(1):
                for gram in rows.split(self.rows.chunk, 2):
                    gram.tril_(diagonal)
        return table

    def vjp(
        self, of_table: Tensor, of_reads: Tensor, of_writes: Tensor, of_total: Tensor | None
    ) -> Gradients:
        self.rows.products_vjp(self._masked(of_table), of_reads, of_writes)
        return None, self.rows.streams(of_reads), self.rows.streams(of_writes)


class _Decayed(FoldedRows):
    """With Γ_ij = a_i … a_{j+1}: table = (R Wᵀ) ⊙ Γ, and an early row sees the row of Γ before its own."""

    def __init__(self, decay: Tensor, rows: Rows, space: Workspace, keeps: bool) -> None:
        count, chunk = decay.shape
        self.rows, self.space, self.decay = rows, space, decay
        self.between = between_steps(decay, space)
        self.reach = self.between[:, :, 0] * decay[:, :1]
        self.total = Scalar(self.reach[:, -1])
        self.raw = rows.products(space)
        self.pull = space("pull", (count, rows.reads.shape[1] // chunk, chunk), decay).fill_(1)
        self.pull[:, : rows.late] = self.reach[:, None]
        self.pull[:, rows.late :, 1:] = self.reach[:, None, :-1]
        push = self.between[:, None, -1].expand(-1, rows.writes.shape[1] // chunk, -1)
        self.push = space("push", push.shape, decay).copy_(push)

        def onto(name: str, x: Tensor) -> Tensor:
            return space(name, x.shape, x) if keeps else x

        wide = self.between[:, :, None].expand(-1, -1, push.shape[1], -1)
        self.wide = space("wide between", wide.shape, decay).copy_(wide).flatten(2)
        self.table = self._masked(self.raw, self.wide, onto("table", self.raw))
        self.reads, self.writes = (
            torch.mul(x, factors.flatten(1)[..., None], out=onto(name, x))
            for name, x, factors in (
                ("folded reads", rows.reads, self.pull),
                ("folded writes", rows.writes, self.push),
            )
        )

    def _masked(self, table: Tensor, wide: Tensor, onto: Tensor) -> Tensor:
        (late, early), (late_onto, early_onto) = self.rows.apart(table), self.rows.apart(onto)
        torch.mul(late, wide[:, None], out=late_onto)
        torch.mul(early[:, :, 1:], wide[:, None, :-1], out=early_onto[:, :, 1:])
        early_onto[:, :, 0] = 0
        return onto

    def vjp(
        self, of_table: Tensor, of_reads: Tensor, of_writes: Tensor, of_total: Tensor | None
    ) -> Gradients:
        rows = self.rows
        assert of_total is not None
        decay, between = self.decay.conj(), self.between.conj()
        of_pull = self._dots(rows.reads, of_reads).view_as(self.pull)
        of_reach = of_pull[:, : rows.late].sum(1)
        of_reach[:, :-1] += of_pull[:, rows.late :, 1:].sum(1)
        of_reach[:, -1] += of_total
        of_between = self.space("of between", between.shape, between).zero_()
        of_between[:, -1] = self._dots(rows.writes, of_writes).view_as(self.push).sum(1)
        product = torch.mul(of_table, self.raw.conj(), out=self.space("product", of_table.shape, of_table))
        late, early = rows.apart(product)
        for x in late.unbind(1):
            for gram in x.split(rows.chunk, 2):
                of_between += gram
        for x in early[:, :, 1:].unbind(1):
            for gram in x.split(rows.chunk, 2):
                of_between[:, :-1] += gram
        of_between[:, :, 0].addcmul_(of_reach, decay[:, :1])
        of_decay = between_vjp(decay, between, of_between)
        of_decay[:, 0] += (of_reach * between[:, :, 0]).sum(-1)

        of_reads.mul_(self.pull.conj().flatten(1)[..., None])
        of_writes.mul_(self.push.conj().flatten(1)[..., None])
        rows.products_vjp(self._masked(of_table, self.wide.conj(), of_table), of_reads, of_writes)
        return of_decay, rows.streams(of_reads), rows.streams(of_writes)

    def _dots(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ_k x*_k y_k."""
        return torch.mul(x.conj(), y, out=self.space("product", x.shape, x)).sum(-1)


class _Gated(FoldedRows):
    def __init__(self, gates: Tensor, rows: Rows, space: Workspace, keeps: bool) -> None:
        self.rows, self.space = rows, space
        gates = gates.expand(*gates.shape[:-1], rows.reads.shape[-1])
        reads, writes = rows.streams(rows.reads), rows.streams(rows.writes)
        after = [i < rows.late for i in range(len(reads))]
        if keeps:
            found, self.kept = fold_gates_kept(gates, reads, writes, after, space)
        else:
            found = fold_gates(gates, reads, writes, after, space)
        grams, back, onward, total = found
        self.table = space("table", (len(gates), rows.reads.shape[1], rows.writes.shape[1]), gates)
        for onto, row in zip(rows.streams(self.table), grams, strict=True):
            torch.cat(row, 2, out=onto)
        self.reads = torch.cat(back, 1, out=space("folded reads", rows.reads.shape, gates))
        self.writes = torch.cat(onward, 1, out=space("folded writes", rows.writes.shape, gates))
        self.total = Diagonal(total)

    def vjp(
        self, of_table: Tensor, of_reads: Tensor, of_writes: Tensor, of_total: Tensor | None
    ) -> Gradients:
        assert of_total is not None
        grams = [list(x.split(self.rows.chunk, 2)) for x in self.rows.streams(of_table)]
        back, onward = self._own(of_reads, "of back"), self._own(of_writes, "of onward")
        return fold_gates_vjp(self.kept, grams, back, onward, of_total, self.space)

    def _own(self, rows: Tensor, name: str) -> list[Tensor]:
        """Each stream in memory of its own."""
        streams = enumerate(self.rows.streams(rows))
        return [self.space(f"{name} {i}", x.shape, x).copy_(x) for i, x in streams]
