"""Masks and tile counts by the definition, pair by pair; nothing of `dsf.sim` is used.

The window is written as the paper has it, by stride groups and their leaders, not by the shift that
the library uses.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import NamedTuple

import numpy as np


def window(i: int, n: int, w: int, s: int, causal: bool) -> range:
    """The inner coordinates that query i of a group of n tokens sees."""
    group = i // s
    if causal:
        leader = min(group * s + s - 1, n - 1)
        return range(max(leader - w + 1, 0), min(i + 1, n))
    leader = min(group * s + s // 2, n - 1)
    left, right = w // 2, w // 2 + w % 2 - 1
    centre = min(max(leader, left), n - 1 - right)
    return range(centre - left, centre + right + 1)


def axis_mask(length: int, w: int, s: int, d: int, causal: bool) -> np.ndarray:
    """(length, length) booleans in the order of tokens: query, key."""
    mask = np.zeros((length, length), dtype=bool)
    for q in range(length):
        group, n = q % d, len(range(q % d, length, d))
        for k in window(q // d, n, w, s, causal):
            mask[q, k * d + group] = True
    return mask


def mask(layout, w, s, d, causal) -> np.ndarray:
    """(tokens, tokens) booleans, tokens in row-major order."""
    found = np.ones((1, 1), dtype=bool)
    for axis in zip(layout, w, s, d, causal, strict=True):
        found = np.kron(found, axis_mask(*axis))
    return found


class Tiles(NamedTuple):
    visited: int
    most: int
    full: int
    pairs: int
    histogram: dict[int, int]


def tiles(layout, w, s, d, causal, q_tile, kv_tile, dynamic=False, swap=False) -> Tiles:
    """Count blocks of the mask; with `swap`, those that a KV tile sees of query tiles."""
    visible = mask(layout, w, s, d, causal)
    coordinates = list(product(*map(range, layout)))
    boxes: dict[tuple, list[int]] = {}
    for token, x in enumerate(coordinates):
        key = tuple((c % e, c // e // t) for c, e, t in zip(x, d, q_tile, strict=True))
        boxes.setdefault(key, []).append(token)
    rows = []
    for key, queries in boxes.items():
        seen = visible[queries]
        origin = [0] * len(layout)
        if dynamic:
            keys = [coordinates[k] for k in np.flatnonzero(seen.any(0))]
            origin = [min(x[a] // d[a] for x in keys) for a in range(len(layout))]
        blocks: dict[tuple, list[int]] = {}
        for token, x in enumerate(coordinates):
            if all(c % e == g for c, e, (g, _) in zip(x, d, key, strict=True)):
                at = tuple(
                    (c // e - o) // t for c, e, o, t in zip(x, d, origin, kv_tile, strict=True)
                )
                blocks.setdefault((key if swap else (), at), []).append(token)
        for (_, at), keys in blocks.items():
            part = seen[:, keys]
            rows.append((key, at, part.any(), part.all()))
    if swap:  # KV tiles are told apart by dilation group and place
        rows = [
            ((tuple(g for g, _ in key), at), tuple(t for _, t in key), *rest)
            for key, at, *rest in rows
        ]
    visits: dict[tuple, int] = {}
    for key, _, seen, _ in rows:
        visits[key] = visits.get(key, 0) + bool(seen)
    histogram: dict[int, int] = {}
    for many in visits.values():
        histogram[many] = histogram.get(many, 0) + 1
    return Tiles(
        visited=sum(visits.values()),
        most=max(visits.values()),
        full=sum(bool(whole) for *_, whole in rows),
        pairs=int(visible.sum()),
        histogram=dict(sorted(histogram.items())),
    )


def grid(layout, d, tile) -> int:
    """How many tiles the dilation groups have, ragged ones included."""
    return prod(
        sum(-(-len(range(g, n, e)) // t) for g in range(e))
        for n, e, t in zip(layout, d, tile, strict=True)
    )
