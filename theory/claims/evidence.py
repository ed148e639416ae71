"""From data, solver and dynamics to evidence: plain arrays that a judge can use alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from dsf.certificate import Task

from ..dynamics.measures import margins
from ..dynamics.parameters import Parameters
from ..dynamics.trajectory import Trajectory, spaced
from ..instances import TokenData, planted_local
from ..svm import Infeasible, Instance, att_svm
from .judging import SEPARATED, separation
from .problem import Problem


def seed_of(task: Task) -> int:
    """A seed for a generator, from the task's own."""
    return int(task.rng().integers(2**31))


def described(data: TokenData, selection: np.ndarray) -> dict[str, Any]:
    """The data set and a selection."""
    return {
        "tokens": data.tokens,
        "queries": data.queries,
        "scores": data.scores,
        "lengths": np.asarray(data.lengths),
        "selection": np.asarray(selection),
    }


def solved(data: TokenData, selection: np.ndarray, norm: str | float = "fro") -> dict[str, Any]:
    """The max-margin solution with its dual point: `norm` is "fro", "nuc" or p.

    Raises `ArithmeticError` where the selection cannot be separated.
    """
    name = {"fro": "frobenius", "nuc": "nuclear"}.get(str(norm), norm)
    found = att_svm(data.ragged(), data.queries, np.asarray(selection), norm=name)
    if isinstance(found, Infeasible):
        raise ArithmeticError("the selection cannot be separated")
    p = "nuc" if norm == "nuc" else 2.0 if norm == "fro" else float(norm)
    return {"norm": p, "primal": found.W, "dual": found.dual}


def solved_with_equals(
    data: TokenData, selection: np.ndarray, equal: np.ndarray, p: float = 2.0
) -> dict[str, Any]:
    """The ℓ_p solution where the tokens of `equal` (n, T) share the selection, with multipliers.

    Raises `ArithmeticError` where that cannot be separated.
    """
    shared = [np.flatnonzero(row).tolist() for row in equal]
    instance = Instance(data.ragged(), data.queries, np.asarray(selection), equal=shared)
    found = att_svm(instance, norm=p)
    if isinstance(found, Infeasible):
        raise ArithmeticError("the selection cannot be separated")
    points = {"norm": p, "primal": found.W, "dual": found.dual}
    return {**points, "equal": equal, "equal_dual": found.equal_dual}


def _separation(data: TokenData, selection: np.ndarray, found: dict[str, Any]) -> float:
    return separation(Problem.of(described(data, selection)), found)


def well_separated(
    draw: Callable[[int], tuple[TokenData, np.ndarray]], seed: int, norm: str | float = "fro"
) -> tuple[TokenData, np.ndarray]:
    """The first draw whose SVM is strictly complementary with room to spare, so that rates show early.

    Raises `ArithmeticError` where none of two thousand is.
    """
    for child in np.random.SeedSequence(seed).generate_state(2000):
        data, selection = draw(int(child))
        lead = np.sort(np.where(data.mask, data.scores, -np.inf), axis=1)[:, -2:]
        if np.diff(lead).min() < SEPARATED:
            continue
        with suppress(ArithmeticError):
            if _separation(data, selection, solved(data, selection, norm)) >= 2 * SEPARATED:
                return data, selection
    raise ArithmeticError("none of two thousand draws is well separated")


def locally_optimal(
    shape: tuple[int, int, int], seed: int, norm: str | float = "fro"
) -> tuple[TokenData, np.ndarray]:
    """The first draw of `planted_local` that is feasible, locally optimal and well separated."""
    for child in np.random.SeedSequence(seed).generate_state(400):
        data, selection = planted_local(*shape, seed=int(child))
        try:
            found = solved(data, selection, norm)
        except ArithmeticError:
            continue
        rows = margins(data, selection, found["primal"])
        gaps = (data.scores[np.arange(shape[0]), selection][:, None] - data.scores).ravel()
        gaps = np.delete(gaps, np.arange(shape[0]) * shape[1] + selection)
        if (gaps[rows < 1.2 * rows.min()] > 0).all():
            if norm != "fro" or _separation(data, selection, found) >= 2 * SEPARATED:
                return data, selection
    raise ArithmeticError(f"no locally optimal selection in 400 draws of size {shape}")


def recorded(run: Trajectory) -> dict[str, Any]:
    """Steps, lengths or radii, and W there, or K and Q where W is their product."""
    evidence: dict[str, Any] = {"at": np.asarray(run.at, dtype=np.float64)}
    return evidence | _stacked(list(run.snapshots), "")


def stepped(run: Trajectory, steps: np.ndarray, rate: float) -> dict[str, Any]:
    """W at each of `steps` and one step later, so that a judge can repeat the step itself."""
    place = {int(step): i for i, step in enumerate(run.at)}
    here = [run.snapshots[place[int(step)]] for step in steps]
    after = [run.snapshots[place[int(step) + 1]] for step in steps]
    evidence: dict[str, Any] = {"at": np.asarray(steps, dtype=np.float64), "rate": rate}
    return evidence | _stacked(here, "") | _stacked(after, "after_")


def _stacked(snapshots: list[Parameters], prefix: str) -> dict[str, Any]:
    if len(snapshots[0]) == 1:
        return {f"{prefix}W": np.stack([parts[0] for parts in snapshots])}
    return {f"{prefix}{name}": np.stack([p[i] for p in snapshots]) for i, name in enumerate("KQ")}


def watched(steps: int, count: int = 5, span: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Steps from the last over `span` to the last before `steps`; the same with those that follow.

    >>> watched(1001, 2)[1].tolist()
    [100, 101, 1000, 1001]
    """
    at = spaced(steps - 1, count, first=max(1, (steps - 1) // span))
    return at, np.unique(np.concatenate([at, at + 1]))


def factors(w: np.ndarray, width: int | None = None) -> Parameters:
    """Balanced K and Q (d, m) with K Qᵀ = W (its best approximation of rank m)."""
    u, s, v = np.linalg.svd(w)
    m = width or len(s)
    root = np.sqrt(s[:m])
    return u[:, :m] * root, v[:m].T * root


def turned(parts: Parameters, radius: float) -> Parameters:
    """The same direction with ‖W‖_F, or (‖K‖² + ‖Q‖²)/2, equal to `radius`."""
    if len(parts) == 1:
        return (radius / np.linalg.norm(parts[0]) * parts[0],)
    size = sum(float((part**2).sum()) for part in parts) / 2
    return tuple(np.sqrt(radius / size) * part for part in parts)
