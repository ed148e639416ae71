"""Neighborhoods, interpreted: the tiles that programs visit are the simulator's, their results the definition's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import prod

import pytest
import torch
import triton
import triton.language as tl
from attention_oracle import Problem, truth
from gna import brute

from dsf.kernels.attention import flash
from dsf.kernels.attention.geometry import of_pattern
from dsf.kernels.attention.weighing import Weighing
from dsf.kernels.triton_code import attention as code
from dsf.kernels.triton_code.attention_tiles import around, box, place_of, tokens_at, visible
from dsf.numerics import BoundExceeded, require_within
from dsf.sim import Pattern, Tiling, count, count_backward
from dsf.sim.export import blocks
from dsf.sim.permutation import token_permutation


@dataclass(frozen=True)
class Row:
    """A pattern, the tiles of every program, and the weight."""

    name: str
    layout: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    causal: tuple[bool, ...]
    tiles: str
    weight: str = "softmax"
    heads: tuple[int, int] = (1, 1)

    @property
    def pattern(self) -> Pattern:
        return Pattern(self.layout, self.window, self.stride, self.dilation, self.causal)

    @property
    def tiling(self) -> Tiling:
        return Tiling.parse(self.tiles)


NO, YES = False, True
ROWS = (
    Row("1-D", (60,), (24,), (1,), (1,), (NO,), "32/16"),
    Row("1-D, causal, stride", (61,), (16,), (4,), (1,), (YES,), "32/16", heads=(2, 1)),
    Row("1-D, dilation, even stride", (50,), (8,), (4,), (3,), (NO,), "16/16"),
    Row("1-D, blocks", (64,), (16,), (16,), (1,), (NO,), "16/16"),
    Row("1-D, all keys", (40,), (40,), (1,), (1,), (NO,), "16/32"),
    Row("2-D, ragged", (9, 11), (3, 5), (1, 2), (1, 1), (NO, NO), "8x8/4x8"),
    Row("2-D, a causal axis, dilation", (8, 9), (3, 4), (2, 1), (2, 1), (NO, YES), "4x4/4x8"),
    Row("2-D, blocks", (8, 8), (4, 4), (4, 4), (1, 1), (NO, NO), "4x4/4x4"),
    Row("2-D, sigmoid", (8, 10), (4, 5), (1, 3), (1, 2), (YES, NO), "4x8/4x8", "sigmoid"),
    Row("3-D, stride, a causal axis", (4, 5, 8), (2, 4, 4), (1, 2, 3), (1, 1, 1), (YES, NO, NO), "4x4x4/2x4x8"),
    Row("3-D, dilation", (5, 4, 6), (2, 3, 3), (1, 1, 2), (2, 1, 2), (NO, YES, NO), "4x4x4/2x4x4"),
    Row("3-D, blocks", (4, 4, 8), (2, 4, 4), (2, 4, 4), (1, 1, 1), (NO, NO, NO), "2x2x4/2x4x4"),
)  # fmt: skip


def launched(row: Row) -> tuple[flash.Attention, Problem, list]:
    """What was run, the problem, and outputs and gradients."""
    draw = torch.Generator().manual_seed(len(row.name))
    pattern, (H, Hk) = row.pattern, row.heads
    q, do = (torch.randn(1, pattern.tokens, H, 16, generator=draw) for _ in range(2))
    k, v = (torch.randn(1, pattern.tokens, Hk, 16, generator=draw) for _ in range(2))
    seen = torch.from_numpy(
        brute.mask(row.layout, row.window, row.stride, row.dilation, row.causal)
    )
    p = Problem(q, k, v, do, seen, row.weight, tiles=prod(row.layout))
    how = Weighing(row.weight, p.divided, p.scale, p.bias)
    shapes = (row.tiling.q, row.tiling.kv)
    x = flash.Attention.of(q, k, v, of_pattern(pattern), how, (shapes,) * 3)
    x = replace(x, counts=[])
    o, kept = flash.forward(x)
    return x, p, [o, *flash.backward(x, do, o, kept)]


class Miscounted(AssertionError):
    """Raised where programs visit other tiles than the simulator says."""


def law(row: Row) -> tuple[int, int]:
    """Visited tiles, and those without a mask, are the simulator's; results are the definition's."""
    x, p, (o, *gradients) = launched(row)
    exact = truth(p)
    require_within(o, exact.outputs, exact.of_outputs, "outputs")
    for name, found, other, bound in zip(
        "qkv", gradients, exact.gradients, exact.of_gradients, strict=True
    ):
        require_within(found, other, bound, f"gradient of {name}")
    predicted, back = count(row.pattern, row.tiling), count_backward(row.pattern, row.tiling)
    bitmap = blocks(row.pattern, row.tiling)
    # A KV tile with slots of padding is masked, though every key that exists is visible.
    whole = (bitmap.kv.order >= 0).reshape(-1, bitmap.kv_size).all(1)
    bare = int((bitmap.full & whole).sum())
    expected = [(predicted.visited, bare), (predicted.visited, bare), (back.visited, bare)]
    assert x.counts is not None
    for counter, numbers, program in zip(x.counts, expected, flash.NAMES, strict=True):
        executed = tuple(counter.sum(0).tolist())
        if executed != tuple(row.heads[0] * each for each in numbers):
            raise Miscounted(f"{program}: {executed} tiles, {numbers} by the simulator")
    worst = int(x.counts[0][:, 0].max())
    if worst != predicted.most:
        raise Miscounted(
            f"the worst query tile visits {worst} tiles, {predicted.most} by the simulator"
        )
    return predicted.visited, bare


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_executed_tiles_are_the_simulators(row: Row) -> None:
    visited, bare = law(row)
    # A block-sparse pattern whose tiles are not ragged takes no mask at all.
    assert visited == bare or not row.name.endswith("blocks")


@triton.jit
def order(
    found, z, y, x, step_z, step_y, step_x, nz, ny, nx,
    TZ: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    """The tokens of every slot, as programs address them."""
    steps = (step_z, step_y, step_x)
    batch, head, group, at = place_of((nz, ny, nx), steps, 1)
    places, rows = tokens_at(at, group, (z, y, x), steps, TZ, TY, TX, RANK)
    number = tl.num_programs(0) - 1 - tl.program_id(0)
    tl.store(found + number * TZ * TY * TX + tl.arange(0, TZ * TY * TX), rows)


def test_tokens_of_tiles_lie_as_the_permutation_orders_them() -> None:
    for layout, tile, steps in (
        ((5, 6, 7), (2, 2, 4), (2, 1, 3)),
        ((1, 9, 10), (1, 4, 4), (1, 2, 1)),
    ):
        made = token_permutation(layout, tile, steps)
        found = torch.empty(len(made.order), dtype=torch.int32)
        programs = len(made.order) // prod(tile)
        order[(programs,)](found, *layout, *steps, *made.tiles, *tile, RANK=3)
        padding = prod(layout)
        assert torch.where(found == padding, -1, found).tolist() == made.order.tolist()


@triton.jit
def listed(
    found, z, y, x, nz, ny, nx, sz, sy, sx, iz, iy, ix,
    RANK: tl.constexpr,
):  # fmt: skip
    """The tile of every turn around an inner box."""
    turn = tl.program_id(0)
    at = around(turn, (z, y, x), (nz, ny, nx), (sz, sy, sx), (iz, iy, ix), RANK)
    tl.store(found + 3 * turn, at[0])
    tl.store(found + 3 * turn + 1, at[1])
    tl.store(found + 3 * turn + 2, at[2])


def test_every_tile_around_an_inner_box_is_visited_once() -> None:
    for first, many, start, inner in (
        ((0, 0, 2), (1, 1, 7), (0, 0, 4), (1, 1, 2)),
        ((0, 0, 2), (1, 1, 7), (0, 0, 2), (1, 1, 7)),
        ((0, 3, 1), (1, 4, 5), (0, 4, 1), (1, 2, 3)),
        ((0, 3, 1), (1, 4, 5), (0, 3, 2), (1, 4, 2)),
        ((1, 2, 3), (3, 4, 3), (2, 3, 4), (1, 2, 1)),
        ((1, 2, 3), (3, 4, 3), (1, 2, 3), (3, 2, 3)),
        ((1, 2, 3), (3, 2, 3), (0, 0, 0), (0, 0, 0)),
    ):
        rank = 1 + (many[1] > 1) + (many[0] > 1)
        box_of = [range(a, a + n) for a, n in zip(first, many, strict=True)]
        hole = [range(a, a + n) for a, n in zip(start, inner, strict=True)]
        expected = set(product(*box_of)) - set(product(*hole))
        found = torch.full((len(expected) + 1, 3), -1, dtype=torch.int32)
        if expected:
            listed[(len(expected),)](found, *first, *many, *start, *inner, RANK=rank)
        assert set(map(tuple, found[:-1].tolist())) == expected


@triton.jit
def one_tile_short(boxes, groups, steps, counts, tile):
    first, many, whole, bare = box(boxes, groups, steps, counts, tile)
    return first, (many[0], tl.maximum(many[1] - 1, 1), many[2]), whole, bare


@triton.jit
def without_an_axis(values, instead, low, high, places, RANK: tl.constexpr):
    return tl.where(visible(low, high, places, RANK - 1), values, instead)


@triton.jit
def masked_always(boxes, groups, steps, counts, tile):
    first, many, whole, _ = box(boxes, groups, steps, counts, tile)
    return first, many, whole, (0, 0, 0)


@triton.jit
def never_masked(boxes, groups, steps, counts, tile):
    first, many, _, _ = box(boxes, groups, steps, counts, tile)
    return first, many, first, many


PLANTED = {
    "box": (one_tile_short, ROWS[5], BoundExceeded),
    "hidden": (without_an_axis, ROWS[6], BoundExceeded),
    "box, never masked": (never_masked, ROWS[6], BoundExceeded),
    "box, always masked": (masked_always, ROWS[7], Miscounted),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_caught(name: str, monkeypatch) -> None:
    bug, row, error = PLANTED[name]
    monkeypatch.setattr(code, name.partition(",")[0], bug)
    with pytest.raises(error):
        law(row)
