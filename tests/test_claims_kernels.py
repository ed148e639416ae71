"""Claims about kernels: as expected, verified, tampered with, and about the programs that there are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy

from dsf.certificate import Budget, Claim, Level, Status, Task
from dsf.certify import certify, outcome
from dsf.codec import digest
from dsf.kernels.claims import (
    aaren,
    chunks,
    crossover,
    decay_rates,
    gate_gradients,
    gate_rounding,
    online_softmax,
    operations,
    published,
    row_statistics,
    sigmoid,
    slopes,
    traffic,
    wy,
)
from dsf.kernels.claims.symbols import Symbols, gradient, matrix, pairing
from dsf.registry import claims, papers, resolve
from dsf.verify import verify
from dsf.verify.settle import settle

TABLES: tuple[Any, ...] = (
    *(chunks.LIGHTNING2, gate_gradients.SYMBOLIC, gate_rounding.CLAIMS, wy.CLAIMS),
    *(online_softmax.DAO2022, online_softmax.MONOID, sigmoid.RAMAPURAM2024),
    *(aaren.SYMBOLIC, aaren.CLAIMS, decay_rates.LIGHTNING, operations.CLAIMS, traffic.CLAIMS),
    *(published.CLAIMS, (published.FLASH_MEMORY, crossover.CROSSOVER)),
    (slopes.SMALLER_EVERYWHERE, row_statistics.STATISTICS_SAVED),
)
MINE: dict[str, Claim] = {claim.id: claim for table in TABLES for claim in table}
NUMERICAL = [c for c in MINE.values() if c.level is not Level.SYMBOLIC]
SYMBOLIC = [c for c in MINE.values() if c.level is Level.SYMBOLIC]


def evidence_of(claim: Claim, seed: int = 0) -> dict:
    return dict(claim.witness(claim.instance(Task(seed, Budget.SMOKE))))


def reference_of(claim: Claim) -> str:
    """A claim's table, as its paper names it."""
    for paper in papers():
        for reference in paper.claims:
            table = resolve(reference)
            if claim in (table if isinstance(table, tuple) else (table,)):
                return reference
    raise AssertionError(f"{claim.id} is not listed")


@pytest.mark.parametrize("claim", NUMERICAL, ids=lambda c: c.id)
def test_as_expected_and_verified(claim: Claim) -> None:
    certificate = certify(claim, seed=3, budget=Budget.SMOKE)
    assert outcome(certificate) == "as-expected", certificate.to_json()["remark"]
    verification = verify(certificate.to_json(), claims=MINE)
    assert verification.accepted, verification.reasons
    wanted = "proved" if claim.level.proves else "consistent with recorded data"
    assert verification.conclusion == wanted


# Trees of symbols are large, so these run without the type checks of tests, and without torch.
_RUN = """
import json, sys
from dsf.certify import certify, outcome
from dsf.registry import resolve
from dsf.verify import verify
found = {}
for reference in sys.argv[1:]:
    for claim in resolve(reference):
        certificate = certify(claim)
        concluded = verify(certificate.to_json(), claims={claim.id: claim}).conclusion
        found[claim.id] = [outcome(certificate), concluded, certificate.verdict.remark]
print(json.dumps([found, sorted({"torch", "triton"} & set(sys.modules))]))
"""


def test_symbolic_claims_as_expected_and_verified_without_torch() -> None:
    references = sorted({reference_of(claim) for claim in SYMBOLIC})
    run = [sys.executable, "-P", "-c", _RUN, *references]
    ran = subprocess.run(run, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found, heavy = json.loads(ran.stdout)
    assert {claim.id for claim in SYMBOLIC} <= set(found)
    wrong = {name: said for name, said in found.items() if said[:2] != ["as-expected", "proved"]}
    assert not wrong and heavy == []


@pytest.mark.parametrize("claim", (*NUMERICAL, sigmoid.RAMAPURAM2024[2]), ids=lambda c: c.id)
def test_the_controls_evidence_is_not_accepted_for_the_claims(claim: Claim) -> None:
    record = certify(claim, seed=5, budget=Budget.SMOKE).to_json()
    swapped = {**record, "evidence": record["control"]["evidence"]}
    swapped["digest"] = digest(swapped)
    assert not verify(swapped, claims=MINE).accepted


@pytest.mark.parametrize("claim", NUMERICAL, ids=lambda c: c.id)
@pytest.mark.parametrize("seed", range(4))
def test_verdict_does_not_depend_on_the_draw(claim: Claim, seed: int) -> None:
    task = Task(seed, Budget.DEFAULT if seed % 2 else Budget.SMOKE)
    assert claim.judge(claim.witness(claim.instance(task))).status is claim.expected
    control = claim.judge(claim.control(claim.instance(task))).status
    assert control.definite and control is not claim.expected


def test_all_are_listed_and_their_titles_differ() -> None:
    assert len(MINE) >= 45 and set(MINE) <= set(claims())
    assert len({c.title for c in MINE.values()}) == len(MINE)
    refuted = {c.id for c in MINE.values() if c.expected is Status.VIOLATED}
    assert len(refuted) >= 12
    assert all(MINE[name].level is not Level.STATISTICAL for name in refuted)


def test_the_others_are_judged_without_torch() -> None:
    references = sorted({reference_of(claim) for claim in NUMERICAL})
    script = (
        "import sys; from dsf.certify import certify; from dsf.registry import resolve\n"
        "for name in sys.argv[1:]:\n"
        "    found = resolve(name)\n"
        "    for claim in found if isinstance(found, tuple) else (found,):\n"
        "        if claim.level != 'symbolic':\n"
        "            assert certify(claim).status is claim.expected, claim.id\n"
        "print(sorted({'torch', 'triton'} & set(sys.modules)))"
    )
    run = [sys.executable, "-P", "-c", script, *references]
    ran = subprocess.run(run, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "[]", ran.stderr


# -- hypotheses that fail -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "change"),
    [
        (gate_rounding.CLAIMS[0], lambda e: {**e, "bits": 9}),
        (gate_rounding.CLAIMS[1], lambda e: {**e, "decay": 64 * e["decay"]}),
        (gate_rounding.CLAIMS[2], lambda e: {**e, "q": e["q"][1:]}),
        (gate_rounding.CLAIMS[2], lambda e: {**e, "q": 1000 * e["q"]}),
        (slopes.SMALLER_EVERYWHERE, lambda e: {"exponentials": -e["exponentials"]}),
        (aaren.ONE_STATE, lambda e: {"weights": -e["weights"]}),
        (aaren.ONE_STATE, lambda e: {"weights": e["weights"][1:]}),
        (aaren.WITHOUT_REFERENCE, lambda e: {"scores": np.array([10**6])}),
        (decay_rates.LIGHTNING[3], lambda e: {**e, "steps": 0}),
        (operations.CLAIMS[0], lambda e: {**e, "per_token": e["per_token"][1:]}),
        (operations.CLAIMS[1], lambda e: {**e, "sizes": 10 * e["sizes"]}),
        (crossover.CROSSOVER, lambda e: {"crossings": e["crossings"][1:]}),
        (traffic.CLAIMS[0], lambda e: {**e, "chunk": 48}),
        (row_statistics.STATISTICS_SAVED, lambda e: {**e, "sizes": 9 * e["sizes"]}),
    ],
    ids=lambda x: getattr(x, "id", ""),
)
def test_hypotheses_are_looked_at_first(claim: Claim, change: Callable[[dict], dict]) -> None:
    assert claim.judge(change(evidence_of(claim))).status is Status.HYPOTHESIS_NOT_MET


# -- metamorphic rewrites -----------------------------------------------------------------------------


def test_turning_queries_and_keys_changes_no_verdict() -> None:
    """One rational rotation of both: the chunk form's outputs stay; turning the keys alone moves them."""
    turn = sympy.Matrix([[3, -4], [4, 3]]) / 5
    x = Symbols.of(3, 2, 1)
    turned = Symbols(x.q * turn, x.k * turn, x.v, x.a, turn.T * x.state)
    expected, _ = x.run()
    assert settle({"y": (chunks._chunk(turned, True)[0], expected)}).status is Status.HOLDS
    alone = Symbols(x.q, x.k * turn, x.v, x.a, x.state)
    assert settle({"y": (chunks._chunk(alone, True)[0], expected)}).status is Status.VIOLATED


def test_scaling_queries_against_keys_keeps_the_gradient_of_gates() -> None:
    """2 q and k / 2: outputs and dg stay, and the rule's two sums too."""
    x = Symbols.of(2, 2, 1)
    outputs, _ = x.run()
    loss = pairing(matrix("y", *outputs.shape), outputs)
    scaled = loss.subs(
        [(s, 2 * s) for s in x.q] + [(s, s / 2) for s in (*x.k, *x.state)], simultaneous=True
    )
    gates = x.a[:, 0]
    pair = gradient(loss, gates), gradient(scaled, gates).applyfunc(sympy.expand)
    assert settle({"dg": pair}).status is Status.HOLDS


def test_a_power_of_two_scales_nothing_of_the_rounding() -> None:
    claim = gate_rounding.CLAIMS[0]
    evidence = evidence_of(claim)
    scaled = {**evidence, "v": 4 * evidence["v"]}
    assert claim.judge(scaled).measured == claim.judge(evidence).measured


def test_a_shift_of_scores_moves_sigmoid_and_not_softmax() -> None:
    s, v, c = online_softmax.real("s", 3), online_softmax.real("v", 3), sympy.Symbol("c", real=True)
    moved = [x + c for x in s]
    pair = online_softmax.softmax(moved, v), online_softmax.softmax(s, v)
    assert settle({"softmax": pair}).status is Status.HOLDS
    pair = (
        sigmoid._attention(moved, v, sympy.Integer(0)),
        sigmoid._attention(s, v, sympy.Integer(0)),
    )
    assert settle({"sigmoid": pair}).status is Status.VIOLATED
    bias = sigmoid._attention(moved, v, -c), sigmoid._attention(s, v, sympy.Integer(0))
    assert settle({"bias": bias}).status is Status.HOLDS


def test_permuting_keys_keeps_ranks_slopes_and_counts() -> None:
    claim = aaren.ONE_STATE
    weights = evidence_of(claim)["weights"]
    order = np.random.default_rng(5).permutation(len(weights))
    assert claim.judge({"weights": weights[:, order]}).status is Status.HOLDS
    other = evidence_of(slopes.SMALLER_EVERYWHERE)
    flipped = {"exponentials": other["exponentials"][::-1].copy()}
    judged = [slopes.SMALLER_EVERYWHERE.judge(e).measured for e in (other, flipped)]
    assert judged[0] == judged[1]


def test_exchanging_keys_and_values_keeps_the_count() -> None:
    claim = operations.CLAIMS[0]
    evidence = evidence_of(claim)
    exchanged = {**evidence, "sizes": evidence["sizes"][:, [0, 2, 1, 3]]}
    assert claim.judge(exchanged).status is Status.HOLDS


# -- tampered evidence --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "change"),
    [
        (operations.CLAIMS[0], lambda e: {**e, "per_token": [x + 1 for x in e["per_token"]]}),
        (operations.CLAIMS[1], lambda e: {**e, "per_token": [x - 1 for x in e["per_token"]]}),
        (crossover.CROSSOVER, lambda e: {"crossings": [x + 1 for x in e["crossings"]]}),
        (traffic.CLAIMS[0], lambda e: {**e, "ratios": [x + 1 for x in e["ratios"]]}),
        (traffic.CLAIMS[0], lambda e: {**e, "tiles": [128, 128]}),
        (traffic.CLAIMS[1], lambda e: {**e, "ratios": [Fraction(99, 100)]}),
        (published.CLAIMS[0], lambda e: {**e, "forward": 0.9 * e["forward"]}),
        (published.CLAIMS[0], lambda e: {**e, "kernel": "flash3"}),
        (published.CLAIMS[2], lambda e: {**e, "bytes": e["bytes"] + 2048}),
        (published.FLASH_MEMORY, lambda e: {**e, "bytes": e["bytes"][1:]}),
        (aaren.ONE_STATE, lambda e: {"weights": e["weights"] + np.eye(8, dtype=int)[::-1]}),
        (row_statistics.STATISTICS_SAVED, lambda e: {**e, "sigmoid": e["softmax"]}),
    ],
    ids=lambda x: getattr(x, "id", ""),
)
def test_numbers_moved_are_not_judged_as_expected(
    claim: Claim, change: Callable[[dict], dict]
) -> None:
    assert claim.judge(change(evidence_of(claim))).status is not claim.expected


def test_other_statements_are_not_accepted() -> None:
    other = wy.CLAIMS[0].witness({})
    assert wy.CLAIMS[1].judge(other).status is Status.INCONCLUSIVE
    assert chunks.LIGHTNING2[0].judge({"identities": {}}).status is Status.INCONCLUSIVE
