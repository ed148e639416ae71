r"""Counts of patterns that are no product of intervals: a mask function, or block counts known already.

With these, routing, bi-level routing, circular windows (CLEAR), documents and any other sparse
attention get the same bounds and the same times as a Generalized Neighborhood Attention pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from dsf.errors import InvalidInput

from .axis_counts import AxisCounts, GroupCounts
from .counts import Counts
from .pattern import PerAxis, as_shape, show
from .tiling import Tiling

Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Coordinates of queries (..., rank) and of keys (..., rank), broadcast, to visible or not."""

LIMIT = 2**32
"""Pairs that are looked at one by one at most; ten to thirty seconds of one core."""


def count_mask(mask: Mask, layout: PerAxis, tiling: Tiling, limit: int = LIMIT) -> Counts:
    """Count the tiles of a mask function by asking it about every pair.

    Tokens are cut into the tiling's boxes, as token permutation would; only static KV tiling.
    Raises `InvalidInput` where there are more than `limit` pairs.

    >>> def circle(q, k):  # CLEAR: keys no further than 4
    ...     return ((q - k) ** 2).sum(-1) <= 16
    >>> counts = count_mask(circle, (16, 16), Tiling.parse("4x4/4x4"))
    >>> counts.visited, counts.full, counts.visible_pairs
    (100, 0, 10092)
    """
    layout = as_shape("layout", layout)
    tiling.check(layout)
    if tiling.dynamic:
        raise InvalidInput("a mask function is counted with static KV tiling; 'dynamic' was given")
    pairs = prod(layout) ** 2
    if pairs > limit:
        raise InvalidInput(
            f"layout {show(layout)} has {pairs} pairs, over the limit of {limit}: write the pattern "
            "as a `Pattern`, count a smaller layout, or raise `limit`"
        )
    rows = [_row(mask, queries, layout, tiling) for queries in _boxes(layout, tiling.q)]
    visits, full, visible = np.array(rows).T
    sizes = tiling.sizes
    return count_visits(visits, full, int(visible.sum()), layout, tiling.kv, sizes)


def count_visits(
    visits: Sequence[int] | np.ndarray,
    full: Sequence[int] | np.ndarray,
    visible_pairs: int,
    layout: PerAxis,
    kv_tile: PerAxis,
    sizes: tuple[int, int],
) -> Counts:
    """Counts of a pattern of which is known how many KV tiles each query tile visits.

    `visits` and `full` have one entry per query tile; `sizes` are the tokens of a query tile and of
    a KV tile. Raises `InvalidInput` where the numbers contradict each other.

    >>> # Bi-level routing: 64 regions of 49 tokens, each attends to 4; a KV tile is a region.
    >>> counts = count_visits([4] * 64, [4] * 64, 64 * 4 * 49**2, 64 * 49, 49, (49, 49))
    >>> counts.kv_tiles / counts.most
    16.0
    """
    layout, tile = as_shape("layout", layout), as_shape("kv tile", kv_tile)
    visited, whole = np.asarray(visits, dtype=np.int64), np.asarray(full, dtype=np.int64)
    tokens = prod(layout)
    kv_tiles = prod(-(-size // t) for size, t in zip(layout, tile, strict=True))
    if visited.ndim != 1 or visited.shape != whole.shape or not visited.size:
        raise InvalidInput(
            "visits and full must be two rows as long, one entry per query tile; shapes "
            f"{visited.shape} and {whole.shape} were given"
        )
    if (whole < 0).any() or (whole > visited).any() or (visited > kv_tiles).any():
        raise InvalidInput(
            f"each query tile must have 0 <= full <= visits <= {kv_tiles}, the KV tiles of layout "
            f"{show(layout)}"
        )
    if not 0 < visible_pairs <= tokens**2:
        raise InvalidInput(
            f"visible_pairs must be between 1 and {tokens**2}; {visible_pairs} was given"
        )
    group = GroupCounts(tokens, 1, visited, whole)
    total, most, done = int(visited.sum()), int(visited.max()), int(whole.sum())
    factor = AxisCounts((group,), visited.size, kv_tiles, total, most, done, visited.size, total)
    return Counts(
        q_tiles=visited.size,
        kv_tiles=kv_tiles,
        visited=total,
        most=most,
        full=done,
        visible_pairs=visible_pairs,
        queries=tokens,
        keys=tokens,
        padded_q_tiles=visited.size,
        padded_visited=total,
        dense_q_tiles=-(-tokens // sizes[0]),
        dense_kv_tiles=-(-tokens // sizes[1]),
        ragged=visited.size * sizes[0] != tokens or kv_tiles * sizes[1] != tokens,
        histogram_factors=(factor,),
    )


def documents(lengths: Sequence[int], causal: bool = False) -> Mask:
    """The mask of documents packed in a row: a token sees its own document (its past, if causal).

    >>> mask = documents([3, 5])
    >>> mask(np.array([[2], [4]]), np.array([[3], [3]])).tolist()
    [False, True]
    """
    sizes = as_shape("lengths", lengths)
    if min(sizes) < 1:
        raise InvalidInput(f"each document must have at least 1 token; lengths {sizes} were given")
    owner = np.repeat(np.arange(len(sizes)), sizes)

    def mask(q: np.ndarray, k: np.ndarray) -> np.ndarray:
        q, k = q[..., 0], k[..., 0]
        same = owner[q] == owner[k]
        return same & (k <= q) if causal else same

    return mask


def routing(assignment: Sequence[int]) -> Mask:
    """The mask of routed attention: a token sees the tokens that were routed where it was.

    Sort tokens by their cluster first, or tiles will hold tokens of many.
    """
    cluster = np.asarray(assignment)

    def mask(q: np.ndarray, k: np.ndarray) -> np.ndarray:
        return cluster[q[..., 0]] == cluster[k[..., 0]]

    return mask


def _boxes(layout: tuple[int, ...], tile: tuple[int, ...]) -> list[np.ndarray]:
    """The coordinates (tokens, rank) of every tile, in row-major order of tiles."""
    corners = np.indices([-(-n // t) for n, t in zip(layout, tile, strict=True)])
    inside = np.indices(tile).reshape(len(tile), -1).T
    found = []
    for corner in corners.reshape(len(tile), -1).T:
        coordinates = corner * np.array(tile) + inside
        found.append(coordinates[(coordinates < np.array(layout)).all(-1)])
    return found


def _row(
    mask: Mask, queries: np.ndarray, layout: tuple[int, ...], tiling: Tiling
) -> tuple[int, int, int]:
    """KV tiles visited, full ones, and visible pairs, of one query tile."""
    keys = np.indices(layout).reshape(len(layout), -1).T
    visible = np.asarray(mask(queries[:, None, :], keys[None, :, :]), dtype=bool)
    grid = np.array([-(-n // t) for n, t in zip(layout, tiling.kv, strict=True)])
    tile = np.ravel_multi_index((keys // np.array(tiling.kv)).T.tolist(), grid.tolist())
    seen = np.bincount(tile, visible.sum(0), minlength=int(grid.prod())).astype(np.int64)
    size = np.bincount(tile, minlength=int(grid.prod())) * len(queries)
    return int((seen > 0).sum()), int((seen == size).sum()), int(seen.sum())
