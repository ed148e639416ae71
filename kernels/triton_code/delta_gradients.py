r"""The gradients of what reads, erases and writes in the delta rule: one program per chunk, head and tile of keys.

With S and Z the state before and the gradient of the state after the chunk, A = s dY Rᵀ and F = dR Rᵀ:
dQ = s dY Sᵀ + (A ∘ D) β K, dB = -dR Sᵀ - (F ∘ D) β K, and of the writes β^-1 dK = R Zᵀ + (A ∘ D)ᵀ Q - (F ∘ D)ᵀ B,
each with the decays between the rows that meet. A gate's gradient is the sum over all that fades by it, none of which
is subtracted again: what is rounded to a narrower type would not cancel.
"""

import triton
import triton.language as tl

from .delta_fading import of_head, of_keys
from .delta_gates import faded_before, key_gates, read_after
from .delta_prepare import fading
from .delta_walk import head_gates
from .memory import column, matrix, put, put_column, tile
from .slots import chunk_of


@triton.jit
def gradients(
    q, k, b, g, beta, do, rests, dv, before, after, dq, dk, db, dbeta, dg, starts, owners,
    length, heads, q_heads, k_heads, b_heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, KT: tl.constexpr,
    BV: tl.constexpr, VT: tl.constexpr, LEVELS: tl.constexpr,
    N: tl.constexpr, KEYED: tl.constexpr, TOGETHER: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ, dK and dB of one chunk, head and tile of keys, dg per key, and the tile's part of dβ and of dg per head."""
    slot, own = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head, keys = own // KT, own % KT * BK + tl.arange(0, BK)
    first, tokens, number = chunk_of(slot, starts, owners, length, C // N, PACKED)
    if number * C >= tokens * N:  # a slot between packed sequences
        return
    offsets = tl.arange(0, C)
    rows = number * C + offsets
    read, gated = read_after(rows, tokens, N), faded_before(rows, tokens, N)
    A, F = tl.zeros((C, C), tl.float32), tl.zeros((C, C), tl.float32)
    dQ, dB = tl.zeros((C, BK), tl.float32), tl.zeros((C, BK), tl.float32)
    dW, across = tl.zeros((C, BK), tl.float32), tl.zeros((BK,), tl.float32)
    for part in range(0, VT):
        values = part * BV + tl.arange(0, BV)
        G = tile(do, first, read, tokens, heads, head, values, V, UPCAST)
        R = tile(rests, first * N, rows, tokens * N, heads, head, values, V, UPCAST).to(G.dtype)
        E = tile(dv, first * N, rows, tokens * N, heads, head, values, V, UPCAST).to(G.dtype)
        S = matrix(before, slot * heads + head, keys, values, K, V)
        Z = matrix(after, slot * heads + head, keys, values, K, V)
        across += tl.sum(S * Z, 1)
        S, Z = S.to(G.dtype), Z.to(G.dtype)
        A += tl.dot(G, tl.trans(R), input_precision=PRECISION)
        F += tl.dot(E, tl.trans(R), input_precision=PRECISION)
        dQ += tl.dot(G, tl.trans(S), input_precision=PRECISION)
        dB += tl.dot(E, tl.trans(S), input_precision=PRECISION)
        dW += tl.dot(R, tl.trans(Z), input_precision=PRECISION)
    A, dQ = A * scale, dQ * scale
    strength = column(beta, first * N, rows, tokens * N, heads, head)
    Q = tile(q, first, read, tokens, q_heads, head * q_heads // heads, keys, K, UPCAST)
    W = tile(k, first * N, rows, tokens * N, k_heads, head * k_heads // heads, keys, K, UPCAST)
    B = tile(b, first * N, rows, tokens * N, b_heads, head * b_heads // heads, keys, K, UPCAST)
    if KEYED:
        now = key_gates(g, first, rows, tokens, heads, head, keys, K, N)
        dQ, dB, dW, dG = of_keys(
            Q, B, W, A, F, dQ, dB, dW, across, now, strength, offsets, LEVELS, N, TOGETHER, PRECISION
        )  # fmt: skip
        dG = tl.where(now > -100, dG, 0.0)
        put(dg, dG, first, gated, tokens, heads, head, keys, K)
    else:
        down, erase, up, gate = head_gates(
            g, first, rows, offsets, tokens, heads, head, C, N, TOGETHER
        )
        of_reads, of_erases = fading(g, first, rows, offsets, tokens, heads, head, C, N, TOGETHER)
        dQ, dB, dW, dG = of_head(
            Q, B, W, A * of_reads, F * of_erases, dQ * down[:, None], dB * erase[:, None],
            dW * up[:, None], tl.sum(across, 0) * gate, strength, offsets, N, TOGETHER, PRECISION,
        )  # fmt: skip
        now = column(g, first, gated, tokens, heads, head)
        dG = tl.where(now > -100, dG, 0.0)
        put_column(dg, dG, first, gated, tokens, heads * KT, own)
    put(dq, dQ, first, read, tokens, heads, head, keys, K)
    put(db, -dB, first * N, rows, tokens * N, heads, head, keys, K)
    put_column(dbeta, tl.sum(W * dW, 1), first * N, rows, tokens * N, heads * KT, own)
    put(dk, dW * strength[:, None], first * N, rows, tokens * N, heads, head, keys, K)
