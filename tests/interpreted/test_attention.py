"""The programs of attention, interpreted: against sixty digits at small size, the definition in float64 at larger."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import mpmath
import pytest
import torch
import triton
import triton.language as tl
from attention_oracle import Problem, bounds, truth
from torch import Tensor

from dsf.kernels.attention import flash
from dsf.kernels.attention.geometry import of_band
from dsf.kernels.attention.weighing import Weighing
from dsf.kernels.triton_code import attention as code
from dsf.kernels.triton_code import attention_weights as weights
from dsf.kernels.triton_code.attention_tiles import box, visible
from dsf.numerics import BoundExceeded, require_within, unit_roundoff


@dataclass(frozen=True)
class Row:
    """Sizes of one case. `heads` are those of q and of k and v; `size` multiplies the scores."""

    name: str
    weight: str = "softmax"
    normalised: bool = False
    queries: int = 40
    keys: int = 40
    batch: int = 1
    heads: tuple[int, int] = (1, 1)
    channels: tuple[int, int] = (16, 16)
    dtype: torch.dtype = torch.float32
    causal: bool = True
    window: int | None = None
    starts: tuple[int, ...] | None = None
    key_starts: tuple[int, ...] | None = None
    size: float = 1.0
    bias: float = 0.0
    scale: float | None = None  # 1/√K
    tile: tuple[int, int] | None = (32, 32)  # the table's own where there is none


ROWS = (
    Row("several tiles, odd length", queries=67, keys=67),
    Row("two in a batch", batch=2, queries=17, keys=17),
    Row("four heads share two keys", heads=(4, 2), queries=20, keys=20),
    Row("one query, many keys", queries=1, keys=70, heads=(2, 1)),
    Row("the table's tiles", queries=20, keys=40, tile=None),
    Row("the table's tiles for few", queries=3, keys=70, heads=(2, 1), tile=None, dtype=torch.float16),
    Row("more queries than keys", queries=40, keys=9),
    Row("more queries than keys, all seen", queries=40, keys=9, causal=False),
    Row("no query", queries=0, keys=5),
    Row("no key", queries=5, keys=0),
    Row("no sequence", batch=0, queries=5, keys=5),
    Row("channels that are no powers of two", channels=(20, 24), queries=17, keys=17),
    Row("one channel", channels=(1, 1), queries=19, keys=19),
    Row("all keys", causal=False, queries=33, keys=70, tile=(64, 32)),
    Row("window", window=7, queries=50, keys=70),
    Row("window ahead too", window=9, causal=False),
    Row("packed, one empty", starts=(0, 0, 20, 33), queries=33, keys=33),
    Row("packed decoding", queries=9, keys=70, starts=(0, 2, 2, 5, 9), key_starts=(0, 7, 20, 20, 70)),
    Row("packed windows", starts=(0, 13, 40), window=5),
    Row("huge scores", size=30.0, queries=33, keys=33),
    Row("negative scale", scale=-0.7, queries=33, keys=70),
    Row("no scale", scale=0.0, queries=33, keys=33),
    Row("float16", dtype=torch.float16, queries=33, keys=33),
    Row("bfloat16", dtype=torch.bfloat16, queries=33, keys=33),
    Row("sigmoid", weight="sigmoid", bias=-3.5),
    Row("sigmoid, huge scores", weight="sigmoid", size=30.0, queries=33, keys=33),
    Row("sigmoid, float16", weight="sigmoid", dtype=torch.float16, bias=-6.0, causal=False),
    Row("sigmoid, huge scores, bfloat16", weight="sigmoid", dtype=torch.bfloat16, size=30.0, queries=33, keys=33),
    Row("sigmoid, bfloat16, shared", weight="sigmoid", dtype=torch.bfloat16, heads=(2, 1), window=20),
    Row("softplus", weight="softplus", bias=0.5),
    Row("softplus of a row's sum", weight="softplus", normalised=True, queries=20, keys=50),
    Row("softplus, tiny weights", weight="softplus", normalised=True, bias=-40.0, queries=33, keys=33),
    Row("sigmoid of a row's sum, packed", weight="sigmoid", normalised=True, starts=(0, 5, 40)),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    row: Row
    problem: Problem

    @property
    def attention(self) -> flash.Attention:
        row, p = self.row, self.problem
        packed = row.starts or (0, row.queries), row.key_starts or row.starts or (0, row.keys)
        geometry = of_band(*packed, row.causal, row.window)
        how = Weighing(row.weight, p.divided, p.scale, row.bias)
        tiles = (None if row.tile is None else (row.tile[:1], row.tile[1:]),) * 3
        made = flash.Attention.of(p.q, p.k, p.v, geometry, how, tiles)
        return replace(made, upcast=row.dtype == torch.bfloat16)


def seen_in(row: Row) -> Tensor:
    """By the definition: of every sequence, its queries stand at the end of its keys."""
    queries = row.starts or (0, row.queries)
    keys = row.key_starts or row.starts or (0, row.keys)
    seen = torch.zeros(row.queries, row.keys, dtype=torch.bool)
    for n in range(len(queries) - 1):
        for i in range(queries[n], queries[n + 1]):
            place = keys[n + 1] - queries[n + 1] + i
            for j in range(keys[n], keys[n + 1]):
                near = row.window is None or abs(place - j) < row.window
                seen[i, j] = near and (j <= place or not row.causal)
    return seen


def drawn(row: Row) -> Case:
    draw = torch.Generator().manual_seed(len(row.name))
    (H, Hk), (K, V) = row.heads, row.channels
    sizes = (
        (row.batch, row.queries, H, K), (row.batch, row.keys, Hk, K), (row.batch, row.keys, Hk, V),
        (row.batch, row.queries, H, V),
    )  # fmt: skip
    q, k, v, do = (torch.randn(size, generator=draw) for size in sizes)
    q, k, v, do = (x.to(row.dtype) for x in (row.size * q, k, v, do))
    tiles = -(-row.keys // (row.tile or (16, 16))[1])
    scale = K**-0.5 if row.scale is None else row.scale
    how = (row.weight, row.normalised, scale, row.bias, tiles)
    return Case(row, Problem(q, k, v, do, seen_in(row), *how))


def launched(case: Case) -> tuple[Tensor, ...]:
    """Outputs and the gradients of q, k and v, as the programs compute them."""
    x = case.attention
    o, row = flash.forward(x)
    return o, *flash.backward(x, case.problem.do, o, row)


def law_within_bounds(row: Row) -> None:
    """Outputs and gradients are within their bounds of the definition; blind rows are exactly zero."""
    case = drawn(row)
    exact = truth(case.problem)
    o, *gradients = launched(case)
    require_within(o, exact.outputs, exact.of_outputs, "outputs")
    for name, found, other, bound in zip(
        "qkv", gradients, exact.gradients, exact.of_gradients, strict=True
    ):
        require_within(found, other, bound, f"gradient of {name}")
    blind = ~case.problem.seen.any(1)
    assert not o[:, blind].any() and not gradients[0][:, blind].any()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_within_bounds_of_the_definition(row: Row) -> None:
    law_within_bounds(row)


DIGITS = {
    "softmax": mpmath.exp,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "softplus": lambda x: mpmath.log(1 + mpmath.exp(x)),
}


@pytest.mark.parametrize("weight", DIGITS)
def test_in_sixty_digits(weight: str) -> None:
    """Outputs of a short run, from the definition in sixty digits; softplus divided by its sum."""
    row = Row(
        "small",
        weight,
        weight == "softplus",
        4,
        6,
        channels=(2, 3),
        bias=-6.0 * (weight != "softmax"),
    )
    case = drawn(row)
    p = case.problem
    o, _ = flash.forward(case.attention)
    with mpmath.workdps(60):
        rows = []
        for i in range(4):
            total, sums = [mpmath.mpf(0)] * 3, mpmath.mpf(0)
            for j in range(i + 3):
                pairs = zip(p.q[0, i, 0].tolist(), p.k[0, j, 0].tolist(), strict=True)
                x = (
                    sum(mpmath.mpf(a) * mpmath.mpf(b) for a, b in pairs) * mpmath.mpf(p.scale)
                    + row.bias
                )
                w = DIGITS[weight](x)
                sums += w
                total = [
                    t + w * mpmath.mpf(c) for t, c in zip(total, p.v[0, j, 0].tolist(), strict=True)
                ]
            rows.append([float(t / sums if p.divided else t) for t in total])
    exact = torch.tensor(rows, dtype=torch.float64)
    limit = bounds(p, exact[None, :, None])[0]
    require_within(o[0, :, 0], exact, limit[0, :, 0], "outputs")


def test_forward_and_backward_are_adjoint() -> None:
    """⟨dy, P v⟩ = ⟨dv, v⟩: outputs are linear in the values."""
    for row in (ROWS[2], next(r for r in ROWS if r.weight == "softplus")):
        case = drawn(row)
        o, _, _, dv = launched(case)
        p = case.problem
        there, back = (
            float((p.do.double() * o.double()).sum()),
            float((dv.double() * p.v.double()).sum()),
        )
        exact = truth(p)
        limit = (p.do.double().abs() * exact.of_outputs).sum() + (
            p.v.double().abs() * exact.of_gradients[2]
        ).sum()
        assert abs(there - back) <= float(limit)


def test_log1p_keeps_its_relative_precision() -> None:
    """Softplus of very negative scores is e^x, not the rounding of a logarithm near one."""
    t = torch.logspace(-37, 0, 256, dtype=torch.float32)
    found = torch.empty_like(t)
    over[(1,)](t, found, 256)
    exact = t.double().log1p()
    require_within(found, exact, 8 * unit_roundoff(torch.float32) * exact, "log(1 + t)")


@triton.jit
def over(t, found, size: tl.constexpr):
    at = tl.arange(0, size)
    tl.store(found + at, weights.log1p_of_share(tl.load(t + at)))


def test_narrow_sigmoid_is_right_relative_to_itself() -> None:
    """Weights of 1e-30 and slopes beside 0 and 1 alike: an eighth of what float16 rounds away next."""
    s = torch.linspace(-80, 80, 1 << 14)
    up, slope = torch.empty_like(s), torch.empty_like(s)
    sigmoids[(1,)](s, up, slope, 1 << 14)
    x = s.double() * math.log(2)
    # The exponential of a float32 score is off by its own rounding, and the reciprocal by 5.1e-5.
    one = 5.1e-5 + 8 * unit_roundoff(torch.float32)
    exact, share = torch.sigmoid(x), torch.sigmoid(x) * torch.sigmoid(-x)
    require_within(up, exact, one * exact, "σ(s)")
    require_within(slope, share, 2.1 * one * share, "its slope")
    assert one < unit_roundoff(torch.float16) / 8
    far = torch.tensor([-torch.inf, -300.0, 300.0, torch.inf])
    sigmoids[(1,)](far, up, slope, 4)
    limit = torch.tensor([0.0, 0.0, 1.0, 1.0]).double()
    require_within(up[:4], limit, one * limit + 2.0**-125, "σ far out")
    assert bool((slope[:4] < 2.0**-125).all())
    sigmoids[(1,)](torch.full((4,), torch.nan), up, slope, 4)
    assert bool(up[:4].isnan().all())


@triton.jit
def sigmoids(s, up, slope, size: tl.constexpr):
    at = tl.arange(0, size)
    share, change = weights.elementwise(tl.load(s + at), "sigmoid", True)
    tl.store(up + at, share)
    tl.store(slope + at, change)


@triton.jit
def masked_before_the_sigmoid(values, instead, low, high, places, RANK: tl.constexpr):
    # A score of 0 in place of a hidden one: its weight is σ(0), not 0.
    return tl.where(visible(low, high, places, RANK), values, 0.5)


@triton.jit
def not_rescaled(s, scale, most, sum, acc):
    p, top, sum, _ = weights.rescaled(s, scale, most, sum, acc)
    return p, top, sum, acc


@triton.jit
def one_tile_short(boxes, groups, steps, counts, tile):
    first, many, whole, bare = box(boxes, groups, steps, counts, tile)
    return first, (many[0], many[1], tl.maximum(many[2] - 1, 1)), whole, bare


@triton.jit
def never_masked(boxes, groups, steps, counts, tile):
    first, many, _, _ = box(boxes, groups, steps, counts, tile)
    return first, many, first, many


@triton.jit
def twice_at_the_edge(turn, first, visits, start, inner, RANK: tl.constexpr):
    # Not past the tiles without a mask: these are visited again, and those behind them never.
    return first[0], first[1], first[2] + turn


@triton.jit
def of_whole_row(
    s, scale, row, WEIGHT: tl.constexpr, NORMALISED: tl.constexpr, NARROW: tl.constexpr
):
    return weights.weighed(s, scale, row * 0.0, WEIGHT, NORMALISED, NARROW)


PLANTED = {
    "hidden": (masked_before_the_sigmoid, next(r for r in ROWS if r.weight == "sigmoid")),
    "rescaled": (not_rescaled, ROWS[0]),
    "box, short": (one_tile_short, ROWS[0]),
    "box, never masked": (never_masked, ROWS[0]),
    "around": (twice_at_the_edge, ROWS[0]),
    "weighed": (of_whole_row, ROWS[0]),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_caught(name: str, monkeypatch) -> None:
    bug, row = PLANTED[name]
    monkeypatch.setattr(code, name.partition(",")[0], bug)
    with pytest.raises(BoundExceeded):
        law_within_bounds(row)
