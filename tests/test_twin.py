"""The symbolic twin against runs, against fractions, and proofs that must fail where they should."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import sympy
import torch

import dsf
from dsf.certificate import Level, Status
from dsf.errors import InvalidInput
from dsf.mixers import ARCHITECTURES, Architecture
from dsf.mixers.gated_deltanet import gated_deltanet
from dsf.mixers.kda import kda
from dsf.numerics import require_within
from dsf.registry import resolve
from dsf.twin import Exact, Untraceable, evaluate, prove_equal, unroll
from dsf.twin.recurrence import symbols
from dsf.twin.rules import BRANCHED, ENTRYWISE
from dsf.twin.tensors import exactly

ALL: dict[str, Architecture] = {a.name: a for a in map(resolve, ARCHITECTURES)}


@pytest.mark.parametrize("name", ALL)
def test_twin_is_what_runs(name: str) -> None:
    """Outputs, final state and Φ in 30 digits at the sample, against the recurrent form's bound."""
    twin = unroll(ALL[name], 3, keys=2, values=2 if name != "s6" else 1)
    system = ALL[name].build(**twin.sample.quantities)
    tokens = twin.sample.tokens
    outputs, state = dsf.run(system, tokens, form="recurrent")
    bound = dsf.error_bound(system, tokens, form="recurrent")
    with mpmath.workdps(30):
        exact = twin.lambdify("mpmath")(*map(mpmath.mpf, twin.values().values()))
        values = {s: mpmath.mpf(x) for s, x in twin.values().items()}
    found = torch.tensor([float(mpmath.re(y)) for y in exact], dtype=torch.float64)
    require_within(outputs.flatten(), found, 2 * bound.outputs.expand_as(outputs).flatten(), name)
    ends = [complex(sympy.N(e, 30, subs=values)) for e in twin.final_state.T.ravel()]
    end = torch.tensor(ends, dtype=torch.complex128).reshape(state.memory[0, 0].shape)
    own = state.true_memory()[0, 0]
    scale = 1.0 if state.stabiliser is None else torch.exp(state.stabiliser)[0, 0]
    end = end if own.is_complex() else end.real
    require_within(own, end, (2 * bound.memory[0, 0] * scale).expand_as(own), f"{name} state")


@pytest.mark.parametrize("name", ("gated-deltanet", "ssd", "rwkv6", "s4d", "linear-attention"))
def test_matrix_of_the_twin_is_the_mixing_matrix(name: str) -> None:
    twin = unroll(ALL[name], 3, keys=2)
    system = ALL[name].build(**twin.sample.quantities)
    phi = dsf.mixing_matrix(system, 3).reshape(3, 3)
    exact = twin.matrix().evalf(30, subs=twin.values())
    found = torch.tensor(np.array(exact).astype(complex).real)
    basis = torch.eye(3, dtype=torch.float64)[None, :, None]
    bound = 2 * dsf.error_bound(system, basis[..., :1] * 0 + 1, form="recurrent").outputs[0, :, 0]
    require_within(phi, found, bound, name)


def test_deltanet_in_rationals_at_length_twenty() -> None:
    draw = np.random.default_rng(0)
    q, k, v = (draw.integers(-3, 4, (20, 3)).tolist() for _ in range(3))
    beta = [Fraction(int(x), 7) for x in draw.integers(1, 7, 20)]
    state = [[Fraction(0)] * 3 for _ in range(3)]
    expected = []
    for i in range(20):
        stored = [sum(k[i][a] * state[a][c] for a in range(3)) for c in range(3)]
        for a in range(3):
            for c in range(3):
                state[a][c] += beta[i] * k[i][a] * (v[i][c] - stored[c])
        expected.append([sum(q[i][a] * state[a][c] for a in range(3)) for c in range(3)])
    quantities = {
        "q": np.array(q, dtype=object)[None, :, None],
        "k": np.array(k, dtype=object)[None, :, None],
        "beta": np.array(beta, dtype=object)[None, :, None],
    }
    found = evaluate(ALL["deltanet"], quantities, np.array(v, dtype=object)[:, None])
    assert [[Fraction(int(y.p), int(y.q)) for y in row[0]] for row in found] == expected


@pytest.mark.parametrize("rule", [*ENTRYWISE, *BRANCHED])
def test_every_entrywise_rule_has_the_value_that_torch_has(rule: str) -> None:
    names = {"truediv": "div", "rdiv": "div", "rtruediv": "div", "radd": "add", "rmul": "mul"}
    name = names.get(rule, rule)
    function = getattr(torch, name, None) or getattr(torch.nn.functional, name, None)
    x = torch.tensor([0.25, 1.5, 3.0], dtype=torch.float64)
    given = [symbols("x", x), symbols("y", x.flip(0))]
    if name in ("logsigmoid", "log_sigmoid"):
        function = torch.nn.functional.logsigmoid
    elif name in ("real", "imag"):
        given, function = [torch.complex(*given)], lambda z: getattr(z, name)
    elif name == "conj":
        given, function = [torch.complex(*given)], lambda z: torch.conj(z).resolve_conj()
    elif name == "rpow":
        function = torch.Tensor.__rpow__
    elif name == "rsub":
        function = torch.rsub
    assert function is not None
    two = name in ("add", "sub", "rsub", "mul", "div", "pow", "rpow", "complex")
    taken = [*given, given[0]] if name == "addcmul" else given[: 1 + two]
    found = function(*taken)
    assert isinstance(found, Exact)
    values = {
        s: v
        for g, n in ((symbols("x", x), x), (symbols("y", x), x.flip(0)))
        for s, v in zip(g.expressions, n.tolist(), strict=True)
    }
    exact = [complex(sympy.N(e, 30, subs=values)) for e in found.expressions]
    numbers = found.detach().as_subclass(torch.Tensor).to(torch.complex128)
    eps = torch.finfo(torch.float64).eps
    require_within(
        numbers, torch.tensor(exact, dtype=numbers.dtype), 64 * eps * (1 + numbers.abs()), rule
    )


def test_constants_are_read_as_the_numbers_they_stand_for() -> None:
    third = sympy.Rational(1, 3)
    assert exactly(2**-0.25) == sympy.Integer(2) ** -sympy.Rational(1, 4)
    assert exactly(-(3**0.5)) == -sympy.sqrt(3) and exactly(1 / 3) == third
    assert exactly(0.1234567) == sympy.Rational(Fraction(0.1234567))
    assert exactly(torch.inf) is sympy.oo and exactly(2j) == 2 * sympy.I
    with pytest.raises(Untraceable):
        exactly(float("nan"))


def test_what_cannot_be_traced_says_so() -> None:
    with pytest.raises(Untraceable, match="matrix_exp"):
        unroll(ALL["s4"], 2, discretisation="zoh")
    with pytest.raises(InvalidInput, match="`under` names h"):
        unroll(ALL["gla"], 2, under={"h": 1.0})
    with pytest.raises(InvalidInput, match="'numpy' or 'mpmath'"):
        unroll(ALL["gla"], 1).lambdify("jax")


def per_head(q, k, g, beta):
    return kda(q, k, beta, g[..., None] * torch.ones_like(k))


def other_order(q, k, g, beta):
    """A planted bug: what is erased is not decayed."""
    system = gated_deltanet(q, k, 0 * g, beta)
    transition = system.transition
    return system.replace(
        transition=type(transition)(dsf.Scalar.from_log(g), transition.left, transition.right)
    )


@pytest.mark.parametrize("method", ("symbolic", "randomised"))
def test_a_proof_and_a_refutation(method) -> None:
    proof = prove_equal(ALL["gated-deltanet"], per_head, length=3, method=method)
    assert (proof.status, proof.control.status) == (Status.HOLDS, Status.VIOLATED)
    wrong = prove_equal(ALL["gated-deltanet"], other_order, length=3, method=method)
    assert wrong.status is Status.VIOLATED
    level = Level.SYMBOLIC if method == "symbolic" else Level.STATISTICAL
    assert proof.level is wrong.level is level


def test_randomised_tests_say_how_often_they_miss() -> None:
    proof = prove_equal(ALL["kda"], kda, length=6, keys=4)
    assert proof.level is Level.STATISTICAL and proof.status is Status.HOLDS
    assert proof.verdict.measured is not None and 0 < proof.verdict.measured < 2.0**-90
    rooted = prove_equal(ALL["rg-lru"], ALL["rg-lru"], method="randomised")
    assert rooted.status is Status.INCONCLUSIVE and "denominator 2" in rooted.verdict.remark
    first = prove_equal(ALL["kda"], kda, length=6, keys=4)
    assert first.evidence == proof.evidence


def test_laws_catch_a_wrong_rule(monkeypatch) -> None:
    monkeypatch.setitem(ENTRYWISE, "sigmoid", lambda x: 1 / (1 + sympy.exp(x)))
    with pytest.raises(AssertionError):
        test_twin_is_what_runs("mingru")


def test_latex_names_every_part() -> None:
    twin = unroll(ALL["ssd"], 2, keys=1)
    assert [line.split(" =")[0] for line in twin.latex(1).splitlines()] == [
        r"\Lambda",
        "B",
        "C",
        "D",
    ]
    assert twin.matrix_latex().startswith(r"\Phi = \left[")
