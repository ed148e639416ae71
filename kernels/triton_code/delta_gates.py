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
    """The log-decays before each row, per key. Beyond -10⁴, and at -inf, all are the same zero, and finite."""
    now = tile(g, first, faded_before(rows, tokens, N), tokens, heads, head, keys, K, False)
    return tl.where(now < -1e4, -1e4, now)


@triton.jit
def beside(now, offsets, half, PRECISION: tl.constexpr):
    """The decay over the half beside each row's own, halves of so many rows, per key."""
    picked = offsets[None, :] // half == (offsets[:, None] // half ^ 1)
    return tl.exp(tl.dot(picked.to(tl.float32), now, input_precision=PRECISION))


@triton.jit
def widened(
    reads, erases, writes, now, offsets, half,
    N: tl.constexpr, TOGETHER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Rows that met the edges of their halves, now those of their blocks: reads and erases the start, writes the end.

    Erases that act together do not see the gate of their own token.
    """
    decay = beside(now, offsets, half, PRECISION)
    right = (offsets // half % 2 == 1)[:, None]
    reads = tl.where(right, reads * decay, reads)
    if TOGETHER:
        erases = tl.where(right & (half >= N), erases * decay, erases)
    else:
        erases = tl.where(right, erases * decay, erases)
    return reads, erases, tl.where(right, writes, writes * decay)
