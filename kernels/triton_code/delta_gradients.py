r"""The gradients of what reads, erases and writes in the delta rule: one program per chunk, head and tile of keys.

With S and Z the state before and the gradient of the state after the chunk, A = s dY Rᵀ and F = dR Rᵀ:
dQ = s dY Sᵀ + (A ∘ D) β K, dB = -dR Sᵀ - (F ∘ D) β K, and of the writes β^-1 dK = R Zᵀ + (A ∘ D)ᵀ Q - (F ∘ D)ᵀ B,
each with the decays between the rows that meet.
"""

import triton
import triton.language as tl

from .delta_gates import (
    erased,
    key_gates,
    pairs,
    read_after,
    widened,
)
from .delta_prepare import chunk_of, fading
from .delta_walk import head_gates
from .memory import column, matrix, put, tile


@triton.jit
def gradients(
    q, k, b, g, beta, do, rests, dv, before, after, dq, dk, db, starts, owners,
    length, heads, q_heads, k_heads, b_heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, KT: tl.constexpr,
    BV: tl.constexpr, VT: tl.constexpr, LEVELS: tl.constexpr,
    N: tl.constexpr, KEYED: tl.constexpr, TOGETHER: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ, dB and β^-1 dK of one chunk, head and tile of keys, in float32."""
    slot, head = tl.program_id(0).to(tl.int64), tl.program_id(1) // KT
    keys = tl.program_id(1) % KT * BK + tl.arange(0, BK)
    first, tokens, number = chunk_of(slot, starts, owners, length, C // N, PACKED)
    if number * C >= tokens * N:  # a slot between packed sequences
        return
    offsets = tl.arange(0, C)
    rows = number * C + offsets
    read = read_after(rows, tokens, N)
    q_head, k_head = head * q_heads // heads, head * k_heads // heads
    b_head = head * b_heads // heads
    A, F = tl.zeros((C, C), tl.float32), tl.zeros((C, C), tl.float32)
    dQ, dB = tl.zeros((C, BK), tl.float32), tl.zeros((C, BK), tl.float32)
    dW = tl.zeros((C, BK), tl.float32)
    for part in range(0, VT):
        values = part * BV + tl.arange(0, BV)
        G = tile(do, first, read, tokens, heads, head, values, V, UPCAST)
        R = tile(rests, first * N, rows, tokens * N, heads, head, values, V, UPCAST).to(G.dtype)
        E = tile(dv, first * N, rows, tokens * N, heads, head, values, V, UPCAST).to(G.dtype)
        S = matrix(before, slot * heads + head, keys, values, K, V).to(G.dtype)
        Z = matrix(after, slot * heads + head, keys, values, K, V).to(G.dtype)
        A += tl.dot(G, tl.trans(R), input_precision=PRECISION)
        F += tl.dot(E, tl.trans(R), input_precision=PRECISION)
        dQ += tl.dot(G, tl.trans(S), input_precision=PRECISION)
        dB += tl.dot(E, tl.trans(S), input_precision=PRECISION)
        dW += tl.dot(R, tl.trans(Z), input_precision=PRECISION)
    A, dQ = A * scale, dQ * scale
    strength = column(beta, first * N, rows, tokens * N, heads, head)
    W = tile(k, first * N, rows, tokens * N, k_heads, k_head, keys, K, UPCAST)
    if KEYED:
        # Twice over the levels, for fewer tiles at a time: what reads and erases get, and what writes get.
        now = key_gates(g, first, rows, tokens, heads, head, keys, K, N)
        F = tl.where(erased(offsets, N, TOGETHER), F, 0.0)
        here = tl.sum(tl.where(offsets[:, None] == offsets[None, :], A, 0.0), 1)[:, None]
        near = W.to(tl.float32) * strength[:, None]
        rQ, rB = here * near, tl.zeros((C, BK), tl.float32)
        to_reads, to_writes = tl.exp(now), tl.full((C, BK), 1.0, tl.float32)
        to_erases = to_writes if TOGETHER else to_reads
        for level in range(0, LEVELS):
            meet = pairs(offsets, 1 << level)
            X = tl.dot(tl.where(meet, A, 0.0), near, input_precision=PRECISION)
            rQ += X * to_reads
            X = tl.dot(tl.where(meet, F, 0.0), near, input_precision=PRECISION)
            rB += X * to_erases
            to_reads, to_erases, near = widened(
                to_reads, to_erases, near, now, offsets, 1 << level, N, TOGETHER, PRECISION
            )
        dQ, dB = dQ * to_reads + rQ, dB * to_erases + rB
        Q = tile(q, first, read, tokens, q_heads, q_head, keys, K, UPCAST).to(tl.float32)
        B = tile(b, first * N, rows, tokens * N, b_heads, b_head, keys, K, UPCAST).to(tl.float32)
        rW = here * Q
        Q = Q * tl.exp(now)
        if not TOGETHER:
            B = B * tl.exp(now)
        for level in range(0, LEVELS):
            meet = pairs(offsets, 1 << level)
            X = tl.dot(tl.trans(tl.where(meet, A, 0.0)), Q, input_precision=PRECISION)
            X -= tl.dot(tl.trans(tl.where(meet, F, 0.0)), B, input_precision=PRECISION)
            rW += X * to_writes
            Q, B, to_writes = widened(
                Q, B, to_writes, now, offsets, 1 << level, N, TOGETHER, PRECISION
            )
        dW = dW * to_writes + rW
    else:
        Q = tile(q, first, read, tokens, q_heads, q_head, keys, K, UPCAST)
        B = tile(b, first * N, rows, tokens * N, b_heads, b_head, keys, K, UPCAST)
        down, erase, up, gate = head_gates(
            g, first, rows, offsets, tokens, heads, head, C, N, TOGETHER
        )
        of_reads, of_erases = fading(g, first, rows, offsets, tokens, heads, head, C, N, TOGETHER)
        A, F = A * of_reads, F * of_erases
        dQ, dB, dW = dQ * down[:, None], dB * erase[:, None], dW * up[:, None]
        dQ += tl.dot((A * strength[None, :]).to(W.dtype), W, input_precision=PRECISION)
        dB += tl.dot((F * strength[None, :]).to(W.dtype), W, input_precision=PRECISION)
        dW += tl.dot(tl.trans(A.to(Q.dtype)), Q, input_precision=PRECISION)
        dW -= tl.dot(tl.trans(F.to(B.dtype)), B, input_precision=PRECISION)
    put(dq, dQ, first, read, tokens, heads, head, keys, K)
    put(dk, dW, first * N, rows, tokens * N, heads, head, keys, K)
    put(db, -dB, first * N, rows, tokens * N, heads, head, keys, K)
