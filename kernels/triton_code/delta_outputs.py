r"""The outputs of the delta rule: one program per chunk, head and tile of values. Y = s (Q S + P U), U = β R."""

import triton
import triton.language as tl

from .delta_gates import read_after
from .delta_walk import head_gates
from .memory import column, matrix, put, tile
from .slots import chunk_of, table


@triton.jit
def outputs(
    q, g, beta, reads, before, rests, o, starts, owners, length, heads, q_heads, scale,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, KT: tl.constexpr,
    BV: tl.constexpr, VT: tl.constexpr,
    N: tl.constexpr, KEYED: tl.constexpr, TOGETHER: tl.constexpr,
    PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs of one chunk, after the last row of each token."""
    slot, head = tl.program_id(0).to(tl.int64), tl.program_id(1) // VT
    values = tl.program_id(1) % VT * BV + tl.arange(0, BV)
    first, tokens, number = chunk_of(slot, starts, owners, length, C // N, PACKED)
    if number * C >= tokens * N:  # a slot between packed sequences
        return
    offsets = tl.arange(0, C)
    rows = number * C + offsets
    read = read_after(rows, tokens, N)
    Y = tl.zeros((C, BV), tl.float32)
    for part in range(0, KT):
        keys = part * BK + tl.arange(0, BK)
        Q = tile(q, first, read, tokens, q_heads, head * q_heads // heads, keys, K, UPCAST)
        S = matrix(before, slot * heads + head, keys, values, K, V).to(Q.dtype)
        Y += tl.dot(Q, S, input_precision=PRECISION)
    if not KEYED:
        down, erase, up, gate = head_gates(
            g, first, rows, offsets, tokens, heads, head, C, N, TOGETHER
        )
        Y = Y * down[:, None]
    R = tile(rests, first * N, rows, tokens * N, heads, head, values, V, UPCAST)
    U = R * column(beta, first * N, rows, tokens * N, heads, head)[:, None]
    P = table(reads, slot, heads, head, offsets, C)
    Y += tl.dot(P, U.to(P.dtype), input_precision=PRECISION)
    put(o, Y * scale, first, read, tokens, heads, head, values, V)
