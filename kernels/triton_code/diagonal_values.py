"""What the values of a chunk meet under decay per key, once its states are known: one program per chunk, head and tile.

With the names of `diagonal_pairs`, S the state before a chunk and dS the gradient of that after it:
Y = s (P V + (r ∘ Q) S), dV = s Pᵀ dO + (e ∘ K) dS.
"""

import triton
import triton.language as tl

from .memory import put, put_column, tile
from .slots import chunk_of, put_table, table


@triton.jit
def kept(pointer, index, keys, values, K: tl.constexpr, V: tl.constexpr, UPCAST: tl.constexpr):
    """The (keys, values) tile of what is kept of a chunk, zero outside."""
    where = (index * K + keys)[:, None] * V + values[None, :]
    found = tl.load(pointer + where, mask=(keys < K)[:, None] & (values < V)[None, :], other=0.0)
    return found.to(tl.float32) if UPCAST else found


@triton.jit
def outputs(
    v, reads, near_q, before, o, starts, owners,
    length, heads, v_heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KT: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Y of one chunk, head and tile of values."""
    VT: tl.constexpr = (V + BV - 1) // BV
    at = tl.program_id(0).to(tl.int64)
    values, head, slot = at % VT * BV + tl.arange(0, BV), at // VT % heads, at // VT // heads
    first, steps, number = chunk_of(slot, starts, owners, length, C, PACKED)
    if number * C >= steps:  # a slot between packed sequences
        return
    offsets = tl.arange(0, C)
    rows = number * C + offsets
    U = tile(v, first, rows, steps, v_heads, head * v_heads // heads, values, V, UPCAST)
    P = table(reads, slot, heads, head, offsets, C)
    Y = tl.dot(P, U, input_precision=PRECISION)
    for key_part in range(0, KT):
        keys = key_part * BK + tl.arange(0, BK)
        Q = tile(near_q, first, rows, steps, heads, head, keys, K, UPCAST)
        S = kept(before, slot * heads + head, keys, values, K, V, UPCAST)
        Y += tl.dot(Q, S, input_precision=PRECISION)
    put(o, Y * scale, first, rows, steps, heads, head, values, V)


@triton.jit
def of_values(
    do, reads, near_k, after, dv, starts, owners,
    length, heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KT: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dV of one chunk, head and tile of values."""
    VT: tl.constexpr = (V + BV - 1) // BV
    at = tl.program_id(0).to(tl.int64)
    values, head, slot = at % VT * BV + tl.arange(0, BV), at // VT % heads, at // VT // heads
    first, steps, number = chunk_of(slot, starts, owners, length, C, PACKED)
    if number * C >= steps:  # a slot between packed sequences
        return
    offsets = tl.arange(0, C)
    rows = number * C + offsets
    G = tile(do, first, rows, steps, heads, head, values, V, UPCAST)
    P = table(reads, slot, heads, head, offsets, C)
    dU = tl.dot(tl.trans(P), G, input_precision=PRECISION) * scale
    for key_part in range(0, KT):
        keys = key_part * BK + tl.arange(0, BK)
        W = tile(near_k, first, rows, steps, heads, head, keys, K, UPCAST)
        dS = kept(after, slot * heads + head, keys, values, K, V, UPCAST)
        dU += tl.dot(W, dS, input_precision=PRECISION)
    put(dv, dU, first, rows, steps, heads, head, values, V)


@triton.jit
def of_pairs(
    v, do, meetings, self_meetings, starts, owners,
    length, heads, v_heads, scale,
    V: tl.constexpr, C: tl.constexpr, BV: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """R = s dO Vᵀ of one chunk and head, the gradient of P: its lower part on both sides, and its diagonal apart."""
    at = tl.program_id(0).to(tl.int64)
    head, slot = at % heads, at // heads
    first, steps, number = chunk_of(slot, starts, owners, length, C, PACKED)
    if number * C >= steps:  # a slot between packed sequences
        return
    offsets = tl.arange(0, C)
    rows = number * C + offsets
    R = tl.zeros((C, C), tl.float32)
    for start in range(0, V, BV):
        values = start + tl.arange(0, BV)
        U = tile(v, first, rows, steps, v_heads, head * v_heads // heads, values, V, UPCAST)
        G = tile(do, first, rows, steps, heads, head, values, V, UPCAST)
        R += tl.dot(G, tl.trans(U), input_precision=PRECISION)
    R *= scale
    later = tl.where(offsets[:, None] > offsets[None, :], R, 0.0)
    put_table(meetings, later + tl.trans(later), slot, heads, head, offsets, C)
    diagonal = tl.sum(tl.where(offsets[:, None] == offsets[None, :], R, 0.0), 1)
    put_column(self_meetings, diagonal, first, rows, steps, heads, head)
