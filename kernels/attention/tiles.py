"""Shapes of tiles: how many queries and keys a program holds, and how they spread over axes."""

from __future__ import annotations

from typing import NamedTuple

from dsf.errors import InvalidInput
from dsf.kernels.contract import Program
from dsf.sim import Pattern, Tiling
from dsf.sim.pattern import Shape


def shape_of(tokens: int, rank: int) -> Shape:
    """A power of two spread over axes as evenly as can be, later axes longer.

    >>> shape_of(64, 1), shape_of(128, 2), shape_of(128, 3)
    ((64,), (8, 16), (4, 4, 8))
    """
    bits = tokens.bit_length() - 1
    return tuple(1 << (bits // rank + (bits % rank >= rank - axis)) for axis in range(rank))


class Sizes(NamedTuple):
    """Queries and keys of a tile, warps, pipeline stages, and how float32 is multiplied."""

    queries: int
    keys: int
    warps: int = 8
    stages: int = 1
    precision: str = "ieee"


# Of forward, backward by query tile and backward by key tile, by architecture and channels of a head: the
# largest without a spill, in two stages where that fits, and in three on the H100, which has no load in flight in
# two and ran smaller forward tiles faster (`dsf kernels report` shows what they use). Products of float32 are three
# of TF32, or exact where those spill.
_HALF = {
    80: {
        64: (Sizes(128, 64, 8, 2), Sizes(64, 32, 8, 2), Sizes(64, 32)),
        128: (Sizes(64, 64), Sizes(64, 64, 8, 2), Sizes(64, 64)),
        256: (Sizes(32, 32, 8, 2), Sizes(64, 32, 8, 2), Sizes(32, 32)),
    },
    90: {
        64: (Sizes(64, 64, 4, 3), Sizes(128, 64, 8, 3), Sizes(128, 64, 8, 2)),
        128: (Sizes(128, 64, 8, 3), Sizes(128, 64, 8, 3), Sizes(128, 64)),
        256: (Sizes(64, 32, 8, 2), Sizes(32, 32, 8, 2), Sizes(32, 32)),
    },
    100: {
        64: (Sizes(128, 64, 8, 2), Sizes(128, 64), Sizes(64, 64, 8, 2)),
        128: (Sizes(128, 64, 8, 2), Sizes(64, 64), Sizes(64, 64, 8, 2)),
        256: (Sizes(64, 64, 8, 2), Sizes(64, 64, 8, 2), Sizes(32, 64, 8, 2)),
    },
}


def _three(queries: int, keys: int, warps: int = 8) -> Sizes:
    return Sizes(queries, keys, warps, precision="tf32x3")


_LARGE = (_three(16, 32), _three(16, 32), _three(16, 16))
_WIDE = {
    80: {
        64: (_three(32, 32, 4), _three(32, 32), _three(16, 32)),
        128: (_three(16, 32), _three(16, 32), Sizes(32, 32)),
        256: (Sizes(16, 32), Sizes(16, 16), Sizes(16, 32)),
    },
    90: {
        64: (_three(64, 32, 4), _three(64, 32), _three(16, 32)),
        128: _LARGE,
        256: (Sizes(16, 32), Sizes(16, 16), Sizes(16, 32)),
    },
    100: {
        64: (_three(64, 64), _three(64, 32), _three(32, 32)),
        128: _LARGE,
        256: (Sizes(16, 32), Sizes(16, 16), Sizes(16, 32)),
    },
}
# Softplus is a series, and several axes have more places: both take registers.
_OTHERS = {
    ("softplus", False, 90, 64, 0): Sizes(128, 64, 8, 3),
    ("softplus", False, 90, 128, 0): Sizes(128, 64),
    ("softplus", False, 90, 128, 1): Sizes(128, 64, 8, 2),
    ("softplus", False, 90, 128, 2): Sizes(128, 32),
    ("sigmoid", False, 90, 128, 0): Sizes(64, 32, 4, 3),
    ("softplus", False, 100, 128, 2): Sizes(64, 64),
    ("softplus", True, 80, 256, 1): Sizes(16, 16, 4),
    ("sigmoid", True, 80, 256, 1): Sizes(16, 16, 4),
}
_SEVERAL_AXES = {
    (True, 90, 128, 2): Sizes(16, 32),
    (False, 90, 128, 0): Sizes(128, 64, 8, 2),
    (False, 90, 128, 1): Sizes(64, 64, 8, 2),
}
# Rows of whole 16 channels are copied in long pieces, with few addresses, and leave registers.
_LONG_PIECES = {
    (False, 80, 64, 1): Sizes(64, 64, 8, 2),
    (False, 80, 256, 0): Sizes(64, 32, 8, 2),
    (False, 90, 128, 0): Sizes(64, 64, 4, 3),
    (False, 90, 128, 2): Sizes(128, 64, 8, 2),
    (False, 90, 256, 1): Sizes(64, 32, 8, 2),
}
_LONG_PIECES_OF_SEVERAL_AXES = {
    (False, 90, 128, 0): Sizes(64, 64, 4, 3),
    (False, 90, 128, 1): Sizes(128, 64, 8, 3),
}
# Single cells where all of these spill: by weight, several axes, float32, architecture, channels and place, for rows of
# whole 16 channels and for others. A second stage of float32 takes fewer registers than one, as the report shows.
_NO_CHANGE = (None, None)
_FEWER = Sizes(16, 16)
_AHEAD = Sizes(16, 16, 8, 2)
_SPREAD = Sizes(16, 32, 16)
_CELLS: dict[tuple[str, bool, bool, int, int, int], tuple[Sizes | None, Sizes | None]] = {
    ("softmax", False, True, 80, 256, 1): (Sizes(16, 16, 8, 3), Sizes(16, 32, 8, 2)),
    ("softmax", False, True, 80, 256, 2): (_FEWER, _FEWER),
    ("sigmoid", False, True, 80, 256, 1): (_FEWER, _AHEAD),
    ("sigmoid", False, True, 80, 256, 2): (_SPREAD, _SPREAD),
    ("softplus", False, True, 80, 256, 1): (_AHEAD, Sizes(16, 32, 8, 2)),
    ("softplus", False, True, 80, 256, 2): (_FEWER, _FEWER),
    ("softmax", True, True, 80, 256, 0): (None, _SPREAD),
    ("softmax", True, True, 80, 256, 1): (_AHEAD, _AHEAD),
    ("softmax", True, False, 80, 256, 1): (None, Sizes(64, 16, 8, 2)),
    ("softmax", False, True, 90, 64, 1): (_three(64, 16), _three(64, 16)),
    ("softmax", False, True, 90, 256, 1): (_AHEAD, _AHEAD),
    ("sigmoid", False, True, 90, 64, 1): (None, _three(64, 16)),
    ("sigmoid", False, True, 90, 256, 1): (None, _AHEAD),
    ("sigmoid", False, True, 90, 256, 2): (_FEWER, _FEWER),
    ("softplus", False, True, 90, 64, 1): (_three(64, 16), _three(64, 16)),
    ("softplus", False, True, 90, 256, 1): (Sizes(16, 32, 8, 2), _AHEAD),
    ("softplus", False, True, 90, 256, 2): (_FEWER, _FEWER),
    ("softmax", True, True, 90, 64, 1): (_three(32, 32), _three(32, 32)),
    ("softmax", True, True, 90, 256, 0): (None, _SPREAD),
    ("softmax", True, True, 90, 256, 1): (_AHEAD, _AHEAD),
    ("softmax", True, True, 90, 256, 2): (_FEWER, _FEWER),
    ("softmax", False, True, 100, 256, 1): (_AHEAD, _AHEAD),
    ("softmax", False, False, 100, 256, 2): (Sizes(32, 64), Sizes(32, 64)),
    ("sigmoid", False, True, 100, 256, 2): (_FEWER, _FEWER),
    ("sigmoid", False, False, 100, 128, 1): (None, Sizes(64, 32)),
    ("softplus", False, True, 100, 256, 1): (_AHEAD, _AHEAD),
    ("softplus", False, True, 100, 256, 2): (_FEWER, _FEWER),
    ("softplus", False, False, 100, 64, 2): (Sizes(64, 64), None),
    ("softplus", False, False, 100, 128, 1): (None, Sizes(64, 32)),
    ("softplus", False, False, 100, 128, 2): (None, Sizes(64, 32)),
    ("softplus", False, False, 100, 256, 2): (Sizes(32, 64), Sizes(32, 64)),
    ("softmax", True, True, 100, 64, 0): (None, _three(64, 32)),
    ("softmax", True, True, 100, 64, 1): (_three(64, 16), _three(32, 32)),
    ("softmax", True, True, 100, 256, 0): (None, _SPREAD),
    ("softmax", True, True, 100, 256, 1): (_AHEAD, _AHEAD),
    ("softmax", True, True, 100, 256, 2): (_FEWER, _FEWER),
    ("softmax", True, False, 100, 128, 0): (None, Sizes(128, 64)),
    ("softmax", True, False, 100, 256, 0): (None, Sizes(64, 32, 8, 2)),
    ("softmax", True, False, 100, 256, 1): (None, Sizes(64, 32, 8, 2)),
    ("softmax", True, False, 100, 256, 2): (None, Sizes(32, 64)),
}


def sizes_for(
    place: int, program: Program, dtype: str, size: int, values: int, architecture: int
) -> Sizes:
    """Of the forward pass (0) and the two backward walks (1, 2), for heads of `size` channels and `values`."""
    wide, weight = dtype == "float32", str(program.flags["WEIGHT"])
    rows = (_WIDE if wide else _HALF)[architecture]
    channels = next((most for most in rows if max(size, values) <= most), max(rows))
    cell = wide, architecture, channels, place
    found = _OTHERS.get((weight, *cell), rows[channels][place])
    long, several = not (size % 16 or values % 16), program.flags["RANK"] != 1
    mended = _CELLS.get((weight, several, *cell), _NO_CHANGE)[0 if long else 1]
    if mended is not None:
        return mended
    if several:
        found = _SEVERAL_AXES.get(cell, found)
        return (
            _LONG_PIECES_OF_SEVERAL_AXES.get(cell, found) if long and weight == "softmax" else found
        )
    if weight == "softplus" or not long or (weight, *cell) in _OTHERS:
        return found
    return _LONG_PIECES.get(cell, found)


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
