"""Rows of a chunk of the delta rule, and what fades between them.

A token is N rows (micro-steps), N a power of two: its gate acts before the first, it is read after the last. A chunk is
halved again and again: every pair of rows (i, j), i > j, lies in the right and left half of exactly one block, so
what fades between them is a decay from j to the middle and one from the middle to i. Every exponent is a sum of
log-decays, never a difference: none is positive, and none cancels.
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
    """The log-decays before each row, per key. Beyond -100, and at -inf, all are the same zero, and finite."""
    now = tile(g, first, faded_before(rows, tokens, N), tokens, heads, head, keys, K, False)
    return tl.where(now < -100, -128.0, now)


@triton.jit
def split(now):
    """Such log-decays as two float16, 2⁸ times as large: together right to 2⁻²² of themselves."""
    large = (now * 256.0).to(tl.float16)
    return large, (now * 256.0 - large.to(tl.float32)).to(tl.float16)


@triton.jit
def to_row(offsets, N: tl.constexpr, TOGETHER: tl.constexpr):
    """The rows whose gates lie before each row of the chunk; for erases that act together, before its token."""
    step = offsets // N if TOGETHER else offsets
    if TOGETHER:
        return step[None, :] < step[:, None]
    else:
        return step[None, :] <= step[:, None]


@triton.jit
def from_row(offsets):
    """The rows whose gates lie between each row and the chunk's end."""
    return offsets[None, :] > offsets[:, None]


@triton.jit
def to_middle(offsets, half, N: tl.constexpr, TOGETHER: tl.constexpr):
    """Those between each row and the middle of its block of two halves: to a row on the right, from one on the left."""
    own = offsets // half
    right = (own % 2 == 1)[:, None]
    between = (right & to_row(offsets, N, TOGETHER)) | (~right & from_row(offsets))
    return between & (own[:, None] == own[None, :])


@triton.jit
def faded(between, large, small):
    """The decay over such rows, per key, for `split` log-decays: sums by products of matrices are exact in float32."""
    between = between.to(tl.float16)
    return tl.exp((tl.dot(between, large) + tl.dot(between, small)) * 0.00390625)
