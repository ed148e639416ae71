r"""T3: what the degree of a truncated exponential costs and breaks, in exact rationals."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Level, Status, Task, Verdict

from .exact import dot, rationals

_LENGTHS = {Budget.SMOKE: 8, Budget.DEFAULT: 24, Budget.FULL: 96}
_GRID = 8  # queries and keys are integers / 8: exact, and logits of both signs
_REACH = (1, 2, 4, 8)
_ALLOWED = (Fraction(1, 10), Fraction(1, 100), Fraction(1, 1000))


def taylor(s: Fraction, degree: int) -> Fraction:
    """Σ_{p<=P} s^p / p!, exactly."""
    total = term = Fraction(1)
    for p in range(1, degree + 1):
        term = term * s / p
        total += term
    return total


def _draw(task: Task) -> Evidence:
    rng, length = task.rng(), _LENGTHS[task.budget]
    q, k = (rng.integers(-2 * _GRID, 2 * _GRID + 1, (length, 2)) for _ in range(2))
    q[-1], k[0] = (2 * _GRID, 0), (-2 * _GRID, 0)  # the last query meets a key that points away
    return {"q": q, "k": k}


def _odd(drawn: Evidence) -> Evidence:
    return {**drawn, "degree": 3}


def _even(drawn: Evidence) -> Evidence:
    return {**drawn, "degree": 2}


def _judge_weights(evidence: Evidence) -> Verdict:
    """The least weight Σ_{p<=P} s^p/p! among the logits of the sequence."""
    q, k = (rationals(np.asarray(evidence[n]).tolist()) for n in ("q", "k"))
    degree = int(evidence["degree"])
    logits = [dot(a, b) / _GRID**2 for i, a in enumerate(q) for b in k[: i + 1]]
    weights = [taylor(s, degree) for s in logits]
    least = min(weights)
    status = Status.HOLDS if least > 0 else Status.VIOLATED
    remark = f"degree {degree}: the least weight is {float(least):.6g}, at the logit {float(min(logits))}"
    return Verdict(status, -float(least), None, 0.0, remark=remark)


ODD_TRUNCATIONS = Claim(
    id="sieber2024.t3-odd-truncations-are-averages",
    title="Taylor attention of degree 3 is a weighted average, as softmax attention is (it is not)",
    statement=r"$\sum_{p \leq 3} \frac{(q_i^T k_j)^p}{p!} > 0$ for all $j \leq i$",
    citation="Parity of truncations of the softmax of Sieber et al., arXiv 2405.15731v3, section 3, own wording",
    level=Level.ENCLOSED,
    expected=Status.VIOLATED,
    bound_rule="exact rational arithmetic; the control is degree 2",
    instance=_draw,
    witness=_odd,
    control=_even,
    judge=_judge_weights,
)


def exponential(x: int) -> tuple[Fraction, Fraction]:
    """A lower and an upper bound of e^x for an integer x >= 0, 2^-60 apart or less, relatively."""
    terms = 4 * x + 40
    low = taylor(Fraction(x), terms)
    rest = Fraction(x) ** (terms + 1) / math.factorial(terms + 1) / (1 - Fraction(x, terms + 2))
    return low, low + rest


def relative_error(degree: int, reach: int) -> tuple[Fraction, Fraction]:
    r"""Bounds of max |T_P(s)/e^s - 1| over |s| <= R: of the larger of its values at the two ends.

    (T_P(s) e^{-s})' = -s^P/P! e^{-s}, so the quotient is 1 at s = 0 and monotone on either side.
    """
    low, high = exponential(reach)
    at_minus = [abs(taylor(Fraction(-reach), degree) * e - 1) for e in (low, high)]
    at_plus = [abs(taylor(Fraction(reach), degree) / e - 1) for e in (low, high)]
    return max(min(at_minus), min(at_plus)), max(*at_minus, *at_plus)


def _degrees(drawn: Evidence) -> Evidence:
    """The smallest degrees, found in floating point."""
    del drawn
    found = []
    for reach in _REACH:
        errors = []
        for degree in range(1, 64):
            ends = (
                sum(s**p / math.factorial(p) for p in range(degree + 1)) / math.exp(s) - 1
                for s in (-float(reach), float(reach))
            )
            errors.append(max(map(abs, ends)))
        found.append([1 + next(i for i, e in enumerate(errors) if e <= a) for a in _ALLOWED])
    return {"degrees": np.array(found)}


def _one_less(drawn: Evidence) -> Evidence:
    return {"degrees": _degrees(drawn)["degrees"] - np.eye(len(_REACH), len(_ALLOWED), dtype=int)}


def _judge_degrees(evidence: Evidence) -> Verdict:
    """Each degree suffices and the one before does not, in exact rationals; measured: how many fail."""
    degrees = np.asarray(evidence["degrees"])
    if degrees.shape != (len(_REACH), len(_ALLOWED)) or degrees.min() < 1 or degrees.max() > 128:
        return Verdict(Status.INCONCLUSIVE, remark=f"not a table of degrees: {degrees.tolist()}")
    wrong = 0
    for reach, row in zip(_REACH, degrees.tolist(), strict=True):
        for degree, allowed in zip(row, _ALLOWED, strict=True):
            suffices = relative_error(degree, reach)[1] <= allowed
            least = degree == 1 or relative_error(degree - 1, reach)[0] > allowed
            wrong += not (suffices and least)
    status = Status.VIOLATED if wrong else Status.HOLDS
    rows = "; ".join(f"R = {r}: {row}" for r, row in zip(_REACH, degrees.tolist(), strict=True))
    return Verdict(status, float(wrong), 0.0, 0.0, remark=f"degrees for 10, 1, 0.1 %: {rows}")


DEGREES = Claim(
    id="sieber2024.t3-degrees",
    title="The degree that a relative error of the kernel asks for grows with the logits",
    statement=(
        r"$\min\{P : |T_P(s)/e^s - 1| \leq \epsilon \;\; \forall\, |s| \leq R\}$ for "
        r"$R = 1, 2, 4, 8$ and $\epsilon = 10^{-1}, 10^{-2}, 10^{-3}$ is as tabled"
    ),
    citation="State expansion of truncated softmax, Sieber et al., arXiv 2405.15731v3, section 4, own wording",
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="rational enclosures of the exponential; the quotient is monotone on either side of zero",
    instance=lambda task: {},
    witness=_degrees,
    control=_one_less,
    judge=_judge_degrees,
)

CLAIMS = (ODD_TRUNCATIONS, DEGREES)
