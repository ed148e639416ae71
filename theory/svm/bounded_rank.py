r"""The nuclear program over matrices of rank m at most: W = K Qᵀ, min ½(‖K‖² + ‖Q‖²), K and Q (d, m).

It is not convex where m is below the rank of the nuclear solutions. Here the rows are made linear around a point,
the smallest (K, Q) that meets them is found, and the way there is halved until ‖W‖_* over the least margin falls.
The lower bound is that of the program without a bound on the rank, so that the gap says how much is lost at most.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from dsf.errors import InvalidInput

from .instance import Array
from .program import Program

_STARTS = 8  # random ones, beside those made of the two convex solutions
_ROUNDS = 60
_SETTLED = 1e-9  # relative fall of the norm below which a point is taken as stationary


def solve(program: Program, width: int, solutions: list[Array]) -> Array | None:
    """W (p, r) of rank `width` at most, the best of several stationary points; None where none has margins.

    `solutions` are points to start from, cut to that rank. Starts at random have a fixed seed.
    """
    if len(program.left) > program.count or not (program.sides > 0).all():
        raise InvalidInput(
            "a bound on the rank goes with margins above 0 and without equalities: drop one of the two"
        )
    rng = np.random.default_rng(0)
    starts = [_cut(W, width) for W in solutions]
    starts += [
        (
            rng.standard_normal((program.shape[0], width)),
            rng.standard_normal((program.shape[1], width)),
        )
        for _ in range(_STARTS)
    ]
    points = [_descended(program, *start) for start in starts]
    found = [W for W in points if W is not None]
    return min(found, key=lambda W: _value(program, W), default=None)


def _cut(W: Array, width: int) -> tuple[Array, Array]:
    left, sizes, right = np.linalg.svd(W, full_matrices=False)
    root = np.sqrt(sizes[:width])
    return left[:, :width] * root, right[:width].T * root


def _value(program: Program, W: Array) -> float:
    """‖W‖_* once W is scaled to its least margin; infinite where a margin is not positive."""
    lowest = float((program.apply(W) / program.sides).min())
    return float(np.linalg.norm(W, "nuc")) / lowest if lowest > 0 else np.inf


def _descended(program: Program, K: Array, Q: Array) -> Array | None:
    """A stationary point by steps on linearised rows; None where they lead nowhere."""
    value = _value(program, K @ Q.T)
    for _ in range(_ROUNDS):
        target = _smallest(program, K, Q)
        if target is None:
            break
        step, better = 1.0, None
        while step > 1e-4 and better is None:
            k, q = K + step * (target[0] - K), Q + step * (target[1] - Q)
            later = _value(program, k @ q.T)
            if later < value or (not np.isfinite(value) and step == 1.0):
                better = (k, q, later)
            step /= 2
        if better is None:
            break
        fall = value - better[2]
        W = better[0] @ better[1].T
        lowest = float((program.apply(W) / program.sides).min())
        K, Q = _cut(W / lowest if lowest > 0 else W, K.shape[1])  # balanced again, margins of 1
        value = better[2]
        if fall <= _SETTLED * value:
            break
    return K @ Q.T if np.isfinite(value) else None


def _smallest(program: Program, K: Array, Q: Array) -> tuple[Array, Array] | None:
    """min ‖K'‖² + ‖Q'‖² with A(K' Qᵀ + K Q'ᵀ - K Qᵀ) ≥ b, by Lawson and Hanson's method."""
    left, right = program.left, program.right[program.owner]
    by_k = np.einsum("kp,km->kpm", left, right @ Q).reshape(len(left), -1)
    by_q = np.einsum("kr,km->krm", right, left @ K).reshape(len(left), -1)
    rows = np.concatenate([by_k, by_q], axis=1)
    sides = program.sides + program.apply(K @ Q.T)
    scale = float(np.abs(sides).max()) or 1.0
    system = np.vstack([rows.T, sides / scale])
    target = np.zeros(len(system))
    target[-1] = 1.0
    try:
        weights, _ = nnls(system, target, maxiter=30 * len(rows))
    except RuntimeError:  # it went round in circles
        return None
    rest = 1.0 - float(weights @ sides) / scale
    if not rest > 1e-12:
        return None
    point = scale * (rows.T @ weights) / rest
    count = by_k.shape[1]
    return point[:count].reshape(K.shape), point[count:].reshape(Q.shape)
