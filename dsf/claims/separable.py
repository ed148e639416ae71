r"""T1: separable attention is the recurrence with the normaliser in its transition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import dsf
from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import symbolic_identity, under, within

from .tensors import array, tensor

_STEPS, _KEYS = 3, 2


def _identities(inverted: bool) -> Mapping[str, tuple[Any, Any]]:
    """y_i of the recurrence against Σ_j φ_iᵀψ_j v_j / η_i, with φ, ψ, v free symbols."""
    import sympy

    from dsf.symbolic import Step, scalar, unroll, vector

    phi = [vector(f"phi{i}_", _KEYS, positive=True) for i in range(_STEPS)]
    psi = [vector(f"psi{i}_", _KEYS, positive=True) for i in range(_STEPS)]
    values = [sympy.Matrix([sympy.Symbol(f"v{i}", real=True)]) for i in range(_STEPS)]
    weights = [[(phi[i].T * psi[j])[0] for j in range(i + 1)] for i in range(_STEPS)]
    eta = [sympy.Add(*row) for row in weights]
    steps = []
    for i in range(_STEPS):
        ratio = (eta[i - 1] / eta[i]) if i else sympy.Integer(1)
        steps.append(
            Step(scalar(1 / ratio if inverted else ratio, _KEYS), psi[i] / eta[i], phi[i].T)
        )
    outputs, _ = unroll(steps, values)
    return {
        f"y{i + 1}": (
            outputs[i][0],
            sympy.Add(*(w * values[j][0] for j, w in enumerate(weights[i]))) / eta[i],
        )
        for i in range(_STEPS)
    }


_separable = symbolic_identity(lambda: _identities(False), lambda: _identities(True))

SEPARABLE_ATTENTION = Claim(
    id="sieber2024.t1-separable-attention",
    title="Separable attention is a recurrence with transition η_{i-1}/η_i",
    statement=(
        r"$\sum_{j \leq i} \frac{\phi(q_i)^T \psi(k_j)}{\eta_i} v_j = C_i h_i, \quad "
        r"h_i = \frac{\eta_{i-1}}{\eta_i} h_{i-1} + \frac{1}{\eta_i} \psi(k_i) v_i^T, \quad C_i = \phi(q_i)^T$"
    ),
    citation="Sieber et al., arXiv 2405.15731v3, section 3 (attention in the framework), own wording",
    level=Level.SYMBOLIC,
    expected=Status.HOLDS,
    bound_rule="exact algebra over free symbols, three steps and two features",
    instance=_separable.instance,
    witness=_separable.witness,
    control=_separable.control,
    judge=_separable.judge,
)

_LENGTHS = {Budget.SMOKE: 65, Budget.DEFAULT: 513, Budget.FULL: 2049}


def _draw(task: Task) -> Evidence:
    rng, length = task.rng(), _LENGTHS[task.budget]
    draw = {
        name: rng.standard_normal((length, size)) for name, size in (("q", 8), ("k", 8), ("v", 4))
    }
    return {name: x.astype(np.float32) for name, x in draw.items()}


def _run(drawn: Evidence, forget_the_ratio: bool = False) -> Evidence:
    """Linear attention in the gauge of the state, in float32, by whatever form is selected."""
    from dsf.gauges import normaliser_into_state
    from dsf.mixers import linear_attention
    from dsf.structure import Identity

    q, k, v = (tensor(drawn[name])[None, :, None, :] for name in ("q", "k", "v"))
    system = normaliser_into_state(linear_attention(q, k)).system
    if forget_the_ratio:
        system = system.replace(transition=Identity())
    y, _ = dsf.run(system, v)
    return {**drawn, "y": array(y[0, :, 0])}


def _forget(drawn: Evidence) -> Evidence:
    return _run(drawn, forget_the_ratio=True)


def _judge(evidence: Evidence) -> Verdict:
    """Direct attention in float64, and the bound of a sum of positive paths."""
    q, k, v, y = (np.asarray(evidence[name], dtype=np.float64) for name in ("q", "k", "v", "y"))
    length, keys = q.shape
    phi, psi = _elu_plus_one(q), _elu_plus_one(k)
    weights = np.tril(phi @ psi.T)
    eta = weights.sum(1, keepdims=True)
    roundings = 8 * length + 4 * keys + 32
    nu = roundings * 2.0**-24
    positive = Hypothesis("min η", float(eta.min()), bool(eta.min() > 0))
    few = Hypothesis("n u < 1/2", nu, nu < 0.5)

    def conclude() -> Verdict:
        weighted = weights @ np.abs(v) / eta
        share = np.abs(y - weights @ v / eta) / (2 * nu / (1 - nu) * weighted)
        return within(float(share.max()), 1.0)

    return under([positive, few], conclude)


def _elu_plus_one(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


SEPARABLE_ATTENTION_RUN = Claim(
    id="sieber2024.t1-linear-attention-run",
    title="Linear attention run in the gauge of the state is direct linear attention",
    statement=(
        r"$|\hat{y}_i - y_i| \leq \frac{2 n u}{1 - n u} "
        r"\sum_{j \leq i} \frac{\phi(q_i)^T \phi(k_j)}{\eta_i} |v_j|, \quad n = 8T + 4K + 32$"
    ),
    citation="Sieber et al., arXiv 2405.15731v3, section 3; bound: Higham 2002, lemma 3.1",
    level=Level.CERTIFIED,
    expected=Status.HOLDS,
    bound_rule="positive weights: a path has at most n float32 roundings; measured is the largest share",
    instance=_draw,
    witness=_run,
    control=_forget,
    judge=_judge,
)
