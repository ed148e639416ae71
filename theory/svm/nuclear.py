"""The nuclear-norm program by ADMM on a working set of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from .frobenius import accelerated
from .instance import Array
from .space import Space

_CHECK = 20


def solve(space: Space, start: Array, gap: float = 9e-7) -> tuple[Array, Array, Array] | None:
    """W (p, r) of the rank that the thresholding leaves, λ (M,) and A*λ + E*μ, to a relative gap over all rows."""
    W = space.adjoint(start)
    weights = start / np.linalg.norm(W, 2)
    working = np.union1d(np.flatnonzero(start > 0), np.flatnonzero(space.apply(W) < 1.02))
    state = _State(W, np.zeros_like(W), -weights, 1.0)
    asked = 1e-3
    for _ in range(40):
        W, own, gradient = _admm(space, working, state, asked / 2)
        weights = np.zeros(space.count)
        weights[working] = own
        margins = space.apply(W)
        lowest = float(margins.min())
        dual = float(weights.sum()) / float(np.linalg.norm(gradient, 2))
        size = float(np.linalg.svd(W, compute_uv=False).sum())
        if lowest > 0 and 1 - dual * lowest / size <= gap:
            return W, weights, gradient
        near = np.flatnonzero(margins < margins[working].min() + 0.02)
        added = np.setdiff1d(near, working)
        if not len(added) and asked <= gap:
            return (W, weights, gradient) if lowest > 0 else None
        working = np.union1d(working, added)
        asked = max(gap, asked / 30)
    return None


@dataclass
class _State:
    """Where the iteration stands, over all rows: one stage begins where the last one ended."""

    V: Array
    U: Array
    u: Array
    rho: float


def _admm(
    space: Space, working: Array, state: _State, gap: float, limit: int = 20_000
) -> tuple[Array, Array, Array]:
    """min ‖V‖_* + [s ≥ 1] with V = W and A(W) = s, over-relaxed, relative residuals balanced."""
    rows = space.rows.only(working)
    inside = Space(rows, space.equalities, space.taken)
    factor = cho_factor(np.eye(len(working)) + space.gram(working), check_finite=False)
    rho, V, U, u = state.rho, state.V, state.U, state.u[working]
    s = np.maximum(rows.apply(V) + u, 1.0)
    best: tuple[float, Array, Array, Array] | None = None
    for iteration in range(1, limit + 1):
        target = space.project(V - U) + inside.adjoint(s - u)
        W = target - inside.adjoint(cho_solve(factor, rows.apply(target), check_finite=False))
        margins = rows.apply(W)
        relaxed, onto = 1.8 * W - 0.8 * V, 1.8 * margins - 0.8 * s
        before, held = V, s
        left, sizes, right = np.linalg.svd(relaxed + U, full_matrices=False)
        kept = int((sizes > 1.0 / rho).sum())
        V = (left[:, :kept] * (sizes[:kept] - 1.0 / rho)) @ right[:kept]
        s = np.maximum(onto + u, 1.0)
        U = U + relaxed - V
        u = u + onto - s
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
        primal /= max(float(np.linalg.norm(W)), 1e-300)
        change = np.hypot(np.linalg.norm(V - before), np.linalg.norm(s - held))
        change /= max(float(np.linalg.norm(U)), 1e-300)
        if iteration <= 2000 and not 0.1 <= primal / max(change, 1e-300) <= 10:
            scale = 2.0 if primal > change else 0.5
            rho, U, u = rho * scale, U / scale, u / scale
    state.V, state.U, state.rho = V, U, rho
    state.u = np.zeros(space.count)
    state.u[working] = u
    if best is None:
        dual = np.maximum(-u, 0.0)
        return V, dual, inside.adjoint(dual)
    return best[1:]


def start(space: Space) -> Array | None:
    """A rough Frobenius solution to begin from."""
    return accelerated(space, gap=1e-2)
