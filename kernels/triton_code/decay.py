"""Products of scalar decays, from sums of their logarithms over blocks of steps.

Sums are of logs to base 2. They are formed in float64 and kept as a float32 and, for float32 data, its rest, so that a
difference of two is right to float32's own rounding; narrower data need no rest. A decay that is zero, or below what
float32 can hold, has no part in the sums: `since` says for every step where the last such decay is, itself included,
and `until` where the next one is, both counted in the block, -1 and the block's length where there is none.
"""

# Triton reads annotations of its programs when it compiles them, so they are not postponed here.

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
NOTHING = tl.constexpr(-150.0)  # the least float32 is e^-103.3


@triton.jit
def prefix(logs):
    """Inclusive sums of log-decays as a float32 and its rest."""
    counted = tl.where(logs < NOTHING, 0.0, logs)
    sums = tl.cumsum(counted.to(tl.float64) * LOG2_E, 0)
    high = sums.to(tl.float32)
    return high, (sums - high.to(tl.float64)).to(tl.float32)


@triton.jit
def borders(logs, offsets, C: tl.constexpr):
    """`since` and `until` of C steps."""
    nothing = (logs < NOTHING)[None, :]
    here, there = offsets[:, None], offsets[None, :]
    since = tl.max(tl.where(nothing & (there <= here), there, -1), 1)
    until = tl.min(tl.where(nothing & (there > here), there, C), 1)
    return since, until


@triton.jit
def faded(table, high, low, border, steps, REVERSE: tl.constexpr):
    """A table (i, j) times M_ij = Π_{l=j+1..i} a_l, zero above the diagonal; times the transpose of M in REVERSE.

    `border` is `since`, in REVERSE `until`, and `steps` are counted in the block.
    """
    exponent = high[:, None] - high[None, :]
    if low is not None:
        exponent += low[:, None] - low[None, :]
    here, there = steps[:, None], steps[None, :]
    if REVERSE:
        exponent, keep = -exponent, (there >= here) & (there < border[:, None])
    else:
        keep = (there <= here) & (there >= border[:, None])
    # What overflows above the diagonal is left out.
    return tl.where(keep, table * tl.exp2(exponent), 0.0)


@triton.jit
def between(high, low, edge_high, edge_low, passes):
    """Π a_l over the steps between a place where the sums are the `edge`'s and each step, where no border is passed."""
    exponent = high - edge_high
    if low is not None:
        exponent += low - edge_low
    return tl.exp2(tl.where(passes, exponent, -float("inf")))
