r"""The ℓ_p program, 1 < p < ∞, by its smooth dual: max 1ᵀλ - ‖A*λ‖_q^q / q, λ ≥ 0, 1/p + 1/q = 1."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from .instance import Array
from .space import Space


def primal(gradient: Array, p: float) -> Array:
    """W = ∇(‖G‖_q^q / q): the matrix whose mirror image is G."""
    q = p / (p - 1)
    return np.sign(gradient) * np.abs(gradient) ** (q - 1)


def solve(space: Space, p: float, start: Array) -> Array | None:
    """λ (M,) at which the bounded quasi-Newton method stops; the caller measures the gap."""
    if len(space.equalities):
        return None
    q = p / (p - 1)
    top = float(np.abs(space.adjoint(start)).max()) or 1.0
    weights = start / top

    def value(x: Array) -> tuple[float, Array]:
        gradient = space.adjoint(x)
        slope = space.apply(primal(gradient, p)) - 1.0
        return float((np.abs(gradient) ** q).sum()) / q - float(x.sum()), slope

    bounds = [(0.0, None)] * len(weights)
    for _ in range(6):
        found = minimize(
            value,
            weights,
            jac=True,
            bounds=bounds,
            method="L-BFGS-B",
            options={"maxiter": 20_000, "maxfun": 40_000, "ftol": 0.0, "gtol": 1e-13, "maxcor": 40},
        )
        done = float(np.abs(found.x - weights).max()) <= 1e-14 * float(found.x.max())
        weights = found.x
        if done:
            break
    return weights
