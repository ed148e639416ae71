"""The regularisation path: the best W of each norm, each radius started from the one before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from dsf.errors import InvalidInput

from .objective import Objective
from .parameters import Parameters, as_parameters, norm, product, pulled_back
from .trajectory import Trajectory


def regularisation_path(
    objective: Objective,
    start: np.ndarray | Parameters,
    radii: Sequence[float] | np.ndarray,
    selection: np.ndarray | None = None,
    *,
    others: Sequence[np.ndarray | Parameters] = (),
    iterations: int = 3000,
) -> Trajectory:
    r"""argmin of L over ‖W‖_F = R, or over ‖K‖_F² + ‖Q‖_F² = 2R, for each radius R in turn.

    What is minimised is log(L - L_α), α the optimal tokens or `selection` (n,), by L-BFGS on the
    sphere, from the direction of `start` and then from that of the radius before; the logarithm keeps
    the problem well scaled where L - L_α is far below rounding. The result is a local minimiser on
    the sphere; directions in `others` are tried at every radius too, and the lowest is kept. A path
    of a selection that is not optimal ends early (`reached` is False) where some point with L < L_α
    is found: it has left the basin of α.

    Linear heads, one objective. Raises `InvalidInput` where radii do not increase from above zero, or
    the start is zero.

    Source: the paths of Tarzanagh et al., arXiv 2308.16898 (global and local).

    >>> from dsf.theory.instances import sphere
    >>> data = sphere(3, 4, 5, seed=0)
    >>> path = regularisation_path(Objective.of(data), np.eye(5), [1.0, 10.0])
    >>> path.norms().round(9).tolist()
    [1.0, 10.0]
    """
    at = np.asarray(radii, dtype=np.float64)
    if at.ndim != 1 or not len(at) or at[0] <= 0 or (np.diff(at) <= 0).any():
        raise InvalidInput("`radii` must increase, from above zero")
    if objective.head is not None or objective.queries.ndim != 2:
        raise InvalidInput("a regularisation path needs a linear head and one objective")
    chosen = np.where(objective.mask, objective.scores, -np.inf).argmax(-1)
    if selection is not None:
        chosen = np.asarray(selection)
    d = objective.queries.shape[-1]
    flats = [np.stack(as_parameters(each, d)) for each in (start, *others)]
    shape = flats[0].shape
    if not all(flat.any() and flat.shape == shape for flat in flats):
        raise InvalidInput("starts must be of one shape, and not zero: they give directions")
    kept: list[Parameters] = []
    for radius in at:
        length = float(radius) if shape[0] == 1 else float(np.sqrt(2 * radius))
        tried = [_on_sphere(objective, chosen, flat, length, iterations) for flat in flats]
        if None in [found for _, found in tried]:
            return Trajectory(at[: len(kept)], tuple(kept), reached=False)
        flats[0] = min(tried, key=lambda pair: pair[1] or 0.0)[0]
        kept.append(tuple(flats[0]))
    return Trajectory(at, tuple(kept))


class _Left(Exception):
    """A point with a risk below that of the selection."""


def _on_sphere(
    objective: Objective,
    chosen: np.ndarray,
    start: np.ndarray,
    length: float,
    iterations: int,
) -> tuple[np.ndarray, float | None]:
    """The direction of a local minimiser of norm `length`, and log(L - L_α) there.

    None in place of the latter where the basin was left.
    """

    def function(theta: np.ndarray) -> tuple[float, np.ndarray]:
        size = float(
            np.linalg.norm(theta)
        )  # starts as `length`: a first step of L-BFGS is one unit
        unit = theta / size
        parts = tuple((length * unit).reshape(start.shape))
        w = product(parts)
        log_excess, sign = objective.log_excess(w, chosen)
        if sign <= 0:
            raise _Left
        gradient = objective.gradient(w)
        scale = np.exp(gradient.log_scale - log_excess)
        moves = np.stack(pulled_back(parts, gradient.direction)).ravel()
        slope = -scale * length / size * moves
        return float(log_excess), slope - unit * (unit @ slope)

    options = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 0.0, "gtol": 1e-12}
    here = (length / np.linalg.norm(start) * start).ravel()
    try:
        for _ in range(3):  # with a fresh memory, where rounding has spoiled a line search
            found = minimize(
                function, here, jac=True, method="L-BFGS-B", options={**options, "maxcor": 30}
            )
            here = length / np.linalg.norm(found.x) * found.x
            value, slope = function(here)
            if np.linalg.norm(slope) < 1e-9:
                break
    except _Left:
        return here.reshape(start.shape), None
    return here.reshape(start.shape), value


def stationarity(objective: Objective, parts: Parameters) -> float:
    """sin of the angle between the parameters and -∇L there: zero on the regularisation path."""
    moves = pulled_back(parts, objective.gradient(product(parts)).direction)
    along = sum(float((part * move).sum()) for part, move in zip(parts, moves, strict=True))
    scale = along / float(norm(parts)) ** 2
    off = tuple(move - scale * part for part, move in zip(parts, moves, strict=True))
    return float(norm(off) / norm(moves)) if along > 0 else 1.0
