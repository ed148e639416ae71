r"""What the chunks of the delta rule need before the walk: one program per chunk and head.

With L_ij = b_iᵀ D_{ij} k_j β_j below the diagonal and P_ij = q_iᵀ D_{ij} k_j on it and below, the program stores
(I + L)⁻¹ and P. Where gates differ by key it stores q, b and k as they meet the state before or after the chunk.

The inverse is made block by block, T ← T - T L₂₁ T over halves of 1, 2, 4, … rows. The product of (I + L^{2^m}) is
the same in exact arithmetic and useless in float32: for equal keys and β = 2 the entries of L^16 reach 10¹³ while
those of the inverse are ±2.
"""

import triton
import triton.language as tl

from .delta_gates import (
    erased,
    faded,
    faded_before,
    faded_earlier,
    from_row,
    key_gates,
    pairs,
    read_after,
    split,
    to_middle,
    to_row,
)
from .memory import column, put, tile
from .slots import chunk_of, put_table


@triton.jit
def fading(
    g, first, rows, offsets, tokens, heads, head,
    C: tl.constexpr, N: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """D_ij of reads and of erases for a gate per head, zero where they see no write: C × C."""
    now = column(g, first, faded_before(rows, tokens, N), tokens, heads, head)
    beside = tl.zeros((C, C), tl.float32)
    later = offsets[:, None] > offsets[None, :]
    sums = tl.cumsum(tl.where(later, now[:, None] + beside, 0.0), 0)
    reads = tl.where(offsets[:, None] >= offsets[None, :], tl.exp(sums), 0.0)
    if TOGETHER:
        early = column(g, first, faded_earlier(rows, offsets, tokens, N), tokens, heads, head)
        after = offsets[:, None] // N - 1 > offsets[None, :] // N
        sums = tl.cumsum(tl.where(after, early[:, None] + beside, 0.0), 0)
    erases = tl.where(erased(offsets, N, TOGETHER), tl.exp(sums), 0.0)
    return reads, erases


@triton.jit
def inverse_of(L, offsets, C: tl.constexpr, LEVELS: tl.constexpr, PRECISION: tl.constexpr):
    """(I + L)⁻¹ for L strictly lower triangular."""
    same = offsets[:, None] == offsets[None, :]
    T = tl.where(same, 1.0, 0.0) - tl.where(pairs(offsets, 1), L, 0.0)
    for level in range(1, LEVELS):
        corner = tl.where(pairs(offsets, 1 << level), L, 0.0)
        T -= tl.dot(tl.dot(T, corner, input_precision=PRECISION), T, input_precision=PRECISION)
    return T


@triton.jit
def prepare(
    q, k, b, g, beta, inverse, reads, near_q, near_b, near_k, whole, starts, owners,
    length, heads, q_heads, k_heads, b_heads,
    K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, KT: tl.constexpr, LEVELS: tl.constexpr,
    N: tl.constexpr, KEYED: tl.constexpr, TOGETHER: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(I + L)⁻¹ and P of one chunk and head."""
    slot, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    first, tokens, number = chunk_of(slot, starts, owners, length, C // N, PACKED)
    if number * C >= tokens * N:  # a slot between packed sequences
        return
    offsets = tl.arange(0, C)
    rows = number * C + offsets
    read = read_after(rows, tokens, N)
    q_head, k_head = head * q_heads // heads, head * k_heads // heads
    b_head = head * b_heads // heads
    P = tl.zeros((C, C), tl.float32)
    L = tl.zeros((C, C), tl.float32)
    seen = erased(offsets, N, TOGETHER)
    for part in range(0, KT):
        keys = part * BK + tl.arange(0, BK)
        Q = tile(q, first, read, tokens, q_heads, q_head, keys, K, UPCAST)
        W = tile(k, first * N, rows, tokens * N, k_heads, k_head, keys, K, UPCAST)
        B = tile(b, first * N, rows, tokens * N, b_heads, b_head, keys, K, UPCAST)
        if KEYED:
            now = key_gates(g, first, rows, tokens, heads, head, keys, K, N)
            large, small = split(now)
            same = offsets[:, None] == offsets[None, :]
            P += tl.where(same, tl.sum(Q.to(tl.float32) * W, 1)[:, None], 0.0)
            for level in range(0, LEVELS):
                meet = pairs(offsets, 1 << level)
                fade = faded(to_middle(offsets, 1 << level, N, False), large, small)
                write = tl.trans((W * fade).to(W.dtype))
                X = tl.dot((Q * fade).to(Q.dtype), write, input_precision=PRECISION)
                P += tl.where(meet, X, 0.0)
                if TOGETHER:
                    fade = faded(to_middle(offsets, 1 << level, N, True), large, small)
                X = tl.dot((B * fade).to(B.dtype), write, input_precision=PRECISION)
                L += tl.where(meet & seen, X, 0.0)
        else:
            P += tl.dot(Q, tl.trans(W), input_precision=PRECISION)
            L += tl.dot(B, tl.trans(W), input_precision=PRECISION)
    if not KEYED:
        of_reads, of_erases = fading(g, first, rows, offsets, tokens, heads, head, C, N, TOGETHER)
        P, L = P * of_reads, L * of_erases
    strength = column(beta, first * N, rows, tokens * N, heads, head)
    T = inverse_of(L * strength[None, :], offsets, C, LEVELS, PRECISION)
    put_table(inverse, T, slot, heads, head, offsets, C)
    put_table(reads, P, slot, heads, head, offsets, C)
    if KEYED:
        for part in range(0, KT):
            keys = part * BK + tl.arange(0, BK)
            now = key_gates(g, first, rows, tokens, heads, head, keys, K, N)
            large, small = split(now)
            Q = tile(q, first, read, tokens, q_heads, q_head, keys, K, UPCAST)
            W = tile(k, first * N, rows, tokens * N, k_heads, k_head, keys, K, UPCAST)
            B = tile(b, first * N, rows, tokens * N, b_heads, b_head, keys, K, UPCAST)
            fade = faded(to_row(offsets, N, False), large, small)
            put(near_q, Q * fade, first, read, tokens, heads, head, keys, K)
            if TOGETHER:
                fade = faded(to_row(offsets, N, True), large, small)
            put(near_b, B * fade, first * N, rows, tokens * N, heads, head, keys, K)
            fade = faded(from_row(offsets), large, small)
            put(near_k, W * fade, first * N, rows, tokens * N, heads, head, keys, K)
            all_of_it = tl.exp(tl.sum(now, 0))
            tl.store(whole + (slot * heads + head) * K + keys, all_of_it, mask=keys < K)
