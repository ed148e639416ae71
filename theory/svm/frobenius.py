r"""The Frobenius program by its dual, max 1ᵀλ - ½‖A*λ‖², λ ≥ 0: a kernel SVM with a Hadamard Gram matrix."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import nnls

from .instance import Array
from .space import Space

_SMALL = (
    200_000  # numbers in all the matrices d_k z_kᵀ: then the exact active-set method is fastest
)
_CHECK = 25  # iterations between two looks at the gap


def solve(space: Space) -> Array | None:
    """The optimal λ (M,), accurate to rounding; None where the program has no solution that can be found."""
    if not space.count:
        return np.zeros(0)
    numbers = space.count * int(np.prod(space.rows.shape))
    if numbers <= _SMALL:
        start = _by_active_sets(space)
        return None if start is None else polish(space, start, rounds=20)
    start = accelerated(space, gap=1e-4)
    return None if start is None else polish(space, start)


def _by_active_sets(space: Space) -> Array | None:
    """Lawson and Hanson's method on ‖[A*; 1ᵀ] u - [0; 1]‖: the residual is the solution, up to scale."""
    matrices = space.rows.matrices()
    if space.taken.shape[1]:
        matrices = matrices - (matrices @ space.taken) @ space.taken.T
    system = np.vstack([matrices.T, np.ones(len(matrices))])
    target = np.zeros(len(system))
    target[-1] = 1.0
    try:
        found, _ = nnls(system, target, maxiter=30 * len(matrices))
    except RuntimeError:  # it went round in circles
        return accelerated(space, gap=1e-6)
    left = 1.0 - float(found.sum())
    return found / left if left > 1e-13 else None


def accelerated(space: Space, gap: float, limit: int = 20_000) -> Array | None:
    """Projected accelerated ascent with restarts, down to a relative gap."""
    step = 1.0 / space.rows.largest_eigenvalue()
    weights = np.full(space.count, step)
    ahead, momentum = weights, 1.0
    for iteration in range(1, limit + 1):
        gradient = 1.0 - space.apply(space.adjoint(ahead))
        later = np.maximum(ahead + step * gradient, 0.0)
        if float(gradient @ (later - weights)) < 0:  # uphill no more: start again from here
            ahead, momentum = weights, 1.0
            if iteration > 1 and not np.array_equal(later, weights):
                gradient = 1.0 - space.apply(space.adjoint(ahead))
                later = np.maximum(ahead + step * gradient, 0.0)
        following = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        ahead = later + (momentum - 1.0) / following * (later - weights)
        weights, momentum = later, following
        if iteration % _CHECK == 0:
            W = space.adjoint(weights)
            lowest, size = float(space.apply(W).min()), float(np.linalg.norm(W))
            total = float(weights.sum())
            if lowest > 0 and 1.0 - total * lowest / size**2 <= gap:
                return weights
            if size <= 1e-12 * total:
                return None
    return None


def polish(space: Space, weights: Array, rounds: int = 60) -> Array | None:
    """Solve the optimality conditions on the active set, and change the set until they hold everywhere."""
    active = np.flatnonzero(weights > 1e-10 * weights.max(initial=0.0))
    for _ in range(rounds):
        gram = space.gram(active)
        found = _solved(gram)
        while found is not None and (found < 0).any():
            kept = found > 0
            active, gram = active[kept], gram[np.ix_(kept, kept)]
            found = _solved(gram)
        if found is None:
            return weights
        full = np.zeros(space.count)
        full[active] = found
        margins = space.apply(space.adjoint(full))
        wrong = np.flatnonzero(margins < 1.0 - 1e-11)
        wrong = np.setdiff1d(wrong, active)
        if not len(wrong):
            return full
        weights = _better(space, weights, full)
        active = np.union1d(active, wrong)
    return weights


def _solved(gram: Array) -> Array | None:
    ones = np.ones(len(gram))
    try:
        return cho_solve(cho_factor(gram, check_finite=False), ones, check_finite=False)
    except np.linalg.LinAlgError:  # repeated tokens: any solution will do
        found = np.linalg.lstsq(gram, ones, rcond=1e-13)[0]
        return found if np.abs(gram @ found - 1).max(initial=0.0) < 1e-9 else None


def _better(space: Space, first: Array, second: Array) -> Array:
    """The feasible one with the larger dual value."""

    def value(weights: Array) -> float:
        W = space.adjoint(weights)
        size = float(np.linalg.norm(W))
        return float(weights.sum()) / size if size else 0.0

    return second if value(second) > value(first) else first
