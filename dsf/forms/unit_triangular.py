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
    count, rows, _ = table.shape
    one = torch.eye(unit, dtype=table.dtype, device=table.device)
    held, size = one.expand(count * (rows // unit), unit, unit), unit
    while size < rows:
        pairs = rows // (2 * size)
        below = table.view(count, pairs, 2, size, pairs, 2, size)[:, :, 1, :, :, 0]
        below = below.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
        cross = space("cross", below.shape, table).copy_(below).flatten(0, 1)
        if size > unit:
            carried = torch.bmm(cross, held[::2], out=space("carried", cross.shape, table))
            torch.bmm(held[1::2], carried, out=cross)
        joined = space(f"inverse {size}", (count * pairs, 2, size, 2, size), table).zero_()
        joined.diagonal(dim1=1, dim2=3).copy_(held.unflatten(0, (-1, 2)).permute(0, 2, 3, 1))
        joined[:, 1, :, 0] = cross
        held, size = joined.flatten(3, 4).flatten(1, 2), 2 * size
    return held
