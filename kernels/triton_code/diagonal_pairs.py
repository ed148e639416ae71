"""What the chunks of decay per key need before a walk: one program per chunk and head.

With D_ij = Π a_l per key from a write j to a read i of a chunk, r_i from its start to a read, e_j from a write to its
end and t over the whole, it stores P_ij = Σ_k q_ik D_ijk k_jk, r ∘ Q, e ∘ K and t. In `halves` D_ij is r_i e_j of one
block: a product of matrices per size of block. Where steps are read before their update, each one's own entry is
weighed by a bonus.
"""

import triton
import triton.language as tl

from .halves import alone, joined, within
from .memory import put, tile
from .slots import chunk_of, put_table


@triton.jit
def own_entries(Q, W, bonus, head, offsets, keys, K: tl.constexpr, BEFORE: tl.constexpr):
    """Σ_k u_k q_ik k_ik on the diagonal (C, C), u = 1 where there is no bonus."""
    both = Q.to(tl.float32) * W.to(tl.float32)
    if BEFORE:
        both *= tl.load(bonus + head * K + keys, mask=keys < K, other=0.0)[None, :]
    return tl.where(offsets[:, None] == offsets[None, :], tl.sum(both, 1)[:, None], 0.0)


@triton.jit
def pairs(
    q, k, g, reads, near_q, near_k, whole, bonus, starts, owners,
    length, heads, q_heads, k_heads,
    K: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr, BK: tl.constexpr, KT: tl.constexpr,
    BEFORE: tl.constexpr, PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """P, r ∘ Q, e ∘ K and t of one chunk and head."""
    at = tl.program_id(0).to(tl.int64)
    head, slot = at % heads, at // heads
    first, steps, number = chunk_of(slot, starts, owners, length, C, PACKED)
    if number * C >= steps:  # a slot between packed sequences
        return
    offsets = tl.arange(0, C)
    rows = number * C + offsets
    q_head, k_head = head * q_heads // heads, head * k_heads // heads
    P = tl.zeros((C, C), tl.float32)
    for key_part in tl.range(0, KT, disable_licm=True):
        keys = key_part * BK + tl.arange(0, BK)
        Q = tile(q, first, rows, steps, q_heads, q_head, keys, K, UPCAST)
        W = tile(k, first, rows, steps, k_heads, k_head, keys, K, UPCAST)
        logs = tile(g, first, rows, steps, heads, head, keys, K, False)
        near = own_entries(Q, W, bonus, head, offsets, keys, K, BEFORE)
        reach, onward, over = alone(logs, BEFORE)
        for level in tl.range(0, LEVELS, disable_licm=True):
            early, late = (Q * reach).to(Q.dtype), (W * onward).to(W.dtype)
            met = tl.dot(early, tl.trans(late), input_precision=PRECISION)
            near = tl.where(within(offsets, level), near, met)  # right where the two part here
            reach, onward, over = joined(reach, onward, over, offsets, level, C, BK, LEVELS)
        P += tl.where(offsets[:, None] >= offsets[None, :], near, 0.0)
        put(near_q, Q * reach, first, rows, steps, heads, head, keys, K)
        put(near_k, W * onward, first, rows, steps, heads, head, keys, K)
        where = (slot * heads + head) * K + keys
        tl.store(whole + where, tl.max(over, 0), mask=keys < K)  # its rows are the same
    put_table(reads, P, slot, heads, head, offsets, C)
