"""Products of decays per key in a chunk, by halves: shared by every chunked kernel with a decay per key.

A decay between two steps of a chunk is split where the two part: in the smallest block of 2^l steps that holds both,
at its middle. Every factor is then a product of decays, at most one where logs are not positive: no exponent is
positive, none is a difference, and an exact zero is a factor of zero.
"""

import triton
import triton.language as tl


@triton.jit
def alone(logs, BEFORE: tl.constexpr):
    """Blocks of one step: decays (C, K) from the start to its read, from its write to the end, and of the whole.

    `BEFORE` says that a step is read before its own decay.
    """
    whole = tl.exp(logs)
    onward = tl.full(logs.shape, 1.0, tl.float32)
    reach = onward if BEFORE else whole
    return reach, onward, whole


@triton.jit
def joined(reach, onward, whole, C: tl.constexpr, BK: tl.constexpr, S: tl.constexpr):
    """Blocks of 2 S steps from neighbours of S: the right's reads reach across the left, the left's writes the right.

    `whole` is (C / S, K) and becomes (C / 2 S, K).
    """
    PAIRS: tl.constexpr = C // (2 * S)
    pairs = tl.reshape(whole, (PAIRS, 2, BK))
    is_left = (tl.arange(0, 2) == 0)[None, :, None]
    left = tl.sum(tl.where(is_left, pairs, 0.0), 1)
    right = tl.sum(tl.where(is_left, 0.0, pairs), 1)
    in_left = is_left[:, :, None, :]
    reach = tl.reshape(reach, (PAIRS, 2, S, BK))
    reach = tl.where(in_left, reach, reach * left[:, None, None, :])
    onward = tl.reshape(onward, (PAIRS, 2, S, BK))
    onward = tl.where(in_left, onward * right[:, None, None, :], onward)
    return tl.reshape(reach, (C, BK)), tl.reshape(onward, (C, BK)), left * right


@triton.jit
def parted(table, rows, LEVEL: tl.constexpr):
    """The entries (i, j) of a table (C, C) with j in the left and i in the right half of one block of 2^(LEVEL + 1).

    `rows` start at a multiple of C.
    """
    half, block = rows >> LEVEL, rows >> (LEVEL + 1)
    keep = (block[:, None] == block[None, :]) & (half[:, None] > half[None, :])
    return tl.where(keep, table, 0.0)
