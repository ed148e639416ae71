r"""The pairs of rows of a chunk of the delta rule, backwards: what each row gets of the others, and what the gates get.

Where rows i and j meet by a product D_ij of gates, the gradient of the log of each of them is the pair's own part of
q dq, of b db or of k dk, which are one and the same number.
"""

import triton
import triton.language as tl

from .delta_gates import erased, faded, from_row, pairs, split, to_middle, to_row


@triton.jit
def of_head(
    Q, B, W, A, F, dQ, dB, dW, across, strength, offsets,
    N: tl.constexpr, TOGETHER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ, -dB, β^-1 dK and dg, from A and F that have faded and what is read from and written to states.

    The pairs are sums over keys in float32: those that begin after a gate are subtracted again.
    """
    earlier = tl.where(offsets[:, None] > offsets[None, :], strength[None, :], 0.0)
    X = tl.dot(Q, tl.trans(W), input_precision=PRECISION) * A * earlier
    Y = tl.dot(B, tl.trans(W), input_precision=PRECISION) * F * earlier
    writes, erases = tl.sum(W * dW, 1) * strength, tl.sum(B * dB, 1) + tl.sum(Y, 1)
    reads = tl.sum(Q * dQ, 1) + tl.sum(X, 1) - tl.sum(X - Y, 0)
    passed = tl.where(to_row(offsets, N, False), reads[:, None], writes[:, None])
    passed -= tl.where(to_row(offsets, N, TOGETHER), erases[:, None], 0.0)
    dQ += tl.dot((A * strength[None, :]).to(W.dtype), W, input_precision=PRECISION)
    dB += tl.dot((F * strength[None, :]).to(W.dtype), W, input_precision=PRECISION)
    dW += tl.dot(tl.trans(A.to(Q.dtype)), Q, input_precision=PRECISION)
    dW -= tl.dot(tl.trans(F.to(B.dtype)), B, input_precision=PRECISION)
    return dQ, dB, dW, across + tl.sum(passed, 0)


@triton.jit
def of_keys(
    Q, B, W, A, F, dQ, dB, dW, across, now, strength, offsets,
    LEVELS: tl.constexpr, N: tl.constexpr, TOGETHER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The same for gates per key, from A and F that have not: level by level, where no pair is in two of them."""
    large, small = split(now)
    F = tl.where(erased(offsets, N, TOGETHER), F, 0.0)
    here = tl.sum(tl.where(offsets[:, None] == offsets[None, :], A, 0.0), 1)[:, None]
    U = W * strength[:, None]
    dG = (across * tl.exp(tl.sum(now, 0)))[None, :]
    between = to_row(offsets, N, False)
    dQ = dQ * faded(between, large, small)
    dG = dG + onto_gates(between, Q * dQ, Q.dtype, PRECISION)
    between = to_row(offsets, N, TOGETHER)
    dB = dB * faded(between, large, small)
    dG += onto_gates(between, -B * dB, Q.dtype, PRECISION)
    between = from_row(offsets)
    dW = dW * faded(between, large, small)
    dG += onto_gates(between, U * dW, Q.dtype, PRECISION)
    dQ += here * U
    dW += here * Q
    for level in range(0, LEVELS):
        meet = pairs(offsets, 1 << level)
        between = to_middle(offsets, 1 << level, N, False)
        pair = tl.where(meet, A, 0.0).to(Q.dtype)
        X, Y, gates = met(pair, Q, U, between, large, small, PRECISION)
        dQ, dW, dG = dQ + X, dW + Y, dG + gates
        between = to_middle(offsets, 1 << level, N, TOGETHER)
        pair = tl.where(meet, F, 0.0).to(Q.dtype)
        X, Y, gates = met(pair, -B, U, between, large, small, PRECISION)
        dB, dW, dG = dB + X, dW + Y, dG + gates
    return dQ, dB, dW, dG


@triton.jit
def met(pair, reads, writes, between, large, small, PRECISION: tl.constexpr):
    """What reads on the right and writes on the left of a block's middle get of their pairs, and the gates between."""
    fade = faded(between, large, small)
    near, far = (writes * fade).to(pair.dtype), (reads * fade).to(pair.dtype)
    X = tl.dot(pair, near, input_precision=PRECISION) * fade
    Y = tl.dot(tl.trans(pair), far, input_precision=PRECISION) * fade
    return X, Y, onto_gates(between, reads * X + writes * Y, pair.dtype, PRECISION)


@triton.jit
def onto_gates(between, x, dtype: tl.constexpr, PRECISION: tl.constexpr):
    """The sum, for each gate, of what fades by it; of narrower types' products, in one product of TF32."""
    precise: tl.constexpr = PRECISION if dtype == tl.float32 else "tf32"
    return tl.dot(tl.trans(between.to(tl.float32)), x, input_precision=precise)
