"""The nuclear-norm program by ADMM on a working set of rows."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from .frobenius import accelerated
from .instance import Array
from .space import Space

_CHECK = 20


def solve(space: Space, start: Array, gap: float = 5e-7) -> tuple[Array, Array, Array] | None:
    """W (p, r) of the rank that the thresholding leaves, λ (M,) and A*λ + E*μ, to a relative gap over all rows."""
    working = np.flatnonzero(start > 0)
    W = space.adjoint(start)
    weights = start / np.linalg.norm(W, 2)
    working = np.union1d(working, np.flatnonzero(space.apply(W) < 1.02))
    for _ in range(30):
        W, own, gradient = _admm(space, working, W, weights[working], gap / 2)
        weights = np.zeros(space.count)
        weights[working] = own
        margins = space.apply(W)
        lowest = float(margins.min())
        dual = float(weights.sum()) / np.linalg.norm(gradient, 2)
        size = float(np.linalg.svd(W, compute_uv=False).sum())
        if lowest > 0 and 1 - dual * lowest / size <= gap:
            return W, weights, gradient
        added = np.flatnonzero(margins < margins[working].min() + 0.02)
        if len(np.setdiff1d(added, working)) == 0:
            return (W, weights, gradient) if lowest > 0 else None
        working = np.union1d(working, added)
    return None


def _admm(
    space: Space, working: Array, W: Array, weights: Array, gap: float, limit: int = 20_000
) -> tuple[Array, Array, Array]:
    """min ‖V‖_* + [s ≥ 1] with V = W and A(W) = s, over-relaxed, penalty balanced."""
    rows = space.rows.only(working)
    inside = Space(rows, space.equalities, space.taken)
    factor = cho_factor(np.eye(len(working)) + space.gram(working), check_finite=False)
    rho = 1.0
    V, U = W.copy(), np.zeros_like(W)
    s, u = np.maximum(rows.apply(W), 1.0), -weights / rho
    best: tuple[float, Array, Array, Array] | None = None
    for iteration in range(1, limit + 1):
        target = space.project(V - U) + inside.adjoint(s - u)
        W = target - inside.adjoint(cho_solve(factor, rows.apply(target), check_finite=False))
        margins = rows.apply(W)
        relaxed, onto = 1.6 * W - 0.6 * V, 1.6 * margins - 0.6 * s
        before, held = V, s
        left, sizes, right = np.linalg.svd(relaxed + U, full_matrices=False)
        kept = int((sizes > 1.0 / rho).sum())
        V = (left[:, :kept] * (sizes[:kept] - 1.0 / rho)) @ right[:kept]
        s = np.maximum(onto + u, 1.0)
        U += relaxed - V
        u += onto - s
        if iteration % _CHECK:
            continue
        dual = np.maximum(-u, 0.0)
        gradient = rows.adjoint(dual)
        gradient = gradient + space.complement(U - gradient)
        spectral = float(np.linalg.norm(gradient, 2))
        point = V if not space.taken.shape[1] else space.project(V)
        lowest = float(rows.apply(point).min())
        size = float(np.linalg.svd(point, compute_uv=False).sum())
        if lowest > 0 and spectral > 0:
            apart = 1.0 - float(dual.sum()) / spectral * lowest / size
            if best is None or apart < best[0]:
                best = apart, point.copy(), dual.copy(), gradient
            if apart <= gap:
                break
        primal = np.hypot(np.linalg.norm(W - V), np.linalg.norm(margins - s))
        change = rho * np.hypot(np.linalg.norm(V - before), np.linalg.norm(s - held))
        if iteration <= 2000 and not 0.1 <= primal / max(change, 1e-300) <= 10:
            scale = 2.0 if primal > change else 0.5
            rho, U, u = rho * scale, U / scale, u / scale
    if best is None:
        dual = np.maximum(-u, 0.0)
        return V, dual, inside.adjoint(dual)
    return best[1:]


def start(space: Space) -> Array | None:
    """A rough Frobenius solution to begin from."""
    return accelerated(space, gap=1e-2)
