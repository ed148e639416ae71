r"""The ℓ_p program, 1 < p < ∞, by its smooth dual: max bᵀλ + cᵀμ - ‖A*λ + E*μ‖_q^q / q, λ ≥ 0, 1/p + 1/q = 1.

A bounded quasi-Newton ascent comes near, projected Newton steps finish. The primal point is the mirror image of the
gradient, W = ∇(‖G‖_q^q / q), so that stationarity holds by construction.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from .instance import Array
from .program import Program

_NEWTON = 30_000_000  # numbers in the matrices d_k z_kᵀ of the support: beyond, no Newton steps
_STEPS = 40


def mirrored(gradient: Array, p: float) -> Array:
    """W = ∇(‖G‖_q^q / q)."""
    q = p / (p - 1)
    return np.sign(gradient) * np.abs(gradient) ** (q - 1)


def solve(program: Program, p: float, dual: Array, equal_dual: Array) -> tuple[Array, Array]:
    """W (d, d) and y (M + E,) near the optimum, from Frobenius multipliers; the caller measures the gap."""
    ties = program.independent
    rows = np.concatenate([np.arange(program.count), ties])
    sides, free = program.sides[rows], rows >= program.count
    every = np.zeros(len(program.left))

    def spread(y: Array) -> Array:
        every[rows] = y
        return program.adjoint(every)

    first = np.concatenate([dual, equal_dual[ties - program.count]])
    y = _ascent(program, spread, rows, sides, free, p, first)
    y = _newton(program, spread, rows, sides, free, p, y)
    return mirrored(spread(y), p), every.copy()


def _ascent(program, spread, rows, sides, free, p: float, first: Array) -> Array:
    q = p / (p - 1)
    top = float(np.abs(spread(first)).max()) or 1.0
    scale = max(1.0, float(np.abs(sides).max()))

    def value(y: Array) -> tuple[float, Array]:
        G = spread(y)
        slope = program.apply(mirrored(G, p))[rows] - sides / scale
        return float((np.abs(G) ** q).sum()) / q - float(y @ sides) / scale, slope

    y = first / top
    bounds = [(None if f else 0.0, None) for f in free]
    options = {"maxiter": 3000, "maxfun": 6000, "ftol": 0.0, "gtol": 1e-13, "maxcor": 40}
    for _ in range(4):
        found = minimize(value, y, jac=True, bounds=bounds, method="L-BFGS-B", options=options).x
        done = float(np.abs(found - y).max()) <= 1e-12 * float(np.abs(found).max())
        y = found
        if done:
            break
    return y * scale ** (1 / (q - 1))  # W of right-hand sides b/scale is W/scale


def _newton(program, spread, rows, sides, free, p: float, y: Array) -> Array:
    """Newton's method on the rows that are held, with a line search on the dual value."""
    q = p / (p - 1)
    size = program.shape[0] * program.shape[1]
    unit = max(float(np.abs(sides).max()), 1e-300)

    def value(y: Array) -> float:
        return float((np.abs(spread(y)) ** q).sum()) / q - float(y @ sides)

    best = np.inf
    for _ in range(_STEPS):
        G = spread(y)
        slope = program.apply(mirrored(G, p))[rows] - sides
        held = free | (y > 0) | (slope < 0)
        worst = float(np.abs(slope[held]).max(initial=0.0)) / unit
        if not held.any() or worst <= 1e-14 or int(held.sum()) * size > _NEWTON:
            break
        if worst > 0.5 * best and worst < 1e-12:
            break  # rounding
        best = min(best, worst)
        large = np.abs(G).max()
        weight = (q - 1) * np.maximum(np.abs(G), 1e-9 * large) ** (q - 2)
        matrices = program.matrices(rows[held])
        hessian = (matrices * weight.ravel()) @ matrices.T
        at = np.arange(len(hessian))
        hessian[at, at] += 1e-13 * hessian.diagonal().max()
        try:
            move = cho_solve(cho_factor(hessian, check_finite=False), -slope[held])
        except np.linalg.LinAlgError:
            break
        now, length = value(y), 1.0
        for _ in range(30):
            later = y.copy()
            later[held] += length * move
            later[~free] = np.maximum(later[~free], 0.0)
            if value(later) <= now + 1e-15 * abs(now):
                break
            length /= 2
        else:
            break
        y = later
    return y
