"""Gradient flow, followed by its arc length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.integrate import solve_ivp

from dsf.errors import InvalidInput

from .objective import Objective
from .parameters import Parameters, as_parameters, norm, product, pulled_back
from .trajectory import Trajectory


def flow(
    objective: Objective,
    start: np.ndarray | Parameters,
    lengths: Sequence[float] | np.ndarray,
    *,
    tolerance: float = 1e-9,
    evaluations: int = 100_000,
) -> Trajectory:
    r"""The curve of Ẇ = -∇L(W), or of (K̇, Q̇) = -∇L, at the given arc lengths.

    Time is replaced by arc length s, dW/ds = -∇L/‖∇L‖: the curve is the same, and no exponentially
    long time is needed to go far. One objective, no batch. `tolerance` is relative and absolute, per
    step of the integrator (LSODA).
    Raises `InvalidInput` where lengths do not increase from zero or more, and `ArithmeticError` where
    the integrator gives up, or has used up its `evaluations` of the gradient: a curve that ends at a
    stationary point has a finite length.

    >>> from dsf.theory.instances import sphere
    >>> run = flow(Objective.of(sphere(3, 4, 5, seed=0)), np.zeros((5, 5)), [1.0, 4.0])
    >>> bool(run.norms()[1] <= 4.0)
    True
    """
    at = np.asarray(lengths, dtype=np.float64)
    if at.ndim != 1 or not len(at) or at[0] < 0 or (np.diff(at) <= 0).any():
        raise InvalidInput("`lengths` must increase, from zero or more")
    if objective.queries.ndim != 2:
        raise InvalidInput("flow follows one objective, not a batch")
    parts = as_parameters(start, objective.queries.shape[-1])
    shape = (len(parts), *parts[0].shape)

    used = 0

    def velocity(_: float, flat: np.ndarray) -> np.ndarray:
        nonlocal used
        used += 1
        if used > evaluations:
            raise ArithmeticError(
                f"{evaluations} gradients were not enough: the curve may end at a stationary point"
            )
        here = tuple(flat.reshape(shape))
        moves = pulled_back(here, objective.gradient(product(here)).direction)
        size = float(norm(moves))
        return np.stack(moves).ravel() / (size or 1.0)

    found = solve_ivp(
        velocity,
        (0.0, float(at[-1]) or 1.0),
        np.stack(parts).ravel(),
        method="LSODA",
        t_eval=at,
        rtol=tolerance,
        atol=tolerance,
    )
    if not found.success:
        raise ArithmeticError(f"the integrator gave up: {found.message}")
    return Trajectory(at, tuple(tuple(column.reshape(shape)) for column in found.y.T))
