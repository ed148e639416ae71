r"""Conversions between architectures: identities of recurrences, each with its condition."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import symbolic_identity, under

from .exact import Matrix, dot, rationals

_STEPS = 3


def _stabilised(forget_normaliser: bool) -> Mapping[str, tuple[Any, Any]]:
    """mLSTM's quotient with any stabiliser m against the quotient without one (scalar state)."""
    import sympy

    names = ("f", "i", "k", "q", "v", "m")
    f, g, k, q, v, m = ([sympy.Symbol(f"{n}{t}", real=True) for t in range(_STEPS)] for n in names)
    h = n = hs = ns = before = sympy.Integer(0)
    identities = {}
    for t in range(_STEPS):
        h = sympy.exp(f[t]) * h + sympy.exp(g[t]) * k[t] * v[t]
        n = sympy.exp(f[t]) * n + sympy.exp(g[t]) * k[t]
        decay, gain = sympy.exp(f[t] + before - m[t]), sympy.exp(g[t] - m[t])
        hs = decay * hs + gain * k[t] * v[t]
        ns = (sympy.exp(f[t]) if forget_normaliser else decay) * ns + gain * k[t]
        before = m[t]
        identities[f"quotient {t + 1}"] = ((hs * q[t]) / (ns * q[t]), (h * q[t]) / (n * q[t]))
        identities[f"denominator {t + 1}"] = (ns * q[t], n * q[t] * sympy.exp(-m[t]))
    return identities


_mlstm = symbolic_identity(lambda: _stabilised(False), lambda: _stabilised(True))

STABILISER_CANCELS = Claim(
    id="sieber2024.gauge-mlstm-stabiliser",
    title="The stabiliser of mLSTM is a gauge: any m gives the same output",
    statement=(
        r"$\frac{\tilde{h}_i^T q_i}{\tilde{n}_i^T q_i} = \frac{h_i^T q_i}{n_i^T q_i}, \quad "
        r"\tilde{n}_i = e^{-m_i} n_i, \quad "
        r"\tilde{h}_i = e^{f_i + m_{i-1} - m_i} \tilde{h}_{i-1} + e^{\imath_i - m_i} k_i v_i^T$"
    ),
    citation="Beck et al., arXiv 2405.04517, section 2.2 (stabilisation), own wording",
    level=Level.SYMBOLIC,
    expected=Status.HOLDS,
    bound_rule="exact algebra over free symbols, three steps",
    instance=_mlstm.instance,
    witness=_mlstm.witness,
    control=_mlstm.control,
    judge=_mlstm.judge,
)


def _ones_column(shifted: bool) -> Mapping[str, tuple[Any, Any]]:
    """n_i = Λ_i n_{i-1} + k_i is the state of one more value channel, whose values are 1."""
    import sympy

    from dsf.symbolic import Step, unroll, vector

    keys = [vector(f"k{t}_", 2) for t in range(_STEPS)]
    gates = [sympy.diag(*vector(f"a{t}_", 2)) for t in range(_STEPS)]
    steps = [Step(a, k, sympy.eye(2)) for a, k in zip(gates, keys, strict=True)]
    values = [
        sympy.Matrix([[sympy.Symbol(f"v{t}"), 2 if shifted and t == 1 else 1]])
        for t in range(_STEPS)
    ]
    _, state = unroll(steps, values)
    normaliser = sympy.zeros(2, 1)
    for a, k in zip(gates, keys, strict=True):
        normaliser = a * normaliser + k
    return {f"n{i}": (state[i, 1], normaliser[i]) for i in range(2)}


_column = symbolic_identity(lambda: _ones_column(False), lambda: _ones_column(True))

NORMALISER_IS_A_COLUMN = Claim(
    id="sieber2024.normaliser-is-a-value-channel",
    title="The normaliser is one more value channel, filled with ones",
    statement=r"$n_i = \Lambda_i n_{i-1} + k_i = [\,h_i\,]_{:, V+1}$ where $h_i = \Lambda_i h_{i-1} + k_i [v_i^T, 1]$",
    citation="Reading of the normaliser η in arXiv 2405.15731v3, section 3, as part of the recurrence",
    level=Level.SYMBOLIC,
    expected=Status.HOLDS,
    bound_rule="exact algebra over free symbols, three steps",
    instance=_column.instance,
    witness=_column.witness,
    control=_column.control,
    judge=_column.judge,
)

_SIZES = {Budget.SMOKE: 4, Budget.DEFAULT: 8, Budget.FULL: 24}
_TRIPLES = ((3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25))


def _draw(task: Task) -> Evidence:
    """Orthonormal rational keys: products of plane rotations by Pythagorean triples."""
    rng, size = task.rng(), _SIZES[task.budget]
    frame = [[Fraction(int(i == j)) for j in range(size)] for i in range(size)]
    for _ in range(2 * size):
        i, j = (int(x) for x in rng.choice(size, 2, replace=False))
        a, b, c = _TRIPLES[rng.integers(len(_TRIPLES))]
        cos, sin = Fraction(a, c), Fraction(b, c)
        frame[i], frame[j] = (
            [cos * x - sin * y for x, y in zip(frame[i], frame[j], strict=True)],
            [sin * x + cos * y for x, y in zip(frame[i], frame[j], strict=True)],
        )
    return {
        "k": frame,
        "v": rng.integers(-9, 10, (size, 3)),
        "beta": rng.integers(1, 8, size),
        "order": rng.permutation(size),
    }


def _orthonormal(drawn: Evidence) -> Evidence:
    keys = [drawn["k"][int(i)] for i in drawn["order"]]
    return {"k": keys, "v": drawn["v"], "beta": [Fraction(int(b), 4) for b in drawn["beta"]]}


def _repeated(drawn: Evidence) -> Evidence:
    evidence = _orthonormal(drawn)
    return {**evidence, "k": [evidence["k"][0]] * len(evidence["k"])}


def _judge_delta(evidence: Evidence) -> Verdict:
    """Both recurrences in exact rationals; measured is the largest difference of their states."""
    keys, values = evidence["k"], rationals(np.asarray(evidence["v"]).tolist())
    lengths = [dot(key, key) for key in keys]
    unit = all(x == 1 for x in lengths)

    def conclude() -> Verdict:
        size, width = len(keys[0]), len(values[0])
        delta: Matrix = [[Fraction(0)] * width for _ in range(size)]
        linear: Matrix = [[Fraction(0)] * width for _ in range(size)]
        gap = Fraction(0)
        for key, value, beta in zip(keys, values, evidence["beta"], strict=True):
            stored = [dot(key, [row[c] for row in delta]) for c in range(width)]
            for r in range(size):
                for c in range(width):
                    delta[r][c] += beta * key[r] * (value[c] - stored[c])
                    linear[r][c] += beta * key[r] * value[c]
                    gap = max(gap, abs(delta[r][c] - linear[r][c]))
        return Verdict(Status.VIOLATED if gap else Status.HOLDS, float(gap), 0.0, 0.0)

    return under([Hypothesis("keys have length 1", unit, unit)], conclude)


DELTA_RULE_ORTHONORMAL = Claim(
    id="sieber2024.deltanet-orthonormal-keys",
    title="The delta rule with orthonormal keys is linear attention that writes β k v",
    statement=(
        r"$(I - \beta_i k_i k_i^T) h_{i-1} + \beta_i k_i v_i^T = h_{i-1} + \beta_i k_i v_i^T$ "
        r"where $k_i^T k_j = \delta_{ij}$"
    ),
    citation="Schlag et al., arXiv 2102.11174, section 4.2 (delta rule), own wording",
    level=Level.ENCLOSED,
    expected=Status.HOLDS,
    bound_rule="exact rational arithmetic",
    instance=_draw,
    witness=_orthonormal,
    control=_repeated,
    judge=_judge_delta,
)
