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
from .fold import Folded, fold, fold_kept, fold_vjp
from .segments import Cotangents, Kept, Step
from .shared_decay import _back
from .unit_triangular import inverses
from .workspace import Workspace


@dataclass(frozen=True)
class LowRank(Step):
    r"""O = G U + F w + R S and S' = a S + Wᵀ U + Pᵀ w, with w_i = Q_iᵀ h_{i-1} for Λ_i = D_i + P_i Q_iᵀ.

    The P act as r further writes per step, the Q as r further reads before the update, all folded under
    the gates D (`dsf.forms.fold`): w = E S + N U + M w with strictly lower M (compact WY), so

        w = T (E S + N U),  T = (I - M)⁻¹.

    With V the gradient of S' and primes for what flows back, Z = w' and the reads' side z = Tᴴ w':

        w' = Fᴴ dO + P* V,  S̄ = Rᴴ dO + a* V + (T E)ᴴ w',

    and dO with z, U with w are then the outputs and values of a chunk with y + r reads and w + r writes.
    """

    chunk: int

    def __call__(self, core: Core, space: Workspace) -> tuple[InChunks, Tensor, Kept]:
        outputs, memory, start = run(core, self.chunk, space)
        return outputs, memory, ((start,) if space.keeps else ())

    def vjp(
        self, core: Core, kept: Kept, cotangents: Cotangents, space: Workspace
    ) -> Sequence[Tensor | InChunks | None]:
        return run_vjp(core, self.chunk, kept[0], cotangents, space)


def run(core: Core, chunk: int, space: Workspace) -> tuple[InChunks, Tensor, Tensor]:
    """Outputs, the last memory, and the memory at each chunk's start (M, K, V); the outputs may lie in `space`."""
    kind = core.tokens.dtype
    for x in core.tensors:
        kind = torch.promote_types(kind, x.dtype)
    given = _Streams(core, chunk, space, kind)
    folded = fold(given.gate, given.reads, given.writes, given.after, space)
    inside = _Inside(folded, given, space)

    sequences, values = core.sequences, given.values
    count, (keys, width) = len(values[0]), core.memory.shape[2:]
    shape = (count + sequences, keys, width)
    states = values[0].new_empty(shape) if space.keeps else space("states", shape, values[0])
    states[:sequences] = core.memory.flatten(0, 1)
    onward = [(w.mT, u) for w, u in zip(folded.writes, values, strict=False)]
    _sum_of_products(onward, states[sequences:])
    chunks, totals = states.split(sequences), each(folded.total, sequences)
    pieces = (x.split(sequences) for x in (inside.back, inside.onto.mT, inside.inner))
    for n, (back, onto, inner) in enumerate(zip(*pieces, strict=True)):
        inner.baddbmm_(back, chunks[n])
        chunks[n + 1].baddbmm_(onto, inner)
        advance(totals[n] if totals else None, chunks[n], chunks[n + 1])

    start, seen = states[:count], [*values, *_of_step(inside.inner, given.rank)]
    outputs = [
        _sum_of_products(
            [(r, start), *zip(row, seen, strict=True)],
            space(f"output {i}", (count, chunk, width), start),
        )
        for i, (r, row) in enumerate(zip(folded.reads, folded.grams, strict=True))
        if i < given.outputs
    ]
    rows = outputs[0] if len(outputs) == 1 else torch.cat([start.new_empty(count, 0, width), *outputs], 1)
    assert isinstance(core.read, OuterCoupling)
    batch, heads = core.memory.shape[:2]
    found = given.layout.back(rows, (batch, heads), core.read.several)
    return found, chunks[-1].clone().view_as(core.memory), start


def run_vjp(
    core: Core, chunk: int, start: Tensor, cotangents: Cotangents, space: Workspace
) -> list[Tensor | InChunks | None]:
    """Gradients of the memory and of `core.tensors`, from the memory at each chunk's start."""
    of_outputs, of_last = cotangents
    given = _Streams(core, chunk, space, start.dtype)
    kept = fold_kept(given.gate, given.reads, given.writes, given.after, space)
    folded = kept.folded
    inside = _Inside(folded, given, space)
    inside.inner.baddbmm_(inside.back, start)
    above = given.stream(of_outputs, "above")

    sequences, y, rank = core.sequences, given.outputs, given.rank
    count, keys, width = start.shape
    states = space("later", (count + sequences, keys, width), start)
    states[count:] = of_last.flatten(0, 1)
    _sum_of_products(
        [(r.mH, d) for r, d in zip(folded.reads, above, strict=False)], states[:count]
    )
    through = [
        _sum_of_products(
            [(row[len(given.values) + i].mH, d) for row, d in zip(folded.grams, above, strict=False)],
            space(f"of inner {i}", (count, chunk, width), start),
        )
        for i in range(rank)
    ]
    of_inner = _by_step(through, "of inner", space)
    chunks, totals = states.split(sequences), each(folded.total.conj(), sequences)
    pieces = (x.split(sequences) for x in (inside.back.mH, inside.onto.conj(), of_inner))
    pieces = list(zip(*pieces, strict=True))
    for n in range(len(pieces) - 1, -1, -1):
        back, onto, inner = pieces[n]
        inner.baddbmm_(onto, chunks[n + 1])
        chunks[n].baddbmm_(back, inner)
        advance(totals[n] if totals else None, chunks[n + 1], chunks[n])
    later = states[sequences:]

    entering = torch.bmm(
        inside.inverse.mH, of_inner, out=space("of entering", of_inner.shape, start)
    )
    above = [*above, *_of_step(entering, rank)]
    seen = [*given.values, *_of_step(inside.inner, rank)]
    of_values = [
        _sum_of_products(
            [
                (folded.writes[j].conj(), later),
                *((row[j].mH, d) for row, d in zip(folded.grams, above, strict=True)),
            ],
            space(f"of value {j}", (count, chunk, width), start),
        )
        for j in range(len(given.values))
    ]
    of_grams = [
        [torch.bmm(d, u.mH, out=gram) for gram, u in zip(row, seen, strict=True)]
        for d, row in zip(above, folded.grams, strict=True)
    ]
    of_back = [
        torch.bmm(d, start.mH, out=space(f"of back {i}", (count, chunk, keys), start))
        for i, d in enumerate(above)
    ]
    of_onward = [
        torch.bmm(u.conj(), later.mT, out=space(f"of onward {j}", (count, chunk, keys), start))
        for j, u in enumerate(seen)
    ]
    of_total = total_vjp(folded.total, start, later)
    of_gate, of_reads, of_writes = fold_vjp(
        kept, of_grams, of_back, of_onward, of_total[0] if of_total else None, space
    )
    found = [
        *given.of_gate(of_gate),
        *given.of_low_rank(of_writes[-rank:], of_reads[y:]),
        _back(given.layout, of_writes[:-rank], core.write.tensors[0]),
        _back(given.layout, of_reads[:y], core.read.tensors[0]),
        _back(given.layout, of_values, core.tokens),
    ]
    first = states[:sequences].clone().view_as(core.memory)
    wanted = [x.requires_grad for x in core.tensors]
    return [first, *(x if w else None for x, w in zip(found, wanted, strict=True))]


class _Streams:
    """The tensors of a core in chunks: Q after the reads, P after the writes."""

    def __init__(self, core: Core, chunk: int, space: Workspace, kind: torch.dtype) -> None:
        assert isinstance(core.write, OuterCoupling) and isinstance(core.read, OuterCoupling)
        assert isinstance(core.transition, DPLR)
        self.layout, self.kind = ChunkLayout(core.length, chunk, space), kind
        self.transition = core.transition
        self.rank = self.transition.rank
        linear = self.layout.structure(self.transition.gate.linear())
        assert isinstance(linear, Identity | Scalar | Diagonal)
        self.gate = linear.map(lambda x, _: x.to(kind))
        reads = self.stream(core.read.weights, "reads")
        self.outputs = len(reads)
        self.reads = reads + self.stream(self.transition.right.mT, "right")
        self.writes = self.stream(core.write.weights, "writes")
        self.writes += self.stream(self.transition.left.mT, "left")
        self.values = self.stream(core.tokens, "values")
        self.after = [i < self.outputs for i in range(len(self.reads))]

    def stream(self, x: Tensor, name: str) -> list[Tensor]:
        return [y.to(self.kind) for y in self.layout.streams(x, name)]

    def of_gate(self, found: list[Tensor]) -> list[Tensor | InChunks]:
        """The gradient of the gate's leaf from that of the gate in linear space."""
        if not found:
            return []
        gate, own, (decay,) = self.transition.gate, found[0], self.gate.leaves
        (leaf,) = gate.leaves
        if isinstance(gate, Diagonal) and leaf.shape[-1] == 1 != own.shape[-1]:
            own = own.sum(-1, keepdim=True)
        if isinstance(gate, Scalar | Diagonal) and gate.log is not None:
            own = own * decay.conj()
        if isinstance(gate, Diagonal):
            return [_back(self.layout, [own], leaf)]
        x = _back(self.layout, [own[..., None]], leaf[..., None])
        return [x[..., 0] if isinstance(x, Tensor) else InChunks(x.view[..., 0], x.length)]

    def of_low_rank(
        self, of_left: list[Tensor], of_right: list[Tensor]
    ) -> list[Tensor | InChunks]:
        """The gradients of P and Q, (B, T, H, K, r)."""
        pairs = ((of_left, self.transition.left), (of_right, self.transition.right))
        found = [_back(self.layout, own, leaf.mT) for own, leaf in pairs]
        return [x.mT if isinstance(x, Tensor) else InChunks(x.view.mT, x.length) for x in found]


class _Inside:
    """T by step, T E, T N U (the products w from no memory) and P by step."""

    def __init__(self, folded: Folded, given: _Streams, space: Workspace) -> None:
        rank, values = given.rank, given.values
        rows = folded.grams[given.outputs :]
        table = _table([row[-rank:] for row in rows], space)
        self.inverse = inverses(table, rank, space)
        shape = (*rows[0][0].shape[:2], values[0].shape[-1])
        entering = [
            _sum_of_products(
                list(zip(row, values, strict=False)), space(f"entering {i}", shape, values[0])
            )
            for i, row in enumerate(rows)
        ]
        self.back = self._solve(folded.reads[given.outputs :], "back", space)
        self.inner = self._solve(entering, "inner", space)
        self.onto = _by_step(folded.writes[-rank:], "onto", space)

    def _solve(self, streams: list[Tensor], name: str, space: Workspace) -> Tensor:
        given = _by_step(streams, name, space)
        return torch.bmm(self.inverse, given, out=space(f"{name} inside", given.shape, given))


def _sum_of_products(pairs: Sequence[tuple[Tensor, Tensor]], onto: Tensor) -> Tensor:
    """Σ x y into `onto`, zero where there are none."""
    if not pairs:
        return onto.zero_()
    torch.bmm(*pairs[0], out=onto)
    for x, y in pairs[1:]:
        onto.baddbmm_(x, y)
    return onto


def _table(grams: list[list[Tensor]], space: Workspace) -> Tensor:
    """(M, C r, C r) with the streams of one step side by side, so that the whole is strictly lower."""
    rank = len(grams)
    if rank == 1:
        return grams[0][0]
    count, chunk, _ = grams[0][0].shape
    table = space("system", (count, chunk, rank, chunk, rank), grams[0][0])
    for i, row in enumerate(grams):
        for j, gram in enumerate(row):
            table[:, :, i, :, j] = gram
    return table.flatten(3, 4).flatten(1, 2)


def _by_step(streams: list[Tensor], name: str, space: Workspace) -> Tensor:
    """(M, C r, ·) with the streams of one step side by side."""
    if len(streams) == 1:
        return streams[0]
    count, chunk, width = streams[0].shape
    rows = space(f"{name} by step", (count, chunk, len(streams), width), streams[0])
    return torch.stack(streams, 2, out=rows).flatten(1, 2)


def _of_step(x: Tensor, rank: int) -> list[Tensor]:
    """The streams (M, C, ·) of what lies by step, views."""
    return [x] if rank == 1 else list(x.unflatten(1, (-1, rank)).unbind(2))
