"""Tiles of the backward pass, where a KV tile stays and query tiles go by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .axis import Axis
from .pattern import Pattern
from .tiling import Tiling


@dataclass(frozen=True)
class BackwardCounts:
    """Per head and batch entry: query tiles that KV tiles visit, with `most` of the worst one."""

    kv_tiles: int
    q_tiles: int
    visited: int
    most: int
    full: int

    @property
    def partial(self) -> int:
        return self.visited - self.full

    @property
    def mean(self) -> float:
        return self.visited / self.kv_tiles


class AxisBackward(NamedTuple):
    kv_tiles: int
    q_tiles: int
    visited: int
    most: int
    full: int


def count_backward(pattern: Pattern, tiling: Tiling) -> BackwardCounts:
    """Count the tiles of the backward pass, exactly; KV tiles lie on the fixed grid.

    Keys [k, l) are seen by the queries with end > k and start < l, one interval again, since both
    ends are monotone.

    >>> counts = count_backward(Pattern(48, window=24), Tiling(8, 8))
    >>> counts.visited, counts.most
    (24, 5)
    """
    tiling.check(pattern.layout)
    kv_tiles = q_tiles = visited = most = full = 1
    for axis, q, kv in zip(pattern.axes, tiling.q, tiling.kv, strict=True):
        counts = backward_axis(axis, q, kv)
        kv_tiles *= counts.kv_tiles
        q_tiles *= counts.q_tiles
        visited *= counts.visited
        most *= counts.most
        full *= counts.full
    extra = -(-pattern.extra_keys // tiling.sizes[1])
    seen_by_all = extra * q_tiles
    return BackwardCounts(
        kv_tiles + extra,
        q_tiles,
        visited + seen_by_all,
        max(most, q_tiles) if extra else most,
        full + seen_by_all,
    )


@lru_cache(maxsize=65536)
def backward_axis(axis: Axis, q: int, kv: int) -> AxisBackward:
    """Count one axis, over all its dilation groups."""
    kv_tiles = q_tiles = visited = most = full = 0
    for size, many in axis.groups:
        start, end = axis.intervals(np.arange(size), size)
        low = np.arange(0, size, kv)
        high = np.minimum(low + kv, size)
        first = np.searchsorted(end, low, side="right")
        after = np.searchsorted(start, high, side="left")
        visits = -(-after // q) - first // q
        first = np.searchsorted(end, high, side="left")
        after = np.searchsorted(start, low, side="right")
        inside = np.where(after == size, -(-after // q), after // q) - -(-first // q)
        kv_tiles += many * len(low)
        q_tiles += many * -(-size // q)
        visited += many * int(visits.sum())
        most = max(most, int(visits.max()))
        full += many * int(np.maximum(inside, 0).sum())
    return AxisBackward(kv_tiles, q_tiles, visited, most, full)
