r"""Heads that keep several tokens: W settles to a finite part and a max-margin part.

The head vᵀo - μ‖o‖² over orthonormal tokens makes the risk -γᵀs + μ‖s‖², whose minimiser over the
simplex is s* = sparsemax(γ / 2μ): the selected sets, the finite part and the max-margin part are all
known exactly. The finite part of any W is determined by its softmax, since (x_t - x_τ)ᵀWz is
log(s_t / s_τ); what is tested is that the softmax is the predicted one, and the rest of W.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under, within

from ..dynamics import Objective, QuadraticHead, descend
from ..instances import TokenData, orthonormal
from . import judging
from .asymptotics import at_least
from .evidence import described, seed_of, solved_with_equals, stepped, watched
from .problem import Problem, U, need

_MU = 0.2
_CLEAR = 0.1  # the least weight of a kept token, and the least loss of one that is not
_ALONG = 1e-3  # sin of the angle between W and -∇L on the path: gradients lose digits as s nears s*
_SHAPES = {Budget.SMOKE: (2, 3, 5), Budget.DEFAULT: (3, 4, 8), Budget.FULL: (4, 5, 10)}
_STEPS = {Budget.SMOKE: 1500, Budget.DEFAULT: 8000, Budget.FULL: 200_000}


def sparsemax(scores: np.ndarray, mu: float) -> tuple[np.ndarray, np.ndarray]:
    """argmax of γᵀs - μ‖s‖² over the simplex, (n, T), and what a token outside would lose, (n, T)."""
    scaled = scores / (2 * mu)
    order = -np.sort(-scaled, axis=1)
    sums, ranks = np.cumsum(order, axis=1), np.arange(1, scores.shape[1] + 1)
    kept = (1 + ranks * order > sums).sum(1)
    threshold = (np.take_along_axis(sums, kept[:, None] - 1, 1) - 1) / kept[:, None]
    return np.maximum(scaled - threshold, 0.0), np.maximum(2 * mu * (threshold - scaled), 0.0)


def _instance(task: Task) -> Evidence:
    """A draw with a sample of two tokens or more, one that leaves out some, and no close calls."""
    for child in np.random.SeedSequence(seed_of(task)).generate_state(500):
        data = orthonormal(*_SHAPES[task.budget], seed=int(child))
        target, loss = sparsemax(data.scores, _MU)
        clear = np.where(target > 0, target, loss).min() >= _CLEAR
        kept = (target > 0).sum(1)
        if clear and kept.max() > 1 and kept.min() < data.shape[1]:
            return {"data": data, "steps": _STEPS[task.budget]}
    raise ArithmeticError("no clear draw in five hundred")


def _described(data: TokenData, p: float = 2.0) -> dict:
    target, _ = sparsemax(data.scores, _MU)
    best = target.argmax(1)
    equal = target > 0
    equal[np.arange(len(best)), best] = False
    return described(data, best) | solved_with_equals(data, best, equal, p) | {"mu": _MU}


def _trained(mu: float) -> Callable[[Evidence], Evidence]:
    def produce(drawn: Evidence) -> Evidence:
        data, steps, rate = drawn["data"], drawn["steps"], 20.0
        assert data.head is not None
        at, record = watched(steps)
        objective = Objective.of(data, "linear", QuadraticHead(data.head, mu))
        start = np.zeros((data.shape[2],) * 2)
        run = descend(objective, start, steps, rate, normalised=False, record=record)
        return _described(data) | stepped(run, at, rate) | {"head_mu": mu}

    return produce


def _pull(problem: Problem, w: np.ndarray, mu: float) -> np.ndarray:
    """-∇ of the mean of -γᵀs + μ‖s‖²; of -γ + 2μ s only what differs from one token to the next counts."""
    s = np.exp(problem.log_weights(w))
    target, loss = sparsemax(problem.scores, mu)
    slopes = loss + 2 * mu * (s - target)
    table = s * (slopes - (s * slopes).sum(1, keepdims=True))
    moved = np.einsum("it,itd->id", table, problem.tokens)
    return -(moved.T @ problem.queries) / len(s)


def _steps(problem: Problem, evidence: Evidence, w: np.ndarray) -> Hypothesis:
    """Is each pair of snapshots one step of descent on the head that is named?"""
    (after,) = judging.weights(problem, evidence, "after_")
    need(after.shape == w.shape, "pairs of snapshots are needed")
    rate, mu = float(evidence["rate"]), float(evidence["head_mu"])
    n, most, d = problem.shape
    worst = 0.0
    for here, then in zip(w, after, strict=True):
        error = float(np.linalg.norm(then - here - rate * _pull(problem, here, mu)))
        size = float(np.linalg.norm(here))
        worst = max(worst, error / (64 * d * n * most * U * (1 + size) * (1 + rate)))
    return Hypothesis("largest error of a step over its roundings", worst, worst <= 1)


def _orthonormal(problem: Problem) -> Hypothesis:
    off = problem.tokens @ np.swapaxes(problem.tokens, 1, 2) - np.eye(problem.shape[1])
    worst = float(np.abs(off).max())
    return Hypothesis("largest error of the tokens' Gram matrices", worst, worst <= 1e-12)


def _target(problem: Problem, evidence: Evidence) -> tuple[np.ndarray, Hypothesis]:
    """sparsemax, recomputed, and whether the tokens that share a selection are those it keeps."""
    target, _ = sparsemax(problem.scores, float(evidence["mu"]))
    kept = target > 0
    kept[np.arange(len(kept)), problem.selection] ^= True
    need(problem.equal is not None, "`equal` is missing")
    agree = bool((kept == problem.equal).all())
    return target, Hypothesis("the shared tokens are those of sparsemax", agree, agree)


def _judge_sparsemax(evidence: Evidence) -> Verdict:
    problem = Problem.of(evidence)
    parts = judging.weights(problem, evidence)
    at = judging.times(evidence, parts)
    target, same = _target(problem, evidence)
    errors = np.array([np.abs(np.exp(problem.log_weights(w)) - target).max() for w in parts[0]])
    bars = np.full(len(at), 1e-13)
    found = [_orthonormal(problem), same, _steps(problem, evidence, parts[0])]
    return under(found, lambda: at_least(at, errors, bars, -0.8))


# The regularisation path of this head: L - L* = Σ ν_t s_t + μ‖s - s*‖² exactly, ν the losses.


def _path(drawn: Evidence, mu: float = _MU, p: float = 2.0) -> Evidence:
    """The path of the head with μ, beside the max-margin part in ℓ_p."""
    data: TokenData = drawn["data"]
    assert data.head is not None
    found = _described(data)
    target, loss = sparsemax(data.scores, mu)
    objective = Objective.of(data, "linear", QuadraticHead(data.head, mu))
    size = float(np.linalg.norm(found["primal"]))
    shape = found["primal"].shape

    def function(theta: np.ndarray, radius: float) -> tuple[float, np.ndarray]:
        scale = float(np.linalg.norm(theta)) / radius
        w = (theta / scale).reshape(shape)
        s = objective.attention(w).weights()
        excess = float(((loss * s).sum(1) + mu * ((s - target) ** 2).sum(1)).mean())
        gradient = objective.gradient(w)
        slope = -np.exp(gradient.log_scale) / (excess * scale) * gradient.direction.ravel()
        unit = theta / np.linalg.norm(theta)
        return float(np.log(excess)), slope - unit * (unit @ slope)

    radii, kept = size * np.geomspace(2.0, 27.0, 6), []
    theta = found["primal"].ravel()
    for radius in radii:
        for _ in range(3):
            theta = radius / np.linalg.norm(theta) * theta
            options = {"maxiter": 3000, "ftol": 0.0, "gtol": 1e-12, "maxcor": 30}
            theta = minimize(
                function, theta, (float(radius),), jac=True, method="L-BFGS-B", options=options
            ).x
        theta = radius / np.linalg.norm(theta) * theta
        kept.append(theta.reshape(shape))
    beside = _described(data, p)
    return beside | {"at": radii, "W": np.stack(kept), "head_mu": mu}


def _of_another_head(drawn: Evidence) -> Evidence:
    """The control: the path of a head that penalises a little more."""
    return _path(drawn, mu=1.02 * _MU)


def _beside_another_norm(drawn: Evidence) -> Evidence:
    """The control: the path, beside the max-margin part in ℓ_3."""
    return _path(drawn, p=3.0)


def _parts(
    problem: Problem, w: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each W its component in S_fin and the rest, flat; and W^fin."""
    rows = problem.equalities()
    n = len(problem.mask)
    logs = np.log(np.where(target > 0, target, 1.0))
    wanted = (logs[np.arange(n), problem.selection][:, None] - logs)[problem.equal]
    finite = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    flat = w.reshape(len(w), -1)
    inside = flat @ np.linalg.pinv(rows) @ rows
    return inside, flat - inside, finite


def _judge_path(finite: bool) -> Callable[[Evidence], Verdict]:
    def judge(evidence: Evidence) -> Verdict:
        problem = Problem.of(evidence)
        solution = judging.max_margin(problem, evidence)
        (w,) = judging.weights(problem, evidence)
        target, same = _target(problem, evidence)
        inside, rest, exact = _parts(problem, w, target)
        mu = float(evidence["head_mu"])
        turn = max(judging.sine(each, _pull(problem, each, mu)) for each in w)
        ends = Hypothesis("sin of the angle between W and -∇L", turn, turn <= _ALONG)
        found = [solution.hypothesis, _orthonormal(problem), same, ends]
        sizes = np.linalg.norm(rest, axis=1)

        def conclude() -> Verdict:
            if finite:
                errors = np.linalg.norm(inside - exact, axis=1)
                margins = np.array([problem.margins(each).min() for each in w])
                need(len(w) >= 4 and (margins > 0).all(), "four points with margins are needed")
                late = errors[-3:]
                need((late > 1e-13).all(), "the finite part is within rounding")
                slope = float(np.polyfit(margins[-3:], np.log(late), 1)[0])
                verdict = within(abs(slope + 1), 0.15)
                remark = f"slope {slope:.4f} of the logarithm against the margin"
                return Verdict(verdict.status, verdict.measured, None, 0.15, remark=remark)
            units = rest / sizes[:, None]
            errors = np.linalg.norm(units - solution.direction.ravel(), axis=1)
            return at_least(sizes, errors, np.full(len(w), solution.bar), -0.5)

        return under(found, conclude)

    return judge


def _claim(name: str, title: str, statement: str, **rest) -> Claim:
    fields = {
        "level": Level.MEASURED,
        "expected": Status.HOLDS,
        "citation": "Tarzanagh et al. 2023, arXiv 2308.16898, nonlinear heads; own wording and example",
        "instance": _instance,
        "witness": _path,
    }
    return Claim(
        id=f"tarzanagh2023-svm.{name}", title=title, statement=statement, **(fields | rest)
    )


CLAIMS: tuple[Claim, ...] = (
    _claim(
        "sparsemax",
        "With a quadratic head on orthonormal tokens, descent turns softmax into sparsemax",
        r"$s(W_t) \to s^\star = \mathrm{sparsemax}(\gamma / 2\mu), \quad "
        r"\|s(W_t) - s^\star\|_\infty = O(t^{-0.8})$",
        bound_rule="a slope of at most -0.8 over a decade of steps: the limit is -1",
        witness=_trained(_MU),
        control=_trained(_MU / 4),
        judge=_judge_sparsemax,
    ),
    _claim(
        "nonlinear-finite-part",
        "The component of W among kept tokens tends to the finite part, exponentially in the margin",
        r"$\| \Pi_{fin}(W_R) - W^{fin} \|_F = e^{-\Theta(R)}, \quad "
        r"(x_{it} - x_{i\tau})^T W^{fin} z_i = \log s^\star_{it} / s^\star_{i\tau}$",
        bound_rule="slope -1 of the logarithm against the margin of W, within 0.15",
        control=_of_another_head,
        judge=_judge_path(finite=True),
    ),
    _claim(
        "nonlinear-direction",
        "The rest of W turns to the max-margin solution with equalities among kept tokens",
        r"$W_R - \Pi_{fin}(W_R) \propto W^{mm} + O(R^{-1/2})$",
        bound_rule="a slope of at most -1/2 over a decade of norms: the limit is -1",
        control=_beside_another_norm,
        judge=_judge_path(finite=False),
    ),
)
