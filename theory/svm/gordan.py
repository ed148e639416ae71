"""Weights that prove a program infeasible, by linear programming."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from .infeasible import Infeasible
from .instance import Instance
from .program import Program


def gordan(instance: Instance, program: Program) -> Infeasible | None:
    """λ ≥ 0 and μ with bᵀλ + cᵀμ = 1 and A*λ + E*μ = 0, or None where there are none."""
    if not program.consistent:
        return _contradiction(instance, program)
    sides = program.sides[: program.count] - program.apply(program.offset)[: program.count]
    if not len(sides) or sides.max() <= 0:
        return None
    matrices = program.matrices(slice(0, program.count))
    if program.taken.shape[1]:
        matrices = matrices - (matrices @ program.taken) @ program.taken.T
    system = np.vstack([matrices.T, sides])
    target = np.zeros(len(system))
    target[-1] = 1.0
    found = linprog(np.zeros(len(matrices)), A_eq=system, b_eq=target, method="highs-ds")
    if found.status != 0:
        return None
    weights = np.maximum(found.x, 0.0)
    return _checked(instance, program, weights, program.equal_dual(-program.adjoint(weights)))


def _contradiction(instance: Instance, program: Program) -> Infeasible | None:
    """Equalities that no W meets: μ with E*μ = 0 and cᵀμ = 1."""
    values = program.sides[program.count :]
    products = program.gram(np.arange(program.count, len(program.left)))
    off = values - products @ np.linalg.lstsq(products, values, rcond=1e-10)[0]
    return _checked(instance, program, np.zeros(program.count), off / float(off @ values))


def _checked(
    instance: Instance, program: Program, weights: np.ndarray, equal: np.ndarray
) -> Infeasible | None:
    total = float(instance.bounds @ weights + instance.equal_values @ equal)
    if not total > 0:
        return None
    certificate = Infeasible(instance, weights / total, equal / total)
    return certificate if certificate.verify() else None
