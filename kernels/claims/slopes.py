r"""Is sigmoid attention the smoother one at every input? Its weights' slopes against softmax's, exactly.

The Jacobian of softmax, diag(p) - p pᵀ, is symmetric: its norm lies between its largest diagonal entry p (1 - p) and
its largest sum of a row's sizes, 2 p (1 - p). That of sigmoid weights is diagonal.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from dsf.certificate import Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under

_KEYS = 16


def _draw(task: Task) -> Evidence:
    """e^s of sixteen keys, integers in 12 … 20: all scores near log T."""
    return {"exponentials": task.rng().integers(12, 21, _KEYS)}


def _near_zero(drawn: Evidence) -> Evidence:
    """The control: the same scores less log T, so that every sigmoid is near 1 / T."""
    return {"exponentials": np.ones_like(drawn["exponentials"])}


def _judge(evidence: Evidence) -> Verdict:
    """The largest slope of σ(s - log T) against an upper and a lower bound of softmax's."""
    gains = [Fraction(int(x)) for x in np.asarray(evidence["exponentials"])]
    known = Hypothesis("e^s > 0, keys", len(gains), 1 < len(gains) <= 4096 and min(gains) > 0)

    def conclude() -> Verdict:
        count, total = len(gains), sum(gains)
        own = max((g / count) / (1 + g / count) ** 2 for g in gains)
        diagonal = max(g / total * (1 - g / total) for g in gains)
        remark = f"sigmoid {float(own):.4f}, softmax in [{float(diagonal):.4f}, {float(2 * diagonal):.4f}]"
        if own <= diagonal:
            return Verdict(Status.HOLDS, float(own), None, float(diagonal), remark=remark)
        if own > 2 * diagonal:
            return Verdict(Status.VIOLATED, float(own), None, float(2 * diagonal), remark=remark)
        return Verdict(Status.INCONCLUSIVE, float(own), None, float(diagonal), remark=remark)

    return under([known], conclude)


SMALLER_EVERYWHERE = Claim(
    id="ramapuram2024.slopes-smaller-everywhere",
    title="Sigmoid weights change less with their scores than softmax's at every input (they do not)",
    statement=r"$\max_j \sigma'(s_j - \log T) \leq \| \mathrm{diag}(p) - p p^T \|_2, \quad p = \mathrm{softmax}(s)$",
    citation=(
        "Refutes a hope that is not the paper's, whose bounds are for the worst case; "
        "Ramapuram et al., arXiv 2409.04431v2, section 3, own wording"
    ),
    level=Level.ENCLOSED,
    expected=Status.VIOLATED,
    bound_rule="exact rationals: a row sum bounds softmax's norm from above; the control has scores of zero",
    instance=_draw,
    witness=lambda drawn: dict(drawn),
    control=_near_zero,
    judge=_judge,
)
