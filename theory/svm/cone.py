"""Weights that prove a program infeasible, by linear programming."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from .infeasible import Infeasible
from .instance import Instance
from .space import Space


def gordan(instance: Instance, space: Space) -> Infeasible | None:
    """λ ≥ 0, Σλ = 1 with A*λ + E*μ = 0, or None where there is none."""
    if not space.count:
        return None
    matrices = space.rows.matrices()
    if space.taken.shape[1]:
        matrices = matrices - (matrices @ space.taken) @ space.taken.T
    system = np.vstack([matrices.T, np.ones(len(matrices))])
    target = np.zeros(len(system))
    target[-1] = 1.0
    found = linprog(np.zeros(len(matrices)), A_eq=system, b_eq=target, method="highs")
    if found.status != 0:
        return None
    weights = np.maximum(found.x, 0.0)
    weights /= weights.sum()
    gradient = space.rows.adjoint(weights)
    certificate = Infeasible(instance, weights, space.equal_dual(-gradient))
    return certificate if certificate.verify() else None
