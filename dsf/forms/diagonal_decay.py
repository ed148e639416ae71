"""The way back through chunks under diagonal gates, with every product written out."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.structure import Diagonal

from .chunk_layout import ChunkLayout, InChunks
from .core import Core
from .fold_gates import fold_gates_kept
from .fold_gates_back import fold_gates_vjp
from .workspace import Workspace


def diagonal_decay_vjp(
    core: Core, chunk: int, start: Tensor, cotangents: tuple[Tensor, Tensor], space: Workspace
) -> list[Tensor | InChunks | None]:
    r"""Gradients of the memory and of `core.tensors`, from the memory at each chunk's start (M, K, V).

    With S the start of a chunk, R the gradient of its end, and the Gram matrix P, the reads Q' at the start,
    the writes K' at the end and the total a of the fold (`dsf.forms.fold_gates`):

        dU = Pᴴ dO + K'* R,  dP = dO Uᴴ,  dQ' = dO Sᴴ,  dK' = U* Rᵀ,  da = Σ S* R,  R ← a* R + Q'ᴴ dO,

    and dP, dQ', dK' and da go back through the fold.
    """
    assert isinstance(core.write, OuterCoupling) and isinstance(core.read, OuterCoupling)
    assert isinstance(core.transition, Diagonal)
    of_outputs, of_last = cotangents
    kind, sequences = start.dtype, of_last.shape[0] * of_last.shape[1]
    count, keys, width = start.shape
    layout = ChunkLayout(core.length, chunk, space)

    def streams(x: Tensor, name: str) -> list[Tensor]:
        return [y.to(kind) for y in layout.streams(x, name)]

    reads, writes = streams(core.read.weights, "reads"), streams(core.write.weights, "writes")
    values, above = streams(core.tokens, "values"), streams(of_outputs, "above")
    gates = layout.gates(core.transition).to(kind)
    (grams, back, onward, total), kept = fold_gates_kept(
        gates.expand(count, chunk, keys), reads, writes, [True] * len(reads), space
    )

    states = space("later", (count + sequences, keys, width), start)
    states[count:] = of_last.flatten(0, 1)
    _sum_of_products([(r.mH, d) for r, d in zip(back, above, strict=True)], onto=states[:count])
    chunks, totals = states.split(sequences), total.conj()[..., None].split(sequences)
    for n in range(len(chunks) - 2, -1, -1):
        chunks[n].addcmul_(totals[n], chunks[n + 1])
    later = states[sequences:]

    of_values = []
    for j, (w, u) in enumerate(zip(onward, values, strict=True)):
        own = space(f"of value {j}", (count, chunk, width), start)
        parts = [(row[j].mH, d) for row, d in zip(grams, above, strict=True)]
        of_values.append(_sum_of_products([(w.conj(), later), *parts], onto=own))
        torch.bmm(u.conj(), later.mT, out=w)
    for row, r, d in zip(grams, back, above, strict=True):
        torch.bmm(d, start.mH, out=r)
        for gram, u in zip(row, values, strict=True):
            torch.bmm(d, u.mH, out=gram)
    of_gates, of_reads, of_writes = fold_gates_vjp(
        kept, grams, back, onward, torch.linalg.vecdot(start, later)
    )
    if core.transition.log is not None:
        of_gates.mul_(gates.conj())
    if gates.shape[-1] != keys:
        of_gates = of_gates.sum(-1, keepdim=True)
    found = [
        layout.gradient([of_gates], *core.transition.leaves),
        layout.gradient(of_writes, core.write.weights),
        layout.gradient(of_reads, core.read.weights),
        layout.gradient(of_values, core.tokens),
    ]
    first = states[:sequences].clone().view_as(core.memory)
    wanted = [x.requires_grad for x in core.tensors]
    return [first, *(x if w else None for x, w in zip(found, wanted, strict=True))]


def _sum_of_products(pairs: list[tuple[Tensor, Tensor]], onto: Tensor) -> Tensor:
    """Σ x y into `onto`, zero where there are none."""
    if not pairs:
        return onto.zero_()
    torch.bmm(*pairs[0], out=onto)
    for x, y in pairs[1:]:
        onto.baddbmm_(x, y)
    return onto
