"""Regularisation paths: where the best attention weights of each norm point as the norm grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under, within

from ..dynamics import Objective, regularisation_path
from ..instances import TokenData, sphere
from . import judging
from .asymptotics import rate
from .evidence import (
    described,
    factors,
    locally_optimal,
    recorded,
    seed_of,
    solved,
    turned,
    well_separated,
)
from .problem import Problem

_PAPER = "Tarzanagh et al. 2023, arXiv 2308.16898"
_SIZES = {Budget.SMOKE: (3, 4, 6), Budget.DEFAULT: (4, 5, 8), Budget.FULL: (5, 6, 9)}
_SMALL = {**_SIZES, Budget.SMOKE: (2, 4, 5)}  # for K and Q
_RADII = {False: (3e3, 1e5), True: (3e2, 1e4)}  # W; K and Q


def _global(pair: bool) -> Callable[[Task], Evidence]:
    def instance(task: Task) -> Evidence:
        def draw(seed: int) -> tuple[TokenData, np.ndarray]:
            data = sphere(*(_SMALL if pair else _SIZES)[task.budget], seed=seed)
            return data, data.optimal

        data, selection = well_separated(draw, seed_of(task))
        return {"data": data, "selection": selection, "seed": seed_of(task)}

    return instance


def _local(pair: bool) -> Callable[[Task], Evidence]:
    def instance(task: Task) -> Evidence:
        seed = seed_of(task)
        data, selection = locally_optimal(
            (_SMALL if pair else _SIZES)[task.budget], seed, "nuc" if pair else "fro"
        )
        return {"data": data, "selection": selection, "seed": seed}

    return instance


def _path(drawn: Evidence, follow: np.ndarray, pair: bool) -> dict:
    """The path that stays with the selection `follow`; K and Q start beside the solution."""
    data: TokenData = drawn["data"]
    low, high = _RADII[pair]
    radii = np.geomspace(low, high, 5)
    rng = np.random.default_rng([drawn["seed"], 1])
    best = solved(data, follow, "nuc" if pair else "fro")["primal"]
    start = factors(best) if pair else (best,)
    size = max(float(np.abs(part).max()) for part in start)
    noisy = tuple(part + 0.02 * size * rng.standard_normal(part.shape) for part in start)
    return recorded(
        regularisation_path(
            Objective.of(data), turned(noisy, low), radii, follow, others=[turned(start, low)]
        )
    )


def _witness(pair: bool) -> Callable[[Evidence], Evidence]:
    def witness(drawn: Evidence) -> Evidence:
        data, selection = drawn["data"], drawn["selection"]
        found = _path(drawn, selection, pair)
        return (
            described(data, selection) | solved(data, selection, "nuc" if pair else "fro") | found
        )

    return witness


def _other_norm(pair: bool) -> Callable[[Evidence], Evidence]:
    """The control: the same path, compared with the solution of the other norm."""

    def control(drawn: Evidence) -> Evidence:
        data, selection = drawn["data"], drawn["selection"]
        found = _path(drawn, selection, pair)
        return (
            described(data, selection) | solved(data, selection, "fro" if pair else "nuc") | found
        )

    return control


def _global_path(pair: bool) -> Callable[[Evidence], Evidence]:
    """The control of a local claim: the path of the optimal tokens, compared with the local solution."""

    def control(drawn: Evidence) -> Evidence:
        data, selection = drawn["data"], drawn["selection"]
        found = _path(drawn, data.optimal, pair)
        return (
            described(data, selection) | solved(data, selection, "nuc" if pair else "fro") | found
        )

    return control


def _hypotheses(
    evidence: Evidence, local: bool
) -> tuple[Problem, judging.MaxMargin, tuple[np.ndarray, ...], np.ndarray, list[Hypothesis]]:
    problem = Problem.of(evidence)
    solution = judging.max_margin(problem, evidence)
    parts = judging.weights(problem, evidence)
    radii = judging.times(evidence, parts)
    leads = judging.local_optimum(problem, solution) if local else judging.best_tokens(problem)
    found = [solution.hypothesis, leads, *judging.on_spheres(problem, parts, radii)]
    return problem, solution, parts, radii, found


def _judge_direction(local: bool) -> Callable[[Evidence], Verdict]:
    def judge(evidence: Evidence) -> Verdict:
        problem, solution, parts, radii, found = _hypotheses(evidence, local)
        errors = judging.direction_errors(parts[0], solution)
        bars = np.full(len(errors), solution.bar)
        return under(found, lambda: rate(radii, errors, bars))

    return judge


def _judge_ratio(local: bool) -> Callable[[Evidence], Verdict]:
    def judge(evidence: Evidence) -> Verdict:
        problem, solution, parts, radii, found = _hypotheses(evidence, local)
        w = judging.product(parts)
        deficits, bars = judging.ratio_deficits(problem, w, solution)
        return under(found, lambda: rate(radii, deficits, bars))

    return judge


def _constant(problem: Problem) -> float:
    """C of the bound R Ξ - min margin <= C, for the logistic loss.

    The path is no worse than R W^mm/‖W^mm‖, whose excess risk is at most
    max|ℓ'| max(g) (T-1) exp(-R Ξ), g the score gaps; the excess risk of W is at least that of its
    worst row, min|ℓ'| min(g) exp(-min margin) / (n T). |ℓ'| is taken over the scores that occur.
    """
    n, most, _ = problem.shape
    gaps = problem.score_gaps()
    scores = problem.scores[problem.mask]
    steep, flat = -np.logaddexp(0.0, scores.min()), -np.logaddexp(0.0, scores.max())
    return float(steep - flat + np.log(gaps.max() / gaps.min()) + np.log(n * most * (most - 1)))


def _judge_margin(evidence: Evidence) -> Verdict:
    problem, solution, parts, radii, found = _hypotheses(evidence, local=False)
    w = judging.product(parts)

    def conclude() -> Verdict:
        least = np.array([problem.margins(each).min() for each in w])
        deficits = radii / solution.low - least
        spread = radii * (1 / solution.low - 1 / solution.high)
        worst = int(deficits.argmax())
        return within(float(deficits[worst]), _constant(problem), error=float(spread[worst]))

    return under(found, conclude)


def _follow_local(pair: bool) -> Callable[[Evidence], Evidence]:
    """The control: a path of stationary points that stays with another selection."""

    def control(drawn: Evidence) -> Evidence:
        seed = drawn["seed"]
        data, local = locally_optimal(drawn["data"].shape, seed, "nuc" if pair else "fro")
        found = _path({"data": data, "seed": seed}, local, pair)
        best = data.optimal
        return described(data, best) | solved(data, best, "nuc" if pair else "fro") | found

    return control


_W = r"\bar{W}_R = \mathrm{argmin}_{\|W\|_F \leq R}\, L(W)"
_KQ = r"(\bar{K}_R, \bar{Q}_R) = \mathrm{argmin}_{\|K\|^2 + \|Q\|^2 \leq 2R}\, L(K Q^T)"
_RATIO = r"\rho = \min_k A_k(W)\, \|W^{mm}_\star\|_\star / \|W\|_\star"


def _claim(name: str, title: str, statement: str, pair: bool, local: bool) -> Claim:
    return Claim(
        id=f"tarzanagh2023-svm.{name}",
        title=title,
        statement=statement,
        citation=f"{_PAPER}, convergence of regularisation paths; own wording, the rate is ours",
        level=Level.MEASURED,
        expected=Status.HOLDS,
        bound_rule="slope -1 of the logarithms within 0.1, after the error bar of the SVM's duality gap",
        instance=(_local if local else _global)(pair),
        witness=_witness(pair),
        control=(_global_path if local else _other_norm)(pair),
        judge=(_judge_ratio if pair else _judge_direction)(local),
    )


def _margin_claim(name: str, what: str, path: str, pair: bool) -> Claim:
    statement = (
        f"${path}$\n"
        r"$R / \|W^{mm}\| - \min_k A_k \leq C = \log \frac{\max |\ell'| \max \Delta\gamma}"
        r"{\min |\ell'| \min \Delta\gamma} + \log n T (T - 1)$"
    )
    return replace(
        _claim(
            f"rp-margin-{name}",
            f"The global path of {what} misses the best margin by a constant at every norm",
            statement,
            pair=pair,
            local=False,
        ),
        citation=f"{_PAPER}, global regularisation path; own constant, proved in the module",
        level=Level.CERTIFIED,
        bound_rule="own lemma: compare the risk with that of the max-margin direction of the same norm",
        control=_follow_local(pair),
        judge=_judge_margin,
    )


CLAIMS: tuple[Claim, ...] = (
    _claim(
        "rp-global-w",
        "The global path of W turns to the Frobenius max-margin solution at rate 1/R",
        f"${_W}$\n" r"$\| \bar{W}_R / R - W^{mm} / \|W^{mm}\|_F \|_F = \Theta(1 / R)$",
        pair=False,
        local=False,
    ),
    _claim(
        "rp-global-kq",
        "The global path of (K, Q) reaches the nuclear margin: one minus the ratio falls as 1/R",
        f"${_KQ}$\n" rf"$1 - \rho(\bar{{K}}_R \bar{{Q}}_R^T) = \Theta(1 / R), \quad {_RATIO}$",
        pair=True,
        local=False,
    ),
    _claim(
        "rp-local-w",
        "The local path of W turns to the max-margin solution of a locally optimal selection",
        f"${_W}$, near $W^{{mm}}_\\alpha$\n"
        r"$\| \bar{W}_R / R - W^{mm}_\alpha / \|W^{mm}_\alpha\|_F \|_F = \Theta(1 / R)$",
        pair=False,
        local=True,
    ),
    _claim(
        "rp-local-kq",
        "The local path of (K, Q) reaches the nuclear margin of a locally optimal selection",
        f"${_KQ}$, near $W^{{mm}}_{{\\star\\alpha}}$\n"
        rf"$1 - \rho = \Theta(1 / R), \quad {_RATIO}$",
        pair=True,
        local=True,
    ),
    _margin_claim("w", "W", _W, pair=False),
    _margin_claim("kq", "(K, Q)", _KQ, pair=True),
)
