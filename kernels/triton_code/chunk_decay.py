"""The chunk kernel of scalar decay: one program per sequence, head and tile of the state walks the chunks.

With M_ij = Π_{l=j+1..i} a_l in the chunk, c_i = Π_{l≤i} a_l, e_i = Π_{l>i} a_l, S the state before it:
Y = s (QKᵀ ∘ M) V + s c ∘ (Q S), S' = c_C S + Kᵀ (e ∘ V). The state stays in registers.
"""

import triton
import triton.language as tl

from .decay import between, from_start, of_chunk, prefix, to_end, total
from .memory import column, matrix, part, place, put, put_matrix, tile


@triton.jit
def forward(
    q, k, v, g, state, o, final, starts,
    length, heads, q_heads, k_heads, v_heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KT: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs of all steps and the final state."""
    VT: tl.constexpr = (V + BV - 1) // BV
    key_part, value_part, index = part(KT, VT)
    keys, values = key_part * BK + tl.arange(0, BK), value_part * BV + tl.arange(0, BV)
    sequence, head = index // heads, index % heads
    q_head, k_head = head * q_heads // heads, head * k_heads // heads
    v_head = head * v_heads // heads
    first, steps = place(starts, sequence, length, PACKED)
    S = matrix(state, index, keys, values, K, V)
    for at in tl.range(0, steps, C, disable_licm=True):
        rows = at + tl.arange(0, C)
        Q = tile(q, first, rows, steps, q_heads, q_head, keys, K, UPCAST)
        W = tile(k, first, rows, steps, k_heads, k_head, keys, K, UPCAST)
        U = tile(v, first, rows, steps, v_heads, v_head, values, V, UPCAST)
        logs = column(g, first, rows, steps, heads, head)
        high, low, zeros = prefix(logs)
        whole, all_zeros = total(logs)
        P = tl.dot(Q, tl.trans(W), input_precision=PRECISION) * between(high, low, zeros, rows)
        Y = tl.dot(Q, S.to(Q.dtype), input_precision=PRECISION)
        Y = Y * from_start(high, low, zeros)[:, None]
        Y += tl.dot(P.to(U.dtype), U, input_precision=PRECISION)
        put(o, Y * scale, first, rows, steps, heads * KT, head * KT + key_part, values, V)
        late = (U.to(tl.float32) * to_end(high, low, zeros, whole, all_zeros)[:, None]).to(U.dtype)
        S = S * of_chunk(whole, all_zeros) + tl.dot(tl.trans(W), late, input_precision=PRECISION)
    put_matrix(final, S, index, keys, values, K, V)


@triton.jit
def backward_of_reads(
    k, v, g, state, do, dq, starts,
    length, heads, k_heads, v_heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KT: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ = s ((dO Vᵀ) ∘ M) K + s c ∘ (dO Sᵀ); the states are made again."""
    VT: tl.constexpr = (V + BV - 1) // BV
    key_part, value_part, index = part(KT, VT)
    keys, values = key_part * BK + tl.arange(0, BK), value_part * BV + tl.arange(0, BV)
    sequence, head = index // heads, index % heads
    k_head, v_head = head * k_heads // heads, head * v_heads // heads
    first, steps = place(starts, sequence, length, PACKED)
    S = matrix(state, index, keys, values, K, V)
    for at in tl.range(0, steps, C, disable_licm=True):
        rows = at + tl.arange(0, C)
        W = tile(k, first, rows, steps, k_heads, k_head, keys, K, UPCAST)
        U = tile(v, first, rows, steps, v_heads, v_head, values, V, UPCAST)
        G = tile(do, first, rows, steps, heads, head, values, V, UPCAST)
        logs = column(g, first, rows, steps, heads, head)
        high, low, zeros = prefix(logs)
        whole, all_zeros = total(logs)
        R = tl.dot(G, tl.trans(U), input_precision=PRECISION) * between(high, low, zeros, rows)
        D = tl.dot(G, tl.trans(S.to(G.dtype)), input_precision=PRECISION)
        D = D * from_start(high, low, zeros)[:, None]
        D += tl.dot(R.to(W.dtype), W, input_precision=PRECISION)
        put(
            dq,
            D * scale,
            first,
            rows,
            steps,
            heads * VT,
            head * VT + value_part,
            keys,
            K,
        )
        late = (U.to(tl.float32) * to_end(high, low, zeros, whole, all_zeros)[:, None]).to(U.dtype)
        S = S * of_chunk(whole, all_zeros) + tl.dot(tl.trans(W), late, input_precision=PRECISION)


@triton.jit
def backward_of_writes(
    q, k, v, g, do, dfinal, dk, dv, dstate, starts,
    length, heads, q_heads, k_heads, v_heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KT: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """From the last chunk to the first, with the gradient dS of the state after each chunk:

    dK = s ((dO Vᵀ) ∘ M)ᵀ Q + e ∘ (V dSᵀ), dV = s ((QKᵀ) ∘ M)ᵀ dO + e ∘ (K dS), dS ← c_C dS + s Qᵀ (c ∘ dO).
    """
    VT: tl.constexpr = (V + BV - 1) // BV
    key_part, value_part, index = part(KT, VT)
    keys, values = key_part * BK + tl.arange(0, BK), value_part * BV + tl.arange(0, BV)
    sequence, head = index // heads, index % heads
    q_head, k_head = head * q_heads // heads, head * k_heads // heads
    v_head = head * v_heads // heads
    first, steps = place(starts, sequence, length, PACKED)
    dS = matrix(dfinal, index, keys, values, K, V)
    chunks = (steps + C - 1) // C
    for turn in tl.range(0, chunks, disable_licm=True):
        rows = (chunks - 1 - turn) * C + tl.arange(0, C)
        Q = tile(q, first, rows, steps, q_heads, q_head, keys, K, UPCAST)
        W = tile(k, first, rows, steps, k_heads, k_head, keys, K, UPCAST)
        U = tile(v, first, rows, steps, v_heads, v_head, values, V, UPCAST)
        G = tile(do, first, rows, steps, heads, head, values, V, UPCAST)
        logs = column(g, first, rows, steps, heads, head)
        high, low, zeros = prefix(logs)
        whole, all_zeros = total(logs)
        M = between(high, low, zeros, rows)
        late = to_end(high, low, zeros, whole, all_zeros)[:, None]
        P = tl.dot(Q, tl.trans(W), input_precision=PRECISION) * M * scale
        R = tl.dot(G, tl.trans(U), input_precision=PRECISION) * M * scale
        near = dS.to(Q.dtype)
        dW = tl.dot(U, tl.trans(near), input_precision=PRECISION) * late
        dW += tl.dot(tl.trans(R.to(Q.dtype)), Q, input_precision=PRECISION)
        put(
            dk,
            dW,
            first,
            rows,
            steps,
            heads * VT,
            head * VT + value_part,
            keys,
            K,
        )
        dU = tl.dot(W, near, input_precision=PRECISION) * late
        dU += tl.dot(tl.trans(P.to(G.dtype)), G, input_precision=PRECISION)
        put(dv, dU, first, rows, steps, heads * KT, head * KT + key_part, values, V)
        early = (G.to(tl.float32) * (from_start(high, low, zeros) * scale)[:, None]).to(G.dtype)
        dS = dS * of_chunk(whole, all_zeros) + tl.dot(tl.trans(Q), early, input_precision=PRECISION)
    put_matrix(dstate, dS, index, keys, values, K, V)
