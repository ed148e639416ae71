"""From what the programs find per head and tile of keys to the gradients of what was given."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dsf.kernels.shapes import shared

from .quantities import Quantities


def room(x: Quantities, *, tiles: int, upcast: bool) -> dict[str, Tensor]:
    """Where the programs put gradients: per head, and a part per tile of keys of what is summed over them.

    Those of a stream are of its type, or in float32 where they are yet to be summed over heads that share it.
    """
    found = {}
    for name in "qkbv":
        like = getattr(x, name)
        narrow = like.shape[2] == x.heads and not upcast
        shape = (*like.shape[:2], x.heads, like.shape[3])
        found[f"d{name}"] = like.new_empty(shape, dtype=like.dtype if narrow else torch.float32)
    found["dbeta"] = x.beta.new_empty(*x.beta.shape, tiles)
    found["dg"] = torch.empty_like(x.g) if x.keyed else x.g.new_empty(*x.g.shape, tiles)
    return found


def gathered(x: Quantities, found: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Gradients of q, k, b, v, β and g."""
    of_gates = found["dg"] if x.keyed else found["dg"].sum(-1)
    streams = (shared(found[f"d{name}"], getattr(x, name)) for name in "qkbv")
    return *streams, found["dbeta"].sum(-1), of_gates
