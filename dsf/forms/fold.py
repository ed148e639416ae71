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

from dsf.structure import Diagonal, Identity, Scalar, Structure, compose
from dsf.structure.base import matmul

from .fold_decays import fold_decays, products
from .fold_gates import fold_gates
from .workspace import Workspace


@dataclass(frozen=True, eq=False)
class Folded:
    """Folded chunks, M of them: `grams[i][j]` (M, C, C) of read stream i with write stream j.

    `reads[i]` (M, C, K) carried back to the chunk's start, `writes[j]` (M, C, K) on to its end,
    `total` the transition products (M).
    """

    grams: list[list[Tensor]]
    reads: list[Tensor]
    writes: list[Tensor]
    total: Structure


def fold(
    transition: Structure,
    reads: list[Tensor],
    writes: list[Tensor],
    space: Workspace | None = None,
) -> Folded:
    """Fold streams (M, C, K) under transitions (M, C); C is a power of two, and reads see their step's update.

    With a workspace the streams are used up and nothing can be differentiated.
    """
    if space is None:
        return _fold_pairwise(transition.linear(), reads, writes)
    if isinstance(transition, Identity):
        grams = [[product.tril_() for product in row] for row in products(reads, writes, space)]
        return Folded(grams, reads, writes, transition)
    transition = transition.linear()
    if isinstance(transition, Scalar):
        grams, back, onward, total = fold_decays(transition.decay, reads, writes, space)
        return Folded(grams, back, onward, Scalar(total))
    if isinstance(transition, Diagonal):
        gates = transition.decay
        gates = gates.expand(*gates.shape[:-1], writes[0].shape[-1])
        after = [True] * len(reads)
        grams, back, onward, total = fold_gates(gates, reads, writes, after, space)
        return Folded(grams, back, onward, Diagonal(total))
    return _fold_pairwise(transition, reads, writes)


def _fold_pairwise(transition: Structure, reads: list[Tensor], writes: list[Tensor]) -> Folded:
    """Any structure that can be composed, half by half; differentiated by autograd."""
    total = transition.map(lambda leaf, axes: leaf.expand(*writes[0].shape[:2], *_own(leaf, axes)))
    w = torch.stack(writes, -1)  # (M, C, K, number of streams)
    r = torch.stack(reads, -1) if reads else w[..., :0]
    gram = matmul(r.mT, w)
    r = total.transpose().apply(r)
    while gram.shape[1] > 1:
        left, right = _halves(total, 0), _halves(total, 1)
        (g_l, g_r), (r_l, r_r), (w_l, w_r) = ((x[:, 0::2], x[:, 1::2]) for x in (gram, r, w))
        cross = matmul(r_r.mT, w_l)
        upper = torch.cat([g_l, torch.zeros_like(g_l)], -1)
        gram = torch.cat([upper, torch.cat([cross, g_r.to(cross.dtype)], -1)], -2)
        r = torch.cat([r_l, left.transpose().apply(r_r)], -1)
        w = torch.cat([right.apply(w_l), w_r.to(cross.dtype)], -1)
        total = compose(right, left)
    rows, columns = len(reads), len(writes)
    chunk = w.shape[-1] // columns
    gram = gram[:, 0].unflatten(-1, (chunk, columns)).unflatten(1, (chunk, rows))
    return Folded(
        [[gram[:, :, i, :, j] for j in range(columns)] for i in range(rows)],
        [r[:, 0].mT[:, i::rows] for i in range(rows)],
        [w[:, 0].mT[:, j::columns] for j in range(columns)],
        total.map(lambda leaf, axes: leaf.select(1, 0)),
    )


def _own(leaf: Tensor, axes: int) -> torch.Size:
    return leaf.shape[leaf.ndim - axes :]


def _halves(structure: Structure, which: int) -> Structure:
    return structure.map(lambda leaf, _: leaf[:, which::2])
