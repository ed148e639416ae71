r"""Whether a pattern is perfectly block-sparse: every visited tile full, so that no mask is needed.

Two verdicts. `exact` counts. `natten` is the predicate with which NATTEN 0.21 decides at run time
whether to skip masking; per axis and dilation group of n tokens, none of them causal,

    w = n, or
    T_Q | s, T_KV | w, (s | n or T_KV | start of the last stride group), and
    (T_KV | ⌊w/2⌋ - ⌊s/2⌋, or T_KV | n with two stride groups and s + ⌊s/2⌋ >= n - w).

With tiles of 2, 4, 8 … tokens an axis it never says yes where the count says no, but misses some;
then the mask is paid for nothing. With query tiles of one token on an axis, which some backward
kernels have, it says yes to windows that begin between KV tiles (16 tokens, window 8, stride 1,
tiles 1/4, as of commit 8c8729f): there `exact` is to be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass

from .axis import Axis
from .axis_counts import count_axis
from .pattern import Pattern
from .tiling import Tiling

MOST_AXES = 3  # NATTEN has no kernels beyond


@dataclass(frozen=True)
class BlockSparsity:
    """The two verdicts, and for each axis that is not block-sparse the reason.

    `natten` is None beyond three axes, where NATTEN has no kernel.
    """

    exact: bool
    natten: bool | None
    reasons: tuple[str, ...]


def block_sparsity(pattern: Pattern, tiling: Tiling) -> BlockSparsity:
    """Decide whether every visited tile is full.

    >>> found = block_sparsity(Pattern(20, window=4, stride=2), Tiling(2, 2))
    >>> found.exact, found.reasons[0].partition(": ")[2].partition(":")[0]
    (False, '16 of 28 visited tiles need a mask')
    """
    tiling.check(pattern.layout)
    rows = list(zip(pattern.axes, tiling.q, tiling.kv, strict=True))
    reasons = []
    for axis, q, kv in rows:
        counts = count_axis(axis, q, kv, tiling.dynamic)
        if not counts.exact:
            masked = counts.visited - counts.full
            why = _why(axis, q, kv, tiling.dynamic)
            reasons.append(
                f"{axis.name}: {masked} of {counts.visited} visited tiles need a mask: {why}"
            )
    natten = all(natten_axis(*row) for row in rows) if len(rows) <= MOST_AXES else None
    return BlockSparsity(not reasons, natten, tuple(reasons))


def natten_axis(axis: Axis, q: int, kv: int) -> bool:
    """NATTEN's predicate for one axis: true for all its dilation groups."""
    return not axis.causal and all(
        _natten_group(size, axis.window, axis.stride, q, kv) for size, _ in axis.groups
    )


def _natten_group(size: int, window: int, stride: int, q: int, kv: int) -> bool:
    half = window // 2
    leader = min(size // stride * stride + stride // 2, size - 1)
    right = half + window % 2 - 1
    last_start = max(leader - half, 0) + (leader + right >= size) * (size - right - leader - 1)
    two_groups = (
        size % kv == 0 and -(-size // stride) == 2 and stride + stride // 2 >= size - window
    )
    return size == window or (
        stride % q == 0
        and window % kv == 0
        and (size % stride == 0 or last_start % kv == 0)
        and ((half - stride // 2) % kv == 0 or two_groups)
    )


def _why(axis: Axis, q: int, kv: int, dynamic: bool) -> str:
    """The first query tile that has a partial KV tile, in words."""
    if axis.causal:
        return "the axis is causal, so windows end at the query"
    for size, _ in axis.groups:
        for first in range(0, size, q):
            last = min(first + q, size) - 1
            start, end = axis.interval(first, size)
            if axis.interval(last, size) != (start, end):
                return (
                    f"the query tile at {first} holds stride groups with different windows "
                    f"(the stride {axis.stride} is no multiple of the query tile {q}, "
                    "and no edge clamps them together)"
                )
            if not dynamic and start % kv:
                return (
                    f"the window of the query tile at {first} starts at {start}, "
                    f"which is no multiple of the KV tile {kv}"
                )
            if (end - start * dynamic) % kv and end != size:
                return (
                    f"the window of the query tile at {first} ends at {end}, "
                    f"within a KV tile of {kv}"
                )
    raise AssertionError("every query tile has one aligned window, yet a tile is partial")
