r"""KV tiles that the query tiles of one axis visit, exactly.

For a query tile [a, b] of a group, with KV tiles of T tokens on a fixed grid (static):

    visited = ⌈end(b) / T⌉ - ⌊start(a) / T⌋
    full    = ⌊end(a) / T⌋ - ⌈start(b) / T⌉, at least 0; a ragged last tile counts if end(a) = n

and with KV tiles that begin at start(a) (dynamic) the same with every position taken from there. A
full tile is one whose every key that exists is visible to every query of the tile. A tile of several
axes is visited (full) where it is visited (full) on each, so over axes totals multiply, and maxima
and means too.

Source: Hassani et al. 2025 (arXiv 2504.16922), section 4.2, made exact for every case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .axis import Axis

_FEW = 64  # query tiles up to which plain integers are quicker than arrays


class GroupCounts(NamedTuple):
    """Of one dilation group: its size, how many groups are like it, and per query tile what it visits."""

    size: int
    many: int
    visited: Sequence[int] | np.ndarray
    full: Sequence[int] | np.ndarray


class AxisCounts(NamedTuple):
    """Counts of one axis, over all its dilation groups.

    `visited` and `full` are totals over the query tiles, `most` is the worst of them. Where groups
    differ in length, each is padded to the longest: `padded_q_tiles` and `padded_visited` include
    query tiles without a token, which visit what their group's last window needs.
    """

    groups: tuple[GroupCounts, ...]
    q_tiles: int
    kv_tiles: int
    visited: int
    most: int
    full: int
    padded_q_tiles: int
    padded_visited: int

    def histogram(self) -> dict[int, int]:
        """How many query tiles visit how many KV tiles."""
        found: Counter[int] = Counter()
        for group in self.groups:
            for visits in group.visited:
                found[int(visits)] += group.many
        return dict(sorted(found.items()))

    @property
    def exact(self) -> bool:
        """Whether every visited tile is full: the axis needs no mask."""
        return self.visited == self.full


@lru_cache(maxsize=65536)
def count_axis(axis: Axis, q: int, kv: int, dynamic: bool = False) -> AxisCounts:
    """Count the tiles of one axis for query tiles of `q` and KV tiles of `kv` tokens.

    >>> counts = count_axis(Axis(length=48, window=24), 8, 8)
    >>> counts.q_tiles, counts.kv_tiles, counts.visited, counts.most, counts.full
    (6, 6, 24, 5, 12)
    """
    groups = []
    q_tiles = kv_tiles = total = most = done = padded = padded_total = 0
    for size, many in axis.groups:
        tiles = -(-size // q)
        if tiles <= _FEW:
            visited, full = _few(axis, size, q, kv, dynamic)
            visits, worst, whole = sum(visited), max(visited), sum(full)
        else:
            visited, full = _many(axis, size, q, kv, dynamic)
            visits, worst, whole = int(visited.sum()), int(visited.max()), int(full.sum())
        groups.append(GroupCounts(size, many, visited, full))
        padded = padded or tiles  # the first group is the longest
        q_tiles += many * tiles
        kv_tiles += many * -(-size // kv)
        total += many * visits
        most = max(most, worst)
        done += many * whole
        padded_total += many * visits
        if tiles < padded:
            start, end = axis.interval(size - 1, size)
            last = -(-(end - start) // kv) if dynamic else -(-end // kv) - start // kv
            padded_total += many * (padded - tiles) * last
    padded *= axis.dilation
    return AxisCounts(tuple(groups), q_tiles, kv_tiles, total, most, done, padded, padded_total)


def _few(axis: Axis, size: int, q: int, kv: int, dynamic: bool) -> tuple[list[int], list[int]]:
    """The formulas above in plain integers; `Axis.interval` stands in the loop for speed."""
    visited, full = [], []
    window, stride, shift, causal = axis.window, axis.stride, axis.shift, axis.causal
    latest, origin = size - window, 0
    for first in range(0, size, q):
        last = first + q - 1
        if last >= size:
            last = size - 1
        start = first // stride * stride + shift
        start = 0 if start < 0 else latest if start > latest else start
        last_start = last // stride * stride + shift
        last_start = 0 if last_start < 0 else latest if last_start > latest else last_start
        if causal:
            end, last_end = first + 1, last + 1
        else:
            end, last_end = start + window, last_start + window
        if dynamic:
            origin = start
        visited.append(-((origin - last_end) // kv) - (start - origin) // kv)
        done = -((origin - end) // kv) if end == size else (end - origin) // kv
        done += (origin - last_start) // kv
        full.append(done if done > 0 else 0)
    return visited, full


def _many(axis: Axis, size: int, q: int, kv: int, dynamic: bool) -> tuple[np.ndarray, np.ndarray]:
    """The same in arrays."""
    first = np.arange(0, size, q)
    last = np.minimum(first + (q - 1), size - 1)
    start, end = axis.intervals(first, size)
    last_start, last_end = axis.intervals(last, size)
    origin = start if dynamic else 0
    visited = -((origin - last_end) // kv) - (start - origin) // kv
    up, down = -((origin - end) // kv), (end - origin) // kv
    full = np.where(end == size, up, down) + (origin - last_start) // kv
    return visited, np.maximum(full, 0)
