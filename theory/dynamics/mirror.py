"""Mirror descent with the potential of a p-norm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsf.errors import InvalidInput

from .descent import Progress
from .objective import Objective
from .parameters import as_parameters
from .trajectory import Trajectory


def mirror_descent(
    objective: Objective,
    start: np.ndarray,
    steps: int,
    rate: float,
    p: float,
    *,
    record: Sequence[int] | np.ndarray = (),
    progress: Progress | None = None,
) -> Trajectory:
    r"""∇ψ(W⁺) = ∇ψ(W) - η_k ∇L/‖∇L‖_F with ψ(W) = Σ|W_ij|^p / p.

    The step in mirror coordinates is η_k = η ‖W‖_p^(p-2) (η while ‖W‖_p < 1), so that W itself moves
    by about η: the schedule changes the speed, not the limit. p = 2 is normalised descent. One
    objective or a batch; W (..., d, d).
    Raises `InvalidInput` where p is not above 1, or steps or rate are not positive.

    Source: Julistiono, Tarzanagh, Azizan, arXiv 2410.14581 (ℓ_p mirror descent), own schedule.

    >>> from dsf.theory.instances import sphere
    >>> objective = Objective.of(sphere(3, 4, 5, seed=0))
    >>> mirror_descent(objective, np.zeros((5, 5)), 20, 0.1, p=1.75).at.tolist()
    [20]
    """
    if not p > 1 or steps < 1 or not rate > 0:
        raise InvalidInput(
            f"`p` is {p}, `steps` {steps}, `rate` {rate}; p must be above 1, the others positive"
        )
    (w,) = as_parameters(start, objective.queries.shape[-1])
    lead = objective.queries.shape[:-2]
    w = np.broadcast_to(w, (*lead, *w.shape[-2:])).copy()
    mirrored = np.sign(w) * np.abs(w) ** (p - 1)
    wanted = {int(step) for step in record} | {steps}
    kept = {0: (w,)} if 0 in wanted else {}
    for step in range(1, steps + 1):
        size = (np.abs(w) ** p).sum((-2, -1), keepdims=True) ** (1 / p)
        mirrored = mirrored + rate * np.maximum(size, 1.0) ** (p - 2) * objective.gradient(w).unit()
        w = np.sign(mirrored) * np.abs(mirrored) ** (1 / (p - 1))
        if step in wanted:
            kept[step] = (w,)
        if progress is not None and (step % 1000 == 0 or step == steps):
            progress(step, steps)
    at = np.array(sorted(kept))
    return Trajectory(at, tuple(kept[int(step)] for step in at))
