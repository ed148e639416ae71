"""Parts of judges: the certified max-margin solution, stationary points, and steps of descent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsf.certificate import Evidence, Hypothesis

from .problem import Problem, U, array, need

NEARLY_OPTIMAL = 1e-5
"""The relative duality gap up to which an SVM solution is taken as one."""

SEPARATED = 0.05
"""The least relative slack, or else relative multiplier, of a row for rates to be seen."""

STATIONARY = 1e-4
"""sin of the angle between W and -∇L up to which W counts as stationary on its sphere."""


BALANCE = 1e-5
"""What a flow's conserved quantity may change by: the integrator's tolerance of 1e-9 a step, summed."""


@dataclass(frozen=True)
class MaxMargin:
    """A certified solution: its direction, a bound on that direction's error, and the optimal norm.

    `bar` is rigorous for the Frobenius norm and zero, with no claim made, for others, whose
    solutions need not be unique.
    """

    norm: str | float
    direction: np.ndarray
    bar: float
    low: float
    high: float

    @property
    def hypothesis(self) -> Hypothesis:
        gap = (self.high - self.low) / self.high
        return Hypothesis("relative duality gap of the SVM", gap, gap <= NEARLY_OPTIMAL)

    def size(self, w: np.ndarray) -> float:
        """‖W‖ in the norm of the solution."""
        if self.norm == "nuc":
            return float(np.linalg.norm(w, "nuc"))
        return float((np.abs(w) ** float(self.norm)).sum() ** (1 / float(self.norm)))


def max_margin(problem: Problem, evidence: Evidence) -> MaxMargin:
    """From the primal and dual points of the evidence, in the norm that it names.

    Frobenius: with W feasible and D <= the optimal ½‖·‖², ½‖W - W^mm‖² <= ½‖W‖² - D by strong
    convexity; normalising at most doubles a relative error.
    """
    d = problem.shape[2]
    norm = "nuc" if evidence["norm"] == "nuc" else float(evidence["norm"])
    need(norm == "nuc" or float(norm) > 1, "the norm is not one")
    primal = array(evidence, "primal", d, d)
    free = (
        np.asarray(evidence["equal_dual"], dtype=np.float64) if "equal_dual" in evidence else None
    )
    low, high = problem.gap(primal, array(evidence, "dual", None), norm, free)
    need(0 < low <= high, "a dual point above a primal one")
    bar = 2 * np.sqrt(high**2 - low**2) / high if norm == 2.0 else 0.0
    return MaxMargin(norm, primal / np.linalg.norm(primal), float(bar), low, high)


def weights(problem: Problem, evidence: Evidence, prefix: str = "") -> tuple[np.ndarray, ...]:
    """(W,) or (K, Q), each with a leading axis of snapshots."""
    d = problem.shape[2]
    if f"{prefix}W" in evidence:
        return (array(evidence, f"{prefix}W", None, d, d),)
    k = array(evidence, f"{prefix}K", None, d, None)
    return k, array(evidence, f"{prefix}Q", *k.shape)


def product(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else parts[0] @ np.swapaxes(parts[1], -1, -2)


def times(evidence: Evidence, parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """The steps, lengths or radii of the snapshots."""
    return array(evidence, "at", len(parts[0]))


def direction_errors(w: np.ndarray, solution: MaxMargin) -> np.ndarray:
    """‖W/‖W‖_F - W^mm/‖W^mm‖_F‖_F of each snapshot."""
    units = w / np.linalg.norm(w, axis=(1, 2), keepdims=True)
    return np.linalg.norm(units - solution.direction, axis=(1, 2))


def ratio_deficits(
    problem: Problem, w: np.ndarray, solution: MaxMargin
) -> tuple[np.ndarray, np.ndarray]:
    """1 - min margin / ‖W‖ · optimal norm, of each snapshot, and bounds on its error."""
    middle, half = (solution.high + solution.low) / 2, (solution.high - solution.low) / 2
    least = np.array([problem.margins(each).min() / solution.size(each) for each in w])
    return 1 - least * middle, np.abs(least) * half + 64 * problem.shape[2] * U


def pulled(
    problem: Problem, parts: tuple[np.ndarray, ...], at: int, loss: str
) -> tuple[np.ndarray, ...]:
    """-∇L in the parameters of one snapshot, up to a positive factor."""
    _, direction = problem.descent_direction(product(parts)[at], loss)
    if len(parts) == 1:
        return (direction,)
    return direction @ parts[1][at], direction.T @ parts[0][at]


def on_spheres(
    problem: Problem, parts: tuple[np.ndarray, ...], radii: np.ndarray, loss: str = "logistic"
) -> tuple[Hypothesis, Hypothesis]:
    """Are the snapshots of the norms that they should have, and stationary there?"""
    squares = sum((part**2).sum((1, 2)) for part in parts)
    sizes = np.sqrt(squares) if len(parts) == 1 else np.asarray(squares) / 2
    off = float(np.abs(np.asarray(sizes) / radii - 1).max())
    sines = []
    for i in range(len(radii)):
        moves = pulled(problem, parts, i, loss)
        flat = np.concatenate([move.ravel() for move in moves])
        sines.append(sine(np.concatenate([part[i].ravel() for part in parts]), flat))
    worst = float(max(sines))
    return (
        Hypothesis("relative error of the radii", off, off <= 1e-9),
        Hypothesis("sin of the angle between W and -∇L", worst, worst <= STATIONARY),
    )


def sine(here: np.ndarray, pull: np.ndarray) -> float:
    """sin of the angle between W and -∇L; 1 where they point apart."""
    here, pull = here.ravel() / np.linalg.norm(here), pull.ravel() / np.linalg.norm(pull)
    return float(np.linalg.norm(pull - (here @ pull) * here)) if here @ pull > 0 else 1.0


def on_a_flow(
    parts: tuple[np.ndarray, ...], lengths: np.ndarray, start: np.ndarray
) -> tuple[Hypothesis, Hypothesis]:
    """May the snapshots of (K, Q) lie on one curve of gradient flow from the start, at these arc lengths?

    Every such curve keeps KᵀK - QᵀQ, and no two of its points are further apart than along it.
    """
    k, q = (np.concatenate([first[None], each]) for first, each in zip(start, parts, strict=True))
    balance = np.swapaxes(k, 1, 2) @ k - np.swapaxes(q, 1, 2) @ q
    sizes = (k**2).sum((1, 2)) + (q**2).sum((1, 2))
    change = float((np.linalg.norm(balance - balance[0], axis=(1, 2)) / sizes).max())
    apart = np.sqrt((np.diff(k, axis=0) ** 2 + np.diff(q, axis=0) ** 2).sum((1, 2)))
    along = np.diff(np.concatenate([[0.0], lengths]))
    need((along > 0).all(), "the arc lengths do not increase from 0")
    fastest = float((apart / along).max())
    return (
        Hypothesis("largest change of KᵀK - QᵀQ over the squared norms", change, change <= BALANCE),
        Hypothesis("largest distance over arc length", fastest, fastest <= 1 + BALANCE),
    )


def steps_of_descent(
    problem: Problem, evidence: Evidence, parts: tuple[np.ndarray, ...], loss: str = "logistic"
) -> Hypothesis:
    """Is each recorded pair of snapshots one step of normalised descent?

    Allowed are the roundings of the logits, which act on the weights one to one, and of the step.
    """
    after = weights(problem, evidence, "after_")
    need([p.shape for p in after] == [p.shape for p in parts], "pairs of snapshots are needed")
    rate = float(evidence["rate"])
    need(rate > 0, "the rate must be positive")
    n, most, d = problem.shape
    worst = 0.0
    for i in range(len(parts[0])):
        allowed = 64 * d * n * most * U * (1 + float(np.linalg.norm(product(parts)[i])))
        for part, then, move in zip(parts, after, pulled(problem, parts, i, loss), strict=True):
            step = (then[i] - part[i]) / rate
            error = np.linalg.norm(step - move / np.linalg.norm(move))
            worst = max(worst, float(error) / (allowed * (1 + 1 / rate)))
    return Hypothesis("largest error of a step over its roundings", worst, worst <= 1)


def separation(problem: Problem, evidence: Evidence) -> float:
    """The least relative slack of a row or, where that is larger, its relative multiplier."""
    margins = problem.margins(np.asarray(evidence["primal"], dtype=np.float64))
    dual = array(evidence, "dual", None)
    return float(np.maximum(margins / margins.min() - 1, dual / dual.max()).min())


def separated(problem: Problem, evidence: Evidence, solution: MaxMargin) -> Hypothesis:
    """Strict complementarity, with room: every row has a slack or a multiplier worth the name.

    A row with neither joins or leaves the support only at astronomic norms, and rates are not seen.
    """
    if solution.norm != 2.0:
        return Hypothesis("strict complementarity of the SVM", "asked of the Frobenius norm", True)
    least = separation(problem, evidence)
    return Hypothesis("strict complementarity of the SVM", least, least >= SEPARATED)


def best_tokens(problem: Problem) -> Hypothesis:
    """Does the selection have the highest score everywhere?"""
    least = float(problem.score_gaps().min())
    return Hypothesis("least lead of a selected score", least, least > 0)


def local_optimum(problem: Problem, solution: MaxMargin) -> Hypothesis:
    """Do all support tokens score below the selected ones? Support up to the error bar.

    A row of W^mm at norm `high` is known to ‖d_k‖ ‖z_k‖ · high · bar.
    """
    d, z = problem.rows()
    margins = problem.margins(solution.direction * solution.high)
    error = np.linalg.norm(d, axis=1) * np.linalg.norm(z, axis=1) * solution.high * solution.bar
    support = margins <= margins.min() + 2 * error + 1e-9
    least = float(problem.score_gaps()[support].min())
    return Hypothesis("least lead over a support token", least, least > 0)
