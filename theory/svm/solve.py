"""`att_svm`: from an instance to a solution with its certificate, or to the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsf.errors import InvalidInput

from . import bounded_rank, frobenius, lp_norm, nuclear, peers
from .finish import finished
from .gordan import gordan
from .infeasible import Infeasible
from .instance import Array, Instance
from .program import Program
from .solution import Solution

Points = tuple[Array, Array]
"""W in the space of a program, and multipliers of all its rows."""


def att_svm(
    tokens: Instance | Sequence[Any] | Array,
    queries: Sequence[Any] | Array | None = None,
    selection: Sequence[int] | Array | None = None,
    *,
    norm: str | float = "frobenius",
    rank: int | None = None,
    solver: str = "dsf",
) -> Solution | Infeasible:
    r"""min ‖W‖ subject to (x_{iα_i} - x_it)ᵀ W z_i ≥ 1 for every sample i and token t ≠ α_i.

    `tokens` (n, T, d), or a list of (T_i, d), `queries` (n, d), `selection` (n,) integers; or an `Instance`
    alone. `norm` is "frobenius", "nuclear" or a number p > 1 for ℓ_p of the entries; `solver` is "dsf", or
    "cvxpy:clarabel", "cvxpy:scs", "cvxpy:osqp". The result carries a primal and a dual point that are
    exactly feasible, and what they prove; where no W separates, it is Gordan's certificate, which is false.

    With norm="nuclear", `rank` bounds the rank of W, as keys and queries of that many channels do. Where no
    solution of the convex program is that low, W is the best of several stationary points, and `relative_gap`
    says how much shorter another matrix could be at most.

    Raises `InvalidInput` for an instance that makes no sense and `ArithmeticError` where a solver finds
    neither a solution nor a certificate. Source: Tarzanagh et al., "Transformers as support vector
    machines" (arXiv 2308.16898), programs (Att-SVM) and (Att-SVM⋆).

    >>> solution = att_svm([np.eye(2)], [[1.0, 0.0]], [0])
    >>> solution.W.round(12)
    array([[ 0.5,  0. ],
           [-0.5,  0. ]])
    >>> solution.relative_gap <= 1e-14, solution.support
    (True, [(0, 1)])
    """
    instance = _instance(tokens, queries, selection)
    kind = _norm(norm)
    if rank is not None and (norm != "nuclear" or solver != "dsf" or rank < 1):
        raise InvalidInput(
            f"`rank` is {rank}, of norm {norm!r} and solver {solver!r}; a rank of 1 or more goes with "
            "norm='nuclear' and solver='dsf'"
        )
    if solver.startswith("cvxpy:"):
        return _by_peer(instance, kind, solver)
    if solver != "dsf":
        raise InvalidInput(
            f"`solver` is {solver!r}; it must be 'dsf', 'cvxpy:clarabel', 'cvxpy:scs' or 'cvxpy:osqp'"
        )
    found = _each([instance], kind)[0]
    if rank is None or not isinstance(found, Solution) or found.rank <= rank:
        return found
    return _of_rank(found, rank)


def att_svm_batch(
    instances: Sequence[Instance], *, norm: str | float = "frobenius"
) -> list[Solution | Infeasible]:
    """`att_svm` of each instance, in order; small nuclear programs of one shape are solved together.

    Raises as `att_svm` does.

    >>> one = Instance([np.eye(2)], np.array([[1.0, 0.0]]), np.array([0]))
    >>> [found.rank for found in att_svm_batch([one, one], norm="nuclear")]
    [1, 1]
    """
    return _each(list(instances), _norm(norm))


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


def _norm(norm: str | float) -> str | float:
    if norm in ("frobenius", "nuclear"):
        return norm
    if isinstance(norm, str) or not 1 < norm < np.inf:
        raise InvalidInput(
            f"`norm` is {norm!r}; it must be 'frobenius', 'nuclear' or a number p > 1"
        )
    return "frobenius" if norm == 2 else float(norm)


def _each(instances: list[Instance], norm: str | float) -> list[Solution | Infeasible]:
    """Frobenius solutions first: they decide feasibility, and other norms start from them."""
    found: list[Solution | Infeasible | None] = [None] * len(instances)
    together: dict[tuple[int, ...], list[tuple[int, Program, Array, Array]]] = {}
    for i, instance in enumerate(instances):
        program = Program.of(instance)
        try:
            if not program.consistent:
                raise frobenius.Undecided("no W meets the equalities")
            dual, W = frobenius.solve(program)
        except frobenius.Undecided:
            found[i] = _infeasible(instance, program)
            continue
        shape = nuclear.alike(program) if norm == "nuclear" and W.any() else None
        if shape is not None:
            together.setdefault(shape, []).append((i, program, W, dual))
        else:
            found[i] = _one(instance, norm, program, W, dual)
    for group in together.values():
        places, programs, starts, duals = (list(part) for part in zip(*group, strict=True))
        pairs = nuclear.solve_alike(programs, starts, duals)
        for i, program, pair in zip(places, programs, pairs, strict=True):
            found[i] = _certified(instances[i], norm, program, *pair)
    return [x for x in found if x is not None]


def _one(
    instance: Instance, norm: str | float, program: Program, W: Array, dual: Array
) -> Solution | Infeasible:
    equal = program.equal_dual(W - program.adjoint(dual))
    y = np.concatenate([dual, equal])
    if norm == "nuclear" and W.any():
        W, y = nuclear.solve(program, W, dual)
    elif norm not in ("frobenius", "nuclear") and W.any():
        program = Program.of(instance, reduce=False)
        W, y = lp_norm.solve(program, float(norm), dual, equal)
    return _certified(instance, norm, program, W, y)


def _certified(
    instance: Instance, norm: str | float, program: Program, W: Array, y: Array
) -> Solution | Infeasible:
    dual, equal = y[: program.count], y[program.count :]
    found = finished(instance, norm, program.lift(W), dual, equal, "dsf")
    return _infeasible(instance, program) if found is None else found


def _of_rank(found: Solution, rank: int) -> Solution:
    """The bound on the rank met, with the multipliers of the program without it."""
    instance, program = found.instance, Program.of(found.instance)
    back = program.scale * program.basis_left.T @ found.W @ program.basis_right
    W = bounded_rank.solve(program, rank, [back, frobenius.solve(program)[1]])
    if W is None:
        raise ArithmeticError(f"no W of rank {rank} with all the margins was found")
    lower = finished(instance, "nuclear", program.lift(W), found.dual, found.equal_dual, "dsf")
    if lower is None:
        raise ArithmeticError(f"no W of rank {rank} with all the margins was found")
    return lower


def _infeasible(instance: Instance, program: Program) -> Infeasible:
    why = gordan(instance, program)
    if why is None:
        raise ArithmeticError(
            "neither a solution nor a certificate of infeasibility was found: the margin of this instance "
            "is too small for float64"
        )
    return why


def _by_peer(instance: Instance, norm: str | float, solver: str) -> Solution:
    found = finished(
        instance, norm, *peers.solve(instance, norm, solver.removeprefix("cvxpy:")), solver
    )
    if found is None:
        raise ArithmeticError(f"{solver} returned a point without the margins that are asked")
    return found
