"""Chunks whose transitions are a gate plus low rank, and the way back, with every product written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.structure import DPLR, Diagonal, Identity, Scalar

from .between_chunks import advance, each, total_vjp
from .chunk_layout import ChunkLayout, InChunks
from .core import Core
from .fold_rows import Vectors, fold_rows
from .segments import Cotangents, Kept, Step
from .shared_decay import _back
from .unit_triangular import inverses
from .workspace import Workspace


@dataclass(frozen=True)
class LowRank(Step):
    r"""Λ_i = D_i + P_i Q_iᵀ: the P act as further writes of w_i = Q_iᵀ h_{i-1}, the Q as further reads.

    All are folded under the gates D, the Q as reads before the update (`dsf.forms.fold_rows`). With
    G, F and N, M the table's rows of the reads and of the Q, and T = (I - M)⁻¹ as M is strictly lower,

        w = T (E S + N U),  O = G U + F w + R S,  S' = a S + Wᵀ U + Pᵀ w   (compact WY).

    On the way back, with V the gradient of S',

        w̄ = Fᴴ Ō + P* V,  z̄ = Tᴴ w̄,  S̄ = Rᴴ Ō + a* V + (T E)ᴴ w̄,

    and the rest is that of a chunk with values U, w and gradients of outputs Ō, z̄.
    """

    chunk: int

    def __call__(self, core: Core, space: Workspace) -> tuple[InChunks, Tensor, Kept]:
        chunks = _Chunks(core, self.chunk, space, keeps=False)
        folded, n, m = chunks.folded, chunks.outputs, chunks.values
        sequences, count = core.sequences, len(folded.table)
        keys, width = core.memory.shape[2:]
        shape = (count + sequences, keys, width)
        states = chunks.seen.new_empty(shape) if space.keeps else space("states", shape, chunks.seen)
        states[:sequences] = core.memory.flatten(0, 1)
        torch.bmm(folded.writes[0].mT, chunks.seen[:, :m], out=states[sequences:])
        pieces = states.split(sequences)
        totals = each(folded.total, sequences)
        onto = folded.writes[1].mT
        loop = (x.split(sequences) for x in (chunks.back, onto, chunks.inner))
        for n_, (back, left, inner) in enumerate(zip(*loop, strict=True)):
            inner.baddbmm_(back, pieces[n_])
            pieces[n_ + 1].baddbmm_(left, inner)
            advance(totals[n_] if totals else None, pieces[n_], pieces[n_ + 1])
        start = states[:count]
        chunks.seen[:, m:] = chunks.inner
        outputs = space("outputs", (count, n, width), start)
        torch.bmm(folded.table[:, :n], chunks.seen, out=outputs)
        outputs.baddbmm_(folded.reads[0], start)
        assert isinstance(core.read, OuterCoupling)
        found = chunks.layout.back(outputs, core.memory.shape[:2], core.read.several)
        memory = pieces[-1].clone().view_as(core.memory)
        return found, memory, ((start,) if space.keeps else ())

    def vjp(
        self, core: Core, kept: Kept, cotangents: Cotangents, space: Workspace
    ) -> Sequence[Tensor | InChunks | None]:
        (start,), (of_outputs, of_last) = kept, cotangents
        chunks = _Chunks(core, self.chunk, space, keeps=True)
        folded, n, m = chunks.folded, chunks.outputs, chunks.values
        table, seen, inner = folded.table, chunks.seen, chunks.inner
        inner.baddbmm_(chunks.back, start)
        seen[:, m:] = inner
        above = chunks.layout.stacked([of_outputs], "above", start, chunks.rank)
        sequences, (count, keys, width) = core.sequences, start.shape
        states = space("later", (count + sequences, keys, width), start)
        states[count:] = of_last.flatten(0, 1)
        torch.bmm(folded.reads[0].mH, above[:, :n], out=states[:count])
        of_inner = space("of inner", inner.shape, start)
        torch.bmm(table[:, :n, m:].mH, above[:, :n], out=of_inner)
        pieces, totals = states.split(sequences), each(folded.total.conj(), sequences)
        onto = folded.writes[1].conj()
        loop = [x.split(sequences) for x in (chunks.back.mH, onto, of_inner)]
        for i in range(len(pieces) - 2, -1, -1):
            back, left, own = (x[i] for x in loop)
            own.baddbmm_(left, pieces[i + 1])
            pieces[i].baddbmm_(back, own)
            advance(totals[i] if totals else None, pieces[i + 1], pieces[i])
        later = states[sequences:]
        above[:, n:] = torch.bmm(chunks.inverse.mH, of_inner, out=inner)

        of_values = torch.bmm(folded.writes[0].conj(), later, out=space("of values", (count, m, width), start))
        of_values.baddbmm_(table[:, :, :m].mH, above)
        # In the place of what they are the gradients of, which nothing needs from here on.
        of_table = torch.bmm(above, seen.mH, out=space("table", table.shape, start))
        of_reads = torch.bmm(above, start.mH, out=space("folded reads", (count, table.shape[1], keys), start))
        of_writes = torch.bmm(seen.conj(), later.mT, out=space("folded writes", (count, table.shape[2], keys), start))
        of_total = total_vjp(folded.total, start, later, space)
        found = folded.vjp(of_table, of_reads, of_writes, of_total[0] if of_total else None)
        first = states[:sequences].clone().view_as(core.memory)
        grads = chunks.gradients(core, *found, of_values)
        wanted = [x.requires_grad for x in core.tensors]
        return [first, *(x if w else None for x, w in zip(grads, wanted, strict=True))]


class _Chunks:
    """The tensors of a core in chunks, folded, with T, T E and the w that come from no memory."""

    def __init__(self, core: Core, chunk: int, space: Workspace, keeps: bool) -> None:
        assert isinstance(core.write, OuterCoupling) and isinstance(core.read, OuterCoupling)
        assert isinstance(core.transition, DPLR)
        kind = core.tokens.dtype
        for x in core.tensors:
            kind = torch.promote_types(kind, x.dtype)
        like = core.tokens.new_empty((), dtype=kind)
        self.chunk = chunk
        self.transition = core.transition
        self.layout = ChunkLayout(core.length, chunk, space)
        self.rank = core.transition.rank
        gate = self.layout.structure(self.transition.gate.linear())
        assert isinstance(gate, Identity | Scalar | Diagonal)
        self.gate = gate.map(lambda x, _: x.to(kind))
        right, left = (x.mT for x in (core.transition.right, core.transition.left))
        vectors = Vectors((core.read.weights, right), (core.write.weights, left), self.layout, like)
        self.folded = fold_rows(self.gate, vectors, space, keeps)
        self.seen = self.layout.stacked([core.tokens], "seen", like, self.rank)
        table, entering_rows = self.folded.table, self.folded.reads[1]
        n, m = (x[0].shape[1] for x in (self.folded.reads, self.folded.writes))
        self.outputs, self.values = n, m
        self.inverse = _inverses(table[:, n:, m:], self.rank, space)
        shape = (*entering_rows.shape[:2], self.seen.shape[-1])
        entering = torch.bmm(table[:, n:, :m], self.seen[:, :m], out=space("entering", shape, like))
        self.back = torch.bmm(
            self.inverse, entering_rows, out=space("back inside", entering_rows.shape, like)
        )
        self.inner = torch.bmm(self.inverse, entering, out=space("inner", entering.shape, like))

    def gradients(
        self, core: Core, of_gate: Tensor | None, of_reads: list[Tensor], of_writes: list[Tensor],
        of_values: Tensor
    ) -> list[Tensor | InChunks]:
        rank = self.rank
        return [
            *self._of_gate(of_gate),
            *self._of_low_rank(of_writes[-rank:], of_reads[-rank:]),
            _back(self.layout, of_writes[:-rank], core.write.tensors[0]),
            _back(self.layout, of_reads[:-rank], core.read.tensors[0]),
            _back(self.layout, list(of_values.unflatten(1, (-1, self.chunk)).unbind(1)), core.tokens),
        ]

    def _of_gate(self, own: Tensor | None) -> list[Tensor | InChunks]:
        """The gradient of the gate's leaf from that of the gate in linear space."""
        gate = self.transition.gate
        if own is None or isinstance(gate, Identity):
            return []
        (decay,), (leaf,) = self.gate.leaves, gate.leaves
        if isinstance(gate, Diagonal) and leaf.shape[-1] == 1 != own.shape[-1]:
            own = own.sum(-1, keepdim=True)
        if gate.log is not None:
            own = own * decay.conj()
        if isinstance(gate, Diagonal):
            return [_back(self.layout, [own], leaf)]
        x = _back(self.layout, [own[..., None]], leaf[..., None])
        return [x[..., 0] if isinstance(x, Tensor) else InChunks(x.view[..., 0], x.length)]

    def _of_low_rank(
        self, of_left: list[Tensor], of_right: list[Tensor]
    ) -> list[Tensor | InChunks]:
        """The gradients of P and Q, (B, T, H, K, r)."""
        pairs = ((of_left, self.transition.left), (of_right, self.transition.right))
        found = [_back(self.layout, own, leaf.mT) for own, leaf in pairs]
        return [x.mT if isinstance(x, Tensor) else InChunks(x.view.mT, x.length) for x in found]


def _inverses(system: Tensor, rank: int, space: Workspace) -> Tensor:
    """(I - M)⁻¹, one stream after another; it is lower triangular with the streams of one step side by side."""
    if rank == 1:
        return inverses(system, 1, space)
    parts = system.unflatten(2, (rank, -1)).unflatten(1, (rank, -1)).permute(0, 2, 1, 4, 3)
    by_step = space("by step", parts.shape, parts).copy_(parts).flatten(3, 4).flatten(1, 2)
    found = inverses(by_step, rank, space).unflatten(2, (-1, rank)).unflatten(1, (-1, rank))
    found = found.permute(0, 2, 1, 4, 3)
    return space("by stream", found.shape, found).copy_(found).flatten(3, 4).flatten(1, 2)
