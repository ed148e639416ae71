"""The same programs for a general solver, through cvxpy: to compare, at small size."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsf.errors import InvalidInput

from .instance import Array, Instance

SOLVERS = {"clarabel": "CLARABEL", "scs": "SCS", "osqp": "OSQP"}


def solve(
    instance: Instance, norm: str | float, solver: str, **options: object
) -> tuple[Array, Array, Array]:
    """W, λ ≥ 0 and μ as `solver` ("clarabel", "scs" or "osqp") returns them; needs the extra "solvers"."""
    try:
        import cvxpy as cp
    except ImportError as error:
        raise InvalidInput("cvxpy is not installed: pip install dsf-dynamics[solvers]") from error
    if solver not in SOLVERS:
        raise InvalidInput(f"cvxpy solver {solver!r} is not known; one of {', '.join(SOLVERS)}")
    if solver == "osqp" and norm != "frobenius":
        raise InvalidInput("OSQP solves quadratic programs: use it with norm='frobenius'")
    W = cp.Variable((instance.d, instance.d))
    queries = instance.queries

    def rows(differences: Array, owner: Array) -> Any:
        return cp.sum(cp.multiply(differences @ W, queries[owner]), axis=1)

    constraints = []
    if len(instance.owner):
        constraints.append(rows(instance.differences, instance.owner) >= instance.bounds)
    if len(instance.equal_owner):
        ties = rows(instance.equal_differences, instance.equal_owner)
        constraints.append(ties == instance.equal_values)
    if norm == "nuclear":
        objective = cp.normNuc(W)
    elif norm == "frobenius":
        objective = cp.sum_squares(W) / 2
    else:
        objective: Any = cp.pnorm(cp.vec(W, order="C"), norm)  # type: ignore[arg-type]
    problem = cp.Problem(cp.Minimize(objective), constraints)
    problem.solve(solver=SOLVERS[solver], **options)
    if W.value is None:
        raise ArithmeticError(f"{solver} ended with status {problem.status}")
    dual, equal = np.zeros(len(instance.owner)), np.zeros(len(instance.equal_owner))
    if len(dual):
        dual = np.maximum(constraints[0].dual_value, 0.0)
    if len(equal):
        equal = -np.asarray(constraints[-1].dual_value)
    return W.value, dual, equal
