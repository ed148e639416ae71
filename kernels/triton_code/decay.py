"""Products of scalar decays within a chunk, from logarithms: shared by every chunked kernel."""

# Triton reads annotations of its programs when it compiles them, so they are not postponed here.

import triton
import triton.language as tl


@triton.jit
def prefix(logs):
    """Inclusive sums of log-decays as a float32 and its rest, and how many exact zeros came before.

    A log of -inf is an exact zero: it is counted, and left out of the sums. Sums are formed in
    float64, so that a difference of two is right to float32's own rounding.
    """
    zero = logs == -float("inf")
    sums = tl.cumsum(tl.where(zero, 0.0, logs).to(tl.float64), 0)
    high = sums.to(tl.float32)
    low = (sums - high.to(tl.float64)).to(tl.float32)
    return high, low, tl.cumsum(zero.to(tl.int32), 0)


@triton.jit
def total(logs):
    """The log of a chunk's whole decay and its exact zeros."""
    zero = logs == -float("inf")
    whole = tl.sum(tl.where(zero, 0.0, logs).to(tl.float64), 0)
    return whole, tl.sum(zero.to(tl.int32), 0)


@triton.jit
def between(high, low, zeros, rows):
    """M_ij = Π_{l=j+1..i} a_l for i ≥ j, zero above the diagonal and across an exact zero."""
    exponent = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    keep = (rows[:, None] >= rows[None, :]) & (zeros[:, None] == zeros[None, :])
    return tl.where(keep, tl.exp(tl.where(keep, exponent, 0.0)), 0.0)


@triton.jit
def from_start(high, low, zeros):
    """Π_{l ≤ i} a_l, from the state before the chunk to each step."""
    return tl.where(zeros == 0, tl.exp(high + low), 0.0)


@triton.jit
def to_end(high, low, zeros, whole, all_zeros):
    """Π_{l > i} a_l, from each step to the state after the chunk."""
    rest = (whole - high.to(tl.float64) - low.to(tl.float64)).to(tl.float32)
    keep = zeros == all_zeros
    return tl.where(keep, tl.exp(tl.where(keep, rest, 0.0)), 0.0)


@triton.jit
def of_chunk(whole, all_zeros):
    """Π a_l over the chunk."""
    return tl.where(all_zeros == 0, tl.exp(whole.to(tl.float32)), 0.0)
