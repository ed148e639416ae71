"""Normalised gradient descent: which max-margin solution the attention weights turn to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under, within

from ..dynamics import Objective, descend, margin_ratio
from ..dynamics.parameters import Parameters
from ..instances import TokenData, causal, equal_scores, prompt, sequence_to_sequence
from ..svm import Instance, Solution, att_svm_batch
from . import judging
from .asymptotics import rate
from .evidence import described, locally_optimal, seed_of, solved, stepped, watched, well_separated
from .problem import Problem

_PAPER = "Tarzanagh et al. 2023, arXiv 2308.16898"
_STEPS = {Budget.SMOKE: 1500, Budget.DEFAULT: 4000, Budget.FULL: 40000}
_RATE = 2.0  # of the step in W: directions keep an error of about this over the norm
_SIZES = {Budget.SMOKE: (3, 4, 6), Budget.DEFAULT: (4, 5, 8), Budget.FULL: (4, 5, 8)}

Draw = Callable[[Task], tuple[TokenData, np.ndarray]]


def trained(data: TokenData, start: np.ndarray | Parameters, steps: int, rate: float) -> dict:
    """Snapshots over the last decade of a run, each with the one that follows."""
    at, record = watched(steps)
    run = descend(Objective.of(data), start, steps, rate, record=record)
    return stepped(run, at, rate)


def _instance(draw: Draw) -> Callable[[Task], Evidence]:
    def instance(task: Task) -> Evidence:
        data, selection = draw(task)
        return {"data": data, "selection": selection, "steps": _STEPS[task.budget]}

    return instance


def _optimal(make: Callable, sizes: dict = _SIZES) -> Draw:
    def draw(task: Task) -> tuple[TokenData, np.ndarray]:
        def one(seed: int) -> tuple[TokenData, np.ndarray]:
            data = make(*sizes[task.budget], seed=seed)
            return data, data.optimal

        return well_separated(one, seed_of(task))

    return draw


def _zero(drawn: Evidence) -> np.ndarray:
    d = drawn["data"].shape[2]
    return np.zeros((d, d))


def _near(drawn: Evidence, size: float = 20.0) -> np.ndarray:
    """A start in the cone around the solution of the selection: a tenth of it is noise."""
    w = solved(drawn["data"], drawn["selection"])["primal"]
    noise = np.random.default_rng(0).standard_normal(w.shape)
    unit = w / np.linalg.norm(w) + 0.1 * noise / np.linalg.norm(noise)
    return size * unit / np.linalg.norm(unit)


def _run(start: Callable, norm: str | float = "fro") -> Callable[[Evidence], Evidence]:
    """The run from `start`, with the solution in the norm that the claim, or its control, names."""

    def produce(drawn: Evidence) -> Evidence:
        data, selection = drawn["data"], drawn["selection"]
        begin = start(drawn)
        found = trained(data, begin, drawn["steps"], _RATE)
        return described(data, selection) | solved(data, selection, norm) | found | {"start": begin}

    return produce


def _pair(width: int | None, norm: str | float = "nuc") -> Callable[[Evidence], Evidence]:
    """A run of (K, Q) of a width (d where None) from small random factors."""

    def produce(drawn: Evidence) -> Evidence:
        data, selection = drawn["data"], drawn["selection"]
        d = data.shape[2]
        start = 0.1 * np.random.default_rng(0).standard_normal((2, d, width or d))
        found = trained(data, tuple(start), drawn["steps"], 0.05)
        return described(data, selection) | solved(data, selection, norm) | found

    return produce


def _judge_reached(evidence: Evidence) -> Verdict:
    """Is one minus the margin ratio below 2 % at the last snapshot?"""
    problem, solution, parts, _ = _found(evidence)
    deficits, bars = judging.ratio_deficits(problem, judging.product(parts), solution)
    found = [
        solution.hypothesis,
        judging.best_tokens(problem),
        judging.steps_of_descent(problem, evidence, parts),
    ]
    return under(found, lambda: within(float(deficits[-1]), 0.02, error=float(bars[-1])))


def _found(evidence: Evidence) -> tuple[Problem, judging.MaxMargin, tuple, np.ndarray]:
    problem = Problem.of(evidence)
    solution = judging.max_margin(problem, evidence)
    parts = judging.weights(problem, evidence)
    return problem, solution, parts, judging.times(evidence, parts)


def _equal_others(problem: Problem) -> Hypothesis:
    """B1: within each sample all tokens but the selected one have the same score."""
    others = problem.others()
    spread = max(float(np.ptp(row[keep])) for row, keep in zip(problem.scores, others, strict=True))
    return Hypothesis("spread of the other scores of a sample", spread, spread == 0)


def _judge_global(equal: bool) -> Callable[[Evidence], Verdict]:
    def judge(evidence: Evidence) -> Verdict:
        problem, solution, parts, at = _found(evidence)
        found = [solution.hypothesis, judging.best_tokens(problem)]
        found.append(judging.separated(problem, evidence, solution))
        found += [_equal_others(problem)] if equal else []
        found.append(judging.steps_of_descent(problem, evidence, parts))
        errors = judging.direction_errors(parts[0], solution)
        return under(found, lambda: rate(at, errors, np.full(len(at), solution.bar)))

    return judge


def _judge_local(evidence: Evidence) -> Verdict:
    problem, solution, parts, at = _found(evidence)
    start = np.asarray(evidence["start"], dtype=np.float64)
    angle = float((start * solution.direction).sum() / np.linalg.norm(start))
    found = [
        solution.hypothesis,
        judging.local_optimum(problem, solution),
        judging.separated(problem, evidence, solution),
        Hypothesis("correlation of the start with the solution", angle, angle >= 0.99),
        judging.steps_of_descent(problem, evidence, parts),
    ]
    errors = judging.direction_errors(parts[0], solution)
    return under(found, lambda: rate(at, errors, np.full(len(at), solution.bar)))


def _judge_stays(evidence: Evidence) -> Verdict:
    """Is the last direction that of the selection's solution, within a tenth?"""
    problem, solution, parts, _ = _found(evidence)
    found = [solution.hypothesis, judging.steps_of_descent(problem, evidence, parts)]
    last = float(judging.direction_errors(parts[0], solution)[-1])
    return under(found, lambda: within(last, 0.1, error=solution.bar))


def _beaten(task: Task) -> tuple[TokenData, np.ndarray]:
    """A selection that a support token beats: second best tokens of data with equal other scores."""
    data = equal_scores(*_SIZES[task.budget], seed=seed_of(task))
    selection = data.optimal.copy()
    selection[0] = (selection[0] + 1) % data.shape[1]
    return data, selection


def _two_dimensional(task: Task) -> tuple[TokenData, np.ndarray]:
    """Equal other scores, a nuclear solution far from rank one, and far from the Frobenius one."""
    seeds = np.random.SeedSequence(seed_of(task)).generate_state(1000)
    for some in np.split(seeds, 20):
        draws = [equal_scores(*_SIZES[task.budget], seed=int(child)) for child in some]
        instances = [Instance(x.ragged(), x.queries, x.optimal) for x in draws]
        for data, found in zip(draws, att_svm_batch(instances, norm="nuclear"), strict=True):
            if not isinstance(found, Solution):
                continue
            sizes = found.singular_values
            if sizes[1] <= 0.6 * sizes[0]:
                continue
            best = float(np.linalg.norm(solved(data, data.optimal)["primal"]))
            if 1 - float(margin_ratio(data, data.optimal, found.W, best, "fro")) > 0.05:
                return data, data.optimal
    raise ArithmeticError("a thousand nuclear solutions of nearly rank one")


def _take_optimal(drawn: Evidence) -> Evidence:
    return {**drawn, "selection": drawn["data"].optimal}


def _claim(name: str, title: str, statement: str, draw: Draw, **rest) -> Claim:
    fields = {
        "level": Level.MEASURED,
        "expected": Status.HOLDS,
        "citation": f"{_PAPER}; own wording, for normalised steps",
        "bound_rule": "slope -1 of the logarithms within 0.1, after the error bar of the duality gap",
        "instance": _instance(draw),
        "witness": _run(_zero),
        "control": _run(_zero, "nuc"),
        "judge": _judge_global(equal=False),
    }
    return Claim(id=name, title=title, statement=statement, **(fields | rest))


_TURNS = (
    r"$\| W_t / \|W_t\|_F - W^{mm}%s / \|W^{mm}%s\|_F \|_F = \Theta(1 / t), \quad "
    r"W_{t+1} = W_t - \eta \nabla L / \|\nabla L\|_F$"
)

SVM_CLAIMS: tuple[Claim, ...] = (
    _claim(
        "tarzanagh2023-svm.gd-global",
        "Descent from zero turns to the optimal max-margin solution where all other scores are equal",
        _TURNS % ("", ""),
        _optimal(equal_scores),
        judge=_judge_global(equal=True),
    ),
    _claim(
        "tarzanagh2023-svm.gd-local",
        "Descent from the cone of a locally optimal selection turns to its max-margin solution",
        _TURNS % (r"_\alpha", r"_\alpha"),
        lambda task: locally_optimal(_SIZES[task.budget], seed_of(task)),
        witness=_run(_near),
        control=_run(lambda drawn: _near(drawn, 1e-6)),
        judge=_judge_local,
    ),
    _claim(
        "tarzanagh2023-svm.gd-stays-everywhere",
        "Descent stays in the cone of any feasible selection (it leaves those that a support token beats)",
        r"$W_0 = R\, W^{mm}_\alpha / \|W^{mm}_\alpha\|_F \Rightarrow W_t / \|W_t\|_F \to "
        r"W^{mm}_\alpha / \|W^{mm}_\alpha\|_F$ for every feasible $\alpha$",
        _beaten,
        expected=Status.VIOLATED,
        citation=f"{_PAPER}, tightness of local convergence; own wording of its negation",
        bound_rule="a tenth, after the error bar of the duality gap",
        witness=_run(_near),
        control=lambda drawn: _run(_near)(_take_optimal(drawn)),
        judge=_judge_stays,
    ),
    _claim(
        "tarzanagh2023-svm.causal",
        "Causal self-attention: every position is a sample, and descent turns to their max-margin solution",
        _TURNS % ("", ""),
        _optimal(
            causal,
            {Budget.SMOKE: (2, 4, 12), Budget.DEFAULT: (2, 5, 16), Budget.FULL: (4, 6, 32)},
        ),
        witness=_run(_near),
        control=_run(_near, "nuc"),
    ),
    _claim(
        "tarzanagh2023-svm.sequence-to-sequence",
        "Self-attention at every position turns to the max-margin solution over all positions",
        _TURNS % ("", ""),
        _optimal(
            sequence_to_sequence,
            {Budget.SMOKE: (2, 3, 10), Budget.DEFAULT: (2, 4, 16), Budget.FULL: (3, 5, 32)},
        ),
        witness=_run(_near),
        control=_run(_near, 3.0),
    ),
    _claim(
        "tarzanagh2023-svm.gd-kq",
        "Descent of (K, Q) reaches the nuclear margin",
        r"$\frac{\min_k A_k(W_t)}{\|W_t\|_\star} \|W^{mm}_\star\|_\star \to 1, \quad W_t = K_t Q_t^T$",
        _two_dimensional,
        bound_rule="two per cent of the margin at the last step, after the duality gap",
        witness=_pair(None),
        control=_pair(None, "fro"),
        judge=_judge_reached,
    ),
    _claim(
        "tarzanagh2023-svm.gd-kq-any-width",
        "Descent of (K, Q) of width one reaches the nuclear margin (not where the solution has rank two)",
        r"$K, Q \in R^{d \times 1}: \frac{\min_k A_k(W_t)}{\|W_t\|_\star} \|W^{mm}_\star\|_\star \to 1$",
        _two_dimensional,
        expected=Status.VIOLATED,
        citation=f"{_PAPER}, rank bound m of the nuclear program; own wording of a stronger claim",
        bound_rule="two per cent of the margin at the last step, after the duality gap",
        witness=_pair(1),
        control=_pair(None),
        judge=_judge_reached,
    ),
)

MAX_MARGIN_CLAIMS: tuple[Claim, ...] = (
    _claim(
        "tarzanagh2023-max-margin.prompt",
        "A tunable prompt turns to its max-margin direction",
        r"$\| p_t / \|p_t\| - p^{mm} / \|p^{mm}\| \| = \Theta(1 / t), \quad p^{mm} = "
        r"\mathrm{argmin} \|p\|: p^T (k_{i\alpha_i} - k_{it}) \geq 1$",
        _optimal(
            prompt, {Budget.SMOKE: (2, 3, 12), Budget.DEFAULT: (3, 4, 20), Budget.FULL: (4, 6, 40)}
        ),
        citation="Tarzanagh et al. 2023, arXiv 2306.13596; own wording, for normalised steps",
        witness=_run(_near),
        control=_run(_near, 3.0),
    ),
)
