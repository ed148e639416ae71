r"""The walks over the chunks of the delta rule: one program per sequence, head and tile of values, the state in registers.

R = (I + L)⁻¹ (V - B S), U = β R, Y = s (Q S + P U), S' = D S + Kᵀ U, with Q, B, K as they meet the state before or
after the chunk. Backwards, with Z the gradient of the state after the chunk: dR = (I + L)⁻ᵀ β (K Z + s Pᵀ dY),
Z' = D Z + s Qᵀ dY - Bᵀ dR, and dV = dR.
"""

import triton
import triton.language as tl

from .delta_gates import faded_after, faded_before, faded_earlier, read_after
from .delta_prepare import table
from .memory import column, matrix, place, put, put_matrix, tile


@triton.jit
def head_gates(g, first, rows, offsets, tokens, heads, head, C: tl.constexpr, N: tl.constexpr, TOGETHER: tl.constexpr):  # fmt: skip
    """For a gate per head: decays from the chunk's start to reads and erases, from writes to its end, and of it all."""
    now = column(g, first, faded_before(rows, tokens, N), tokens, heads, head)
    late = column(g, first, faded_after(rows, offsets, tokens, C, N), tokens, heads, head)
    down = tl.exp(tl.cumsum(now, 0))
    if TOGETHER:
        early = column(g, first, faded_earlier(rows, offsets, tokens, N), tokens, heads, head)
        erase = tl.exp(tl.cumsum(early, 0))
    else:
        erase = down
    up = tl.exp(tl.cumsum(late, 0, reverse=True))
    return down, erase, up, tl.exp(tl.sum(now, 0))


@triton.jit
def state_gate(whole, slot, heads, head, keys, K):
    """The decays of a chunk per key, (keys, 1)."""
    return tl.load(whole + (slot * heads + head) * K + keys, mask=keys < K, other=0.0)[:, None]


@triton.jit
def first_slot(first, sequence, length, CT: tl.constexpr, PACKED: tl.constexpr):
    """The slot of a sequence's first chunk."""
    if PACKED:
        return first // CT + sequence
    else:
        return sequence.to(tl.int64) * ((length + CT - 1) // CT)


@triton.jit
def walk(
    q, k, b, v, g, beta, inverse, reads, state, o, final, kept, rests, starts,
    length, heads, q_heads, k_heads, b_heads, v_heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    N: tl.constexpr, KEYED: tl.constexpr, TOGETHER: tl.constexpr, KEEP: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs and the final state; or, to KEEP for the gradients, R and the state before each chunk."""
    index, keys = tl.program_id(0), tl.arange(0, BK)
    values = tl.program_id(1) * BV + tl.arange(0, BV)
    sequence, head = index // heads, index % heads
    q_head, k_head = head * q_heads // heads, head * k_heads // heads
    b_head, v_head = head * b_heads // heads, head * v_heads // heads
    first, tokens = place(starts, sequence, length, PACKED)
    slot = first_slot(first, sequence, length, C // N, PACKED)
    offsets = tl.arange(0, C)
    S = matrix(state, index, keys, values, K, V)
    for at in range(0, tokens * N, C):
        rows = at + offsets
        read = read_after(rows, tokens, N)
        B = tile(b, first * N, rows, tokens * N, b_heads, b_head, keys, K, UPCAST)
        inner = S.to(B.dtype)
        D = tl.dot(B, inner, input_precision=PRECISION)
        if KEYED:
            gate = state_gate(g, slot, heads, head, keys, K)
        else:
            down, erase, up, gate = head_gates(
                g, first, rows, offsets, tokens, heads, head, C, N, TOGETHER
            )
            D = D * erase[:, None]
        A = tile(v, first * N, rows, tokens * N, v_heads, v_head, values, V, UPCAST)
        T = table(inverse, slot, heads, head, offsets, C)
        R = tl.dot(T, A.to(tl.float32) - D, input_precision=PRECISION)
        strength = column(beta, first * N, rows, tokens * N, heads, head)
        U = R * strength[:, None]
        if KEEP:
            put(rests, R, first * N, rows, tokens * N, heads, head, values, V)
            put_matrix(kept, S, slot * heads + head, keys, values, K, V)
        else:
            Q = tile(q, first, read, tokens, q_heads, q_head, keys, K, UPCAST)
            Y = tl.dot(Q, inner, input_precision=PRECISION)
            if not KEYED:
                Y = Y * down[:, None]
            P = table(reads, slot, heads, head, offsets, C)
            Y += tl.dot(P.to(A.dtype), U.to(A.dtype), input_precision=PRECISION)
            put(o, Y * scale, first, read, tokens, heads, head, values, V)
        if not KEYED:
            U = U * up[:, None]
        W = tile(k, first * N, rows, tokens * N, k_heads, k_head, keys, K, UPCAST)
        S = S * gate + tl.dot(tl.trans(W), U.to(W.dtype), input_precision=PRECISION)
        slot += 1
    if not KEEP:
        put_matrix(final, S, index, keys, values, K, V)


@triton.jit
def walk_back(
    q, k, b, g, beta, inverse, reads, do, dfinal, dv, kept, dstate, starts,
    length, heads, q_heads, k_heads, b_heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    N: tl.constexpr, KEYED: tl.constexpr, TOGETHER: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dV, the gradient of the state after each chunk, and that of the initial state."""
    index, keys = tl.program_id(0), tl.arange(0, BK)
    values = tl.program_id(1) * BV + tl.arange(0, BV)
    sequence, head = index // heads, index % heads
    q_head, k_head = head * q_heads // heads, head * k_heads // heads
    b_head = head * b_heads // heads
    first, tokens = place(starts, sequence, length, PACKED)
    offsets = tl.arange(0, C)
    chunks = (tokens * N + C - 1) // C
    start = first_slot(first, sequence, length, C // N, PACKED)
    Z = matrix(dfinal, index, keys, values, K, V)
    for turn in range(0, chunks):
        number = chunks - 1 - turn
        slot = start + number
        rows = number * C + offsets
        read = read_after(rows, tokens, N)
        put_matrix(kept, Z, slot * heads + head, keys, values, K, V)
        W = tile(k, first * N, rows, tokens * N, k_heads, k_head, keys, K, UPCAST)
        X = tl.dot(W, Z.to(W.dtype), input_precision=PRECISION)
        if KEYED:
            gate = state_gate(g, slot, heads, head, keys, K)
        else:
            down, erase, up, gate = head_gates(
                g, first, rows, offsets, tokens, heads, head, C, N, TOGETHER
            )
            X = X * up[:, None]
        G = tile(do, first, read, tokens, heads, head, values, V, UPCAST)
        P = table(reads, slot, heads, head, offsets, C)
        X += tl.dot(tl.trans(P.to(G.dtype)), G, input_precision=PRECISION) * scale
        strength = column(beta, first * N, rows, tokens * N, heads, head)
        T = table(inverse, slot, heads, head, offsets, C)
        E = tl.dot(tl.trans(T), X * strength[:, None], input_precision=PRECISION)
        put(dv, E, first * N, rows, tokens * N, heads, head, values, V)
        G = G.to(tl.float32) * scale
        if not KEYED:
            G, E = G * down[:, None], E * erase[:, None]
        Q = tile(q, first, read, tokens, q_heads, q_head, keys, K, UPCAST)
        B = tile(b, first * N, rows, tokens * N, b_heads, b_head, keys, K, UPCAST)
        Z = Z * gate + tl.dot(tl.trans(Q), G.to(Q.dtype), input_precision=PRECISION)
        Z -= tl.dot(tl.trans(B), E.to(B.dtype), input_precision=PRECISION)
    put_matrix(dstate, Z, index, keys, values, K, V)
