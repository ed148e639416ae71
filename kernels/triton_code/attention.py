"""Flash attention over boxes of tiles, forward and backward: softmax, sigmoid, softplus; bands and neighborhoods.

A program holds one tile of queries (or of keys) of one head and walks the box of tiles that it visits, by a
linear index over up to three axes: first the inner box of tiles whose every pair is visible, without a mask, then
those around it. `counter` (programs, 2), where it is there, counts the tiles that were visited and those of them
without a mask. A branch around each loop keeps its products in flight: without it the compiler would set the zeros
of a loop of no turn between them, and wait for every product.

Softmax is masked before the exponential, other weights after their function: a hidden key weighs exactly 0.
"""

import triton
import triton.language as tl

from .attention_tiles import (
    around,
    box,
    hidden,
    inner,
    origin,
    place_of,
    slots,
    spans,
    tiles_of,
    tokens_at,
    turned,
    visited,
    volume,
)
from .attention_weights import LOG2_E, elementwise, rescaled, weighed
from .memory import column, put, put_column, tile


@triton.jit
def scored(S, scale, bias, WEIGHT: tl.constexpr):
    """Scores as the weight takes them, in units of log 2 for sigmoid; those of softmax are scaled later."""
    if WEIGHT == "softmax":
        return S
    elif WEIGHT == "sigmoid":
        return S * (scale * LOG2_E) + bias * LOG2_E
    else:
        return S * scale + bias


@triton.jit
def store(pointer, value, first, rows, length, heads, head, channels, size):
    """As `put`, by other sums than those of the loads: registers would hold these through the loops."""
    base = pointer + (first * heads + head) * size
    put(base, value, 0, rows.to(tl.int64), length, heads, 0, channels, size)


@triton.jit
def count(counter, visited, bare, COUNT: tl.constexpr):
    if COUNT:
        tl.store(counter + 2 * tl.program_id(0), visited)
        tl.store(counter + 2 * tl.program_id(0) + 1, bare)


@triton.jit
def forward(
    q, k, v, low, high, boxes, o, row, counter,
    q_z, q_y, q_x, k_z, k_y, k_x, step_z, step_y, step_x, heads, k_heads, scale, bias,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    QZ: tl.constexpr, QY: tl.constexpr, QX: tl.constexpr,
    KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr, RANK: tl.constexpr,
    WEIGHT: tl.constexpr, NORMALISED: tl.constexpr, COUNT: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """O = Σ_j w(s_ij) v_j, divided by Σ_j w(s_ij) where normalised, for a tile of queries over its KV tiles.

    Softmax wants scale >= 0: the largest product is the largest score.
    """
    NARROW: tl.constexpr = q.dtype.element_ty.primitive_bitwidth < 32
    queries, keys, steps = (q_z, q_y, q_x), (k_z, k_y, k_x), (step_z, step_y, step_x)
    length, many = q_z * q_y * q_x, k_z * k_y * k_x
    tiles = tiles_of(queries, steps, QZ, QY, QX)
    batch, head, group, at = place_of(tiles, steps, heads)
    k_head = head * k_heads // heads
    start, k_start = batch.to(tl.int64) * length, batch.to(tl.int64) * many
    places, rows = tokens_at(at, group, queries, steps, QZ, QY, QX, RANK)
    lows, highs = spans(low, high, group, steps, slots(tiles, QZ, QY, QX), places, RANK)
    first, visits, whole, bare = box(boxes, group, steps, tiles, at)
    keys_of_head, values_of_head = tl.arange(0, BK), tl.arange(0, BV)
    Q = tile(q, start, rows, length, heads, head, keys_of_head, K, UPCAST)
    within = inner(keys, steps, KZ, KY, KX, RANK)
    factor = scale * LOG2_E
    most = tl.full((QZ * QY * QX,), -float("inf"), tl.float32)
    sum = tl.zeros((QZ * QY * QX,), tl.float32)
    acc = tl.zeros((QZ * QY * QX, BV), tl.float32)
    for MASKED in tl.static_range(2):
        turns = volume(visits) - volume(bare) if MASKED else volume(bare)
        if turns > 0:
            for turn in range(0, turns):
                if MASKED:
                    now = around(turn, first, visits, whole, bare, RANK)
                else:
                    now = turned(turn, whole, bare, RANK)
                theirs, columns = tokens_at(now, group, keys, steps, KZ, KY, KX, RANK)
                begin = origin(now, group, keys, steps, KZ, KY, KX, RANK)
                W = visited(
                    k, k_start, columns, many, begin, within, k_heads, k_head, keys_of_head, K,
                    RANK, UPCAST,
                )  # fmt: skip
                U = visited(
                    v, k_start, columns, many, begin, within, k_heads, k_head, values_of_head, V,
                    RANK, UPCAST,
                )  # fmt: skip
                S = scored(tl.dot(Q, tl.trans(W), input_precision=PRECISION), scale, bias, WEIGHT)
                if WEIGHT == "softmax":
                    if MASKED:
                        S = hidden(S * factor, -float("inf"), lows, highs, theirs, RANK)
                        P, most, sum, acc = rescaled(S, 1.0, most, sum, acc)
                    else:
                        P, most, sum, acc = rescaled(S, factor, most, sum, acc)
                else:
                    P, _ = elementwise(S, WEIGHT, NARROW)
                    if MASKED:
                        P = hidden(P, 0.0, lows, highs, theirs, RANK)
                    if NORMALISED:
                        sum += tl.sum(P, 1)
                acc += tl.dot(P.to(U.dtype), U, input_precision=PRECISION)
    if NORMALISED:
        # A row that sees no key, or whose weights are all below float32's range, is exactly zero.
        seen = sum > 0
        inverse = tl.where(seen, 1.0 / tl.where(seen, sum, 1.0), 0.0)
        acc = acc * inverse[:, None]
        if WEIGHT == "softmax":
            kept = tl.where(seen, most + tl.log2(tl.where(seen, sum, 1.0)), float("inf"))
        else:
            kept = inverse
        put_column(row, kept, start, rows, length, heads, head)
    store(o, acc, start, rows, length, heads, head, values_of_head, V)
    count(counter, volume(visits), volume(bare), COUNT)


@triton.jit
def backward_of_queries(
    q, k, v, low, high, boxes, row, do, o, delta, dq, counter,
    q_z, q_y, q_x, k_z, k_y, k_x, step_z, step_y, step_x, heads, k_heads, scale, bias,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    QZ: tl.constexpr, QY: tl.constexpr, QX: tl.constexpr,
    KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr, RANK: tl.constexpr,
    WEIGHT: tl.constexpr, NORMALISED: tl.constexpr, COUNT: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ = s Σ_j dS_ij k_j, dS = w' ∘ (dO Vᵀ - δ), for a tile of queries over its KV tiles; keeps δ = Σ dO ∘ O."""
    NARROW: tl.constexpr = q.dtype.element_ty.primitive_bitwidth < 32
    queries, keys, steps = (q_z, q_y, q_x), (k_z, k_y, k_x), (step_z, step_y, step_x)
    length, many = q_z * q_y * q_x, k_z * k_y * k_x
    tiles = tiles_of(queries, steps, QZ, QY, QX)
    batch, head, group, at = place_of(tiles, steps, heads)
    k_head = head * k_heads // heads
    start, k_start = batch.to(tl.int64) * length, batch.to(tl.int64) * many
    places, rows = tokens_at(at, group, queries, steps, QZ, QY, QX, RANK)
    lows, highs = spans(low, high, group, steps, slots(tiles, QZ, QY, QX), places, RANK)
    first, visits, whole, bare = box(boxes, group, steps, tiles, at)
    keys_of_head, values_of_head = tl.arange(0, BK), tl.arange(0, BV)
    Q = tile(q, start, rows, length, heads, head, keys_of_head, K, UPCAST)
    G = tile(do, start, rows, length, heads, head, values_of_head, V, UPCAST)
    within = inner(keys, steps, KZ, KY, KX, RANK)
    factor, kept, less = scale * LOG2_E, 0.0, 0.0
    if NORMALISED:
        kept = column(row, start, rows, length, heads, head)[:, None]
        outputs = tile(o, start, rows, length, heads, head, values_of_head, V, UPCAST)
        sums = tl.sum(G.to(tl.float32) * outputs.to(tl.float32), 1)
        put_column(delta, sums, start, rows, length, heads, head)
        less = sums[:, None]
    acc = tl.zeros((QZ * QY * QX, BK), tl.float32)
    for MASKED in tl.static_range(2):
        turns = volume(visits) - volume(bare) if MASKED else volume(bare)
        if turns > 0:
            for turn in range(0, turns):
                if MASKED:
                    now = around(turn, first, visits, whole, bare, RANK)
                else:
                    now = turned(turn, whole, bare, RANK)
                theirs, columns = tokens_at(now, group, keys, steps, KZ, KY, KX, RANK)
                begin = origin(now, group, keys, steps, KZ, KY, KX, RANK)
                W = visited(
                    k, k_start, columns, many, begin, within, k_heads, k_head, keys_of_head, K,
                    RANK, UPCAST,
                )  # fmt: skip
                U = visited(
                    v, k_start, columns, many, begin, within, k_heads, k_head, values_of_head, V,
                    RANK, UPCAST,
                )  # fmt: skip
                S = scored(tl.dot(Q, tl.trans(W), input_precision=PRECISION), scale, bias, WEIGHT)
                if MASKED and WEIGHT == "softmax":
                    S = hidden(S * factor, -float("inf"), lows, highs, theirs, RANK)
                    _, slope = weighed(S, 1.0, kept, WEIGHT, NORMALISED, NARROW)
                else:
                    _, slope = weighed(S, factor, kept, WEIGHT, NORMALISED, NARROW)
                if MASKED and WEIGHT != "softmax":
                    slope = hidden(slope, 0.0, lows, highs, theirs, RANK)
                D = slope * (tl.dot(G, tl.trans(U), input_precision=PRECISION) - less)
                acc += tl.dot(D.to(W.dtype), W, input_precision=PRECISION)
    store(dq, acc * scale, start, rows, length, heads, head, keys_of_head, K)
    count(counter, volume(visits), volume(bare), COUNT)


@triton.jit
def backward_of_keys(
    q, k, v, low, high, boxes, row, do, delta, dk, dv, counter,
    q_z, q_y, q_x, k_z, k_y, k_x, step_z, step_y, step_x, heads, k_heads, scale, bias,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    QZ: tl.constexpr, QY: tl.constexpr, QX: tl.constexpr,
    KZ: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr, RANK: tl.constexpr,
    WEIGHT: tl.constexpr, NORMALISED: tl.constexpr, COUNT: tl.constexpr,
    UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dV = Σ_i w_ij dO_i, dK = s Σ_i dS_ij q_i, for a tile of keys over the query tiles and heads that see it."""
    NARROW: tl.constexpr = q.dtype.element_ty.primitive_bitwidth < 32
    queries, keys, steps = (q_z, q_y, q_x), (k_z, k_y, k_x), (step_z, step_y, step_x)
    length, many = q_z * q_y * q_x, k_z * k_y * k_x
    tiles = tiles_of(keys, steps, KZ, KY, KX)
    batch, k_head, group, at = place_of(tiles, steps, k_heads)
    start, k_start = batch.to(tl.int64) * length, batch.to(tl.int64) * many
    theirs, columns = tokens_at(at, group, keys, steps, KZ, KY, KX, RANK)
    counts = slots(tiles_of(queries, steps, QZ, QY, QX), QZ, QY, QX)
    first, visits, whole, bare = box(boxes, group, steps, tiles, at)
    keys_of_head, values_of_head = tl.arange(0, BK), tl.arange(0, BV)
    W = tile(k, k_start, columns, many, k_heads, k_head, keys_of_head, K, UPCAST)
    U = tile(v, k_start, columns, many, k_heads, k_head, values_of_head, V, UPCAST)
    of_keys = tl.zeros((KZ * KY * KX, BK), tl.float32)
    of_values = tl.zeros((KZ * KY * KX, BV), tl.float32)
    factor, shared = scale * LOG2_E, heads // k_heads
    for MASKED in tl.static_range(2):
        several = volume(visits) - volume(bare) if MASKED else volume(bare)
        turns = shared * several
        if turns > 0:
            for turn in range(0, turns):
                head = k_head * shared + turn // several
                if MASKED:
                    now = around(turn % several, first, visits, whole, bare, RANK)
                else:
                    now = turned(turn % several, whole, bare, RANK)
                places, rows = tokens_at(now, group, queries, steps, QZ, QY, QX, RANK)
                Q = tile(q, start, rows, length, heads, head, keys_of_head, K, UPCAST)
                G = tile(do, start, rows, length, heads, head, values_of_head, V, UPCAST)
                kept, less = 0.0, 0.0
                if NORMALISED:
                    kept = column(row, start, rows, length, heads, head)[:, None]
                    less = column(delta, start, rows, length, heads, head)[:, None]
                S = scored(tl.dot(Q, tl.trans(W), input_precision=PRECISION), scale, bias, WEIGHT)
                if MASKED:
                    lows, highs = spans(low, high, group, steps, counts, places, RANK)
                if MASKED and WEIGHT == "softmax":
                    S = hidden(S * factor, -float("inf"), lows, highs, theirs, RANK)
                    P, slope = weighed(S, 1.0, kept, WEIGHT, NORMALISED, NARROW)
                else:
                    P, slope = weighed(S, factor, kept, WEIGHT, NORMALISED, NARROW)
                if MASKED and WEIGHT != "softmax":
                    P = hidden(P, 0.0, lows, highs, theirs, RANK)
                    slope = hidden(slope, 0.0, lows, highs, theirs, RANK)
                of_values += tl.dot(tl.trans(P.to(G.dtype)), G, input_precision=PRECISION)
                above = tl.dot(G, tl.trans(U), input_precision=PRECISION)
                D = slope * (above - less)
                of_keys += tl.dot(tl.trans(D.to(Q.dtype)), Q, input_precision=PRECISION)
    store(dk, of_keys * scale, k_start, columns, many, k_heads, k_head, keys_of_head, K)
    store(dv, of_values, k_start, columns, many, k_heads, k_head, values_of_head, V)
    count(counter, shared * volume(visits), shared * volume(bare), COUNT)
