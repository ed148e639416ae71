"""Gradient descent, plain and normalised, for W and for (K, Q)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from dsf.errors import InvalidInput

from .checkpoint import fingerprint, load, save
from .objective import Objective
from .parameters import Parameters, as_parameters, product, pulled_back
from .trajectory import Trajectory

Progress = Callable[[int, int], None]
"""Is told (steps done, steps in all) now and then."""


def descend(
    objective: Objective,
    start: np.ndarray | Parameters,
    steps: int,
    rate: float,
    *,
    normalised: bool = True,
    record: Sequence[int] | np.ndarray = (),
    progress: Progress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 1000,
) -> Trajectory:
    r"""W ← W - η ∇L/‖∇L‖_F, or without the norm; K and Q are normalised each by its own gradient.

    - `start`: W (..., d, d), or a pair (K, Q) of (..., d, m); a batch of objectives has a leading axis.
    - `record`: steps at which a snapshot is kept; the last one always is.
    - `checkpoint`: a file that keeps the run's state every `every` steps; called again with the same
      arguments, the run goes on from there, and gives the same numbers as one that was never
      interrupted.

    Gradients are formed in the log domain, so that normalised descent works at any norm of W. A
    member of a batch whose gradient is exactly zero stays where it is.
    Raises `InvalidInput` for shapes that do not fit, and for `steps` or `rate` that are not positive.

    Source: the experiments of Tarzanagh et al., arXiv 2308.16898 (normalised steps).

    >>> from dsf.theory.instances import sphere
    >>> run = descend(Objective.of(sphere(3, 4, 5, seed=0)), np.zeros((5, 5)), 50, 0.1, record=[10])
    >>> run.at.tolist(), bool(run.norms()[-1] > 1)
    ([10, 50], True)
    """
    parts, first, wanted, kept = _begin(objective, start, steps, rate, record)
    owner = fingerprint(
        *parts, *_arrays(objective), steps, rate, normalised, np.array(sorted(wanted))
    )
    if checkpoint is not None and (state := load(checkpoint, owner)) is not None:
        parts, first, kept = _restored(state)
    for step in range(first, steps + 1):
        parts = advance(objective, parts, rate, normalised)
        if step in wanted:
            kept[step] = parts
        if step % every == 0 or step == steps:
            if checkpoint is not None:
                save(checkpoint, owner, _state(parts, step, kept))
            if progress is not None:
                progress(step, steps)
    at = np.array(sorted(kept))
    return Trajectory(at, tuple(kept[int(step)] for step in at))


def advance(objective: Objective, parts: Parameters, rate: float, normalised: bool) -> Parameters:
    """One step of descent."""
    gradient = objective.gradient(product(parts))
    moves = pulled_back(parts, gradient.direction)
    if not normalised:
        scale = rate * np.exp(gradient.log_scale)[..., None, None]
        return tuple(part + scale * move for part, move in zip(parts, moves, strict=True))
    sizes = (np.sqrt((move**2).sum((-2, -1), keepdims=True)) for move in moves)
    return tuple(
        part + rate / np.where(size == 0, 1.0, size) * move
        for part, move, size in zip(parts, moves, sizes, strict=True)
    )


def _begin(
    objective: Objective,
    start: np.ndarray | Parameters,
    steps: int,
    rate: float,
    record: Sequence[int] | np.ndarray,
) -> tuple[Parameters, int, set[int], dict[int, Parameters]]:
    if steps < 1 or not (np.isfinite(rate) and rate > 0):
        raise InvalidInput(f"`steps` is {steps} and `rate` {rate}; both must be positive")
    wanted = {int(step) for step in record} | {steps}
    if min(wanted) < 0 or max(wanted) > steps:
        raise InvalidInput(f"`record` has steps outside 0 ... {steps}: {sorted(wanted)}")
    parts = as_parameters(start, objective.queries.shape[-1])
    lead = objective.queries.shape[:-2]
    if parts[0].shape[:-2] not in ((), lead):
        raise InvalidInput(
            f"the start has leading axes {parts[0].shape[:-2]}, the objective {lead}"
        )
    parts = tuple(np.broadcast_to(part, (*lead, *part.shape[-2:])).copy() for part in parts)
    return parts, 1, wanted, {0: parts} if 0 in wanted else {}


def _arrays(objective: Objective) -> list[object]:
    arrays = (
        objective.tokens,
        objective.queries,
        objective.scores,
        objective.mask,
        objective.labels,
    )
    return [*arrays, objective.loss.name, repr(objective.head)]


def _state(parts: Parameters, step: int, kept: dict[int, Parameters]) -> dict[str, np.ndarray]:
    state = {f"part{i}": part for i, part in enumerate(parts)}
    for at, snapshot in kept.items():
        state |= {f"kept{at}.{i}": part for i, part in enumerate(snapshot)}
    return state | {"step": np.array(step)}


def _restored(state: dict[str, np.ndarray]) -> tuple[Parameters, int, dict[int, Parameters]]:
    width = sum(name.startswith("part") for name in state)
    parts = tuple(state[f"part{i}"] for i in range(width))
    steps = {int(name[4:].split(".")[0]) for name in state if name.startswith("kept")}
    kept = {at: tuple(state[f"kept{at}.{i}"] for i in range(width)) for at in steps}
    return parts, int(state["step"]) + 1, kept
