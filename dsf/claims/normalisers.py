r"""T4: when linear attention and scalar S6 are one recurrence, and when they are not."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import symbolic_identity, under, within

from .exact import dot, rationals

_STEPS = 3


def _cumulative(own: bool) -> Mapping[str, tuple[Any, Any]]:
    """Scalar S6 against linear attention with η_i = exp(a Σ_{j≤i} Δ_j), or with its own normaliser."""
    import sympy

    from dsf.symbolic import Step, unroll

    a = sympy.Symbol("a", positive=True)
    steps_, b, c, u = (
        [sympy.Symbol(f"{name}{i}", positive=True) for i in range(_STEPS)]
        for name in ("Delta", "b", "c", "u")
    )
    s6 = [
        Step(sympy.Matrix([[sympy.exp(-a * d)]]), sympy.Matrix([[d * x]]), sympy.Matrix([[y]]))
        for d, x, y in zip(steps_, b, c, strict=True)
    ]
    outputs, _ = unroll(s6, [sympy.Matrix([[x]]) for x in u])
    total = [sympy.Add(*steps_[: i + 1]) for i in range(_STEPS)]
    keys = [d * x * sympy.exp(a * t) for d, x, t in zip(steps_, b, total, strict=True)]
    identities = {}
    for i in range(_STEPS):
        eta = c[i] * sympy.Add(*keys[: i + 1]) if own else sympy.exp(a * total[i])
        attention = c[i] * sympy.Add(*(keys[j] * u[j] for j in range(i + 1))) / eta
        identities[f"y{i + 1}"] = (outputs[i][0], attention)
    return identities


_t4 = symbolic_identity(lambda: _cumulative(False), lambda: _cumulative(True))

CUMULATIVE_NORMALISER = Claim(
    id="sieber2024.t4-cumulative-normaliser",
    title="Scalar S6 is linear attention with a cumulative normaliser",
    statement=(
        r"$c_i h_i = \frac{1}{\eta_i} \sum_{j \leq i} c_i k_j u_j, \quad \eta_i = e^{a \sum_{j \leq i} \Delta_j}, "
        r"\quad k_j = \eta_j \Delta_j b_j, \quad h_i = e^{-a \Delta_i} h_{i-1} + \Delta_i b_i u_i$"
    ),
    citation="Sieber et al., arXiv 2405.15731v3, section 4 (linear attention against S6), own wording",
    level=Level.SYMBOLIC,
    expected=Status.HOLDS,
    bound_rule="exact algebra over free symbols, three steps",
    instance=_t4.instance,
    witness=_t4.witness,
    control=_t4.control,
    judge=_t4.judge,
)

_LENGTHS = {Budget.SMOKE: 16, Budget.DEFAULT: 64, Budget.FULL: 256}
_GRID = 8  # features are integers 1 … 8: positive, and exact


def _draw(task: Task) -> Evidence:
    rng, length = task.rng(), _LENGTHS[task.budget]
    return {name: rng.integers(1, _GRID + 1, (length, 4)) for name in ("phi_q", "phi_k")}


def _own_normaliser(drawn: Evidence) -> Evidence:
    return dict(drawn)


def _one_query(drawn: Evidence) -> Evidence:
    """The same query throughout: η only grows, and the transition is a decay after all."""
    query = drawn["phi_q"].copy()
    query[:] = query[0]
    return {"phi_q": query, "phi_k": drawn["phi_k"]}


def _judge_decay(evidence: Evidence) -> Verdict:
    """The largest η_{i-1}/η_i in exact rationals; S6 can only reach values up to 1."""
    queries, keys = (rationals(evidence[name].tolist()) for name in ("phi_q", "phi_k"))
    positive = min(min(map(min, queries)), min(map(min, keys)))
    held = [Fraction(0)] * len(keys[0])
    eta: list[Fraction] = []
    for query, key in zip(queries, keys, strict=True):
        held = [a + b for a, b in zip(held, key, strict=True)]
        eta.append(dot(query, held))

    def conclude() -> Verdict:
        ratios = [a / b for a, b in zip(eta, eta[1:], strict=False)]
        worst = max(ratios, default=Fraction(0))
        above = sum(r > 1 for r in ratios)
        verdict = within(float(worst), 1.0)
        status = Status.VIOLATED if worst > 1 else Status.HOLDS
        remark = f"{above} of {len(ratios)} transitions are above 1; the largest is {worst}"
        return Verdict(status, verdict.measured, None, 1.0, remark=remark)

    return under([Hypothesis("smallest feature", float(positive), positive > 0)], conclude)


LINEAR_ATTENTION_DECAYS = Claim(
    id="sieber2024.t4-linear-attention-decays",
    title="In the gauge of the state, linear attention has transitions of at most 1, as S6 has (it has not)",
    statement=r"$\eta_{i-1} / \eta_i \leq 1$ for $\eta_i = \phi(q_i)^T \sum_{j \leq i} \phi(k_j)$",
    citation="Converse of the equivalence conditions of Sieber et al., arXiv 2405.15731v3, section 4",
    level=Level.ENCLOSED,
    expected=Status.VIOLATED,
    bound_rule="exact rational arithmetic",
    instance=_draw,
    witness=_own_normaliser,
    control=_one_query,
    judge=_judge_decay,
)
