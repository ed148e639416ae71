"""Mirror descent with p-norm potentials: the margin of the p-norm, not of the Euclidean one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under

from ..dynamics import Objective, mirror_descent
from ..instances import equal_scores
from . import judging
from .asymptotics import at_least
from .evidence import described, seed_of, solved, stepped, watched
from .problem import Problem, need

_SHAPES = {Budget.SMOKE: (3, 4, 5), Budget.DEFAULT: (3, 4, 6), Budget.FULL: (6, 8, 10)}
_STEPS = {Budget.SMOKE: 1500, Budget.DEFAULT: 6000, Budget.FULL: 60_000}


def _instance(task: Task) -> Evidence:
    data = equal_scores(*_SHAPES[task.budget], seed=seed_of(task))
    return {"data": data, "steps": _STEPS[task.budget]}


def _trained(p: float, norm: float) -> Callable[[Evidence], Evidence]:
    def produce(drawn: Evidence) -> Evidence:
        data, steps = drawn["data"], drawn["steps"]
        at, record = watched(steps, span=20)
        d = data.shape[2]
        run = mirror_descent(Objective.of(data), np.zeros((d, d)), steps, 0.5, p, record=record)
        found = stepped(run, at, 0.5) | {"potential": p}
        return described(data, data.optimal) | solved(data, data.optimal, norm) | found

    return produce


def _mirror_steps(problem: Problem, evidence: Evidence, p: float) -> Hypothesis:
    """sin of the angle between ∇ψ(W⁺) - ∇ψ(W) and -∇L, at worst, over what rounding allows."""
    (here,), (after,) = (judging.weights(problem, evidence, name) for name in ("", "after_"))
    need(here.shape == after.shape, "pairs of snapshots are needed")
    worst = 0.0
    for w, then in zip(here, after, strict=True):
        step = np.sign(then) * np.abs(then) ** (p - 1) - np.sign(w) * np.abs(w) ** (p - 1)
        _, direction = problem.descent_direction(w)
        step, direction = step / np.linalg.norm(step), direction / np.linalg.norm(direction)
        worst = max(worst, float(np.linalg.norm(step - direction)))
    return Hypothesis("sin of the angle between a mirror step and -∇L", worst, worst <= 1e-6)


def _judge(p: float) -> Callable[[Evidence], Verdict]:
    def judge(evidence: Evidence) -> Verdict:
        problem = Problem.of(evidence)
        solution = judging.max_margin(problem, evidence)
        parts = judging.weights(problem, evidence)
        judging.times(evidence, parts)
        need(float(evidence["potential"]) == p, "the potential is not that of the claim")
        deficits, bars = judging.ratio_deficits(problem, parts[0], solution)
        sizes = np.array([solution.size(w) for w in parts[0]])
        found = [
            solution.hypothesis,
            judging.best_tokens(problem),
            _mirror_steps(problem, evidence, p),
        ]
        return under(found, lambda: at_least(sizes, deficits, bars, -0.5))

    return judge


def _claim(name: str, p: float) -> Claim:
    return Claim(
        id=f"julistiono2024.mirror-{name}",
        title=f"Mirror descent with the potential of the {p:g}-norm reaches the margin of that norm",
        statement=r"$1 - \frac{\min_k A_k(W_t)}{\|W_t\|_p} \|W^{mm}_p\|_p = O(\|W_t\|_p^{-1/2})"
        rf", \quad \psi(W) = \frac{{1}}{{p}} \|W\|_p^p, \; p = {p:g}$",
        citation="Julistiono, Tarzanagh, Azizan 2024, arXiv 2410.14581, abstract; own wording, own steps",
        level=Level.MEASURED,
        expected=Status.HOLDS,
        bound_rule="a slope of at most -1/2 over a decade of norms, after the duality gap",
        instance=_instance,
        witness=_trained(p, p),
        control=_trained(p, 2.0 if p > 2 else 3.0),
        judge=_judge(p),
    )


CLAIMS: tuple[Claim, ...] = (_claim("1.75", 1.75), _claim("3", 3.0))
