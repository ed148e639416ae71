"""Boxes of tiles against the mask itself, and against the closed counts of the simulator."""

from __future__ import annotations

import numpy as np
import pytest
from gna import brute

from dsf.errors import InvalidInput
from dsf.sim.axis import Axis
from dsf.sim.axis_counts import count_axis
from dsf.sim.backward import backward_axis
from dsf.sim.boxes import key_boxes, query_boxes


def bitmap(rows: np.ndarray, across: int, columns: slice) -> np.ndarray:
    found = np.zeros((len(rows), across), dtype=bool)
    for row, (first, after) in zip(found, rows[:, columns], strict=True):
        row[first:after] = True
    return found


def drawn(seed: int) -> tuple[Axis, int, int]:
    draw = np.random.default_rng(seed)
    length = int(draw.integers(2, 40))
    window = int(draw.integers(2, length + 1))
    stride = int(draw.integers(1, window + 1))
    q, kv = map(int, draw.integers(1, 9, 2))
    return Axis(length, window, stride, causal=bool(draw.integers(2))), q, kv


@pytest.mark.parametrize("seed", range(60))
def test_boxes_are_the_tiles_of_the_mask(seed: int) -> None:
    """Visited: any pair visible. Without a mask: all pairs of queries that exist and of a whole KV tile."""
    axis, q, kv = drawn(seed)
    n = axis.length
    mask = brute.axis_mask(n, axis.window, axis.stride, 1, axis.causal)
    start, end = axis.intervals(np.arange(n), n)
    rows, columns = -(-n // q), -(-n // kv)
    seen, whole = (np.zeros((rows, columns), dtype=bool) for _ in range(2))
    for i in range(rows):
        for j in range(columns):
            part = mask[i * q : (i + 1) * q, j * kv : (j + 1) * kv]
            seen[i, j], whole[i, j] = part.any(), part.all() and part.shape[1] == kv
    by_query, by_key = query_boxes(start, end, q, kv), key_boxes(start, end, q, kv, n)
    for columns_of, expected in ((slice(0, 2), seen), (slice(2, 4), whole)):
        assert (bitmap(by_query, columns, columns_of) == expected).all()
        assert (bitmap(by_key, rows, columns_of).T == expected).all()
    counts, back = count_axis(axis, q, kv), backward_axis(axis, q, kv)
    assert seen.sum() == counts.visited == back.visited


def test_rows_that_see_nothing_visit_nothing() -> None:
    start, end = (
        np.zeros(8, int),
        np.maximum(np.arange(8) - 3, 0),
    )  # four queries before the first key
    assert query_boxes(start, end, 4, 2).tolist() == [[0, 0, 0, 0], [0, 2, 0, 0]]
    assert key_boxes(start, end, 4, 2, 4).tolist() == [[1, 2, 2, 2], [1, 2, 2, 2]]
    nothing = np.empty(0, int)
    assert query_boxes(nothing, nothing, 4, 2).shape == (0, 4)
    assert key_boxes(nothing, nothing, 4, 2, 3).tolist() == [[0, 0, 0, 0]] * 2


def test_falling_ends_are_refused() -> None:
    with pytest.raises(InvalidInput, match="must not begin or end before"):
        query_boxes(np.array([1, 0]), np.array([2, 2]), 1, 1)
    with pytest.raises(InvalidInput, match="two rows as long"):
        key_boxes(np.array([0]), np.array([1, 2]), 1, 1, 2)
