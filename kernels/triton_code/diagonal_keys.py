"""Gradients of queries, keys and log-decays per key: one program per chunk, head and tile of keys, all values.

With the names of `diagonal_pairs` and R = s dO Vᵀ of `diagonal_values`: dQ_i = Σ_j R_ij D_ij ∘ K_j + s r_i ∘ (S dO_i)
and dK_j = Σ_i R_ij D_ij ∘ Q_i + e_j ∘ (dS V_j). A gate is passed by every path from a write before it to a read after
it: those that leave the chunk, and, of those that stay, the reads after it less the writes after it. Both are formed
of the same rounded factors r ∘ Q and e ∘ K, so what cancels leaves nothing, and no sum is longer than a chunk.
"""

import triton
import triton.language as tl

from .diagonal_values import kept
from .halves import across, alone, is_right, joined
from .memory import column, put, tile
from .slots import chunk_of, table


@triton.jit
def of_keys(
    q, k, v, g, do, before, after, meetings, self_meetings, dq, dk, dg, bonus, dbonus, starts, owners,
    length, heads, q_heads, k_heads, v_heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
    KT: tl.constexpr, BEFORE: tl.constexpr, PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ, dK and dg of one chunk, head and tile of keys, and the chunk's part of the bonus' gradient."""
    VT: tl.constexpr = (V + BV - 1) // BV
    at = tl.program_id(0).to(tl.int64)
    keys, head, slot = at % KT * BK + tl.arange(0, BK), at // KT % heads, at // KT // heads
    first, steps, number = chunk_of(slot, starts, owners, length, C, PACKED)
    if number * C >= steps:  # a slot between packed sequences
        return
    offsets = tl.arange(0, C)
    rows = number * C + offsets
    q_head, k_head = head * q_heads // heads, head * k_heads // heads
    v_head, index = head * v_heads // heads, slot * heads + head
    far_reads = tl.zeros((C, BK), tl.float32)
    far_writes = tl.zeros((C, BK), tl.float32)
    through = tl.zeros((BK,), tl.float32)
    for value_part in range(0, VT):
        values = value_part * BV + tl.arange(0, BV)
        U = tile(v, first, rows, steps, v_heads, v_head, values, V, UPCAST)
        G = tile(do, first, rows, steps, heads, head, values, V, UPCAST)
        S = kept(before, index, keys, values, K, V, UPCAST)
        dS = kept(after, index, keys, values, K, V, UPCAST)
        far_reads += tl.dot(G, tl.trans(S), input_precision=PRECISION)
        far_writes += tl.dot(U, tl.trans(dS), input_precision=PRECISION)
        through += tl.sum(S.to(tl.float32) * dS.to(tl.float32), 1)
    Q = tile(q, first, rows, steps, q_heads, q_head, keys, K, UPCAST)
    W = tile(k, first, rows, steps, k_heads, k_head, keys, K, UPCAST)
    logs = tile(g, first, rows, steps, heads, head, keys, K, False)
    dQ = tl.zeros((C, BK), tl.float32)
    dW = tl.zeros((C, BK), tl.float32)
    surplus = tl.zeros((C, BK), tl.float32)  # of reads over writes
    reach, onward, whole = alone(logs, BEFORE)
    for level in tl.range(0, LEVELS, disable_licm=True):
        # One product for both: a read has its writes in the left half, a write its reads in the right one.
        is_read = is_right(offsets, level)
        decay = tl.where(is_read, reach, onward)
        own = (tl.where(is_read, Q, W) * decay).to(Q.dtype)
        near = across(table(meetings, slot, heads, head, offsets, C), offsets, level).to(Q.dtype)
        met = tl.dot(near, own, input_precision=PRECISION)
        found = decay * met
        dQ += tl.where(is_read, found, 0.0)
        dW += tl.where(is_read, 0.0, found)
        surplus += tl.where(is_read, met, -met) * own.to(tl.float32)
        reach, onward, whole = joined(reach, onward, whole, offsets, level, C, BK, LEVELS)
    Q, W = Q.to(tl.float32), W.to(tl.float32)
    own = column(self_meetings, first, rows, steps, heads, head)[:, None]
    far_reads *= reach * scale
    far_writes *= onward
    dQ += far_reads
    dW += far_writes
    leaving = W * far_writes
    later = through * tl.max(whole, 0) + tl.sum(leaving, 0)
    found = later[None, :] + tl.cumsum(surplus + Q * far_reads - leaving, 0, reverse=True)
    if BEFORE:  # the read itself does not pass its gate
        found -= Q * dQ
        both = own * (Q * W)
        tl.store(dbonus + index * K + keys, tl.sum(both, 0), mask=keys < K)
        own = own * tl.load(bonus + head * K + keys, mask=keys < K, other=0.0)[None, :]
    logs = tile(g, first, rows, steps, heads, head, keys, K, False)
    found = tl.where(logs == -float("inf"), 0.0, found)
    put(dg, found, first, rows, steps, heads, head, keys, K)
    put(dq, dQ + own * W, first, rows, steps, heads, head, keys, K)
    put(dk, dW + own * Q, first, rows, steps, heads, head, keys, K)
