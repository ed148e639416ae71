"""Products of decays per key in a chunk, by halves: shared by every chunked kernel with a decay per key.

A decay between two steps of a chunk is split where the two part: in the smallest block of 2^(l + 1) steps that holds
both, at its middle. Every factor is then a product of decays, at most one where logs are not positive: no exponent is
positive, none is a difference, and an exact zero is a factor of zero. Levels l are a loop of the machine: made one
after the other, what all of them need would fill the registers.
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
def exchanged(whole, C: tl.constexpr, BK: tl.constexpr, S: tl.constexpr):
    """Each half's rows for those of the half beside it, halves of S rows that are the same."""
    pairs = tl.reshape(whole.to(tl.int32, bitcast=True), (C // (2 * S), 2, S, BK))
    both = tl.sum(pairs, 1)[:, None]  # of bits as integers: what remains without one's own is exact
    return tl.reshape(both - pairs, (C, BK)).to(tl.float32, bitcast=True)


@triton.jit
def joined(
    reach, onward, whole, offsets, level, C: tl.constexpr, BK: tl.constexpr, LEVELS: tl.constexpr
):
    """Blocks of two neighbours: the right's reads reach across the left, the left's writes the right."""
    beside = whole
    for each in tl.static_range(LEVELS):
        if level == each:
            beside = exchanged(whole, C, BK, 1 << each)
    right = is_right(offsets, level)
    reach = tl.where(right, reach * beside, reach)
    onward = tl.where(right, onward, onward * beside)
    return reach, onward, whole * beside


@triton.jit
def is_right(offsets, level):
    """Which rows (C, 1) lie in right halves of blocks of 2^(level + 1)."""
    return ((offsets >> level) % 2 == 1)[:, None]


@triton.jit
def within(offsets, level):
    """Which steps i and j (C, C) lie in one block of 2^level."""
    block = offsets >> level
    return block[:, None] == block[None, :]


@triton.jit
def across(table, offsets, level):
    """The entries (i, j) of a table (C, C) with i and j in different halves of one block of 2^(level + 1)."""
    half = offsets >> level
    return tl.where((half[:, None] ^ half[None, :]) == 1, table, 0.0)
