r"""What rounding does to the gradient of log-decays: it is a difference of sums, so it loses what they share.

From integers and dyadic decays everything is exact: dq and dk are rounded to a type's bits, and the sum itself is
formed without error. What is lost is lost by storing dq and dk.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.claims.rounding import rounded
from dsf.verify.judges import under, within

_STEPS = {Budget.SMOKE: 24, Budget.DEFAULT: 64, Budget.FULL: 256}
_SIZE, _UNIT, _LARGEST = 4, 64, 4096
_CITATION = (
    "Refutes a hope that is not the paper's; Yang et al., arXiv 2312.06635 (gradient of the log-gates), "
    "own wording"
)

Rows = list[list[Fraction]]


def _draw(task: Task) -> Evidence:
    """Integers q, k, v, dy (T, 4) in -8 … 8, and decays of a head that forgets fast: 1 … 8 in units of 1/64."""
    rng, steps = task.rng(), _STEPS[task.budget]
    drawn = {name: rng.integers(-8, 9, (steps, _SIZE)) for name in ("q", "k", "v", "dy")}
    return {**drawn, "decay": rng.integers(1, 9, steps)}


def _exact(rows: np.ndarray) -> Rows:
    return [[Fraction(int(x)) for x in row] for row in rows]


def _walk(reads: Rows, left: Rows, right: Rows, decays: list[Fraction]) -> Rows:
    """R_t = a_t R_{t-1} + left_t right_tᵀ, read along `reads`: R_t reads_t, step by step."""
    state = [[Fraction(0)] * len(right[0]) for _ in left[0]]
    found = []
    for read, x, y, decay in zip(reads, left, right, decays, strict=True):
        state = [
            [decay * s + a * b for s, b in zip(row, y, strict=True)]
            for row, a in zip(state, x, strict=True)
        ]
        found.append(
            [sum((s * r for s, r in zip(row, read, strict=True)), Fraction(0)) for row in state]
        )
    return found


def gradients(evidence: Evidence) -> tuple[Rows, Rows, list[Fraction]]:
    """dq_t = S_t dy_t, dk_t = R_t v_t and the decays of S from the empty state, exact."""
    q, k, v, dy = (_exact(np.asarray(evidence[name])) for name in ("q", "k", "v", "dy"))
    decays = [Fraction(int(x), _UNIT) for x in np.asarray(evidence["decay"])]
    late = [Fraction(0), *reversed(decays[1:])]
    dk = _walk(v[::-1], q[::-1], dy[::-1], late)[::-1]
    return _walk(dy, k, v, decays), dk, decays


def of_gates(q: Rows, k: Rows, dq: Rows, dk: Rows) -> list[Fraction]:
    """Σ_{s ≥ t} (⟨q_s, dq_s⟩ - ⟨k_s, dk_s⟩), exact."""
    total, found = Fraction(0), []
    for a, b, c, d in zip(q[::-1], dq[::-1], k[::-1], dk[::-1], strict=True):
        total += sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))
        total -= sum((x * y for x, y in zip(c, d, strict=True)), Fraction(0))
        found.append(total)
    return found[::-1]


def _hypotheses(evidence: Evidence) -> list[Hypothesis]:
    arrays = [np.asarray(evidence[name]) for name in ("q", "k", "v", "dy")]
    shapes = {array.shape for array in arrays} | {(len(np.asarray(evidence["decay"])), _SIZE)}
    whole = all(array.dtype.kind == "i" and np.abs(array).max(initial=0) <= 64 for array in arrays)
    decays = np.asarray(evidence["decay"])
    inside = bool(decays.dtype.kind == "i" and (decays > 0).all() and (decays < _UNIT).all())
    return [
        Hypothesis("steps", len(decays), len(shapes) == 1 and 0 < len(decays) <= _LARGEST),
        Hypothesis("small integers", whole, whole),
        Hypothesis("decays in (0, 1)", inside, inside),
    ]


def _judge(bits_of_bound: int) -> Callable[[Evidence], Verdict]:
    def judge(evidence: Evidence) -> Verdict:
        bits = int(evidence["bits"])
        known = Hypothesis("bits", bits, bits in (8, 11, 24, 53))

        def conclude() -> Verdict:
            q, k = (_exact(np.asarray(evidence[name])) for name in "qk")
            dq, dk, _ = gradients(evidence)
            exact = of_gates(q, k, dq, dk)
            stored = [[[rounded(x, bits) for x in row] for row in rows] for rows in (dq, dk)]
            found = of_gates(q, k, *stored)
            largest = max(map(abs, exact))
            if not largest:
                return Verdict(Status.INCONCLUSIVE, remark="every gradient is 0")
            error = max(abs(x - y) for x, y in zip(found, exact, strict=True)) / largest
            remark = (
                f"the first log-decay has gradient {float(exact[0]):g}, found {float(found[0]):g}"
            )
            verdict = within(float(error), 2.0**-bits_of_bound)
            return Verdict(verdict.status, verdict.measured, None, verdict.bound, remark=remark)

        return under([*_hypotheses(evidence), known], conclude)

    return judge


def _claim(slug: str, title: str, stored: int, wider: int, name: str) -> Claim:
    return Claim(
        id=f"yang2023.{slug}",
        title=title,
        statement=(
            r"$\max_t |\widehat{dg}_t - dg_t| \leq 2^{-"
            + str(stored)
            + r"} \max_t |dg_t|$ for $\widehat{dg}_t = \sum_{s \geq t} (\langle q_s, \widehat{dq}_s \rangle - "
            r"\langle k_s, \widehat{dk}_s \rangle)$"
        ),
        citation=_CITATION,
        level=Level.ENCLOSED,
        expected=Status.VIOLATED,
        bound_rule=f"exact rationals; what storing dg itself in {name} costs; the control has {wider} bits",
        instance=_draw,
        witness=lambda drawn: {**drawn, "bits": stored},
        control=lambda drawn: {**drawn, "bits": wider},
        judge=_judge(stored),
    )


CLAIMS = (
    _claim(
        "gate-gradient-from-bfloat16",
        "The gradient of log-decays may be formed from dq and dk stored in bfloat16 (it may not)",
        8,
        24,
        "bfloat16",
    ),
    _claim(
        "gate-gradient-from-float16",
        "The gradient of log-decays may be formed from dq and dk stored in float16 (it may not)",
        11,
        24,
        "float16",
    ),
    _claim(
        "gate-gradient-from-float32",
        "From dq and dk in float32 the gradient of log-decays is as exact as float32 (it is not)",
        24,
        53,
        "float32",
    ),
)
