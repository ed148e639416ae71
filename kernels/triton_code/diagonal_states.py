"""States of decay per key before every chunk, and the gradients of those after it: two walks over the chunks.

A chunk's reads r ∘ Q, writes e ∘ K and whole decay t are those of `diagonal_pairs`. All else is a matter of one chunk
(`diagonal_values`, `diagonal_keys`), for all chunks at once.
"""

import triton
import triton.language as tl

from .memory import matrix, part, place, put_matrix, tile
from .slots import first_slot


@triton.jit
def gate_of(whole, index, keys, K: tl.constexpr):
    """The decay over a chunk, (keys, 1)."""
    return tl.load(whole + index * K + keys, mask=keys < K, other=0.0)[:, None]


@triton.jit
def states(
    near_k, v, whole, state, before, final, starts,
    length, heads, v_heads,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KT: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """S before every chunk, and the final state: S ← t S + (e ∘ K)ᵀ V."""
    VT: tl.constexpr = (V + BV - 1) // BV
    key_part, value_part, index = part(KT, VT)
    keys, values = key_part * BK + tl.arange(0, BK), value_part * BV + tl.arange(0, BV)
    sequence, head = index // heads, index % heads
    v_head = head * v_heads // heads
    first, steps = place(starts, sequence, length, PACKED)
    slot = first_slot(first, sequence, length, C, PACKED)
    S = matrix(state, index, keys, values, K, V)
    for at in range(0, steps, C):
        rows, own = at + tl.arange(0, C), (slot + at // C) * heads + head
        W = tile(near_k, first, rows, steps, heads, head, keys, K, UPCAST)
        U = tile(v, first, rows, steps, v_heads, v_head, values, V, UPCAST)
        put_matrix(before, S, own, keys, values, K, V)
        S = S * gate_of(whole, own, keys, K) + tl.dot(tl.trans(W), U, input_precision=PRECISION)
    put_matrix(final, S, index, keys, values, K, V)


@triton.jit
def state_gradients(
    near_q, do, whole, dfinal, after, dstate, starts,
    length, heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KT: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """From the last chunk to the first, dS of the state after every chunk: dS ← t dS + s (r ∘ Q)ᵀ dO."""
    VT: tl.constexpr = (V + BV - 1) // BV
    key_part, value_part, index = part(KT, VT)
    keys, values = key_part * BK + tl.arange(0, BK), value_part * BV + tl.arange(0, BV)
    sequence, head = index // heads, index % heads
    first, steps = place(starts, sequence, length, PACKED)
    slot = first_slot(first, sequence, length, C, PACKED)
    dS = matrix(dfinal, index, keys, values, K, V)
    chunks = (steps + C - 1) // C
    for turn in range(0, chunks):
        number = chunks - 1 - turn
        rows, own = number * C + tl.arange(0, C), (slot + number) * heads + head
        Q = tile(near_q, first, rows, steps, heads, head, keys, K, UPCAST)
        G = tile(do, first, rows, steps, heads, head, values, V, UPCAST)
        put_matrix(after, dS, own, keys, values, K, V)
        found = tl.dot(tl.trans(Q), G, input_precision=PRECISION)
        dS = dS * gate_of(whole, own, keys, K) + found * scale
    put_matrix(dstate, dS, index, keys, values, K, V)
