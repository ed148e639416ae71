"""The simulator against FlexAttention's mask builder, as ratios in one run: pytest -n0 --benchmark-only."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from timing import interleaved, ratio
from torch.nn.attention.flex_attention import create_block_mask

from dsf.sim import Pattern, Tiling, count
from dsf.sim.axis_counts import count_axis
from dsf.sim.export import block_mask
from dsf.sim.search import sweep
from dsf.sim.shipped import shipped

LAYOUT, WINDOW, TILES = (30, 48, 80), (18, 24, 24), Tiling((2, 8, 8), (2, 8, 8))
SMALL = Pattern((8, 32, 32), (4, 8, 8))  # 8192 tokens: what the peer builds in seconds


def counted_afresh(pattern: Pattern, tiling: Tiling = TILES) -> None:
    count_axis.cache_clear()
    count(pattern, tiling)


def all_strides_afresh() -> None:
    count_axis.cache_clear()
    for tiling in shipped("blackwell-fna", 3):
        sweep(Pattern(LAYOUT, WINDOW), tiling)


def in_a_row(pattern: Pattern):
    """The mask over the same permuted tokens, for the peer."""
    return block_mask(pattern, TILES)[0]


HUNYUAN = Pattern(LAYOUT, WINDOW, (16, 8, 8))
CALLS = {
    "count": lambda: counted_afresh(HUNYUAN),
    "pattern": lambda: counted_afresh(Pattern(LAYOUT, WINDOW, (16, 8, 8))),
    "sweep": lambda: sweep(Pattern(LAYOUT, WINDOW), TILES),
    "seven tilings": all_strides_afresh,
    "block mask": lambda: block_mask(Pattern(LAYOUT, WINDOW), TILES),
}


@pytest.mark.parametrize("name", CALLS)
def test_time(benchmark, name: str) -> None:
    benchmark(CALLS[name])


def test_ratio_to_create_block_mask(benchmark) -> None:
    torch.set_num_threads(1)
    mask = in_a_row(SMALL)
    tokens = mask.seq_lengths[0]
    calls = {
        "ours": lambda: block_mask(SMALL, TILES),
        "count": lambda: counted_afresh(SMALL),
        "peer": lambda: create_block_mask(mask.mask_mod, 1, 1, tokens, tokens, "cpu", TILES.sizes),
    }
    times = benchmark.pedantic(interleaved, (calls, 2), rounds=1)
    benchmark.extra_info["block mask, times faster"] = ratio(times["peer"], times["ours"])
    benchmark.extra_info["counts, times faster"] = ratio(times["peer"], times["count"])


def test_what_is_timed_is_right() -> None:
    strides = itertools.islice(np.ndindex(WINDOW), 5)
    for at in strides:
        stride = tuple(i + 1 for i in at)
        assert sweep(Pattern(LAYOUT, WINDOW), TILES).worst_tile[at] == (
            count(Pattern(LAYOUT, WINDOW, stride), TILES).kv_tiles
            / count(Pattern(LAYOUT, WINDOW, stride), TILES).most
        )
