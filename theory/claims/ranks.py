"""Ranks of max-margin solutions, with certificates: what a tolerance can do to a published curve."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under, within

from ..instances import prompt, sphere
from ..svm import Instance, att_svm
from . import judging
from .evidence import described, seed_of, solved
from .problem import Problem, array, need

_PAPER = "Tarzanagh et al. 2023, arXiv 2308.16898"
_SHAPES = {Budget.SMOKE: (4, 4, 8), Budget.DEFAULT: (5, 5, 10), Budget.FULL: (10, 5, 15)}
_COUNTS = {Budget.SMOKE: 3, Budget.DEFAULT: 8, Budget.FULL: 30}


def _frobenius(make: Callable) -> Callable[[Evidence], Evidence]:
    def produce(drawn: Evidence) -> Evidence:
        data = make(*drawn["shape"], seed=drawn["seed"])
        return described(data, data.optimal) | solved(data, data.optimal)

    return produce


def _one(task: Task) -> Evidence:
    return {"shape": _SHAPES[task.budget], "seed": seed_of(task)}


def _judge_frobenius(evidence: Evidence) -> Verdict:
    """Singular values above the error bar are those of the solution (Weyl); queries bound the rank."""
    problem = Problem.of(evidence)
    solution = judging.max_margin(problem, evidence)
    need(solution.norm == 2.0, "the norm must be the Frobenius norm")
    n, _, d = problem.shape
    least = int((np.linalg.svd(solution.direction, compute_uv=False) > solution.bar).sum())
    most = int(np.linalg.matrix_rank(problem.queries))

    def conclude() -> Verdict:
        full = min(n, d)
        remark = f"the rank is at least {least} and at most {most}"
        status = Status.HOLDS if least >= full else Status.VIOLATED if most < full else None
        return Verdict(
            status or Status.INCONCLUSIVE, float(-least), None, float(-full), remark=remark
        )

    return under([solution.hypothesis], conclude)


def _several(task: Task) -> Evidence:
    seeds = np.random.SeedSequence(seed_of(task)).generate_state(_COUNTS[task.budget])
    return {"shape": _SHAPES[task.budget], "seeds": [int(seed) for seed in seeds]}


def _solutions(norm: str) -> Callable[[Evidence], Evidence]:
    def produce(drawn: Evidence) -> Evidence:
        runs = {}
        for i, seed in enumerate(drawn["seeds"]):
            data = sphere(*drawn["shape"], seed=seed)
            runs[f"run{i}"] = described(data, data.optimal) | solved(data, data.optimal, norm)
        return {"runs": runs}

    return produce


def _with_scs(tolerance: str) -> Callable[[Evidence], Evidence]:
    """Certified solutions, and beside them what SCS returns for the same programs."""

    def produce(drawn: Evidence) -> Evidence:
        found = _solutions("nuc")(drawn)
        for i, seed in enumerate(drawn["seeds"]):
            data = sphere(*drawn["shape"], seed=seed)
            instance = Instance(data.ragged(), data.queries, data.optimal)
            other = att_svm(instance, norm="nuclear", solver="cvxpy:scs")
            found["runs"][f"run{i}"]["other"] = other.W  # type: ignore[union-attr]
        return {**found, "tolerance": tolerance}

    return produce


def _ranks(evidence: Evidence) -> tuple[list[int], list[Problem], list[Hypothesis]]:
    """The ranks of the primal points (exact zeros, up to rounding), each within the gap of optimal."""
    ranks, problems, found = [], [], []
    need(len(evidence["runs"]) >= 3, "three runs or more are needed")
    for run in evidence["runs"].values():
        problem = Problem.of(run)
        solution = judging.max_margin(problem, run)
        sizes = np.linalg.svd(solution.direction, compute_uv=False)
        ranks.append(int((sizes > 1e-9 * sizes[0]).sum()))
        problems.append(problem)
        found.append(solution.hypothesis)
    return ranks, problems, found


def _judge_lower(evidence: Evidence) -> Verdict:
    ranks, problems, found = _ranks(evidence)
    n, _, d = problems[0].shape

    def conclude() -> Verdict:
        verdict = within(float(np.mean(ranks)) / min(n, d), 0.8)
        remark = f"ranks {ranks}, min(n, d) = {min(n, d)}"
        return Verdict(verdict.status, verdict.measured, None, 0.8, remark=remark)

    return under(found, conclude)


def _judge_tolerance(evidence: Evidence) -> Verdict:
    """The mean distance of the tolerance's ranks of the other solver from those of the certified points."""
    ranks, problems, found = _ranks(evidence)
    need(evidence["tolerance"] in ("absolute 1e-7", "relative 1e-3"), "not one of the tolerances")
    others = []
    for problem, run in zip(problems, evidence["runs"].values(), strict=True):
        d = problem.shape[2]
        sizes = np.linalg.svd(array(run, "other", d, d), compute_uv=False)
        absolute = evidence["tolerance"] == "absolute 1e-7"
        others.append(int((sizes > (1e-7 if absolute else 1e-3 * sizes[0])).sum()))

    def conclude() -> Verdict:
        off = float(np.abs(np.array(others) - np.array(ranks)).mean())
        verdict = within(off, 0.25)
        remark = f"ranks {others} at {evidence['tolerance']}, certified points {ranks}"
        return Verdict(verdict.status, off, None, 0.25, remark=remark)

    return under(found, conclude)


def _claim(name: str, title: str, statement: str, **rest) -> Claim:
    fields = {
        "level": Level.CERTIFIED,
        "expected": Status.HOLDS,
        "citation": f"{_PAPER}, ranks of the solutions; own wording",
        "instance": _several,
    }
    return Claim(
        id=f"tarzanagh2023-svm.{name}", title=title, statement=statement, **(fields | rest)
    )


CLAIMS: tuple[Claim, ...] = (
    _claim(
        "rank-frobenius",
        "The Frobenius max-margin solution has the full rank min(n, d)",
        r"$\mathrm{rank}\, W^{mm} = \min(n, d)$",
        bound_rule="Weyl's inequality: singular values above the certified error of the solution",
        instance=_one,
        witness=_frobenius(sphere),
        control=_frobenius(prompt),
        judge=_judge_frobenius,
    ),
    _claim(
        "rank-nuclear",
        "Nuclear max-margin solutions have at most four fifths of the full rank, on average",
        r"$\mathrm{rank}\, W^{mm}_\star \leq \frac{4}{5} \min(n, d)$ on average, "
        r"$\|W\|_\star \leq (1 + 10^{-5})\, \|W^{mm}_\star\|_\star$",
        bound_rule="four fifths; each point is feasible, of that rank, and optimal to its duality gap",
        witness=_solutions("nuc"),
        control=_solutions("fro"),
        judge=_judge_lower,
    ),
    _claim(
        "rank-at-absolute-tolerance",
        "Ranks of SCS's nuclear solutions at absolute tolerance 1e-7 are the solutions' (they are noise)",
        r"$\#\{i: \sigma_i(W_{SCS}) > 10^{-7}\} = \mathrm{rank}\, W^{mm}_\star$",
        citation="umich-sota/TF-as-SVM, notebook on ranks: how the published curve was computed",
        level=Level.MEASURED,
        expected=Status.VIOLATED,
        bound_rule="a quarter of a rank on average; the control is relative tolerance 1e-3",
        witness=_with_scs("absolute 1e-7"),
        control=_with_scs("relative 1e-3"),
        judge=_judge_tolerance,
        requires=("cvxpy", "scs"),
    ),
)
