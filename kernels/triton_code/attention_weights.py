"""The weight of a score and its slope: softmax, sigmoid, softplus, as such or divided by the sum of a row.

A row keeps one number for the backward pass: the logarithm (base 2) of its sum for softmax, the inverse of its
sum where other weights are divided by theirs. Scores of softmax and sigmoid are in units of log 2. No exponential
overflows.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def log1p_of_share(t):
    """log(1 + t) = 2 artanh(t / (2 + t)) for t in [0, 1], right to float32's own rounding, however small t is."""
    z = t / (2.0 + t)
    w = z * z
    # Σ w^n / (2n + 1); w <= 1/9, so the rest after w^8 is below 2^-30 of the sum.
    sum = 1.0 / 17.0
    sum = sum * w + 1.0 / 15.0
    sum = sum * w + 1.0 / 13.0
    sum = sum * w + 1.0 / 11.0
    sum = sum * w + 1.0 / 9.0
    sum = sum * w + 1.0 / 7.0
    sum = sum * w + 1.0 / 5.0
    sum = sum * w + 1.0 / 3.0
    return 2.0 * z * (sum * w + 1.0)


@triton.jit
def inverse_of_one_and(t):
    """1 / (1 + t) for t in [0, 2^126], right to 5.1e-5 of itself; 0 or next to it where t is largest.

    The special function unit has 16 results a clock, and the exponential takes one: this is a first guess from
    the bits of 1 + t, right to 5 %, and one step of third order. K = 1.0025 spreads that step's error evenly.
    """
    much = t * 1.0025 + 1.0025
    guess = (0x7EF418CA - much.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)
    off = 1.0025 - much * guess
    return guess + guess * (off * off + off)


@triton.jit
def elementwise(s, WEIGHT: tl.constexpr, NARROW: tl.constexpr):
    """σ(s) with slope σ(s) σ(-s), or softplus(s) = log(1 + e^s) with slope σ(s); `NARROW` rounds them to 16 bits next.

    Both are right relative to themselves, however small: weights of sigmoid are about 1/T.
    """
    if WEIGHT == "sigmoid" and NARROW:
        t = tl.exp2(tl.minimum(-s, 126.0, propagate_nan=tl.PropagateNan.ALL))
        up = inverse_of_one_and(t)
        return up, t * up * up
    else:
        size = tl.abs(s)
        t = tl.exp2(-size if WEIGHT == "sigmoid" else -size * LOG2_E)
        share = 1.0 / (1.0 + t)
        up = tl.where(s >= 0, share, t * share)
        if WEIGHT == "sigmoid":
            return up, up * tl.where(s >= 0, t * share, share)
        else:
            return tl.maximum(s, 0.0) + log1p_of_share(t), up


@triton.jit
def rescaled(s, scale, most, sum, acc):
    """Softmax goes on with a tile of scores scale · s: weights relative to the new maximum, and what was before.

    No scale is negative, so the largest s is the largest score.
    """
    top = tl.maximum(most, tl.max(s, 1) * scale)
    # A row that has seen no key yet has no maximum; its weights are e^-inf = 0.
    level = tl.where(top == -float("inf"), 0.0, top)
    weights = tl.exp2(s * scale - level[:, None])
    fading = tl.exp2(most - level)
    return weights, top, sum * fading + tl.sum(weights, 1), acc * fading[:, None]


@triton.jit
def weighed(s, scale, row, WEIGHT: tl.constexpr, NORMALISED: tl.constexpr, NARROW: tl.constexpr):
    """Weights and slopes in the backward pass; `row` broadcasts against the scores, scale · s of softmax."""
    if WEIGHT == "softmax":
        weights = tl.exp2(s * scale - row)
        return weights, weights
    else:
        weights, slopes = elementwise(s, WEIGHT, NARROW)
        if NORMALISED:
            weights, slopes = weights * row, slopes * row
        return weights, slopes
