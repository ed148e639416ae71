"""Sweeps, fronts, better strides and suggestions against counting one by one; presets; other masks."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsf.errors import InvalidInput
from dsf.sim import (
    Pattern,
    Tiling,
    block_sparsity,
    bounds,
    count,
    count_mask,
    count_visits,
    documents,
    routing,
)
from dsf.sim.presets import blocked, dense, halo, sliding_tile, sliding_window, strided
from dsf.sim.published import COSMOS, HUNYUAN
from dsf.sim.search import better, front, sweep, windows_of_sparsity
from dsf.sim.shipped import KERNELS, shipped
from dsf.sim.suggestion import suggest

PLANE = Pattern((14, 20), (6, 9), dilation=(1, 2), causal=(False, True), extra_keys=5)
TILES = Tiling((4, 3), (2, 4))


def one_by_one(pattern: Pattern, tiling: Tiling) -> dict[tuple[int, ...], tuple]:
    found = {}
    for stride in product(*(range(1, w + 1) for w in pattern.window)):
        made = Pattern(
            pattern.layout,
            pattern.window,
            stride,
            pattern.dilation,
            pattern.causal,
            extra_keys=pattern.extra_keys,
        )
        speeds = bounds(count(made, tiling))
        exact = block_sparsity(made, tiling).exact
        found[stride] = (speeds.worst_tile, speeds.mean_tile, speeds.padding_aware, exact)
    return found


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_sweep_is_counting_one_by_one(mode: str) -> None:
    tiling = Tiling(TILES.q, TILES.kv, mode)
    found, truth = sweep(PLANE, tiling), one_by_one(PLANE, tiling)
    assert found.worst_tile.size == len(truth)
    for stride, row in truth.items():
        at = tuple(s - 1 for s in stride)
        arrays = (found.worst_tile, found.mean_tile, found.padding_aware, found.block_sparse)
        assert tuple(array[at] for array in arrays) == row


@pytest.mark.parametrize(
    ("case", "strides"),
    [
        (HUNYUAN, ["1x1x1", "2x1x1", "1x1x8", "2x1x8", "1x8x8", "2x8x8", "16x8x8"]),
        (COSMOS, ["1x1x1", "1x8x1", "1x1x16", "1x8x16"]),
    ],
    ids=["hunyuan", "cosmos"],
)
def test_the_front_is_the_papers_strides(case, strides) -> None:
    found = front([sweep(Pattern(case.layout, case.window), case.tiling)])
    assert ["x".join(map(str, one.stride)) for one in found] == strides


@pytest.mark.parametrize("by", ["worst_tile", "mean_tile", "padding_aware"])
def test_no_stride_dominates_the_front(by: str) -> None:
    found = sweep(PLANE, TILES)
    best = front([found], by)
    speeds, products = getattr(found, by), found.products
    for one in best:
        at = tuple(s - 1 for s in one.stride)
        assert not ((speeds >= speeds[at]) & (products < products[at])).any()
        assert not ((speeds > speeds[at]) & (products <= products[at])).any()
        assert better(found, one.stride, by) is None
    for at in np.ndindex(speeds.shape):  # and the front is whole
        assert any(
            getattr(one, by) >= speeds[at] and one.stride_product <= products[at] for one in best
        )


def test_better_is_the_nearest_that_dominates() -> None:
    found = sweep(PLANE, TILES)
    speeds, products = found.worst_tile, found.products
    dominated = 0
    for at in np.ndindex(speeds.shape):
        stride = tuple(i + 1 for i in at)
        mask = (speeds >= speeds[at]) & (products <= products[at])
        mask &= (speeds > speeds[at]) | (products < products[at])
        one = better(found, stride)
        assert (one is not None) == mask.any()
        if one is not None:
            dominated += 1
            here = tuple(s - 1 for s in one.stride)
            assert mask[here]
            distance = np.abs(np.argwhere(mask) - np.array(at)).sum(1).min()
            assert np.abs(np.array(here) - np.array(at)).sum() == distance
    assert dominated


def test_a_front_over_tilings_takes_the_fastest() -> None:
    pattern = Pattern(HUNYUAN.layout, HUNYUAN.window)
    tilings = shipped("blackwell-fna", 3)
    best = front([sweep(pattern, tiling) for tiling in tilings])
    for tiling in tilings:
        for one in front([sweep(pattern, tiling)]):
            assert any(
                b.worst_tile >= one.worst_tile and b.stride_product <= one.stride_product
                for b in best
            )


@settings(max_examples=60)
@given(st.integers(2, 16), st.data())
def test_a_suggestion_needs_no_mask_and_none_is_nearer(length: int, data: st.DataObject) -> None:
    window = data.draw(st.integers(2, length))
    stride = data.draw(st.integers(1, window))
    tiling = Tiling(data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5)))
    pattern = Pattern(length, window, stride)
    found = suggest(pattern, tiling).pattern
    exact = [
        (abs(w - window), w, abs(s - stride), s)
        for w in range(2, length + 1)
        for s in range(1, w + 1)
        if block_sparsity(Pattern(length, w, s), tiling).exact
    ]
    assert found is not None and exact  # the whole axis needs no mask
    assert (found.window[0], found.stride[0]) == (min(exact)[1], min(exact)[3])


def test_a_causal_axis_has_no_suggestion() -> None:
    found = suggest(Pattern(16, 8, causal=True), Tiling(4, 4))
    assert found.pattern is None and "it is causal" in found.reasons[0]


def test_windows_of_a_sparsity_are_all_of_them() -> None:
    found = set(windows_of_sparsity((12, 10), 0.8, 0.02))
    truth = {
        (a, b)
        for a in range(2, 13)
        for b in range(2, 11)
        if 0.78 * 120 <= 120 - a * b <= 0.82 * 120
    }
    assert found == truth and found


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: list(windows_of_sparsity((8, 8), 1.0)), "sparsity must be in"),
        (lambda: front([sweep(PLANE, TILES)], "fastest"), "worst_tile, mean_tile"),
        (lambda: sweep(PLANE, TILES, [[1]]), "strides must be given for 2 axes"),
        (lambda: better(sweep(PLANE, TILES, [[1], [1, 2]]), (1, 3)), "not among the strides"),
        (lambda: shipped("tpu", 1), "there are blackwell-fna"),
        (lambda: shipped("hopper-fna", 1, 96), r"no kernel for head dimension 96"),
        (lambda: shipped("flex-fna", 4), "give the tiles"),
        (
            lambda: blocked((16, 20), 8),
            "axis 1 of layout 16x20: block 8 .* nearest valid value is 10",
        ),
        (lambda: sliding_tile(32, 12, 8), "axis 0 of window 12: tile 8"),
    ],
)
def test_bad_questions_are_answered(call, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()


def test_shipped_tiles_have_the_kernels_sizes() -> None:
    sizes = {
        ("blackwell-fna", False): {(256, 128)},
        ("blackwell-fna", True): {(128, 128)},
        ("hopper-fna", False): {(128, 128)},
        ("hopper-fna", True): {(64, 128)},
        ("flex-fna", False): {(64, 64)},
    }
    for (kernel, backward), wanted in sizes.items():
        assert kernel in KERNELS
        for rank in (1, 2, 3):
            assert {t.sizes for t in shipped(kernel, rank, backward=backward)} == wanted


# Presets against what they are named after, pair by pair.


def visible(pattern: Pattern) -> np.ndarray:
    axis = pattern.axes[0]
    start, end = axis.intervals(np.arange(axis.length), axis.length)
    keys = np.arange(axis.length)
    return (keys >= start[:, None]) & (keys < end[:, None])


def test_presets_are_what_they_are_named_after() -> None:
    i, j = np.arange(24)[:, None], np.arange(24)[None, :]
    assert visible(dense(24)).all()
    assert np.array_equal(visible(blocked(24, 6)), i // 6 == j // 6)
    inner = slice(8, 16)
    sliding = abs(i - j) <= 3
    assert np.array_equal(visible(sliding_window(24, 7))[inner], sliding[inner])
    causal = (j <= i) & (i - j < 7)
    assert np.array_equal(visible(sliding_window(24, 7, causal=True)), causal)
    haloed = (j >= i // 4 * 4 - 3) & (j < i // 4 * 4 + 4 + 3)
    assert np.array_equal(visible(halo(24, 4, 3))[inner], haloed[inner])
    tiles = abs(i // 4 - j // 4) <= 1
    assert np.array_equal(visible(sliding_tile(24, 12, 4))[inner], tiles[inner])
    assert strided(24, 8, 4) == Pattern(24, 8, 4)


# Patterns that are no product of intervals.


@settings(max_examples=100)
@given(st.data())
def test_a_mask_function_of_a_pattern_counts_as_the_pattern(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 2))
    axes = []
    for _ in range(rank):
        length = data.draw(st.integers(2, 10))
        window = data.draw(st.integers(2, length))
        axes.append((length, window, data.draw(st.integers(1, window))))
    pattern = Pattern(*zip(*axes, strict=True))
    tiling = Tiling(*[[data.draw(st.integers(1, 4)) for _ in axes] for _ in range(2)])
    rows = [axis.intervals(np.arange(axis.length), axis.length) for axis in pattern.axes]

    def mask(q: np.ndarray, k: np.ndarray) -> np.ndarray:
        inside = [
            (k[..., a] >= start[q[..., a]]) & (k[..., a] < end[q[..., a]])
            for a, (start, end) in enumerate(rows)
        ]
        return np.logical_and.reduce(inside)

    found, truth = count_mask(mask, pattern.layout, tiling), count(pattern, tiling)
    for key in ("q_tiles", "kv_tiles", "visited", "most", "full", "visible_pairs", "ragged"):
        assert getattr(found, key) == getattr(truth, key), key
    assert found.histogram() == truth.histogram()
    assert bounds(found) == bounds(truth)


def test_documents_and_routes_by_hand() -> None:
    counts = count_mask(documents([3, 5, 4]), 12, Tiling(4, 4))
    # Tiles 0-3, 4-7, 8-11: documents 0-2, 3-7, 8-11.
    assert (counts.visited, counts.full, counts.visible_pairs) == (5, 2, 9 + 25 + 16)
    causal = count_mask(documents([3, 5, 4], causal=True), 12, Tiling(4, 4))
    assert (causal.visited, causal.visible_pairs) == (4, 6 + 15 + 10)
    sorted_routes = count_mask(routing([0] * 4 + [1] * 4), 8, Tiling(4, 4))
    mixed = count_mask(routing([0, 1] * 4), 8, Tiling(4, 4))
    assert (sorted_routes.visited, mixed.visited) == (2, 4)
    assert sorted_routes.visible_pairs == mixed.visible_pairs == 32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: count_mask(documents([8]), 8, Tiling(2, 2), limit=63),
            "64 pairs, over the limit of 63",
        ),
        (lambda: count_mask(documents([8]), 8, Tiling(2, 2, "dynamic")), "static KV tiling"),
        (lambda: documents([3, 0]), "at least 1 token"),
        (lambda: count_visits([3], [0], 5, 8, 4, (8, 4)), "0 <= full <= visits <= 2"),
        (lambda: count_visits([2, 2], [0], 5, 8, 4, (4, 4)), "two rows as long"),
        (lambda: count_visits([2], [0], 65, 8, 4, (8, 4)), "between 1 and 64"),
    ],
)
def test_masks_that_cannot_be_counted(call, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()


def test_known_blocks_give_the_bounds_of_their_pattern() -> None:
    """Bi-level routing: 16 regions of 8 tokens, 3 each, by a mask and by its block counts."""
    generator = np.random.default_rng(0)
    chosen = np.array([generator.choice(16, 3, replace=False) for _ in range(16)])

    def mask(q: np.ndarray, k: np.ndarray) -> np.ndarray:
        return (chosen[q[..., 0] // 8] == (k[..., 0] // 8)[..., None]).any(-1)

    counted = count_mask(mask, 128, Tiling(8, 8))
    known = count_visits([3] * 16, [3] * 16, 16 * 3 * 64, 128, 8, (8, 8))
    assert bounds(counted) == bounds(known)
    assert bounds(known).flop == bounds(known).worst_tile == prod((16,)) / 3
