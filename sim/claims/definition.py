"""The definition, pair by pair: what the judges count with. Nothing of the simulator is used here."""

from __future__ import annotations

import numpy as np


def axis_mask(length: int, window: int, stride: int, causal: bool = False) -> np.ndarray:
    """(length, length) booleans, query and key: windows by stride groups and their leaders.

    Source: Hassani et al. 2025 (arXiv 2504.16922), section 3.

    >>> axis_mask(4, 2, 2).astype(int).tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    """
    query, key = np.arange(length)[:, None], np.arange(length)[None, :]
    group = query // stride
    if causal:
        leader = np.minimum(group * stride + stride - 1, length - 1)
        return (key <= query) & (leader - key < window)
    leader = np.minimum(group * stride + stride // 2, length - 1)
    left, right = window // 2, window // 2 + window % 2 - 1
    centre = np.clip(leader, left, length - 1 - right)
    return (key >= centre - left) & (key <= centre + right)


def axis_tiles(
    mask: np.ndarray, q: int, kv: int, dynamic: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """KV tiles visited and full ones, per query tile of a mask (queries, keys).

    >>> visited, full = axis_tiles(axis_mask(8, 4, 1), 2, 2)
    >>> visited.tolist(), full.tolist()
    ([2, 3, 3, 2], [2, 1, 1, 2])
    """
    visited, full = [], []
    for first in range(0, len(mask), q):
        rows = mask[first : first + q]
        seen, whole = np.any(rows, axis=0), np.all(rows, axis=0)
        start = int(np.flatnonzero(seen)[0]) if dynamic else 0
        tiles = [slice(at, at + kv) for at in range(start, mask.shape[1], kv)]
        visited.append(sum(bool(seen[tile].any()) for tile in tiles))
        full.append(sum(bool(whole[tile].all()) for tile in tiles))
    return np.array(visited), np.array(full)


def worst(
    layout: tuple[int, ...],
    window: tuple[int, ...],
    stride: tuple[int, ...],
    q: tuple[int, ...],
    kv: tuple[int, ...],
) -> tuple[int, int]:
    """KV tiles of the layout, and those that the worst query tile visits: products over axes."""
    tiles = most = 1
    for length, w, s, t, u in zip(layout, window, stride, q, kv, strict=True):
        tiles *= -(-length // u)
        most *= int(axis_tiles(axis_mask(length, w, s), t, u)[0].max())
    return tiles, most
