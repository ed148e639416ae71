"""The fold of chunks with several reads and writes per step, as one table, and the way back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.structure import Diagonal, Identity, Scalar

from .chunk_layout import ChunkLayout
from .fold_decays import between_steps, between_vjp
from .fold_gates import fold_gates, fold_gates_kept
from .fold_gates_back import fold_gates_vjp
from .workspace import Workspace

Gradients = tuple[Tensor | None, list[Tensor], list[Tensor]]


@dataclass(frozen=True, eq=False)
class Vectors:
    """The vectors of a fold, (B, T, H, K) or (B, T, H, R, K): reads after the update of their step and before it,
    and two kinds of writes, to be laid out in chunks in the type of `like`."""

    reads: tuple[Tensor, Tensor]
    writes: tuple[Tensor, Tensor]
    layout: ChunkLayout
    like: Tensor


class FoldedRows(ABC):
    """Folded chunks (`dsf.forms.fold`), with y + e reads, late and early, and w + p writes per step.

    `table` of Gram matrices (M, (y + e) C, (w + p) C), one stream after another, `reads` at the start
    (M, y C, K) and (M, e C, K), `writes` at the end, `total` (M). Of each pair only the last is not empty.
    """

    table: Tensor
    reads: tuple[Tensor, Tensor]
    writes: tuple[Tensor, Tensor]
    total: Identity | Scalar | Diagonal

    @abstractmethod
    def vjp(
        self, of_table: Tensor, of_reads: Tensor, of_writes: Tensor, of_total: Tensor | None
    ) -> Gradients:
        """Gradients of the gate in linear space, and of each stream of the reads and the writes.

        The given ones may be used up, and may lie where the results of the fold do.
        """


def fold_rows(
    gate: Identity | Scalar | Diagonal, given: Vectors, space: Workspace, keeps: bool
) -> FoldedRows:
    """Fold under gates (M, C), and keep what the way back needs where `keeps`."""
    if isinstance(gate, Diagonal):
        return _Gated(gate.decay, given, space, keeps)
    rows = _Rows(given, space)
    return (
        _Decayed(gate.decay, rows, space, keeps)
        if isinstance(gate, Scalar)
        else _Unchanged(gate, rows, space)
    )


class _Rows:
    """Reads (M, y C, K) and writes (M, w C, K), one stream after another."""

    def __init__(self, given: Vectors, space: Workspace) -> None:
        layout = given.layout
        self.space, self.chunk = space, layout.chunk
        self.reads = layout.stacked(given.reads, "reads", given.like)
        self.writes = layout.stacked(given.writes, "writes", given.like)
        self.late, self.first = (
            layout.chunk * _streams(x) for x in (given.reads[0], given.writes[0])
        )

    def products(self) -> Tensor:
        """R Wᵀ."""
        r, w = self.reads, self.writes
        return torch.bmm(r, w.mT, out=self.space("products", (len(r), r.shape[1], w.shape[1]), r))

    def products_vjp(self, of_products: Tensor, of_reads: Tensor, of_writes: Tensor) -> None:
        """Add the gradients that R and W get from those of R Wᵀ."""
        of_reads.baddbmm_(of_products, self.writes.conj())
        of_writes.baddbmm_(of_products.mT, self.reads.conj())

    def apart(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Views (M, ·, C, …) of the late rows and of the early ones."""
        late, early = x[:, : self.late], x[:, self.late :]
        return (
            late.unflatten(1, (late.shape[1] // self.chunk, self.chunk)),
            early.unflatten(1, (early.shape[1] // self.chunk, self.chunk)),
        )

    def streams(self, rows: Tensor) -> list[Tensor]:
        """Views (M, C, ·) of each stream."""
        return list(rows.split(self.chunk, 1))


class _Unchanged(FoldedRows):
    def __init__(self, gate: Identity, rows: _Rows, space: Workspace) -> None:
        self.rows, self.total = rows, gate
        self.reads = rows.reads[:, : rows.late], rows.reads[:, rows.late :]
        self.writes = rows.writes[:, : rows.first], rows.writes[:, rows.first :]
        self.table = self._masked(rows.products())

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

    def __init__(self, decay: Tensor, rows: _Rows, space: Workspace, keeps: bool) -> None:
        count, chunk = decay.shape
        self.rows, self.space, self.decay = rows, space, decay
        self.between = between_steps(decay, space)
        self.reach = self.between[:, :, 0] * decay[:, :1]
        self.total = Scalar(self.reach[:, -1])
        self.raw = rows.products()
        self.pull = space("pull", rows.reads.shape[:2], decay).fill_(1)
        late, early = rows.apart(self.pull)
        late[...] = self.reach[:, None]
        early[:, :, 1:] = self.reach[:, None, :-1]
        columns = rows.writes.shape[1] // chunk
        push = self.between[:, None, -1].expand(-1, columns, -1)
        self.push = space("push", push.shape, decay).copy_(push).flatten(1)

        def onto(name: str, x: Tensor) -> Tensor:
            return space(name, x.shape, x) if keeps else x

        wide = self.between[:, :, None].expand(-1, -1, columns, -1)
        self.wide = space("wide between", wide.shape, decay).copy_(wide).flatten(2)
        self.table = self._masked(self.raw, self.wide, onto("table", self.raw))
        reads = torch.mul(rows.reads, self.pull[..., None], out=onto("folded reads", rows.reads))
        writes = torch.mul(
            rows.writes, self.push[..., None], out=onto("folded writes", rows.writes)
        )
        self.reads = reads[:, : rows.late], reads[:, rows.late :]
        self.writes = writes[:, : rows.first], writes[:, rows.first :]

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
        late, early = rows.apart(self._dots(rows.reads, of_reads))
        of_reach = late.sum(1)
        of_reach[:, :-1] += early[:, :, 1:].sum(1)
        of_reach[:, -1] += of_total
        of_between = self.space("of between", between.shape, between).zero_()
        of_between[:, -1] = sum(rows.streams(self._dots(rows.writes, of_writes)))
        product = torch.mul(
            of_table, self.raw.conj(), out=self.space("product", of_table.shape, of_table)
        )
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

        of_reads.mul_(self.pull.conj()[..., None])
        of_writes.mul_(self.push.conj()[..., None])
        rows.products_vjp(self._masked(of_table, self.wide.conj(), of_table), of_reads, of_writes)
        return of_decay, rows.streams(of_reads), rows.streams(of_writes)

    def _dots(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ_k x*_k y_k."""
        return torch.mul(x.conj(), y, out=self.space("product", x.shape, x)).sum(-1)


class _Gated(FoldedRows):
    def __init__(self, gates: Tensor, given: Vectors, space: Workspace, keeps: bool) -> None:
        def laid(pair: tuple[Tensor, Tensor], name: str) -> list[Tensor]:
            own = (given.layout.streams(x, f"{name} {i}") for i, x in enumerate(pair))
            return [x.to(given.like.dtype) for streams in own for x in streams]

        reads, writes = laid(given.reads, "reads"), laid(given.writes, "writes")
        late, first = _streams(given.reads[0]), _streams(given.writes[0])
        count, self.chunk, keys = writes[0].shape
        gates = gates.expand(count, self.chunk, keys)
        after = [i < late for i in range(len(reads))]
        if keeps:
            found, self.kept = fold_gates_kept(gates, reads, writes, after, space)
        else:
            found = fold_gates(gates, reads, writes, after, space)
        grams, back, onward, total = found
        shape = (count, len(reads), self.chunk, len(writes), self.chunk)
        table = space("table", shape, gates)
        for i, row in enumerate(grams):
            for j, gram in enumerate(row):
                table[:, i, :, j] = gram
        self.table = table.flatten(3, 4).flatten(1, 2)
        none = gates[:, :0]
        self.reads = _joined(back[:late] or [none]), _joined(back[late:])
        self.writes = _joined(onward[:first] or [none]), _joined(onward[first:])
        self.total = Diagonal(total)

    def vjp(
        self, of_table: Tensor, of_reads: Tensor, of_writes: Tensor, of_total: Tensor | None
    ) -> Gradients:
        assert of_total is not None
        grams = [list(row.split(self.chunk, 2)) for row in of_table.split(self.chunk, 1)]
        back, onward = (list(x.split(self.chunk, 1)) for x in (of_reads, of_writes))
        return fold_gates_vjp(self.kept, grams, back, onward, of_total)


def _streams(x: Tensor) -> int:
    return 1 if x.ndim == 4 else x.shape[3]


def _joined(streams: list[Tensor]) -> Tensor:
    return streams[0] if len(streams) == 1 else torch.cat(streams, 1)
