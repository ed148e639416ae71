"""Next-token prediction by one attention layer: the max-margin problem of the token-priority graphs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under, within

from ..dynamics import Objective, regularisation_path
from ..instances import NextTokenGraph, TokenData, next_token_graph
from . import judging
from .asymptotics import rate
from .evidence import described, recorded, seed_of, solved_with_equals
from .problem import Problem, U, array, need

_SHAPES = {Budget.SMOKE: (4, 4, 5, 8), Budget.DEFAULT: (6, 4, 6, 8), Budget.FULL: (10, 6, 8, 8)}


def _repeats(graph: NextTokenGraph) -> tuple[np.ndarray, np.ndarray]:
    """The first place of the next token in each sequence, and its other places."""
    same = graph.ids == graph.next_ids[:, None]
    first = same.argmax(1)
    same[np.arange(len(first)), first] = False
    return first, same


def _acyclic(task: Task) -> Evidence:
    """A draw without equal rows, feasible and well separated."""
    for child in np.random.SeedSequence(seed_of(task)).generate_state(500):
        graph = next_token_graph(*_SHAPES[task.budget], seed=int(child), cyclic=False)
        first, same = _repeats(graph)
        if len(graph.rows()[0]) < 3:
            continue
        try:
            found = solved_with_equals(graph.data, first, same)
        except ArithmeticError:
            continue
        problem = Problem.of(described(graph.data, first) | found)
        dual = found["dual"][found["dual"] > judging.SEPARATED * found["dual"].max()]
        uneven = np.ptp(np.log(dual)) >= 0.3  # even rows have no first-order term to be seen
        if uneven and judging.separation(problem, found) >= 2 * judging.SEPARATED:
            return {"data": graph.data, "selection": first, "equal": same}
    raise ArithmeticError("no well-separated acyclic graph in five hundred draws")


def _path(p: float) -> Callable[[Evidence], Evidence]:
    """The path, beside the graph's max-margin solution in ℓ_p."""

    def produce(drawn: Evidence) -> Evidence:
        data, first = drawn["data"], drawn["selection"]
        found = solved_with_equals(data, first, drawn["equal"])
        radii = np.geomspace(3e3, 1e5, 5)
        start = radii[0] * found["primal"] / np.linalg.norm(found["primal"])
        noise = np.random.default_rng(0).standard_normal(start.shape)
        start = start + 0.02 * np.abs(start).max() * noise
        run = regularisation_path(Objective.of(data, "log"), start, radii, first)
        beside = solved_with_equals(data, first, drawn["equal"], p)
        return described(data, first) | beside | recorded(run)

    return produce


def _judge_path(evidence: Evidence) -> Verdict:
    problem = Problem.of(evidence)
    solution = judging.max_margin(problem, evidence)
    parts = judging.weights(problem, evidence)
    radii = judging.times(evidence, parts)
    copies = bool(((problem.scores == 1) == _selected(problem)).all())
    found = [
        solution.hypothesis,
        Hypothesis("scores mark the selected tokens and their copies", copies, copies),
        judging.separated(problem, evidence, solution),
        *judging.on_spheres(problem, parts, radii, "log"),
    ]
    errors = judging.direction_errors(parts[0], solution)
    return under(found, lambda: rate(radii, errors, np.full(len(radii), solution.bar)))


def _selected(problem: Problem) -> np.ndarray:
    marked = np.zeros_like(problem.mask)
    marked[np.arange(len(marked)), problem.selection] = True
    need(problem.equal is not None, "`equal` is missing")
    return marked | problem.equal


# Convexity of the log-loss in W.

_PAIRS = {Budget.SMOKE: 40, Budget.DEFAULT: 400, Budget.FULL: 10_000}


def _segments(task: Task) -> Evidence:
    graph = next_token_graph(*_SHAPES[task.budget], seed=seed_of(task))
    rng = np.random.default_rng([seed_of(task), 1])
    d = graph.data.shape[2]
    scale = rng.choice([0.3, 3.0, 30.0], (_PAIRS[task.budget], 1, 1, 1))
    return {"data": graph.data, "ends": scale * rng.standard_normal((_PAIRS[task.budget], 2, d, d))}


def _with_loss(loss: str):
    def produce(drawn: Evidence) -> Evidence:
        data: TokenData = drawn["data"]
        first = data.scores.argmax(1)
        return described(data, first) | {"ends": drawn["ends"], "loss": loss}

    return produce


def _judge_convex(evidence: Evidence) -> Verdict:
    """The largest L(middle) - (L(start) + L(end))/2, over what the roundings of the logits allow."""
    problem = Problem.of(evidence)
    d = problem.shape[2]
    ends = array(evidence, "ends", None, 2, d, d)
    need(evidence["loss"] in ("log", "linear"), "the loss is not one of those of the claim")
    marks = (problem.scores == 0) | (problem.scores == 1)
    copies = bool(marks.all() and (problem.scores.sum(1) > 0).all())

    def risk(w: np.ndarray) -> float:
        with np.errstate(divide="ignore"):
            logs = problem.log_weights(w) + np.log(problem.scores)
        each = np.logaddexp.reduce(logs, axis=1)
        return float(-each.mean() if evidence["loss"] == "log" else -np.exp(each).mean())

    def conclude() -> Verdict:
        worst = -np.inf
        for start, end in ends:
            left, right = risk(start), risk(end)
            above = risk((start + end) / 2) - (left + right) / 2
            size = float(max(np.linalg.norm(start), np.linalg.norm(end)))
            worst = max(worst, above / (64 * d * U * (1 + size)))
        return within(worst, 1.0)

    found = Hypothesis("scores mark the next token", copies, copies)
    return under([found], conclude)


_PAPER = "Li, Huang, Ildiz, Rawat, Oymak 2024, arXiv 2403.08081"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        id="li2024.graph-svm",
        title="Next-token training on acyclic graphs turns to the graph's max-margin solution",
        statement=r"$\| \bar{W}_R / R - W^{svm} / \|W^{svm}\|_F \|_F = \Theta(1 / R)$"
        "\n"
        r"$W^{svm} = \mathrm{argmin} \|W\|_F: (e_i - e_j)^T W e_k \geq 1$ for edges $i \to j$ under $k$",
        citation=f"{_PAPER}, Graph-SVM and regularisation path; own wording, acyclic case",
        level=Level.MEASURED,
        expected=Status.HOLDS,
        bound_rule="slope -1 of the logarithms within 0.1, after the error bar of the duality gap",
        instance=_acyclic,
        witness=_path(2.0),
        control=_path(3.0),
        judge=_judge_path,
    ),
    Claim(
        id="li2024.log-loss-is-convex",
        title="The log-loss of a copying attention layer is convex in W; the linear loss is not",
        statement=r"$L(\frac{W + V}{2}) \leq \frac{1}{2} (L(W) + L(V)), \quad "
        r"L(W) = -\frac{1}{n} \sum_i \log \sum_{t: x_{it} = e_{y_i}} s_{it}(W)$",
        citation=f"{_PAPER}, convexity under log-loss; own wording",
        level=Level.MEASURED,
        expected=Status.HOLDS,
        bound_rule="the roundings of the logits, on random segments",
        instance=_segments,
        witness=_with_loss("log"),
        control=_with_loss("linear"),
        judge=_judge_convex,
    ),
)
