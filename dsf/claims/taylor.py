r"""T3: softmax attention truncated to a finite state."""

from __future__ import annotations

import math

import numpy as np

import dsf
from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import under, within

from .tensors import array, tensor

_LENGTHS = {Budget.SMOKE: 48, Budget.DEFAULT: 192, Budget.FULL: 768}
_DEGREE, _LOWER = 6, 1
_ROUNDINGS = 2.0**-44  # float64: 2^9 roundings per path cover features, sums and the quotient


def _draw(task: Task) -> Evidence:
    rng, length = task.rng(), _LENGTHS[task.budget]
    return {
        "q": rng.uniform(-0.7, 0.7, (length, 2)),
        "k": rng.uniform(-0.7, 0.7, (length, 2)),
        "v": rng.uniform(-1, 1, (length, 3)),
    }


def _truncated(drawn: Evidence, degree: int = _DEGREE) -> Evidence:
    """Linear attention on stacked tensor powers x^{⊗p}/√(p!) up to `degree`."""
    from dsf.mixers import linear_attention

    q, k = (tensor(_powers(drawn[name], degree))[None, :, None, :] for name in ("q", "k"))
    y, _ = dsf.run(linear_attention(q, k, feature=None), tensor(drawn["v"])[None, :, None, :])
    return {**drawn, "y": array(y[0, :, 0])}


def _too_low(drawn: Evidence) -> Evidence:
    return _truncated(drawn, _LOWER)


def _powers(x: np.ndarray, degree: int) -> np.ndarray:
    stack, power = [np.ones((len(x), 1))], np.ones((len(x), 1))
    for p in range(1, degree + 1):
        power = (power[:, :, None] * x[:, None, :]).reshape(len(x), -1)
        stack.append(power / math.sqrt(math.factorial(p)))
    return np.concatenate(stack, 1)


def _judge(evidence: Evidence) -> Verdict:
    """Direct softmax, and Lagrange's remainder: |e^s - T_P(s)| <= |s|^{P+1}/(P+1)! · e^{max(s, 0)}."""
    q, k, v, y = (np.asarray(evidence[name], dtype=np.float64) for name in ("q", "k", "v", "y"))
    logits = q @ k.T
    causal = np.tril(np.ones_like(logits))
    kernel = np.exp(logits) * causal
    attention = kernel @ v / kernel.sum(1, keepdims=True)
    size = float(np.abs(logits * causal).max())
    rho = size ** (_DEGREE + 1) / math.factorial(_DEGREE + 1) * math.exp(size)
    bounded = Hypothesis("relative error of the kernel", rho, rho < 0.5)

    def conclude() -> Verdict:
        largest = float(np.abs(v).max())
        bound = (2 * rho / (1 - rho) + _ROUNDINGS) * largest
        return within(float(np.abs(y - attention).max()), bound)

    return under([bounded], conclude)


TRUNCATED_SOFTMAX = Claim(
    id="sieber2024.t3-truncated-softmax",
    title="Softmax attention truncated at degree 6 is a finite recurrence with a bounded error",
    statement=(
        r"$|\hat{y}_i - y_i| \leq \frac{2 \rho}{1 - \rho} \max_j |v_j|, \quad "
        r"\rho = \frac{R^{P+1}}{(P+1)!}\, e^R, \quad |q_i^T k_j| \leq R, \; P = 6$"
    ),
    citation="Sieber et al., arXiv 2405.15731v3, section 4 (softmax by a finite state); Lagrange remainder",
    level=Level.CERTIFIED,
    expected=Status.HOLDS,
    bound_rule="Lagrange remainder of the exponential on the logits that occur, plus 2^9 float64 roundings",
    instance=_draw,
    witness=_truncated,
    control=_too_low,
    judge=_judge,
)
