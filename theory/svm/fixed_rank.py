"""From an interior point to a point of low rank with the same tight rows."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from .instance import Array
from .program import Program

_ROUNDS = 4
_RIDGE = 1e-14  # relative, so that dependent rows do no harm


def singular_spaces(W: Array, G: Array) -> tuple[Array, Array]:
    """Orthonormal U (p, k) and V (r, k): what thresholding of W + τ G at τ does not make exactly zero.

    At an optimal pair thresholding changes nothing, for any τ > 0: it is the proximal step of ‖·‖_* at W. Here τ is
    the mean singular value of W.
    """
    tau = float(np.linalg.svd(W, compute_uv=False).mean())
    left, sizes, right = np.linalg.svd(W + tau * G, full_matrices=False)
    kept = max(1, int((sizes > tau).sum()))
    return left[:, :kept], right[:kept].T


def polished(program: Program, U: Array, V: Array, W: Array, tight: Array) -> Array:
    """W of rank k near U Uᵀ W V Vᵀ whose rows `tight` equal their right-hand sides, by Gauss-Newton steps.

    Each step is the smallest one in the tangent space of the matrices of rank k; the Gram matrix of the projected rows
    is a sum of two Hadamard products. The best of the points met is returned, by ‖W‖_* over the least margin.
    """
    k, sides = U.shape[1], program.sides[tight]
    left, right = program.left[tight], program.right[program.owner[tight]]
    point = U @ (U.T @ W @ V) @ V.T
    best, least = point, _value(program, point)
    for _ in range(_ROUNDS):
        off = sides - ((left @ point) * right).sum(1)
        inner, outer = (right @ V) @ (right @ V).T, (left @ U) @ (left @ U).T
        gram = (left @ left.T) * inner + outer * (right @ right.T - inner)
        at = np.arange(len(gram))
        gram[at, at] += _RIDGE * float(gram.diagonal().max(initial=0.0))
        try:
            weights = cho_solve(cho_factor(gram, check_finite=False), off, check_finite=False)
        except np.linalg.LinAlgError:
            break
        move = (left * weights[:, None]).T @ right
        along = (move @ V) @ V.T
        point = point + along + U @ (U.T @ (move - along))
        u, sizes, v = np.linalg.svd(point, full_matrices=False)
        U, V = u[:, :k], v[:k].T
        point = (U * sizes[:k]) @ V.T
        value = _value(program, point)
        if not value < least:
            break
        best, least = point, value
    return best


def _value(program: Program, W: Array) -> float:
    """The nuclear norm that W has once its margins are made to hold, as far as scaling tells."""
    sizes = np.linalg.svd(W, compute_uv=False)
    sides = program.sides[: program.count]
    asked = sides > 0
    rows = program.apply(W)
    ties = float(np.abs(rows[program.count :] - program.sides[program.count :]).max(initial=0.0))
    lowest = float((rows[: program.count][asked] / sides[asked]).min(initial=1.0))
    return float(sizes.sum()) * (1 + ties) / lowest if lowest > 0 else np.inf
