"""Judges: what they prove, what they refute, and what they must leave open."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import sympy
from mpmath.ctx_iv import MPIntervalContext
from sympy import E, I, Rational, cos, cosh, exp, log, pi, sin, sinh, sqrt, tanh

from dsf.certificate import Hypothesis, Status, Verdict
from dsf.codec import canonical, decode, encode, loads
from dsf.verify.algebra import Lowering, _factors
from dsf.verify.judges import counterexample, symbolic_identity, under, within
from dsf.verify.refute import counterexample_to_zero, enclosure
from dsf.verify.settle import settle

a, b, z = sympy.symbols("a b z")
x, y = sympy.symbols("x y", real=True)
p, q = sympy.symbols("p q", positive=True)
S, k, v = sympy.symbols("S k v")
eta0, eta1 = sympy.symbols("eta0 eta1", nonzero=True)


def sigmoid(t: Any) -> Any:
    return 1 / (1 + exp(-t))


def softplus(t: Any) -> Any:
    return log(1 + exp(t))


TRUE = {
    "softplus gate": (exp(-a * softplus(z)), (1 + exp(z)) ** (-a)),
    "zero-order hold is a sigmoid gate": (1 - exp(-softplus(z)), sigmoid(z)),
    "reversed sigmoid": (exp(-p * softplus(x)), sigmoid(-x) ** p),
    "linear attention, induction": (eta1 * (eta0 / eta1 * S + k * v / eta1), eta0 * S + k * v),
    "softplus odd part": (softplus(x) - softplus(-x), x),
    "tanh": (tanh(x), 2 * sigmoid(2 * x) - 1),
    "tanh of a sum": (tanh(a + b), (tanh(a) + tanh(b)) / (1 + tanh(a) * tanh(b))),
    "hyperbolic": (cosh(z) ** 2 - sinh(z) ** 2, sympy.Integer(1)),
    "circle": (sin(z) ** 2 + cos(z) ** 2, sympy.Integer(1)),
    "Euler": (exp(I * x), cos(x) + I * sin(x)),
    "sine of a sum": (sin(x + y), sin(x) * cos(y) + cos(x) * sin(y)),
    "root of a product": (sqrt(p * q), sqrt(p) * sqrt(q)),
    "roots of numbers": (sqrt(6), sqrt(2) * sqrt(3)),
    "root squared": (sqrt(1 - x**2) ** 2, 1 - x**2),
    "root below": (1 / (sqrt(x**2 + 1) - 1), (sqrt(x**2 + 1) + 1) / x**2),
    "cube roots": ((x**2 + 1) ** Rational(1, 3) * (x**2 + 1) ** Rational(2, 3), x**2 + 1),
    "fractions in exponents": (exp(x / 2) * exp(x / 3), exp(5 * x / 6)),
    "power of a product": ((p * q) ** a, p**a * q**a),
    "sum of powers": (z**a * z**b, z ** (a + b)),
    "logarithm": (log(p**3 * q / 2), 3 * log(p) + log(q) - log(2)),
    "logarithm of a positive sum": (log((1 + exp(x)) * p), softplus(x) + log(p)),
    "logarithm of exp": (log(exp(x + p)), x + p),
    "exp of logarithm": (exp(log(z) * 2), z**2),
    "constants": (exp(1 + x) * pi, E * exp(x) * pi),
    "absolute value": (abs(x) ** 2, x**2),
    "rational": (1 / (1 - a) - 1 - a, a**2 / (1 - a)),
    "matrices": (
        sympy.Matrix([[x, 1], [0, y]]) * sympy.Matrix([x, y]),
        sympy.Matrix([x**2 + y, y**2]),
    ),
}
FALSE = {
    "exp of a product": (exp(a * b), exp(a) * exp(b)),
    "root of a square": (sympy.Pow(x**2, Rational(1, 2), evaluate=False), x),
    "root of a complex square": (sqrt(z**2), z),
    "absolute value is not the number": (abs(x), x),
    "gate without the sign": (exp(a * softplus(z)), (1 + exp(z)) ** (-a)),
    "induction without the gauge": (eta1 * (eta0 * S + k * v / eta1), eta0 * S + k * v),
    "tanh is a sigmoid": (tanh(x), sigmoid(x)),
    "log of a sum": (log(p + q), log(p) + log(q)),
    "power of a power": ((p**2 + 1) ** a, p ** (2 * a) + 1),
    "one is two": (sympy.Integer(1), sympy.Integer(2)),
    "off by 1e-30": (exp(p + Rational(1, 10**30)), exp(p)),
    "transcendental near miss": (exp(pi * sqrt(163)), sympy.Integer(640320**3 + 744)),
    "sine is a line": (sin(x), x),
    "one entry of a matrix": (sympy.Matrix([x, y]), sympy.Matrix([x, x])),
}
# False at complex values, or true there only on a branch: no real point tells, no rule proves.
OPEN = {
    "log of a complex product": (log(a * b), log(a) + log(b)),
    "log of exp of a complex number": (log(exp(z)), z),
    "root of a complex product": (sqrt(a * b), sqrt(a) * sqrt(b)),
    "complex power of a power": ((z**2) ** a, z ** (2 * a)),
    "division by zero": (sympy.Pow(sympy.Add(x, -x, evaluate=False), -1, evaluate=False), x),
    "do not commute": (sympy.Symbol("A", commutative=False), x),
    "a function without rules": (sympy.Function("f")(x), x),
}


@pytest.mark.parametrize("name", TRUE)
def test_true_identities_are_proved(name: str) -> None:
    assert settle({name: TRUE[name]}).status is Status.HOLDS


@pytest.mark.parametrize("name", FALSE)
def test_false_identities_are_refuted_with_a_point(name: str) -> None:
    verdict = settle({name: FALSE[name]})
    assert verdict.status is Status.VIOLATED and "left - right lies in [" in verdict.remark


@pytest.mark.parametrize("name", OPEN)
def test_what_neither_algebra_nor_a_point_decides_stays_open(name: str) -> None:
    assert settle({name: OPEN[name]}).status is Status.INCONCLUSIVE


@pytest.mark.parametrize("name", TRUE)
def test_a_true_identity_has_no_counterexample_and_a_shifted_one_has(name: str) -> None:
    left, right = TRUE[name]
    if isinstance(left, sympy.MatrixBase):
        left, right = left[0], right[0]
    assert counterexample_to_zero(sympy.Add(left, -right, evaluate=False)) is None
    assert settle({name: (left + Rational(1, 7), right)}).status is not Status.HOLDS


def test_one_false_identity_spoils_a_set_and_one_open_leaves_it_open() -> None:
    good, open_, bad = TRUE["tanh"], OPEN["complex power of a power"], FALSE["one is two"]
    assert settle({"good": good, "open": open_}).status is Status.INCONCLUSIVE
    assert settle({"open": open_, "bad": bad}).status is Status.VIOLATED


def test_matrices_of_different_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match="shapes"):
        settle({"shapes": (sympy.Matrix([x]), sympy.Matrix([x, x]))})


@pytest.mark.parametrize("expression", [tanh(x), sin(x) * pi, sqrt(2) ** x, log(3) / x, abs(x) - E])
def test_enclosures_contain_the_value_and_are_narrow(expression: Any) -> None:
    context = MPIntervalContext()
    context.prec = 100
    point = Rational(-5, 4)
    found = enclosure(expression, {x: point}, context)
    difference = found - context.mpf(str(expression.subs(x, point).evalf(60)))
    assert 0 in difference and difference.delta < context.mpf(2) ** -80


@pytest.fixture(scope="module")
def gate() -> Any:
    return symbolic_identity(lambda: {"i": TRUE["tanh"]}, lambda: {"i": FALSE["tanh is a sigmoid"]})


def test_a_symbolic_claim_judges_its_own_statement_after_the_codec(gate: Any) -> None:
    for produce, status in ((gate.witness, Status.HOLDS), (gate.control, Status.VIOLATED)):
        evidence = decode(loads(canonical(encode(produce({})))))
        assert gate.judge(evidence).status is status


@pytest.mark.parametrize(
    "evidence",
    [
        {},
        {"identities": {}},
        {"identities": {"i": [x, x]}},
        {"identities": {"j": list(TRUE["tanh"])}},
        {"identities": {"i": list(reversed(TRUE["tanh"]))}},
        {"identities": {"i": list(TRUE["tanh"])}, "more": 1},
        {"identities": {"i": list(TRUE["tanh"]), "also": [x, x]}},
        {"identities": {"i": [True, 1]}},
    ],
    ids=str,
)
def test_a_symbolic_claim_refuses_any_other_statement(gate: Any, evidence: Any) -> None:
    assert gate.judge(evidence).status is Status.INCONCLUSIVE


def test_a_symbolic_claim_without_identities_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        symbolic_identity(lambda: {}, lambda: {}).witness({})


def test_a_symbolic_claim_may_state_plain_numbers() -> None:
    one = symbolic_identity(lambda: {"i": (x / x, 1)}, lambda: {"i": (x + 1, 1)})
    assert one.judge(one.witness({})).status is Status.HOLDS
    assert one.judge(one.control({})).status is Status.VIOLATED


@pytest.mark.parametrize(
    ("measured", "bound", "error", "status"),
    [
        (1.0, 1.0, 0.0, Status.HOLDS),
        (math.nextafter(1.0, 2.0), 1.0, 0.0, Status.VIOLATED),
        (0.5, 1.0, 0.5, Status.HOLDS),
        (0.75, 1.0, 0.5, Status.INCONCLUSIVE),
        (1.5, 1.0, 0.5, Status.INCONCLUSIVE),
        (2.0, 1.0, 0.5, Status.VIOLATED),
        *((bad, 1.0, 0.0, Status.INCONCLUSIVE) for bad in (math.nan, math.inf, -math.inf)),
        *((1.0, bad, 0.0, Status.INCONCLUSIVE) for bad in (math.nan, math.inf, -math.inf)),
        *((1.0, 1.0, bad, Status.INCONCLUSIVE) for bad in (math.nan, math.inf)),
    ],
)
def test_within_decides_only_what_the_error_bar_leaves_clear(
    measured: float, bound: float, error: float, status: Status
) -> None:
    assert within(measured, bound, error=error).status is status


def test_within_refuses_a_negative_error() -> None:
    with pytest.raises(ValueError, match="negative"):
        within(1.0, 1.0, error=-1.0)


@pytest.mark.parametrize(
    ("left", "right", "status"),
    [
        (Fraction(1, 3), Fraction(2, 6), Status.HOLDS),
        (0.1, Fraction(1, 10), Status.VIOLATED),
        (0.5, Fraction(1, 2), Status.HOLDS),
        (2**200, 2**200 + 1, Status.VIOLATED),
        (math.nan, math.nan, Status.INCONCLUSIVE),
        (math.inf, 1, Status.INCONCLUSIVE),
    ],
)
def test_counterexamples_are_compared_exactly(left: Any, right: Any, status: Status) -> None:
    assert counterexample(left, right).status is status


def test_hypotheses_come_first() -> None:
    met, unmet = Hypothesis("met", 1.0, True), Hypothesis("unmet", 0.0, False)

    def never() -> Verdict:
        raise AssertionError("concluded although a hypothesis is not met")

    verdict = under([met, unmet], never)
    assert (verdict.status, verdict.hypotheses) == (Status.HYPOTHESIS_NOT_MET, (met, unmet))
    verdict = under([met], lambda: within(0.0, 1.0))
    assert (verdict.status, verdict.hypotheses) == (Status.HOLDS, (met,))


def test_a_prover_that_forgets_positivity_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: Lowering, t: Any) -> Any:
        number, factors = _factors(t)
        logs = [power * self._log_of_positive(factor) for factor, power in factors]
        return sympy.Add(self._log_of_positive(abs(number)), *logs)

    monkeypatch.setattr(Lowering, "_log", careless)
    assert settle({"i": OPEN["log of a complex product"]}).status is Status.HOLDS
