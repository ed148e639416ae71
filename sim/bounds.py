r"""The family of speed-up bounds over dense attention, always given together.

    flop          = dense pairs / visible pairs
    worst_tile    = KV tiles of the layout / most KV tiles any query tile visits      (NATTENSim)
    mean_tile     = KV tiles of the layout / mean KV tiles a query tile visits
    padding_aware = dense kernel's query tiles x KV tiles / visits of the padded, permuted grid
    masked_tile   = the same, a visit costing 1 + μ where the kernel masks (all visits, or none)

Where tiles divide the layout, nothing is padded and no axis is causal,
flop >= mean_tile >= worst_tile, with equality of all three exactly where the pattern is
block-sparse. With ragged tiles no order is promised.

Source: Hassani et al. 2025 (arXiv 2504.16922), section 4.2, for the first two; own derivation else.
"""

from __future__ import annotations

from dataclasses import dataclass

from dsf.errors import InvalidInput

from .counts import Counts


@dataclass(frozen=True)
class Bounds:
    """Speed-ups over dense attention, each a ratio; `ordered` says whether an order is promised."""

    flop: float
    worst_tile: float
    mean_tile: float
    padding_aware: float
    masked_tile: float
    masked_overhead: float
    ordered: bool


def bounds(counts: Counts, masked_overhead: float = 0.0) -> Bounds:
    """The bounds of a pattern from its counts.

    `masked_overhead` is μ, what masking adds to a visited tile, as a share; it applies only where
    some visited tile is partial, and then to all, as in NATTEN's kernels.

    >>> from dsf.sim import Pattern, Tiling, count
    >>> pattern = Pattern((30, 48, 80), window=(18, 24, 24), stride=(1, 1, 1))
    >>> found = bounds(count(pattern, Tiling.parse("4x8x8/2x8x8")))
    >>> round(found.flop, 2), round(found.worst_tile, 3), round(found.mean_tile, 3)
    (11.11, 3.273, 5.245)
    """
    if masked_overhead < 0:
        raise InvalidInput(f"masked_overhead {masked_overhead} was given; it must not be negative")
    masked = 1 + masked_overhead if counts.partial else 1.0
    padding_aware = counts.dense_q_tiles * counts.dense_kv_tiles / counts.padded_visited
    return Bounds(
        flop=counts.dense_pairs / counts.visible_pairs,
        worst_tile=counts.kv_tiles / counts.most,
        mean_tile=counts.kv_tiles * counts.q_tiles / counts.visited,
        padding_aware=padding_aware,
        masked_tile=padding_aware / masked,
        masked_overhead=masked - 1,
        ordered=not counts.ragged,
    )
