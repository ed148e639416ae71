r"""Small claims, one of every outcome: the minimal examples of the documentation and of the tests.

No paper lists them, so `dsf check` never runs them by itself. `TOY` holds them by id.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from dsf.certificate import Budget, Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.verify.judges import counterexample, symbolic_identity, under, within

# exp(-a softplus(z)) = (1 + exp(z))^(-a): proved for all a and z at once.


def _gate(power: int) -> Mapping[str, tuple[Any, Any]]:
    import sympy

    a, z = sympy.Symbol("a", positive=True), sympy.Symbol("z", real=True)
    softplus = sympy.log(1 + sympy.exp(z))
    return {"gate": (sympy.exp(-a * softplus), (1 + sympy.exp(z)) ** (-power * a))}


gate = symbolic_identity(lambda: _gate(power=1), lambda: _gate(power=2))

SOFTPLUS_GATE = Claim(
    id="example.softplus-gate",
    title="The decay of a softplus step is a power of a sigmoid",
    statement=r"$\exp(-a\,\log(1 + e^z)) = (1 + e^z)^{-a}$",
    citation="Sieber et al. 2024 (arXiv 2405.15731), the reversed sigmoid",
    level=Level.SYMBOLIC,
    expected=Status.HOLDS,
    bound_rule="exact algebra",
    instance=gate.instance,
    witness=gate.witness,
    control=gate.control,
    judge=gate.judge,
)

# A float32 sum of n terms is off by at most gamma_n sum |x|, gamma_n = n u / (1 - n u), u = 2^-24.

_TERMS = {Budget.SMOKE: 32, Budget.DEFAULT: 1_000, Budget.FULL: 50_000}


def _terms(task: Task) -> Evidence:
    return {"x": task.rng().standard_normal(_TERMS[task.budget]).astype(np.float32)}


def _sum_in_order(drawn: Evidence) -> Evidence:
    return {"x": drawn["x"], "sum": np.cumsum(drawn["x"], dtype=np.float32)[-1]}


def _sum_of_magnitudes(drawn: Evidence) -> Evidence:
    return {"x": drawn["x"], "sum": np.cumsum(np.abs(drawn["x"]), dtype=np.float32)[-1]}


def _judge_sum(evidence: Evidence) -> Verdict:
    terms, u = evidence["x"].tolist(), 2.0**-24
    nu = len(terms) * u

    def conclude() -> Verdict:
        error = abs(evidence["sum"] - math.fsum(terms))
        scale = math.fsum(map(abs, terms))
        return within(error, nu / (1 - nu) * scale, predicted=math.sqrt(nu * u) * scale)

    return under([Hypothesis("n u < 1", nu, 0 < nu < 1)], conclude)


ROUNDING_OF_A_SUM = Claim(
    id="example.rounding-of-a-sum",
    title="Summing in float32 keeps the worst-case rounding bound",
    statement=r"$|\hat{s} - s| \leq \gamma_n \sum_i |x_i|$",
    citation="Higham 2002, section 4.2",
    level=Level.MEASURED,
    expected=Status.HOLDS,
    bound_rule="gamma_n sum |x|, n = number of terms, u = 2^-24",
    instance=_terms,
    witness=_sum_in_order,
    control=_sum_of_magnitudes,
    judge=_judge_sum,
)

# Floating-point addition is not associative: the claim that it is has counterexamples.


def _triple(task: Task) -> Evidence:
    return {"triple": [0.1, 0.2, 0.3]}


def _powers_of_two(drawn: Evidence) -> Evidence:
    return {"triple": [1.0, 2.0, 4.0]}


def _judge_triple(evidence: Evidence) -> Verdict:
    a, b, c = evidence["triple"]
    return counterexample((a + b) + c, a + (b + c))


ASSOCIATIVITY = Claim(
    id="example.float-addition-associates",
    title="Addition of float64 numbers is associative (it is not)",
    statement=r"$(a + b) + c = a + (b + c)$",
    citation="Higham 2002, chapter 2",
    level=Level.ENCLOSED,
    expected=Status.VIOLATED,
    bound_rule="exact comparison of dyadic rationals",
    instance=_triple,
    witness=dict,
    control=_powers_of_two,
    judge=_judge_triple,
)

# k steps of gradient descent with step 1/L on f(x) = x' diag(d) x / 2, mu <= d <= L, contract the
# distance to the minimiser 0 by (1 - mu/L)^k; |grad f(x)| / mu bounds that distance from above.

_STEPS = 20


def _quadratic(task: Task) -> Evidence:
    rng = task.rng()
    return {"d": rng.uniform(1.0, 1.5, 8), "start": rng.uniform(1.0, 2.0, 8)}


def _flat_quadratic(task: Task) -> Evidence:
    return {"d": np.array([0.0, 1.0]), "start": np.array([1.0, 1.0])}


def _descend(drawn: Evidence, step: float = 1.0) -> Evidence:
    d, x = drawn["d"], drawn["start"].copy()
    for _ in range(_STEPS):
        x -= step / d.max() * d * x
    return {"d": d, "start": drawn["start"], "end": x}


def _descend_too_fast(drawn: Evidence) -> Evidence:
    return _descend(drawn, step=3.0)


def _judge_descent(evidence: Evidence) -> Verdict:
    d, start, end = (evidence[name].tolist() for name in ("d", "start", "end"))
    convex = Hypothesis("mu", min(d), min(d) > 0)

    def conclude() -> Verdict:
        measured = math.hypot(*(a * x for a, x in zip(d, end, strict=True))) / min(d)
        rate = (1 - min(d) / max(d)) ** _STEPS
        return within(measured, max(d) / min(d) * rate * math.hypot(*start))

    return under([convex], conclude)


def _descent(
    name: str, title: str, instance: Any = _quadratic, expected: Status = Status.HOLDS
) -> Claim:
    return Claim(
        id=f"example.{name}",
        title=title,
        statement=r"$|x_k| \leq \frac{L}{\mu} (1 - \frac{\mu}{L})^k |x_0|$",
        citation="Nesterov 2004, section 2.1.5",
        level=Level.CERTIFIED,
        expected=expected,
        bound_rule="strong convexity: |x| <= |grad f(x)| / mu",
        instance=instance,
        witness=_descend,
        control=_descend_too_fast,
        judge=_judge_descent,
    )


# The ways in which a claim can go wrong, as faults to plant in tests.


def _nothing(task: Task) -> Evidence:
    return {}


def _number(value: float) -> Any:
    return lambda drawn: {"value": value}


def _judge_number(evidence: Evidence) -> Verdict:
    return within(evidence["value"], 1.0, error=evidence.get("error", 0.0))


def _unsure(drawn: Evidence) -> Evidence:
    return {"value": 1.0, "error": 0.5}


def _broken(drawn: Evidence) -> NoReturn:
    raise ArithmeticError("this witness always fails")


def _fault(name: str, title: str, witness: Any, control: float = 2.0, **rest: Any) -> Claim:
    return Claim(
        id=f"example.{name}",
        title=title,
        statement=r"$value \leq 1$",
        citation="none",
        level=Level.CERTIFIED,
        expected=Status.HOLDS,
        bound_rule="the number one",
        instance=_nothing,
        witness=witness,
        control=_number(control),
        judge=_judge_number,
        **rest,
    )


_CLAIMS = (
    SOFTPLUS_GATE,
    ROUNDING_OF_A_SUM,
    ASSOCIATIVITY,
    _descent("contraction", "Gradient descent contracts at the rate 1 - mu/L"),
    _descent("contraction-without-convexity", "The same where mu is 0", _flat_quadratic),
    _descent("contraction-disbelieved", "The same, not believed", expected=Status.VIOLATED),
    _fault("undecided", "An error bar across the bound", _unsure),
    _fault("control-passes", "A control that does not fail", _number(0.5), control=0.5),
    _fault("failing-witness", "A witness that raises", _broken),
    _fault("missing-module", "A missing module", _number(0.5), requires=("dsf_not_installed",)),
)

TOY: dict[str, Claim] = {claim.id: claim for claim in _CLAIMS}
