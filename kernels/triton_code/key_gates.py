"""The gradient of log-decays per key, from those of what is read and written: a sum over later steps."""

import triton
import triton.language as tl

from .memory import part, place, put, tile


@triton.jit
def of_key_gates(
    q, k, g, dq, dk, last, dg, starts,
    length, heads, q_heads, k_heads,
    K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, KT: tl.constexpr,
    BEFORE: tl.constexpr, PACKED: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """dg_t = Σ_{s ≥ t} (q_s dq_s - k_s dk_s) + last per key, less q_t dq_t where t is read before its decay.

    One program per tile of keys, sequence and head walks from the last chunk to the first. The differences cancel, so
    they are formed in float64. A decay of exactly zero has a log without gradient.
    """
    key_part, _, index = part(KT, 1)
    keys = key_part * BK + tl.arange(0, BK)
    sequence, head = index // heads, index % heads
    q_head, k_head = head * q_heads // heads, head * k_heads // heads
    first, steps = place(starts, sequence, length, PACKED)
    later = tl.load(last + index.to(tl.int64) * K + keys, mask=keys < K, other=0.0)
    chunks = (steps + C - 1) // C
    for turn in range(0, chunks):
        rows = (chunks - 1 - turn) * C + tl.arange(0, C)
        Q = tile(q, first, rows, steps, q_heads, q_head, keys, K, UPCAST)
        W = tile(k, first, rows, steps, k_heads, k_head, keys, K, UPCAST)
        logs = tile(g, first, rows, steps, heads, head, keys, K, False)
        dQ = tile(dq, first, rows, steps, heads, head, keys, K, False)
        dW = tile(dk, first, rows, steps, heads, head, keys, K, False)
        reads = Q.to(tl.float64) * dQ.to(tl.float64)
        each = reads - W.to(tl.float64) * dW.to(tl.float64)
        found = tl.cumsum(each, 0, reverse=True) + later[None, :]
        if BEFORE:
            found -= reads
        later += tl.sum(each, 0)
        found = tl.where(logs == -float("inf"), 0.0, found)
        put(dg, found, first, rows, steps, heads, head, keys, K)
