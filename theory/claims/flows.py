"""Gradient flow of (K, Q) under the exponential loss: the nuclear margin, and what is conserved."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under, within

from ..dynamics import Objective, flow
from ..dynamics.descent import descend
from ..instances import equal_scores
from . import judging
from .asymptotics import at_least
from .evidence import described, factors, recorded, seed_of, solved
from .problem import Problem, array

_SHAPES = {Budget.SMOKE: (2, 3, 4), Budget.DEFAULT: (3, 4, 5), Budget.FULL: (4, 5, 8)}
_LENGTHS = {Budget.SMOKE: 30.0, Budget.DEFAULT: 60.0, Budget.FULL: 150.0}


def _instance(task: Task) -> Evidence:
    data = equal_scores(*_SHAPES[task.budget], seed=seed_of(task))
    start = 0.1 * np.random.default_rng([seed_of(task), 1]).standard_normal(
        (2, *(2 * (data.shape[2],)))
    )
    return {"data": data, "start": start, "length": _LENGTHS[task.budget]}


def _flow(norm: str) -> Callable[[Evidence], Evidence]:
    def produce(drawn: Evidence) -> Evidence:
        data, length = drawn["data"], drawn["length"]
        best = solved(data, data.optimal, "nuc")["primal"]
        k, q = factors(best / np.linalg.norm(best))
        start = (
            k + drawn["start"][0],
            q + drawn["start"][1],
        )  # aligned singular spaces, with noise
        at = np.geomspace(length / 6, length, 5)
        run = flow(Objective.of(data, "exponential"), start, at)
        found = described(data, data.optimal) | solved(data, data.optimal, norm)
        return found | recorded(run) | {"start": np.stack(start)}

    return produce


def _judge_ratio(evidence: Evidence) -> Verdict:
    problem = Problem.of(evidence)
    solution = judging.max_margin(problem, evidence)
    parts = judging.weights(problem, evidence)
    start = array(evidence, "start", 2, *parts[0].shape[1:])
    w = judging.product(parts)
    deficits, bars = judging.ratio_deficits(problem, w, solution)
    sizes = np.linalg.norm(w, axis=(1, 2))
    curve = judging.on_a_flow(parts, judging.times(evidence, parts), start)
    found = [solution.hypothesis, judging.best_tokens(problem), *curve]
    return under(found, lambda: at_least(sizes, deficits, bars, -0.5))


def _conserved(drawn: Evidence) -> Evidence:
    data = drawn["data"]
    at = np.geomspace(1.0, drawn["length"], 5)
    run = flow(Objective.of(data, "exponential"), tuple(drawn["start"]), at)
    return described(data, data.optimal) | recorded(run) | {"start": drawn["start"]}


def _descended(drawn: Evidence) -> Evidence:
    """The control: normalised descent with large steps, which does not conserve it."""
    data = drawn["data"]
    objective = Objective.of(data, "exponential")
    run = descend(objective, tuple(drawn["start"]), 100, 0.5, record=[1, 3, 10, 30])
    return described(data, data.optimal) | recorded(run) | {"start": drawn["start"]}


def _judge_conserved(evidence: Evidence) -> Verdict:
    """The largest change of KᵀK - QᵀQ, relative to ‖K‖² + ‖Q‖²; the integrator's tolerance is the bound."""
    problem = Problem.of(evidence)
    k, q = judging.weights(problem, evidence)
    first = np.asarray(evidence["start"], dtype=np.float64)
    before = first[0].T @ first[0] - first[1].T @ first[1]
    change = np.swapaxes(k, 1, 2) @ k - np.swapaxes(q, 1, 2) @ q - before
    sizes = (k**2).sum((1, 2)) + (q**2).sum((1, 2))
    growth = float(sizes[-1] / (first**2).sum())
    found = Hypothesis("growth of the squared norms", growth, growth >= 4)
    worst = float((np.linalg.norm(change, axis=(1, 2)) / sizes).max())
    return under([found], lambda: within(worst, judging.BALANCE))


_PAPER = "Sheen, Chen, Wang, Zhou 2024, arXiv 2403.08699"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="sheen2024.nuclear-margin",
        title="Gradient flow of (K, Q) under the exponential loss reaches the nuclear margin",
        statement=r"$1 - \frac{\min_k A_k(W)}{\|W\|_\star} \|W^{mm}_\star\|_\star = O(\|W\|^{-1/2}), "
        r"\quad W = K Q^T, \; \dot{K} = -\nabla_K L, \; \dot{Q} = -\nabla_Q L$",
        citation=f"{_PAPER}, abstract; own wording, start near aligned singular spaces",
        level=Level.MEASURED,
        expected=Status.HOLDS,
        bound_rule="a slope of at most -1/2 over a decade of norms, after the duality gap",
        instance=_instance,
        witness=_flow("nuc"),
        control=_flow("fro"),
        judge=_judge_ratio,
    ),
    Claim(
        id="sheen2024.balance",
        title="Gradient flow of (K, Q) conserves the difference of their Gram matrices",
        statement=r"$\frac{d}{dt} (K^T K - Q^T Q) = 0$",
        citation=f"{_PAPER}; a fact of every loss of K Qᵀ, own wording",
        level=Level.MEASURED,
        expected=Status.HOLDS,
        bound_rule="1e-5 of the squared norms: the integrator's tolerance of 1e-9 a step, summed",
        instance=_instance,
        witness=_conserved,
        control=_descended,
        judge=_judge_conserved,
    ),
)
