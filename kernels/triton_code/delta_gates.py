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
def erased(offsets, N: tl.constexpr, TOGETHER: tl.constexpr):
    """Which earlier writes each row's erase sees: all, or, of rows that act together, those of earlier tokens."""
    step = offsets // N if TOGETHER else offsets
    return step[:, None] > step[None, :]


@triton.jit
def pairs(offsets, half):
    """Rows of right halves × rows of the left halves beside them, halves of so many rows."""
    own = offsets // half
    return (own[:, None] == own[None, :] + 1) & (own % 2 == 1)[:, None]


@triton.jit
def key_gates(g, first, rows, tokens, heads, head, keys, K, N: tl.constexpr):
    """The log-decays before each row, per key. Beyond -10⁴, and at -inf, all are the same zero, and finite."""
    now = tile(g, first, faded_before(rows, tokens, N), tokens, heads, head, keys, K, False)
    return tl.maximum(now, -1e4)


@triton.jit
def fade(picked, now, PRECISION: tl.constexpr):
    """e to the sums of the gates that each row picks, (rows, keys)."""
    return tl.exp(tl.dot(picked.to(tl.float32), now, input_precision=PRECISION))


@triton.jit
def around_middle(now, offsets, half, PRECISION: tl.constexpr):
    """Decays from the middle of each block to the rows of its right half, and to it from those of its left."""
    row, other = offsets[:, None], offsets[None, :]
    same, right = row // half == other // half, row // half % 2 == 1
    picked = same & ((right & (other <= row)) | (~right & (other > row)))
    decay = fade(picked, now, PRECISION)
    return tl.where(right, decay, 0.0), tl.where(right, 0.0, decay)


@triton.jit
def erase_from_middle(now, offsets, half, N: tl.constexpr, PRECISION: tl.constexpr):
    """From the middle to the erases of the right half that see the state before their token's gate."""
    row, other = offsets[:, None], offsets[None, :]
    right = row // half % 2 == 1
    picked = (row // half == other // half) & (other // N < row // N)
    return tl.where(right, fade(picked, now, PRECISION), 0.0)


@triton.jit
def around_chunk(now, offsets, N: tl.constexpr, TOGETHER: tl.constexpr, PRECISION: tl.constexpr):
    """Decays from the chunk's start to reads and to erases, and from writes to its end, per row and key."""
    row, other = offsets[:, None], offsets[None, :]
    reads = fade(other <= row, now, PRECISION)
    writes = fade(other > row, now, PRECISION)
    if TOGETHER:
        return reads, fade(other // N < row // N, now, PRECISION), writes
    else:
        return reads, reads, writes
