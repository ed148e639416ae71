"""The weight of a score and its slope: softmax, sigmoid, softplus, as such or divided by the sum of a row.

A row keeps one number for the backward pass: the logarithm (base 2) of its sum for softmax, the inverse of its
sum where other weights are divided by theirs. Of softmax the scores are in units of log 2. No exponent is positive.
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
def elementwise(s, WEIGHT: tl.constexpr):
    """σ(s) with slope σ(s) σ(-s), or softplus(s) = log(1 + e^s) with slope σ(s)."""
    t = tl.exp2(-tl.abs(s) * LOG2_E)
    share = 1.0 / (1.0 + t)
    up = tl.where(s >= 0, share, t * share)
    if WEIGHT == "sigmoid":
        return up, up * tl.where(s >= 0, t * share, share)
    else:
        return tl.maximum(s, 0.0) + log1p_of_share(t), up


@triton.jit
def rescaled(s, most, sum, acc):
    """Softmax goes on with a tile of scores: weights relative to the new maximum, and what was before."""
    top = tl.maximum(most, tl.max(s, 1))
    # A row that has seen no key yet has no maximum; its weights are e^-inf = 0.
    level = tl.where(top == -float("inf"), 0.0, top)
    weights = tl.exp2(s - level[:, None])
    fading = tl.exp2(most - level)
    return weights, top, sum * fading + tl.sum(weights, 1), acc * fading[:, None]


@triton.jit
def weighed(s, row, WEIGHT: tl.constexpr, NORMALISED: tl.constexpr):
    """Weights and slopes in the backward pass; `row` broadcasts against the scores."""
    if WEIGHT == "softmax":
        weights = tl.exp2(s - row)
        return weights, weights
    else:
        weights, slopes = elementwise(s, WEIGHT)
        if NORMALISED:
            weights, slopes = weights * row, slopes * row
        return weights, slopes
