"""Exporters: the bitmap against the mask, FlexAttention on a BlockMask against dense masked attention."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from gna import brute
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from dsf.numerics import require_within, unit_roundoff
from dsf.sim import Pattern, Tiling, count
from dsf.sim.export import block_mask, blocks, csr
from dsf.sim.permutation import token_permutation

CASES = [
    (Pattern(37, 8, 3), Tiling(4, 6)),
    (Pattern((8, 12), (4, 6), (2, 3)), Tiling((2, 4), (4, 2))),
    (Pattern((9, 10), (3, 5), (1, 2), (2, 2)), Tiling((2, 3), (3, 2))),
    (Pattern((6, 7), (3, 4), (2, 1), 1, (True, False), extra_keys=5), Tiling((2, 4), (2, 3))),
    (Pattern((4, 4, 6), (2, 4, 3), (2, 1, 1), (2, 1, 1)), Tiling((2, 2, 2), (1, 2, 3))),
]


def dense_mask(pattern: Pattern) -> np.ndarray:
    fields = pattern.layout, pattern.window, pattern.stride, pattern.dilation, pattern.causal
    return np.pad(brute.mask(*fields), ((0, 0), (0, pattern.extra_keys)), constant_values=True)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("pattern", "tiling"), CASES, ids=str)
def test_flex_attention_on_the_block_mask_is_masked_attention(pattern, tiling) -> None:
    mask, found = block_mask(pattern, tiling)
    generator = torch.Generator().manual_seed(0)
    tokens, extra = pattern.tokens, pattern.extra_keys
    q = torch.randn(1, 2, tokens, 8, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 1, 2, tokens + extra, 8, generator=generator, dtype=torch.float64)
    visible = torch.from_numpy(dense_mask(pattern))
    scores = (q @ k.mT / 8**0.5).masked_fill(~visible, -torch.inf)
    expected = scores.softmax(-1) @ v

    def slots(x: torch.Tensor, length: int) -> torch.Tensor:
        """Padding holds numbers that must not matter."""
        laid = torch.full((1, 2, length, 8), 7.0, dtype=x.dtype)
        laid[:, :, torch.from_numpy(found.kv.inverse)] = x[:, :, :tokens]
        behind = len(found.kv.order)
        laid[:, :, behind : behind + extra] = x[:, :, tokens:]
        return laid

    keys = mask.seq_lengths[1]
    permuted = torch.full((1, 2, len(found.q.order), 8), 7.0, dtype=q.dtype)
    permuted[:, :, torch.from_numpy(found.q.inverse)] = q
    laid_k, laid_v = slots(k, keys), slots(v, keys)
    out = flex_attention(permuted, laid_k, laid_v, block_mask=mask)
    back = out[:, :, torch.from_numpy(found.q.inverse)]
    # A softmax row and its product: sums of n and of d terms, each rounded once, of size 1 and |v|.
    bound = 4 * (tokens + extra + 8) * unit_roundoff(torch.float64) * v.abs().amax(-2, True)
    bound = bound * (1 + scores.masked_fill(~visible, 0).abs().amax(-1, True))
    require_within(back, expected, bound.expand_as(expected), "flex_attention")


@pytest.mark.parametrize(("pattern", "tiling"), CASES, ids=str)
def test_the_block_mask_is_flex_attentions_own(pattern, tiling) -> None:
    mask, found = block_mask(pattern, tiling)
    queries, keys = mask.seq_lengths
    own = create_block_mask(mask.mask_mod, 1, 1, queries, keys, "cpu", tiling.sizes)
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(mask, name), getattr(own, name)), name
    computed = mask.to_dense()[0, 0].numpy().astype(bool)
    assert np.array_equal(computed, own.to_dense()[0, 0].numpy().astype(bool))
    assert computed.sum() == count(pattern, tiling).visited


@pytest.mark.parametrize(("pattern", "tiling"), CASES, ids=str)
def test_bitmap_and_rows_are_the_counts(pattern, tiling) -> None:
    found, counts = blocks(pattern, tiling), count(pattern, tiling)
    rows = csr(found)
    assert (found.visited.sum(), found.full.sum()) == (counts.visited, counts.full)
    assert (rows.indptr[-1], rows.full.sum()) == (counts.visited, counts.full)
    assert max(np.diff(rows.indptr)) == counts.most
    again = np.zeros_like(found.visited)
    for i, (low, high) in enumerate(zip(rows.indptr[:-1], rows.indptr[1:], strict=True)):
        again[i, rows.indices[low:high]] = True
    assert np.array_equal(again, found.visited)


@settings(max_examples=200)
@given(st.lists(st.tuples(*[st.integers(1, n) for n in (9, 5, 3)]), min_size=1, max_size=3))
def test_a_permutation_is_undone_by_its_inverse(axes) -> None:
    layout, tile, dilation = zip(*axes, strict=True)
    found = token_permutation(layout, tile, dilation)
    real = found.order >= 0
    assert np.array_equal(found.order[found.inverse], np.arange(prod(layout)))
    assert np.array_equal(np.sort(found.order[real]), np.arange(prod(layout)))
    coordinates = np.stack(np.unravel_index(found.order[real], layout), 1)
    inner = np.stack([found.inner(axis) for axis in range(len(layout))], 1)[real]
    assert np.array_equal(inner, coordinates // np.array(dilation))
    group = np.ravel_multi_index(tuple((coordinates % np.array(dilation)).T), dilation)
    assert np.array_equal(found.group[real], group)
    tiles = np.concatenate([inner // np.array(tile), group[:, None]], 1)
    slot = np.flatnonzero(real) // prod(tile)
    for one in np.unique(slot):  # a tile's slots hold tokens of one box
        assert len(np.unique(tiles[slot == one], axis=0)) == 1
