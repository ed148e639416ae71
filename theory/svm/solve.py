"""`att_svm`: from an instance to a solution with its certificate, or to the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dsf.errors import InvalidInput

from . import cone, frobenius, lp_norm, nuclear, peers
from .infeasible import Infeasible
from .instance import Array, Instance
from .solution import Solution
from .space import Space
from .verification import dual_norm_of


def att_svm(
    tokens: Instance | Sequence[Any] | Array,
    queries: Sequence[Any] | Array | None = None,
    selection: Sequence[int] | Array | None = None,
    *,
    norm: str | float = "frobenius",
    solver: str = "dsf",
) -> Solution | Infeasible:
    r"""min ‖W‖ subject to (x_{iα_i} - x_it)ᵀ W z_i ≥ 1 for every sample i and token t ≠ α_i.

    `tokens` (n, T, d), or a list of (T_i, d), `queries` (n, d), `selection` (n,) integers; or an `Instance`
    alone. `norm` is "frobenius", "nuclear" or a number p > 1 for ℓ_p of the entries; `solver` is "dsf", or
    "cvxpy:clarabel", "cvxpy:scs", "cvxpy:osqp". The result carries a primal and a dual point that are
    exactly feasible, and what they prove; where no W separates, it is Gordan's certificate, which is false.

    Raises `InvalidInput` for an instance that makes no sense and `ArithmeticError` where a solver finds
    neither a solution nor a certificate. Source: Tarzanagh et al., "Transformers as support vector
    machines" (arXiv 2308.16898), programs (Att-SVM) and (Att-SVM⋆).

    >>> solution = att_svm([np.eye(2)], [[1.0, 0.0]], [0])
    >>> solution.W
    array([[ 0.5,  0. ],
           [-0.5,  0. ]])
    >>> solution.relative_gap <= 1e-15, solution.support
    (True, [(0, 1)])
    """
    instance = _instance(tokens, queries, selection)
    if norm not in ("frobenius", "nuclear"):
        if not isinstance(norm, int | float) or not 1 < norm < np.inf:
            raise InvalidInput(
                f"`norm` is {norm!r}; it must be 'frobenius', 'nuclear' or a number p > 1"
            )
        norm = "frobenius" if norm == 2 else float(norm)
    if not len(instance.owner):
        nothing = np.zeros((instance.d, instance.d))
        return Solution(
            instance, norm, nothing, np.zeros(0), np.zeros(len(instance.equal_owner)), solver
        )
    if solver.startswith("cvxpy:"):
        W, dual, equal = peers.solve(instance, norm, solver.removeprefix("cvxpy:"))
        answer = _feasible(Solution(instance, norm, W, dual, equal, solver))
        if answer is None:
            raise ArithmeticError(f"{solver} returned a point with a margin that is not positive")
        return answer
    if solver != "dsf":
        raise InvalidInput(
            f"`solver` is {solver!r}; it must be 'dsf', 'cvxpy:clarabel', 'cvxpy:scs' or 'cvxpy:osqp'"
        )
    found = _solved(instance, norm)
    if found is not None:
        return found
    why = cone.gordan(instance, Space.of(instance))
    if why is None:
        raise ArithmeticError(
            "neither a solution nor a certificate of infeasibility was found: the margin of this instance "
            "is too small for float64"
        )
    return why


def att_svm_batch(
    instances: Sequence[Instance], *, norm: str | float = "frobenius"
) -> list[Solution | Infeasible]:
    """`att_svm` of each instance; small ones take well under a millisecond each."""
    return [att_svm(instance, norm=norm) for instance in instances]


def _instance(
    tokens: Instance | Sequence[Any] | Array,
    queries: Sequence[Any] | Array | None,
    selection: Sequence[int] | Array | None,
) -> Instance:
    if isinstance(tokens, Instance):
        if queries is not None or selection is not None:
            raise InvalidInput("an Instance carries its queries and its selection: give it alone")
        return tokens
    if queries is None or selection is None:
        raise InvalidInput("att_svm needs tokens, queries and selection, or an Instance")
    return Instance(tokens, np.asarray(queries), np.asarray(selection))


def _solved(instance: Instance, norm: str | float) -> Solution | None:
    if norm == "frobenius":
        space = Space.of(instance)
        weights = frobenius.solve(space)
        if weights is None:
            return None
        gradient = space.adjoint(weights)
        return _scaled(instance, norm, space, gradient, weights, gradient)
    if norm == "nuclear":
        space = Space.of(instance)
        small = space.count * int(np.prod(space.rows.shape)) <= 200_000
        start = frobenius.solve(space) if small else nuclear.start(space)
        pair = None if start is None else nuclear.solve(space, start)
        if pair is None:
            return None
        W, weights, gradient = pair
        return _scaled(instance, norm, space, W, weights, gradient)
    space = Space.of(instance, reduce=False)
    start = frobenius.solve(Space.of(instance))
    if start is None:
        return None
    weights = lp_norm.solve(space, float(norm), start)
    if weights is None:
        raise InvalidInput("ℓ_p programs with equalities are not solved: use norm='frobenius'")
    gradient = space.adjoint(weights)
    return _scaled(instance, norm, space, lp_norm.primal(gradient, float(norm)), weights, gradient)


def _scaled(
    instance: Instance,
    norm: str | float,
    space: Space,
    W: Array,
    weights: Array,
    gradient: Array,
) -> Solution | None:
    equal = space.equal_dual(gradient - space.rows.adjoint(weights))
    return _feasible(Solution(instance, norm, space.rows.lift(W), weights, equal, "dsf"))


def _feasible(found: Solution) -> Solution | None:
    """W over its least margin, and the dual point over its dual norm: both exactly feasible."""
    x = found.instance
    lowest = float(x.margins(found.W).min())
    gradient = (x.differences * found.dual[:, None]).T @ x.queries[x.owner]
    gradient += (x.equal_differences * found.equal_dual[:, None]).T @ x.queries[x.equal_owner]
    size = dual_norm_of(gradient, found.norm)
    if not lowest > 0 or not size > 0:
        return None
    return replace(
        found, W=found.W / lowest, dual=found.dual / size, equal_dual=found.equal_dual / size
    )
