"""From what a solver returns to points that are exactly feasible."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import frobenius
from .instance import Array, Instance
from .program import Program
from .solution import Solution
from .verification import Verification

_ROUNDS = 6
_EPS = float(np.finfo(float).eps)


def finished(
    instance: Instance, norm: str | float, W: Array, dual: Array, equal_dual: Array, solver: str
) -> Solution | None:
    """A solution whose margins and dual norm hold in exact arithmetic; None where W has no positive margins.

    Without right-hand sides but margins > 0, W is divided by its least margin. Otherwise a multiple of a matrix
    that has all margins and keeps the equalities is added. What rounding leaves is made good by the bounds that
    `verify` computes.
    """
    x = instance
    W = _onto_equalities(x, W)
    homogeneous = bool((x.bounds > 0).all()) and not x.equal_values.any()
    if homogeneous and len(x.owner):
        lowest = float((x.margins(W) / x.bounds).min())
        if not lowest > 0:
            return None
        rounding = _EPS * float((_reach(x) / x.bounds).max()) * float(np.linalg.norm(W)) / lowest
        W = W * ((1 + rounding + 2 * _EPS) / lowest)
    found = _with_dual(Solution(x, norm, W, np.maximum(dual, 0.0), equal_dual, solver))
    push: Array | None = None
    for attempt in range(_ROUNDS):
        if found.checked.feasible:
            return found
        missing = 2.0**attempt * max(_missing(x, found.W, found.checked), 4 * _EPS)
        if homogeneous:
            found = replace(found, W=found.W * (1 + missing))
            continue
        push = _inside(x) if push is None else push
        if push is None:
            return None
        found = replace(found, W=found.W + missing * push)
    return found if found.checked.feasible else None


def _reach(instance: Instance) -> Array:
    """‖d_k‖ ‖z_k‖ of each row."""
    x = instance
    return np.linalg.norm(x.differences, axis=1) * np.linalg.norm(x.queries, axis=1)[x.owner]


def _missing(instance: Instance, W: Array, checked: Verification) -> float:
    """How far the worst margin is below what is asked, with the part that an inexact equality takes."""
    short = instance.bounds - instance.margins(W)
    return float((short + checked.shift * _reach(instance)).max(initial=0.0))


def _with_dual(found: Solution) -> Solution:
    """The dual point over its dual norm."""
    size = found.dual_size
    if not 0 < size < np.inf:
        return found
    return replace(found, dual=found.dual / size, equal_dual=found.equal_dual / size)


def _onto_equalities(instance: Instance, W: Array) -> Array:
    """The nearest W that meets the equalities, up to rounding."""
    x = instance
    if not len(x.equal_owner):
        return W
    program = Program.of(replace(x, least=np.zeros(len(x.tokens))))
    off = x.equal_margins(W) - x.equal_values
    rows = program.independent - program.count
    right = x.queries[x.equal_owner]
    gram = (x.equal_differences @ x.equal_differences.T) * (right @ right.T)
    weights = np.zeros(len(off))
    weights[rows] = np.linalg.solve(gram[np.ix_(rows, rows)], off[rows])
    return W - x.adjoint(np.zeros(len(x.owner)), weights)


def _inside(instance: Instance) -> Array | None:
    """A matrix of margins ≥ 1 on every row that the equalities with values of 0 do not see."""
    x = instance
    plain = Instance(x.tokens, x.queries, x.selection, x.equal)
    program = Program.of(plain)
    try:
        return program.lift(frobenius.solve(program)[1])
    except frobenius.Undecided:
        return None
