"""The chunk kernel of decay per key: one program per sequence, head and tile of the state walks the chunks.

With D_ij = Π a_l per key from a write j to a read i of a chunk, r_i from its start to a read, e_j from a write to its
end, t over the whole, and S the state before it: Y = s P V + s (r ∘ Q) S with P_ij = Σ_k q_ik D_ijk k_jk, and
S' = t S + (e ∘ K)ᵀ V. In `halves` D_ij is r_i e_j of one block: a masked product of matrices per size of block. Where
steps are read before their update, each one's own entry is weighed by a bonus.

Loops make their addresses and masks again in each chunk (`disable_licm`): kept, those fill the registers.
"""

import triton
import triton.language as tl

from .halves import alone, joined, parted
from .memory import matrix, part, place, put, put_matrix, tile


@triton.jit
def pairs(Q, W, reach, onward, rows, LEVEL: tl.constexpr, PRECISION: tl.constexpr):
    """(r ∘ Q)(e ∘ K)ᵀ where the two steps part at this level."""
    reads, writes = (Q * reach).to(Q.dtype), (W * onward).to(W.dtype)
    return parted(tl.dot(reads, tl.trans(writes), input_precision=PRECISION), rows, LEVEL)


@triton.jit
def forward(
    q, k, v, g, state, o, final, bonus, starts,
    length, heads, q_heads, k_heads, v_heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    KT: tl.constexpr, BEFORE: tl.constexpr, PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
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
    if BEFORE:
        own = tl.load(bonus + head * K + keys, mask=keys < K, other=0.0)
    for at in tl.range(0, steps, C, disable_licm=True):
        rows = at + tl.arange(0, C)
        Q = tile(q, first, rows, steps, q_heads, q_head, keys, K, UPCAST)
        W = tile(k, first, rows, steps, k_heads, k_head, keys, K, UPCAST)
        U = tile(v, first, rows, steps, v_heads, v_head, values, V, UPCAST)
        logs = tile(g, first, rows, steps, heads, head, keys, K, False)
        reach, onward, whole = alone(logs, BEFORE)
        P = tl.zeros((C, C), tl.float32)
        for level in tl.static_range(LEVELS):
            P += pairs(Q, W, reach, onward, rows, level, PRECISION)
            reach, onward, whole = joined(reach, onward, whole, C, BK, 1 << level)
        both = Q.to(tl.float32) * W.to(tl.float32)
        if BEFORE:
            both *= own[None, :]
        Y = tl.dot((Q * reach).to(Q.dtype), S.to(Q.dtype), input_precision=PRECISION)
        Y += tl.dot(P.to(U.dtype), U, input_precision=PRECISION)
        Y += tl.sum(both, 1)[:, None] * U.to(tl.float32)
        put(o, Y * scale, first, rows, steps, heads * KT, head * KT + key_part, values, V)
        late = tl.trans((W * onward).to(W.dtype))
        S = S * tl.reshape(whole, (BK,))[:, None] + tl.dot(late, U, input_precision=PRECISION)
    put_matrix(final, S, index, keys, values, K, V)


@triton.jit
def backward_of_reads(
    k, v, g, state, do, dq, starts,
    length, heads, k_heads, v_heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    KT: tl.constexpr, BEFORE: tl.constexpr, PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ_i = s Σ_j ⟨dO_i, V_j⟩ D_ij ∘ K_j + s r_i ∘ (S dO_i), without the bonus; the states are made again."""
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
        logs = tile(g, first, rows, steps, heads, head, keys, K, False)
        reach, onward, whole = alone(logs, BEFORE)
        R = tl.dot(G, tl.trans(U), input_precision=PRECISION)
        D = tl.zeros((C, BK), tl.float32)
        for level in tl.static_range(LEVELS):
            near = parted(R, rows, level).to(W.dtype)
            D += reach * tl.dot(near, (W * onward).to(W.dtype), input_precision=PRECISION)
            reach, onward, whole = joined(reach, onward, whole, C, BK, 1 << level)
        D += reach * tl.dot(G, tl.trans(S.to(G.dtype)), input_precision=PRECISION)
        if not BEFORE:
            D += tl.sum(G.to(tl.float32) * U.to(tl.float32), 1)[:, None] * W.to(tl.float32)
        put(dq, D * scale, first, rows, steps, heads * VT, head * VT + value_part, keys, K)
        late = tl.trans((W * onward).to(W.dtype))
        S = S * tl.reshape(whole, (BK,))[:, None] + tl.dot(late, U, input_precision=PRECISION)


@triton.jit
def backward_of_writes(
    q, k, v, g, do, dfinal, dk, dv, dstate, starts,
    length, heads, q_heads, k_heads, v_heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    KT: tl.constexpr, BEFORE: tl.constexpr, PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """From the last chunk to the first, with the gradient dS of the state after each chunk, without the bonus:

    dK_j = s Σ_i ⟨dO_i, V_j⟩ D_ij ∘ Q_i + e_j ∘ (dS V_j), dV = s Pᵀ dO + (e ∘ K) dS, dS ← t dS + s (r ∘ Q)ᵀ dO.
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
        logs = tile(g, first, rows, steps, heads, head, keys, K, False)
        reach, onward, whole = alone(logs, BEFORE)
        R = tl.dot(G, tl.trans(U), input_precision=PRECISION) * scale
        P = tl.zeros((C, C), tl.float32)
        dW = tl.zeros((C, BK), tl.float32)
        for level in tl.static_range(LEVELS):
            P += pairs(Q, W, reach, onward, rows, level, PRECISION)
            near = tl.trans(parted(R, rows, level).to(Q.dtype))
            dW += onward * tl.dot(near, (Q * reach).to(Q.dtype), input_precision=PRECISION)
            reach, onward, whole = joined(reach, onward, whole, C, BK, 1 << level)
        P = (P * scale).to(G.dtype)
        dU = tl.dot(tl.trans(P), G, input_precision=PRECISION)
        after = dS.to(Q.dtype)
        dW += onward * tl.dot(U, tl.trans(after), input_precision=PRECISION)
        dU += tl.dot((W * onward).to(W.dtype), after, input_precision=PRECISION)
        if not BEFORE:
            wide = Q.to(tl.float32)
            dW += tl.sum(G.to(tl.float32) * U.to(tl.float32), 1)[:, None] * (wide * scale)
            dU += (tl.sum(wide * W.to(tl.float32), 1) * scale)[:, None] * G.to(tl.float32)
        put(dk, dW, first, rows, steps, heads * VT, head * VT + value_part, keys, K)
        put(dv, dU, first, rows, steps, heads * KT, head * KT + key_part, values, V)
        early = tl.trans((Q * (reach * scale)).to(Q.dtype))
        dS = dS * tl.reshape(whole, (BK,))[:, None] + tl.dot(early, G, input_precision=PRECISION)
    put_matrix(dstate, dS, index, keys, values, K, V)
