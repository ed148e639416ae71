r"""The tiles that the neighborhood kernel walks: its launch tables against brute force over every pair.

Along an axis a query tile visits one interval of KV tiles, and needs no mask in an inner interval; over several axes,
products of intervals. The tables come from `dsf.sim.boxes`, the truth from the definition of the pattern alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.sim.claims.definition import axis_mask
from dsf.verify.judges import under

_ROWS = {Budget.SMOKE: 12, Budget.DEFAULT: 60, Budget.FULL: 400}
_LARGEST = 64


def _draw(task: Task) -> Evidence:
    """Axes: length, window, stride, causal, and the tiles of queries and keys; neighbours make layouts of two."""
    rng, rows = task.rng(), []
    for _ in range(_ROWS[task.budget]):
        length = int(rng.integers(3, 25))
        window = int(rng.integers(2, length + 1))
        stride = int(rng.integers(1, window + 1))
        tiles = [int(x) for x in 2 ** rng.integers(0, 4, 2)]
        rows.append([length, window, stride, int(rng.integers(2)), *tiles])
    return {"axes": np.array(rows)}


def _tables(axes: np.ndarray, *, strided: bool = True) -> dict[str, Any]:
    """Boxes of query tiles and of KV tiles, and the simulator's count of visited pairs of tiles, axis by axis."""
    from dsf.sim import Pattern, Tiling, count
    from dsf.sim.boxes import key_boxes, query_boxes

    of_queries, of_keys, visited = [], [], []
    for length, window, stride, causal, q, kv in axes.tolist():
        pattern = Pattern(length, window, stride if strided else 1, causal=bool(causal))
        (axis,) = pattern.axes
        start, end = axis.intervals(np.arange(length), length)
        of_queries.append(query_boxes(start, end, q, kv))
        of_keys.append(key_boxes(start, end, q, kv, length))
        visited.append(count(pattern, Tiling(q, kv)).visited)
    return {"queries": of_queries, "keys": of_keys, "visited": visited}


def _tiles(seen: np.ndarray, q: int, kv: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs of tiles hold a visible pair, and which nothing else; a ragged last KV tile needs a mask."""
    shape = -(-seen.shape[0] // q), -(-seen.shape[1] // kv)
    any_, all_ = np.zeros(shape, bool), np.zeros(shape, bool)
    for i, j in np.ndindex(*shape):
        block = seen[i * q : (i + 1) * q, j * kv : (j + 1) * kv]
        any_[i, j], all_[i, j] = block.any(), block.all() and block.shape[1] == kv
    return any_, all_


def _fits(boxes: np.ndarray, rows: int, tiles: int) -> bool:
    """A box a row, and none beyond the last tile."""
    shaped = boxes.shape == (rows, 4)
    return shaped and bool(((boxes >= 0) & (boxes <= tiles)).all())


def _walked(boxes: np.ndarray, tiles: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of tiles that a program for every row visits, and those that it does not mask."""
    at = np.arange(tiles)
    first, behind, whole, after = (boxes[:, n, None] for n in range(4))
    visits = (at >= first) & (at < behind)
    return visits, visits & (at >= whole) & (at < after)


def _judge(evidence: Evidence) -> Verdict:
    axes = np.asarray(evidence["axes"])
    fit = axes.ndim == 2 and axes.shape[1] == 6 and len(axes) > 1 and bool((axes >= 0).all())
    small = fit and bool((axes[:, [0, 4, 5]] <= _LARGEST).all() and (axes[:, [0, 4, 5]] > 0).all())
    complete = all(len(evidence[name]) == len(axes) for name in ("queries", "keys", "visited"))
    ordered = fit and bool(((axes[:, 2] >= 1) & (axes[:, 2] <= axes[:, 1])).all())
    known = [
        Hypothesis("axes", len(axes), small and complete),
        Hypothesis("stride within the window", ordered, ordered),
    ]

    def conclude() -> Verdict:
        wrong, walked, found = 0, [], []
        for n, (length, window, stride, causal, q, kv) in enumerate(axes.tolist()):
            seen = axis_mask(length, window, stride, bool(causal))
            any_, all_ = _tiles(seen, q, kv)
            boxes = np.asarray(evidence["queries"][n]), np.asarray(evidence["keys"][n])
            fits = _fits(boxes[0], *any_.shape) and _fits(boxes[1], *any_.shape[::-1])
            if not fits:
                wrong += 1
                continue
            by_query, by_key = _walked(boxes[0], any_.shape[1]), _walked(boxes[1], len(any_))
            for mine, other, truth in zip(by_query, by_key, (any_, all_), strict=True):
                wrong += not (np.array_equal(mine, truth) and np.array_equal(other.T, truth))
            wrong += int(evidence["visited"][n]) != int(any_.sum())
            walked.append(by_query[0])
            found.append((seen, q, kv))
        # Two axes at a time: the product of intervals against the pattern over both, pair by pair.
        for n in range(0, len(found) - 1, 2):
            wrong += not np.array_equal(
                np.kron(walked[n], walked[n + 1]), _over_two(*found[n : n + 2])
            )
        status = Status.HOLDS if wrong == 0 else Status.VIOLATED
        return Verdict(
            status,
            float(wrong),
            0.0,
            0.0,
            remark=f"{len(axes)} axes, {len(axes) // 2} layouts of two",
        )

    return under(known, conclude)


def _over_two(
    first: tuple[np.ndarray, int, int], second: tuple[np.ndarray, int, int]
) -> np.ndarray:
    """Which tiles of a layout of two axes hold a visible pair, from the mask of all its pairs of tokens."""
    (a, q1, kv1), (b, q2, kv2) = first, second
    seen = np.kron(a, b).reshape(len(a), len(b), a.shape[1], b.shape[1])
    counts = [-(-size // tile) for size, tile in zip(seen.shape, (q1, q2, kv1, kv2), strict=True)]
    found = np.zeros(counts, bool)
    found[tuple((np.argwhere(seen) // (q1, q2, kv1, kv2)).T)] = True
    return found.reshape(prod(counts[:2]), prod(counts[2:]))


def _with_tables(strided: bool) -> Any:
    def produce(drawn: Mapping[str, Any]) -> Evidence:
        return {**drawn, **_tables(np.asarray(drawn["axes"]), strided=strided)}

    return produce


VISITED_TILES = Claim(
    id="hassani2025.kernel-visits-the-simulated-tiles",
    title="The kernel's launch tables visit the tiles that hold a visible pair, mask the partial ones, and no others",
    statement=(
        r"tiles visited by a query tile: an interval an axis, $\prod$ of them over axes $=$ tiles with a visible pair; "
        r"tiles not masked $=$ tiles whose pairs are all visible"
    ),
    citation="Hassani et al., arXiv 2504.16922, section 3 (the simulator's counts), own wording; tables: own",
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="every pair of tokens by the definition, axes up to 24 tokens; the control's tables have stride 1",
    instance=_draw,
    witness=_with_tables(strided=True),
    control=_with_tables(strided=False),
    judge=_judge,
)
