"""Chunks whose transitions are a gate plus low rank, and the way back, with every product written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.structure import Structure

from .between_chunks import advance, each, total_vjp
from .chunk_layout import InChunks
from .core import Core
from .low_rank_chunks import LowRankChunks
from .segments import Cotangents, Kept, Step
from .workspace import Workspace


@dataclass(frozen=True)
class LowRank(Step):
    r"""Λ_i = D_i + P_i Q_iᵀ: the P are further writes, of w_i = Q_iᵀ h_{i-1}, and the Q further reads.

    All are folded under the gates D, the Q as reads before the update of their step (`dsf.forms.fold_rows`).
    With R, E, W and P the reads, the Q, the writes and the P so carried, G, F the rows of the table that belong
    to the reads, N, M those of the Q, and T = (I - M)⁻¹, for M is strictly lower triangular (compact WY),

        w = T (E S + N U),  O = G U + F w + R S,  S' = a S + Wᵀ U + Pᵀ w.

    With bars for gradients, the way back is

        w̄ = Fᴴ Ō + P* S̄',  S̄ = a* S̄' + Rᴴ Ō + (T E)ᴴ w̄,  z̄ = Tᴴ w̄,

    and the rest that of chunks with values U, w and gradients of outputs Ō, z̄. Kept are S, w and T.
    """

    chunk: int

    def __call__(self, core: Core, space: Workspace) -> tuple[InChunks, Tensor, Kept]:
        assert isinstance(core.read, OuterCoupling)
        chunks = LowRankChunks(core, self.chunk, space, keeps=False)
        folded, seen, m = chunks.folded, chunks.seen, chunks.values
        inverse = chunks.inverses()
        back = torch.bmm(inverse, folded.reads[1], out=space("back", folded.reads[1].shape, seen))
        given = space("given", (len(seen), back.shape[1], seen.shape[2]), seen)
        torch.bmm(chunks.of_low_rank[:, :, :m], seen[:, :m], out=given)

        count, sequences = len(seen), core.sequences
        shape = (count + sequences, *core.memory.shape[2:])
        room = space.keep if space.keeps else space
        inner, states = room("inner", given.shape, seen), room("states", shape, seen)
        torch.bmm(inverse, given, out=inner)
        states[:sequences] = core.memory.flatten(0, 1)
        torch.bmm(folded.writes[0].mT, seen[:, :m], out=states[sequences:])
        pieces = states.split(sequences)
        _walk(folded.total, (back, folded.writes[1].mT), inner, pieces[:-1], pieces[1:], False)

        start, seen[:, m:] = states[:count], inner
        outputs = space("outputs", (count, chunks.outputs, seen.shape[2]), seen)
        torch.bmm(chunks.of_reads, seen, out=outputs).baddbmm_(folded.reads[0], start)
        batch, heads = core.memory.shape[:2]
        found = chunks.layout.back(outputs, (batch, heads), core.read.several)
        memory = pieces[-1].clone().view_as(core.memory)
        if not space.keeps:
            return found, memory, ()
        return (
            found,
            memory,
            (start, inner, space.keep("inverses", inverse.shape, seen).copy_(inverse)),
        )

    def vjp(
        self, core: Core, kept: Kept, cotangents: Cotangents, space: Workspace
    ) -> Sequence[Tensor | InChunks | None]:
        (start, inner, inverse), (of_outputs, of_last) = kept, cotangents
        chunks = LowRankChunks(core, self.chunk, space, keeps=True)
        folded, seen, n, m = chunks.folded, chunks.seen, chunks.outputs, chunks.values
        seen[:, m:] = inner
        back = torch.bmm(inverse, folded.reads[1], out=space("back", folded.reads[1].shape, seen))
        above = chunks.layout.stacked([of_outputs], "above", start, chunks.rank)

        sequences, (count, keys, width) = core.sequences, start.shape
        states = space("later", (count + sequences, keys, width), start)
        states[count:] = of_last.flatten(0, 1)
        torch.bmm(folded.reads[0].mH, above[:, :n], out=states[:count])
        of_inner = space("of inner", inner.shape, start)
        torch.bmm(chunks.of_reads[:, :, m:].mH, above[:, :n], out=of_inner)
        pieces = states.split(sequences)[::-1]
        maps = folded.writes[1].conj(), back.mH
        _walk(folded.total.conj(), maps, of_inner, pieces[:-1], pieces[1:], True)
        later = states[sequences:]
        above[:, n:] = torch.bmm(inverse.mH, of_inner, out=space("given", inner.shape, start))

        of_values = space("of values", (count, m, width), start)
        torch.bmm(folded.writes[0].conj(), later, out=of_values)
        of_values.baddbmm_(folded.table[:, :, :m].mH, above)
        of_total = total_vjp(folded.total, start, later, space)
        # Where the results of the fold lay, which nothing needs from here on.
        rows, columns = folded.table.shape[1:]
        of_table = torch.bmm(above, seen.mH, out=space("table", folded.table.shape, start))
        of_reads, of_writes = (
            torch.bmm(x, y, out=space(f"folded {name}", (count, own, keys), start))
            for name, own, x, y in (
                ("reads", rows, above, start.mH),
                ("writes", columns, seen.conj(), later.mT),
            )
        )
        found = folded.vjp(of_table, of_reads, of_writes, of_total[0] if of_total else None)
        first = states[:sequences].clone().view_as(core.memory)
        return [first, *chunks.gradients(core, *found, of_values)]


def _walk(
    total: Structure,
    maps: tuple[Tensor, Tensor],
    inner: Tensor,
    sources: Sequence[Tensor],
    targets: Sequence[Tensor],
    backward: bool,
) -> None:
    """From chunk to chunk: add `maps[0]` source to inner, and `maps[1]` inner + total source to the target."""
    size = len(sources[0])
    first, second, own = (x.split(size)[:: -1 if backward else 1] for x in (*maps, inner))
    totals = each(total, size)[:: -1 if backward else 1] or [None] * len(own)
    for i, source in enumerate(sources):
        own[i].baddbmm_(first[i], source)
        targets[i].baddbmm_(second[i], own[i])
        advance(totals[i], source, targets[i])
