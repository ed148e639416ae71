"""Tiles and pairs of a whole pattern under a tiling, exactly, in microseconds."""

from __future__ import annotations

from typing import NamedTuple

from .axis_counts import AxisCounts, count_axis
from .pattern import Pattern
from .tiling import Tiling


class Counts(NamedTuple):
    """What a kernel does for one head and one batch entry.

    `q_tiles`, `kv_tiles`: tiles of the layout, ragged ones included. `visited`: (query tile, KV
    tile) pairs that hold a visible pair; `most`: of the worst query tile; `full`: those whose every
    pair is visible. `queries`, `keys`: tokens. `padded_visited`: `visited` over the padded, permuted
    grid of `padded_q_tiles` query tiles that is launched. `dense_q_tiles`, `dense_kv_tiles`: tiles
    of a dense kernel with tiles as large over the same tokens in a row. `ragged`: some tile is not
    filled with tokens, so that no order among the bounds is promised. KV tiles of extra keys are
    included everywhere.
    """

    q_tiles: int
    kv_tiles: int
    visited: int
    most: int
    full: int
    visible_pairs: int
    queries: int
    keys: int
    padded_q_tiles: int
    padded_visited: int
    dense_q_tiles: int
    dense_kv_tiles: int
    ragged: bool
    histogram_factors: tuple[AxisCounts, ...]
    extra_tiles: int = 0

    @property
    def dense_pairs(self) -> int:
        """(query, key) pairs of dense attention."""
        return self.queries * self.keys

    @property
    def partial(self) -> int:
        """Visited tiles that need a mask."""
        return self.visited - self.full

    @property
    def mean(self) -> float:
        """KV tiles that a query tile visits on average."""
        return self.visited / self.q_tiles

    def histogram(self) -> dict[int, int]:
        """How many query tiles visit how many KV tiles."""
        found = {1: 1}
        for factor in self.histogram_factors:
            product: dict[int, int] = {}
            for visits, many in factor.histogram().items():
                for before, tiles in found.items():
                    key = before * visits
                    product[key] = product.get(key, 0) + tiles * many
            found = product
        return {visits + self.extra_tiles: found[visits] for visits in sorted(found)}


def count(pattern: Pattern, tiling: Tiling) -> Counts:
    """Count the tiles of a pattern, exactly.

    Totals, maxima and means are products over the axes. Raises `InvalidInput` unless the tiling has
    one entry per axis.

    >>> pattern = Pattern((30, 48, 80), window=(18, 24, 24), stride=(16, 8, 8))
    >>> counts = count(pattern, Tiling.parse("4x8x8/2x8x8"))
    >>> counts.q_tiles, counts.kv_tiles, counts.most, counts.visited, counts.partial
    (480, 900, 81, 38880, 0)
    """
    tiling.check(pattern.layout)
    axes = tuple(
        count_axis(axis, q, kv, tiling.dynamic)
        for axis, q, kv in zip(pattern.axes, tiling.q, tiling.kv, strict=True)
    )
    return _combined(axes, pattern, tiling)


def _combined(axes: tuple[AxisCounts, ...], pattern: Pattern, tiling: Tiling) -> Counts:
    q_tiles = kv_tiles = visited = most = full = padded_q_tiles = padded_visited = 1
    for axis in axes:
        q_tiles *= axis.q_tiles
        kv_tiles *= axis.kv_tiles
        visited *= axis.visited
        most *= axis.most
        full *= axis.full
        padded_q_tiles *= axis.padded_q_tiles
        padded_visited *= axis.padded_visited
    q_size, kv_size = tiling.sizes
    tokens, extra_keys = pattern.tokens, pattern.extra_keys
    extra = -(-extra_keys // kv_size)
    return Counts(
        q_tiles=q_tiles,
        kv_tiles=kv_tiles + extra,
        visited=visited + q_tiles * extra,
        most=most + extra,
        full=full + q_tiles * extra,
        visible_pairs=pattern.visible_pairs,
        queries=tokens,
        keys=tokens + extra_keys,
        padded_q_tiles=padded_q_tiles,
        padded_visited=padded_visited + padded_q_tiles * extra,
        dense_q_tiles=-(-tokens // q_size),
        dense_kv_tiles=-(-(tokens + extra_keys) // kv_size),
        ragged=padded_q_tiles * q_size != tokens
        or (kv_tiles + extra) * kv_size != tokens + extra_keys,
        histogram_factors=axes,
        extra_tiles=extra,
    )
