"""Claims about kernels: as expected, verified, tampered with, and about the programs that there are."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import sympy
import torch

import dsf
from dsf.certificate import Budget, Claim, Level, Status, Task
from dsf.certify import certify, outcome
from dsf.codec import digest
from dsf.coupling import OuterCoupling
from dsf.kernels.claims import (
    aaren,
    chunks,
    crossover,
    decay_rates,
    figures,
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
from dsf.kernels.claims.symbols import Symbols, compositions, gradient, matrix, pairing
from dsf.mixers.lightning import slopes as rates
from dsf.numerics import require_close, require_within, unit_roundoff
from dsf.registry import claims, papers, resolve
from dsf.structure import Scalar
from dsf.system import System
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
U = unit_roundoff(torch.float64)


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


# -- known values -------------------------------------------------------------------------------------


def test_splits() -> None:
    assert len(list(compositions(4))) == 8 and list(compositions(0)) == [()]
    assert all(sum(lengths) == 5 for lengths in compositions(5))


def test_symbols_are_the_recurrence_of_the_package() -> None:
    """One draw of numbers put in for the symbols, against the forms of `dsf.run`."""
    rng = np.random.default_rng(0)
    x = Symbols.of(3, 2, 2)
    numbers = {s: Fraction(int(rng.integers(1, 9)), 8) for s in _symbols(x)}
    outputs, last = (part.subs(numbers) for part in x.run())
    q, k, v, a, start = (_tensor(part.subs(numbers)) for part in (x.q, x.k, x.v, x.a, x.state))
    system = System(
        Scalar(a[None, :, None, 0]),
        OuterCoupling(k[None, :, None]),
        OuterCoupling(q[None, :, None]),
    )
    found, state = dsf.run(system, v[None, :, None], dsf.State(start[None, None]), form="chunkwise")
    bound = torch.tensor(64 * U) * _tensor(outputs).abs().max()
    require_within(found[0, :, 0], _tensor(outputs), bound, "outputs")
    require_within(state.memory[0, 0], _tensor(last), bound + 64 * U, "state")


def _symbols(x: Symbols) -> set[Any]:
    return set().union(*(part.free_symbols for part in (x.q, x.k, x.v, x.a, x.state)))


def _tensor(exact: Any) -> torch.Tensor:
    return torch.tensor(np.array(exact.tolist(), dtype=np.float64))


def test_the_rule_of_gates_is_the_package_s() -> None:
    """`of_gates` of the kernels against the judge's rationals, on integers."""
    from dsf.kernels.decay.gates import of_gates
    from dsf.kernels.shapes import Packing

    evidence = evidence_of(gate_rounding.CLAIMS[0])
    dq, dk, decays = gate_rounding.gradients(evidence)
    q, k = ([[Fraction(int(x)) for x in row] for row in evidence[name]] for name in "qk")
    exact = gate_rounding.of_gates(q, k, dq, dk)
    tensors = [
        torch.tensor([[float(x) for x in row] for row in rows], dtype=torch.float64)[None, :, None]
        for rows in (q, k, dq, dk)
    ]
    g = torch.tensor([float(a) for a in decays], dtype=torch.float64).log()[None, :, None]
    packing = Packing.of(tensors[0], None)
    found = of_gates(*tensors, g, torch.zeros(1, 1, dtype=torch.float64), packing)
    sizes = sum((abs(a * b).sum() for a, b in (tensors[::2], tensors[1::2])), torch.tensor(0.0))
    bound = 4 * len(exact) * U * sizes
    expected = torch.tensor([float(x) for x in exact], dtype=torch.float64)
    require_within(found.flatten(), expected, bound, "dg")
    assert exact[0] == 0  # the state is empty before


def test_rates_are_the_package_s() -> None:
    h, heads, layer, layers, paper, code = decay_rates._rates()
    for name, rule in (("paper", paper), ("code", code)):
        found = rates(8, 3, 12, name)
        for n in range(8):
            exact = rule.subs({h: n + 1, heads: 8, layer: 3, layers: 12})
            require_close(float(found[n]), float(exact), 8, name)


def test_counts_by_hand() -> None:
    assert operations.forward(64, 128, 128) == 98304
    assert operations.backward(64, 128, 128) == 262144
    assert crossover.crossing(64, 128, 128) == 383
    assert crossover.softmax(3, 1, 1) == 2 * 2 * 6
    assert 383 * operations.forward(64, 128, 128) == crossover.softmax(383, 128, 128)
    units = traffic.one_pass(64, 128).bytes / (2 * 64 * 4 * 128), traffic.two_passes(64).bytes
    assert units == (4, 10 * 2 * 64 * 4 * 128)  # four tensors, and ten where states travel
    assert traffic.one_pass(64, 64).bytes == 6 * 2 * 64 * 4 * 128


def test_published_rows_by_hand() -> None:
    assert published._crosses("forward") == (2048, 4096)
    assert published._crosses("backward") == (4096, 8192)
    assert float(published.per_token("lightning2", "forward")[0]) * 1024 * 128 / 1e6 == 0.585876


def test_bounds_of_the_exponential() -> None:
    for x in (Fraction(-3), Fraction(-1, 2), Fraction(0), Fraction(7, 3), Fraction(20)):
        low, high = aaren.power_of_e(x)
        assert low <= Fraction(float(np.exp(float(x)))) <= high


def test_two_keys_by_hand() -> None:
    judged = slopes.SMALLER_EVERYWHERE.judge({"exponentials": np.array([1, 1])})
    assert judged.measured == 2 / 9 and judged.bound == 0.25  # σ(-log 2) = 1/3, p = 1/2


def test_counted_softmax_by_hand() -> None:
    found = row_statistics.softmax(5, 2, 3)
    assert found == {"exp": 8, "max": 5, "add": 13, "mul": 12, "div": 3, "log": 1}


# -- the programs that are counted --------------------------------------------------------------------


def test_programs_multiply_as_counted() -> None:
    """As many `tl.dot` in the programs of scalar decay as products in the algebra that is counted."""
    x, forward, both = operations.draws(3, 2, 2, 1), operations.Counting(), operations.Counting()
    operations.in_chunks(x, 3, forward)
    operations.two_walks(x, 3, both)
    found = _dots("dsf.kernels.triton_code.chunk_decay")
    assert found["forward"] == forward.products == 4
    assert found["backward_of_reads"] + found["backward_of_writes"] == both.products == 11


def _dots(module: str) -> dict[str, int]:
    source = inspect.getsource(resolve(f"{module}:triton") and sys.modules[module])
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return {
        function.name: sum(
            ast.unparse(node.func) == "tl.dot"
            for node in ast.walk(function)
            if isinstance(node, ast.Call)
        )
        for function in functions
    }


def test_the_forward_program_moves_the_tensors_that_are_counted() -> None:
    kernel = resolve("dsf.kernels.decay.scalar:KERNEL")
    (forward,) = (program for program in kernel.programs if program.name == "forward")
    data = {name for name, kind in forward.pointers.items() if kind == "data"}
    assert data == {"q", "k", "v", "o"} and len(traffic.one_pass(64, 128).counts) == 5
    assert not traffic.one_pass(64, 128).counts["states"].any()


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


# -- figures ------------------------------------------------------------------------------------------


def test_the_figure_of_counts_says_that_it_counts() -> None:
    made = figures.operations_per_token()
    (place,) = made.axes
    flat, growing, equal = (np.asarray(line.get_ydata(), dtype=float) for line in place.lines)
    assert set(flat) == {98304.0} and (np.diff(growing) > 0).all() and len(equal) == 2
    assert "counted, not timed" in place.get_title()
    assert float(np.asarray(place.lines[2].get_xdata())[0]) == 383


def test_the_figure_of_times_shows_the_published_rows() -> None:
    made = figures.published_times()
    assert [place.get_title() for place in made.axes] == ["forward", "backward"]
    shown = np.asarray(made.axes[0].lines[0].get_ydata(), dtype=float)
    for point, ms, n in zip(
        shown, published.MILLISECONDS["lightning2", "forward"], published.LENGTHS, strict=True
    ):
        require_close(point, ms * 1e3 / n, 4)
