r"""The boxes of tiles that a kernel walks, one interval of tiles per axis, from what every query sees.

Along one axis, in one dilation group, query i sees the keys [start_i, end_i), and both ends never fall. So
a query tile [a, b] visits the KV tiles from ⌊start_a / T⌋ to ⌈end_b / T⌉, and needs no mask in those from
⌈start_b / T⌉ to ⌊end_a / T⌋. A KV tile is visited by an interval of query tiles too. Over several axes a tile
visits the product of its intervals, and needs no mask in the product of the inner ones.

Unlike `count`, which is about visible pairs, a ragged last KV tile needs a mask here: some of its keys do not
exist.
"""

from __future__ import annotations

import numpy as np

from dsf.errors import InvalidInput


def query_boxes(start: np.ndarray, end: np.ndarray, q: int, kv: int) -> np.ndarray:
    """KV tiles of every query tile: first visited, behind the last, first without a mask, behind the last.

    `start` and `end` (queries,) must not fall; tiles hold `q` queries and `kv` keys. Int32 (tiles, 4).

    >>> import numpy as np
    >>> query_boxes(np.zeros(6, int), np.arange(1, 7), 2, 2).tolist()  # causal
    [[0, 1, 0, 0], [0, 2, 0, 1], [0, 3, 0, 2]]
    """
    _check(start, end)
    first = np.arange(0, len(start), q)
    last = np.minimum(first + q, len(start)) - 1
    low, high = start[first], end[last]
    outer = low // kv, np.where(high > low, -(-high // kv), low // kv)
    whole = -(-start[last] // kv)
    return _rows(*outer, whole, np.maximum(end[first] // kv, whole))


def key_boxes(start: np.ndarray, end: np.ndarray, q: int, kv: int, keys: int) -> np.ndarray:
    """Query tiles that visit every KV tile of `keys` keys, in the same four columns: the same pairs of tiles.

    >>> import numpy as np
    >>> key_boxes(np.zeros(6, int), np.arange(1, 7), 2, 2, 6).tolist()
    [[0, 3, 1, 3], [1, 3, 2, 3], [2, 3, 3, 3]]
    """
    _check(start, end)
    low = np.arange(0, keys, kv)
    first = np.searchsorted(end, low, side="right") // q
    after = -(-np.searchsorted(start, np.minimum(low + kv, keys), side="left") // q)
    tiles = np.arange(0, len(start), q)
    whole = np.searchsorted(end[tiles], low + kv, side="left")
    behind = np.searchsorted(start[np.minimum(tiles + q, len(start)) - 1], low, side="right")
    return _rows(first, np.maximum(after, first), whole, np.maximum(behind, whole))


def _rows(*columns: np.ndarray) -> np.ndarray:
    return np.stack(columns, 1).astype(np.int32)


def _check(start: np.ndarray, end: np.ndarray) -> None:
    if start.ndim != 1 or start.shape != end.shape:
        raise InvalidInput(
            f"start and end must be two rows as long; got {start.shape}, {end.shape}"
        )
    if (np.diff(start) < 0).any() or (np.diff(end) < 0).any():
        raise InvalidInput(
            "the keys of a later query must not begin or end before those of an earlier one"
        )
