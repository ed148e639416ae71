"""From what the programs find per head and tile of keys to the gradients of what was given."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dsf.kernels.shapes import per_head, shared

from .quantities import Quantities


def room(x: Quantities, *, tiles: int, upcast: bool) -> dict[str, Tensor]:
    """Where the programs put gradients: per head, and a part per tile of keys of what is summed over them.

    Those of a stream are of its type, or in float32 where they are yet to be summed over heads that share it.
    """
    found = {f"d{name}": per_head(getattr(x, name), x.heads, wide=upcast) for name in "qkbv"}
    found["dbeta"] = x.beta.new_empty(*x.beta.shape, tiles)
    found["dg"] = torch.empty_like(x.g) if x.keyed else x.g.new_empty(*x.g.shape, tiles)
    return found


def gathered(x: Quantities, found: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Gradients of q, k, b, v, β and g."""
    of_gates = found["dg"] if x.keyed else found["dg"].sum(-1)
    streams = (shared(found[f"d{name}"], getattr(x, name)) for name in "qkbv")
    return *streams, found["dbeta"].sum(-1), of_gates
