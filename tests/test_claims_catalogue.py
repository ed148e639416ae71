"""The claims about conversions: all as expected, their formulas those of the code, and no other accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy

from dsf.certificate import Budget, Level, Status, Task
from dsf.certify import certify, outcome
from dsf.claims import book, gated_cells, state_spaces
from dsf.claims.delta_family import BEHROUZ2025, SCHLAG2021, YANG2024
from dsf.claims.gated_cells import FENG2024, SIEBER2024, VASWANI2017
from dsf.claims.scalar_decays import DAO2024, GU2023, KATHAROPOULOS2020, YANG2023
from dsf.claims.state_spaces import GU2021, GUO2025, LAHOTI2026, ORVIETO2023
from dsf.codec import digest
from dsf.mixers import ARCHITECTURES, Architecture
from dsf.registry import claims, resolve
from dsf.symbolic import unroll as unroll_steps
from dsf.twin import unroll
from dsf.verify import verify
from dsf.verify.settle import settle

MINE = (
    *(DAO2024 + GU2023 + YANG2023 + KATHAROPOULOS2020),
    *(YANG2024 + SCHLAG2021 + BEHROUZ2025),
    *(FENG2024 + VASWANI2017 + SIEBER2024),
    *(LAHOTI2026 + GU2021 + ORVIETO2023 + GUO2025),
)
ALL: dict[str, Architecture] = {a.name: a for a in map(resolve, ARCHITECTURES)}


@pytest.mark.parametrize("claim", MINE, ids=lambda c: c.id)
def test_as_expected_verified_and_not_to_be_swapped(claim) -> None:
    certificate = certify(claim, seed=3, budget=Budget.SMOKE)
    assert outcome(certificate) == "as-expected", certificate.verdict.remark
    record = certificate.to_json()
    verification = verify(record, claims=claims())
    assert verification.accepted and verification.conclusion == "proved", verification.reasons
    forged = {**record, "evidence": record["control"]["evidence"]}
    forged["digest"] = digest(forged)
    assert not verify(forged, claims=claims()).accepted


def test_there_are_forty_claims_and_half_are_symbolic() -> None:
    found = MINE
    symbolic = [c for c in found if c.level is Level.SYMBOLIC]
    assert len(found) >= 40 and 2 * len(symbolic) >= len(found)
    assert sum(c.expected is Status.VIOLATED for c in found) >= 5
    assert len({c.title for c in found}) == len(found)


# -- the formula book is the code ------------------------------------------------------------------------


def columns(array: np.ndarray) -> list[sympy.Matrix]:
    """(1, T, 1, K) as T columns."""
    return [sympy.Matrix(x) for x in array[0, :, 0]]


def numbers(array: np.ndarray) -> list[Any]:
    return list(array[0, :, 0])


def scalar_gates(array: np.ndarray) -> list[sympy.Matrix]:
    return [sympy.exp(g) * sympy.eye(book.KEYS) for g in numbers(array)]


def channel_gates(array: np.ndarray) -> list[sympy.Matrix]:
    return [sympy.diag(*g.applyfunc(sympy.exp)) for g in columns(array)]


BOOK: dict[str, tuple[Callable[[dict[str, np.ndarray]], list[Any]], dict[str, Any]]] = {
    "linear-attention": (
        lambda q: book.linear(columns(q["q"]), columns(q["k"])),
        {"feature": None, "normalise": False},
    ),
    "retnet": (
        lambda q: book.retnet(columns(q["q"]), columns(q["k"]), sympy.Rational(31, 32)),
        {},
    ),
    "ssd": (
        lambda q: book.ssd(numbers(q["delta"]), q["A"][0], columns(q["b"]), columns(q["c"])),
        {},
    ),
    "gla": (lambda q: book.gla(*(columns(q[name]) for name in "qkg")), {}),
    "deltanet": (
        lambda q: book.delta(columns(q["q"]), columns(q["k"]), numbers(q["beta"])),
        {},
    ),
    "gated-deltanet": (
        lambda q: book.delta(
            columns(q["q"]), columns(q["k"]), numbers(q["beta"]), scalar_gates(q["g"])
        ),
        {},
    ),
    "kda": (
        lambda q: book.delta(
            columns(q["q"]), columns(q["k"]), numbers(q["beta"]), channel_gates(q["g"])
        ),
        {},
    ),
    "titans-linear": (
        lambda q: book.titans(
            columns(q["q"]), columns(q["k"]), *(numbers(q[n]) for n in ("theta", "eta", "alpha"))
        ),
        {},
    ),
    "mingru": (
        lambda q: book.gates(
            [1 - book.sigmoid(z) for z in numbers(q["gate"])],
            [book.sigmoid(z) for z in numbers(q["gate"])],
        ),
        {},
    ),
    "qlstm": (
        lambda q: book.gates(
            *([book.sigmoid(z) for z in numbers(q[n])] for n in ("forget", "enter", "out"))
        ),
        {},
    ),
    "mamba3": (
        lambda q: book.mamba3(
            columns(q["q"]),
            columns(q["k"]),
            numbers(q["delta"]),
            numbers(q["A"]),
            [book.sigmoid(x) for x in numbers(q["trap"])],
            [d * a[0] for d, a in zip(numbers(q["delta"]), columns(q["angle"]), strict=True)],
        ),
        {},
    ),
}


@pytest.mark.parametrize("name", BOOK)
def test_the_book_is_the_code(name: str) -> None:
    """The steps of the formula book on the code's own symbols, unrolled by `dsf.symbolic`."""
    steps_of, options = BOOK[name]
    twin = unroll(ALL[name], 2, **options)
    steps = steps_of(dict(twin.quantities))
    tokens = [sympy.Matrix([[x]]) for x in twin.tokens[:, 0, 0]]
    found = [y[0] for y in unroll_steps(steps, tokens)[0]]
    skip = twin.quantities.get("skip")
    if skip is not None:
        found = [y + skip[0] * x[0] for y, x in zip(found, tokens, strict=True)]
    pairs = zip(twin.outputs.ravel(), found, strict=True)
    assert settle({f"y{i}": pair for i, pair in enumerate(pairs)}).status is Status.HOLDS


# -- specials --------------------------------------------------------------------------------------------


def test_other_statements_are_not_accepted() -> None:
    other = FENG2024[0].witness({})
    assert FENG2024[1].judge(other).status is Status.INCONCLUSIVE


def test_known_values() -> None:
    q, k = [sympy.Matrix([1, 0])] * 2, [sympy.Matrix([1, 0]), sympy.Matrix([1, 1])]
    steps = book.delta(q, k, [sympy.Integer(1), sympy.Rational(1, 2)])
    v = [sympy.Matrix([[4]]), sympy.Matrix([[10]])]
    outputs, _ = unroll_steps(steps, v)
    assert [y[0] for y in outputs] == [4, 7]  # half of what the second key misses: 10 - 4
    half = gated_cells._weights_of_mingru(True)["y1"]
    assert half[0].subs({sympy.Symbol("z0", real=True): 0}) == sympy.Rational(1, 2)
    weights, _, _ = state_spaces._levels(True)
    assert sympy.diff(weights[3], sympy.Symbol("l3_1", real=True)) != 0


def test_a_change_of_basis_changes_no_verdict() -> None:
    """Keys and queries turned by one rational rotation: the delta rule's outputs stay."""
    turn = sympy.Matrix([[3, -4], [4, 3]]) / 5
    q, k, beta = book.vectors("q", 2), book.vectors("k", 2), book.scalars("b", 2)
    before = book.outputs(book.delta(q, k, beta))
    after = book.outputs(book.delta([turn * x for x in q], [turn * x for x in k], beta))
    assert settle(book.compare(before, after)).status is Status.HOLDS
    squeezed = book.outputs(book.delta(q, [2 * x for x in k], beta))
    assert settle(book.compare(before, squeezed)).status is Status.VIOLATED


def test_evidence_of_a_claim_needs_no_draw() -> None:
    assert MINE[0].instance(Task(5)) == {}
