"""Rows of a chunk of the delta rule, and what fades between them.

A token is N rows (micro-steps), N a power of two: its gate acts before the first, it is read after the last. A chunk is
halved again and again: every pair of rows (i, j), i > j, lies in the right and left half of exactly one block, so
what fades between them is a sum from j to the middle and one from the middle to i. Every exponent is a sum of
log-decays, never a difference: none is positive, none cancels, and a log of -inf is an exact zero.
"""

import triton
import triton.language as tl

from .memory import tile


@triton.jit
def read_after(rows, tokens, N: tl.constexpr):
    """The token that is read after each row; `tokens`, which is outside, where none is."""
    return tl.where(rows % N == N - 1, rows // N, tokens)


@triton.jit
def faded_before(rows, tokens, N: tl.constexpr):
    """The token whose gate acts just before each row, or `tokens`."""
    return tl.where(rows % N == 0, rows // N, tokens)


@triton.jit
def faded_earlier(rows, offsets, tokens, N: tl.constexpr):
    """The token before that one, within the chunk, or `tokens`."""
    return tl.where((rows % N == 0) & (offsets > 0), rows // N - 1, tokens)


@triton.jit
def faded_after(rows, offsets, tokens, C: tl.constexpr, N: tl.constexpr):
    """The token whose gate acts just after each row, within the chunk, or `tokens`."""
    return tl.where((rows % N == N - 1) & (offsets < C - 1), rows // N + 1, tokens)


@triton.jit
def pairs(offsets, H: tl.constexpr):
    """Rows of right halves × rows of the left halves beside them, halves of H rows."""
    half = offsets // H
    right = half % 2 == 1
    return (half[:, None] == half[None, :] + 1) & right[:, None]


@triton.jit
def erased(offsets, N: tl.constexpr, TOGETHER: tl.constexpr):
    """Which earlier writes each row's erase sees: all, or, of rows that act together, those of earlier tokens."""
    step = offsets // N if TOGETHER else offsets
    return step[:, None] > step[None, :]


@triton.jit
def from_middle(gates, C: tl.constexpr, H: tl.constexpr, BK: tl.constexpr):
    """Sums over the rows from the start of each half to each row."""
    return tl.reshape(tl.cumsum(tl.reshape(gates, (C // H, H, BK)), 1), (C, BK))


@triton.jit
def to_middle(gates, C: tl.constexpr, H: tl.constexpr, BK: tl.constexpr):
    """Sums over the rows from each row to the end of its half."""
    return tl.reshape(tl.cumsum(tl.reshape(gates, (C // H, H, BK)), 1, reverse=True), (C, BK))


@triton.jit
def key_gates(g, first, rows, offsets, tokens, heads, head, keys, K, C: tl.constexpr, N: tl.constexpr):  # fmt: skip
    """Log-decays per row and key: those before each row, before it but of the token before, and after it."""
    now = tile(g, first, faded_before(rows, tokens, N), tokens, heads, head, keys, K, False)
    early = tile(
        g, first, faded_earlier(rows, offsets, tokens, N), tokens, heads, head, keys, K, False
    )
    late = tile(
        g, first, faded_after(rows, offsets, tokens, C, N), tokens, heads, head, keys, K, False
    )
    return now, early, late


@triton.jit
def read_gates(now, offsets, C: tl.constexpr, H: tl.constexpr, BK: tl.constexpr):
    """Decays from the middle of each block to the rows of its right half; 0 on the left."""
    right = (offsets // H % 2 == 1)[:, None]
    return tl.where(right, tl.exp(from_middle(now, C, H, BK)), 0.0)


@triton.jit
def erase_gates(now, early, offsets, C: tl.constexpr, H: tl.constexpr, BK: tl.constexpr, TOGETHER: tl.constexpr):  # fmt: skip
    """The same for erases, which see the state before their token's gate where rows act together."""
    if TOGETHER:
        return read_gates(
            tl.where((offsets % H == 0)[:, None], 0.0, early), offsets, C, H, BK
        )
    else:
        return read_gates(now, offsets, C, H, BK)


@triton.jit
def write_gates(late, offsets, C: tl.constexpr, H: tl.constexpr, BK: tl.constexpr):
    """Decays from the rows of each left half to the middle of its block; 0 on the right."""
    left = (offsets // H % 2 == 0)[:, None]
    inner = tl.where((offsets % H == H - 1)[:, None], 0.0, late)
    return tl.where(left, tl.exp(to_middle(inner, C, H, BK)), 0.0)
