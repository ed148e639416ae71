r"""The read-writes of a chunk, folded from single steps to the whole chunk without a logarithm.

A block of consecutive steps is summed up by four things: its lower-triangular Gram matrix
G_ij = c_iᵀ Λ_i … Λ_{j+1} b_j, its reads carried back to its start, its writes carried on to its
end, and its transition product. Two neighbouring blocks L, R fold into one:

    G = [[G_L, 0], [reads_R · writes_L, G_R]],   reads = [reads_L, Λ_Lᵀ reads_R],
    writes = [Λ_R writes_L, writes_R],           Λ = Λ_R Λ_L.

So every pair (i, j) meets at one boundary between them, and both factors are products towards it:
no exponent is positive, nothing is divided, exact zeros, signs, complex gates and blocks are the
same code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.shapes import Inexact
from dsf.structure import Identity, Scalar, Structure, compose
from dsf.structure.base import matmul


@dataclass(frozen=True, eq=False)
class Folded:
    """A folded chunk of C steps with r reads and w writes per step, leading axes (…).

    `gram` (…, C r, C w); `reads` (…, K, C r) from the chunk's start; `writes` (…, K, C w) to its end;
    `total` the transition product (…).
    """

    gram: Tensor
    reads: Tensor
    writes: Tensor
    total: Structure


def fold(
    transition: Structure,
    reads: Inexact[Tensor, "*lead C K r"],
    writes: Inexact[Tensor, "*more C K w"],
) -> Folded:
    """Fold reads (…, C, K, r) and writes (…, C, K, w) under transitions (…, C); C is a power of two."""
    if isinstance(transition, Identity):
        return _fold_identity(reads, writes)
    if isinstance(transition, Scalar):
        return _fold_scalar(transition, reads, writes)
    return _fold_pairwise(transition, reads, writes)


def _fold_identity(reads: Tensor, writes: Tensor) -> Folded:
    gram = _gram(reads, writes) * _mask(reads, writes)
    return Folded(gram, _columns(reads), _columns(writes), Identity())


def _fold_scalar(transition: Scalar, reads: Tensor, writes: Tensor) -> Folded:
    """A decay shared by all keys: one matrix product, and the decays between steps folded alone."""
    one = reads.new_ones((1,) * (reads.ndim - 3) + (reads.shape[-3], 1, 1))
    decay = _fold_pairwise(transition, one, one)
    r, w = reads.shape[-1], writes.shape[-1]
    between = decay.gram.repeat_interleave(r, -2).repeat_interleave(w, -1)
    return Folded(
        _gram(reads, writes) * between,
        _columns(reads) * decay.reads.repeat_interleave(r, -1),
        _columns(writes) * decay.writes.repeat_interleave(w, -1),
        decay.total,
    )


def _fold_pairwise(transition: Structure, reads: Tensor, writes: Tensor) -> Folded:
    lead = torch.broadcast_shapes(transition.lead, reads.shape[:-2], writes.shape[:-2])
    reads, writes = (x.expand(*lead, *x.shape[-2:]) for x in (reads, writes))
    total = transition.linear().map(lambda leaf, axes: _expand(leaf, axes, lead))
    gram = matmul(reads.transpose(-1, -2), writes)
    reads = total.transpose().apply(reads)
    while gram.shape[-3] > 1:
        left, right = _halves(total, 0), _halves(total, 1)
        (g_l, g_r), (r_l, r_r), (w_l, w_r) = (
            (x[..., 0::2, :, :], x[..., 1::2, :, :]) for x in (gram, reads, writes)
        )
        cross = _cross(r_r, w_l)
        upper = torch.cat([g_l, torch.zeros_like(g_l)], -1)
        gram = torch.cat([upper, torch.cat([cross, g_r.to(cross.dtype)], -1)], -2)
        reads = torch.cat([r_l, left.transpose().apply(r_r)], -1)
        writes = torch.cat([right.apply(w_l), w_r.to(cross.dtype)], -1)
        total = compose(right, left)
    total = total.map(lambda leaf, axes: leaf.select(leaf.ndim - axes - 1, 0))
    return Folded(gram[..., 0, :, :], reads[..., 0, :, :], writes[..., 0, :, :], total)


def _cross(reads: Tensor, writes: Tensor) -> Tensor:
    """readsᵀ writes; tiny blocks by multiplying and adding, which beats many tiny matrix products."""
    if reads.shape[-1] * writes.shape[-1] <= 4:
        return (reads[..., :, :, None] * writes[..., :, None, :]).sum(-3)
    return matmul(reads.transpose(-1, -2), writes)


def _gram(reads: Tensor, writes: Tensor) -> Tensor:
    return matmul(_columns(reads).transpose(-1, -2), _columns(writes))


def _columns(x: Tensor) -> Tensor:
    """(…, C, K, r) to (…, K, C r)."""
    return x.movedim(-3, -2).flatten(-2)


def _mask(reads: Tensor, writes: Tensor) -> Tensor:
    steps = torch.arange(reads.shape[-3], device=reads.device)
    rows = steps.repeat_interleave(reads.shape[-1])
    columns = steps.repeat_interleave(writes.shape[-1])
    return (rows[:, None] >= columns[None, :]).to(reads.dtype)


def _expand(leaf: Tensor, axes: int, lead: torch.Size) -> Tensor:
    return leaf.expand(*lead, *leaf.shape[leaf.ndim - axes :])


def _halves(structure: Structure, which: int) -> Structure:
    return structure.map(
        lambda leaf, axes: leaf[(..., slice(which, None, 2), *(slice(None),) * axes)]
    )
