"""Rates of normalised descent: direction, sparsity of the softmax, and how plain descent compares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dsf.certificate import Claim, Evidence, Level, Status, Verdict
from dsf.verify.judges import under, within

from ..dynamics import Objective, descend
from ..instances import equal_scores
from . import judging
from .asymptotics import at_least, slope
from .descent import _SIZES, _instance, _optimal, _run, _zero
from .evidence import described, solved
from .problem import Problem

_PAPER = "Vasudeva, Deora, Thrampoulidis 2024, arXiv 2402.05738"


def _found(evidence: Evidence) -> tuple:
    problem = Problem.of(evidence)
    solution = judging.max_margin(problem, evidence)
    parts = judging.weights(problem, evidence)
    hypotheses = [
        solution.hypothesis,
        judging.best_tokens(problem),
        judging.separated(problem, evidence, solution),
        judging.steps_of_descent(problem, evidence, parts),
    ]
    return problem, solution, parts[0], judging.times(evidence, parts), hypotheses


def _judge_rate(evidence: Evidence) -> Verdict:
    _, solution, w, at, hypotheses = _found(evidence)
    errors = judging.direction_errors(w, solution)
    bars = np.full(len(at), solution.bar)
    return under(hypotheses, lambda: at_least(at, errors, bars, -0.75))


def _judge_sparse(evidence: Evidence) -> Verdict:
    """The slope of log(-log(1 - s)) against log t, for the least selected weight s: 1 is exp(-Θ(t))."""
    problem, _, w, at, hypotheses = _found(evidence)
    rest = []
    for each in w:
        logs = np.where(problem.others(), problem.log_weights(each), -np.inf)
        rest.append(-np.logaddexp.reduce(logs, axis=1).max())

    def conclude() -> Verdict:
        if min(rest) <= 0:
            remark = "a selected token has less than half of the weight"
            return Verdict(Status.VIOLATED, 0.0, -1.0, -0.9, remark=remark)
        found, _ = slope(at, np.array(rest), np.zeros(len(at)))
        remark = f"slope {found:.4f}; the last 1 - s is exp(-{rest[-1]:.4g})"
        verdict = within(-found, -0.9)
        return Verdict(verdict.status, -found, -1.0, -0.9, remark=remark)

    return under(hypotheses, conclude)


def _from_far(drawn: Evidence) -> Evidence:
    """The control: a start of norm 1e5 that these steps cannot turn."""
    d = drawn["data"].shape[2]
    start = np.random.default_rng(0).standard_normal((d, d))
    start *= 1e5 / np.linalg.norm(start)
    return _run(lambda _: start)(drawn)


def _both(swap: bool) -> Callable[[Evidence], Evidence]:
    def produce(drawn: Evidence) -> Evidence:
        data, steps = drawn["data"], drawn["steps"]
        d = data.shape[2]
        fast = descend(Objective.of(data), np.zeros((d, d)), steps, 1.0)
        slow = descend(Objective.of(data), np.zeros((d, d)), steps, 1.0, normalised=False)
        names = ("plain", "normalised") if swap else ("normalised", "plain")
        runs = dict(zip(names, (fast.final[0], slow.final[0]), strict=True))
        return described(data, data.optimal) | solved(data, data.optimal) | runs

    return produce


def _judge_faster(evidence: Evidence) -> Verdict:
    problem = Problem.of(evidence)
    solution = judging.max_margin(problem, evidence)
    pair = np.stack([np.asarray(evidence[name], float) for name in ("normalised", "plain")])
    fast, slow = judging.direction_errors(pair, solution)

    def conclude() -> Verdict:
        verdict = within(float(fast / slow), 0.5, error=2 * solution.bar / float(slow))
        return verdict

    return under([solution.hypothesis, judging.best_tokens(problem)], conclude)


def _claim(name: str, title: str, statement: str, **rest) -> Claim:
    fields = {
        "level": Level.MEASURED,
        "expected": Status.HOLDS,
        "instance": _instance(_optimal(equal_scores, _SIZES)),
        "witness": _run(_zero),
        "control": _run(_zero, "nuc"),
    }
    return Claim(id=f"vasudeva2024.{name}", title=title, statement=statement, **(fields | rest))


CLAIMS: tuple[Claim, ...] = (
    _claim(
        "direction-rate",
        "Normalised descent turns to the max-margin direction no slower than t to the power -3/4",
        r"$\| W_t / \|W_t\| - W^{mm} / \|W^{mm}\| \| = O(t^{-3/4})$",
        citation=f"{_PAPER}, finite-time rate; exponent from memory, one-sided: fixed steps give 1/t",
        bound_rule="a slope of at most -3/4 over a decade of steps, after the error bar of the gap",
        judge=_judge_rate,
    ),
    _claim(
        "sparsification",
        "Under normalised descent the softmax leaves out other tokens exponentially in t",
        r"$1 - s_{i\,opt_i}(W_t) = e^{-\Theta(t)}$",
        citation=f"{_PAPER}, sparsification of the attention map; own wording",
        bound_rule="a slope of at least 0.9 of log(-log(1 - s)) over a decade of steps",
        control=_from_far,
        judge=_judge_sparse,
    ),
    _claim(
        "faster-than-plain",
        "After as many steps, normalised descent is at most half as far off as plain descent",
        r"$\| U_t - U^{mm} \|_{normalised} \leq \frac{1}{2} \| U_t - U^{mm} \|_{plain}, \quad U = W/\|W\|$",
        citation=f"{_PAPER}, comparison of step sizes; own wording, both with step 1",
        bound_rule="one half, after the error bar of the duality gap",
        witness=_both(False),
        control=_both(True),
        judge=_judge_faster,
    ),
)
