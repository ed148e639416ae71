"""Inverses of unit triangular matrices, for the systems inside a chunk."""

from __future__ import annotations

import torch
from torch import Tensor

from .workspace import Workspace


def inverses(table: Tensor, unit: int, space: Workspace) -> Tensor:
    r"""(I - N)⁻¹ (M, n, n) of strictly lower N, from small blocks to large: of two neighbours L and R,

        [[L, 0], [-X, R]]⁻¹ = [[L⁻¹, 0], [R⁻¹ X L⁻¹, R⁻¹]].

    The diagonal blocks (unit, unit) of N are zero, and n / unit is a power of two.
    """
    rows = table.shape[1]
    key = "inverse", table.shape, unit, table.dtype, table.device
    found = space.once(key, lambda: _Inverse(table, unit))
    size = unit
    while size < rows:
        given, onto = _below(table, size), found.below[size]
        if size == unit:
            onto.copy_(given)
        elif size == 2:
            _of_two(given, onto, found.below[1])
        else:
            for i, (left, right, block, carried) in enumerate(found.pairs[size]):
                torch.bmm(given[:, i], left, out=carried)
                block.copy_(torch.bmm(right, carried, out=found.product[size]))
        size *= 2
    return found.whole


class _Inverse:
    """Room for inverses, cut into the pairs of each size: (left, right, the block under left, a product)."""

    def __init__(self, like: Tensor, unit: int) -> None:
        count, rows, _ = like.shape
        self.whole = like.new_zeros((count, rows, rows))
        self.whole.diagonal(dim1=1, dim2=2).fill_(1)
        self.below, self.pairs, self.product = {}, {}, {}
        size = unit
        while size < rows:
            self.below[size] = below = _below(self.whole, size)
            carried = like.new_empty((count, size, size))
            self.product[size] = like.new_empty((count, size, size))
            cuts = [slice(first, first + size) for first in range(0, rows, size)]
            blocks = [self.whole[:, cut, cut] for cut in cuts]
            self.pairs[size] = [
                (left, right, below[:, i], carried)
                for i, (left, right) in enumerate(zip(blocks[::2], blocks[1::2], strict=True))
            ]
            size *= 2


def _of_two(given: Tensor, onto: Tensor, ones: Tensor) -> None:
    """The blocks (2, 2) entry by entry: a batch of tiny matrix products costs more."""
    onto.copy_(given)
    onto[..., 0].addcmul_(onto[..., 1], ones[:, 0::2, :, 0])
    onto[..., 1, :].addcmul_(onto[..., 0, :], ones[:, 1::2, :, 0])


def _below(table: Tensor, size: int) -> Tensor:
    """Of each pair of neighbours on the diagonal, the block under the first, (M, pairs, size, size), a view."""
    pairs = table.unflatten(2, (-1, 2, size)).unflatten(1, (-1, 2, size))
    return pairs[:, :, 1, :, :, 0].diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
