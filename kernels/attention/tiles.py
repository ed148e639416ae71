"""Shapes of tiles: how many queries and keys a program holds, and how they spread over axes."""

from __future__ import annotations

from dsf.errors import InvalidInput
from dsf.sim import Pattern, Tiling
from dsf.sim.pattern import Shape


def shape_of(tokens: int, rank: int) -> Shape:
    """A power of two spread over axes as evenly as can be, later axes longer.

    >>> shape_of(64, 1), shape_of(128, 2), shape_of(128, 3)
    ((64,), (8, 16), (4, 4, 8))
    """
    bits = tokens.bit_length() - 1
    return tuple(1 << (bits // rank + (bits % rank >= rank - axis)) for axis in range(rank))


def sizes_for(name: str, dtype: str, size: int, architecture: int) -> tuple[int, int, int, str]:
    """Queries, keys, warps and the precision of products."""
    return 64, 64, 4, "tf32x3" if dtype == "float32" else "ieee"


def check_tiling(tiling: Tiling | None, pattern: Pattern) -> None:
    """Raise `InvalidInput` unless tiles are powers of two, of 16 to 128 tokens, on a fixed grid."""
    if tiling is None:
        return
    tiling.check(pattern.layout)
    if tiling.dynamic:
        raise InvalidInput(
            "the kernel's KV tiles lie on a fixed grid; kv_tiling 'dynamic' was given"
        )
    if any(size & (size - 1) for size in (*tiling.q, *tiling.kv)):
        raise InvalidInput(f"tiles must be powers of two along every axis; got {tiling}")
    if not all(16 <= size <= 128 for size in tiling.sizes):
        raise InvalidInput(f"tiles hold 16 to 128 tokens; those of {tiling} hold {tiling.sizes}")
