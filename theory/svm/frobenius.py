r"""The Frobenius program by its dual, max bᵀλ - ½‖A*λ‖², λ ≥ 0: a kernel SVM with a Hadamard Gram matrix.

Equalities are taken out first: W = W_c + V with W_c the smallest matrix that meets them and V in the space that
they leave, so that rows are projected to that space and b becomes b - A(W_c).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import nnls

from .instance import Array
from .program import Program

_SMALL = (
    200_000  # numbers in all the matrices d_k z_kᵀ: then the exact active-set method is fastest
)
_NARROW = 400  # p r up to which that method is fastest for five million numbers too
_CHECK = 25  # iterations between two looks at the gap


class Undecided(ArithmeticError):
    """No solution was found, which is no proof that there is none."""


def solve(program: Program) -> tuple[Array, Array]:
    """λ (M,) and W (p, r), accurate to rounding; raises `Undecided` where none is found."""
    sides = _sides(program)
    if not len(sides) or sides.max() <= 0:
        return np.zeros(len(sides)), program.offset
    p, r = program.shape
    narrow = p * r <= _NARROW and program.numbers <= 5_000_000
    if program.numbers <= _SMALL or narrow:
        start = _by_active_sets(program, sides)
        found = polish(program, sides, start, rounds=20)
    else:
        found = polish(program, sides, accelerated(program, sides, gap=1e-4))
    return found, program.offset + _image(program, found)


def _sides(program: Program) -> Array:
    sides = program.sides[: program.count]
    return sides - program.apply(program.offset)[: program.count] if len(sides) else sides


def _image(program: Program, weights: Array) -> Array:
    """A*λ in the space that the equalities leave."""
    return program.project(program.adjoint(weights))


def _margins(program: Program, W: Array) -> Array:
    return program.apply(W)[: program.count]


def _projected(program: Program, keep: Array) -> Array:
    """The Gram matrix of the projected rows."""
    found = program.gram(keep)
    if program.taken.shape[1]:
        part = program.matrices(keep) @ program.taken
        found -= part @ part.T
    return found


def _by_active_sets(program: Program, sides: Array) -> Array:
    """Lawson and Hanson's method on ‖[A*; bᵀ] u - [0; 1]‖: the residual is the solution, up to scale.

    Source: Lawson, Hanson, "Solving least squares problems" (1974), chapter 23, problem LDP.
    """
    matrices = program.matrices(slice(0, program.count))
    if program.taken.shape[1]:
        matrices = matrices - (matrices @ program.taken) @ program.taken.T
    scale = float(np.abs(sides).max())
    system = np.vstack([matrices.T, sides / scale])
    target = np.zeros(len(system))
    target[-1] = 1.0
    try:
        found, _ = nnls(system, target, maxiter=30 * len(matrices))
    except RuntimeError:  # it went round in circles
        return accelerated(program, sides, gap=1e-6)
    left = 1.0 - float(found @ sides) / scale
    if not left > 1e-13:
        raise Undecided("the residual of the active-set method vanishes")
    return scale * found / left


def accelerated(program: Program, sides: Array, gap: float, limit: int = 3000) -> Array:
    """Projected accelerated ascent with restarts, down to a relative gap; raises `Undecided`."""
    step = 1.0 / _largest_eigenvalue(program)
    weights = step * np.maximum(sides, 0.0)
    ahead, momentum = weights, 1.0
    for iteration in range(1, limit + 1):
        gradient = sides - _margins(program, _image(program, ahead))
        later = np.maximum(ahead + step * gradient, 0.0)
        if float(gradient @ (later - weights)) < 0:  # uphill no more: start again from here
            momentum = 1.0
            gradient = sides - _margins(program, _image(program, weights))
            later = np.maximum(weights + step * gradient, 0.0)
        following = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        ahead = later + (momentum - 1.0) / following * (later - weights)
        weights, momentum = later, following
        if iteration % _CHECK == 0:
            W = _image(program, weights)
            short = float((sides - _margins(program, W)).max())
            apart = abs(float(sides @ weights) - float((W * W).sum()))
            if short <= gap * sides.max() and apart <= gap * float(sides @ weights):
                return weights
    raise Undecided(f"projected ascent did not reach a gap of {gap:g} in {limit} steps")


def _largest_eigenvalue(program: Program, steps: int = 40) -> float:
    """An estimate of ‖A‖² from a few power iterations, a little above the truth."""
    w, size = np.random.default_rng(0).standard_normal(program.shape), 0.0
    for _ in range(steps):
        w = _image(program, _margins(program, program.project(w / np.linalg.norm(w))))
        size = float(np.linalg.norm(w))
        if size == 0.0:
            return 1.0
    return 1.05 * size


def polish(program: Program, sides: Array, weights: Array, rounds: int = 60) -> Array:
    """Solve the optimality conditions on the active set, and change the set until they hold everywhere."""
    active = np.flatnonzero(weights > 1e-10 * weights.max(initial=0.0))
    for _ in range(rounds):
        gram = _projected(program, active)
        found = _solved(gram, sides[active])
        while found is not None and (found < 0).any():
            kept = found > 0
            active, gram = active[kept], gram[np.ix_(kept, kept)]
            found = _solved(gram, sides[active])
        if found is None:
            return weights
        full = np.zeros(program.count)
        full[active] = found
        short = sides - _margins(program, _image(program, full))
        wrong = np.setdiff1d(np.flatnonzero(short > 1e-11 * sides.max()), active)
        if not len(wrong):
            return full
        weights = _better(program, sides, weights, full)
        active = np.union1d(active, wrong)
    return weights


def _solved(gram: Array, sides: Array) -> Array | None:
    try:
        return cho_solve(cho_factor(gram, check_finite=False), sides, check_finite=False)
    except np.linalg.LinAlgError:  # repeated tokens: any solution will do
        found = np.linalg.lstsq(gram, sides, rcond=1e-13)[0]
        return found if np.abs(gram @ found - sides).max(initial=0.0) < 1e-9 else None


def _better(program: Program, sides: Array, first: Array, second: Array) -> Array:
    """The one with the larger dual value, each at its best length."""

    def value(weights: Array) -> float:
        size = float(np.linalg.norm(_image(program, weights)))
        return float(sides @ weights) / size if size else 0.0

    return second if value(second) > value(first) else first
