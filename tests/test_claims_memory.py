"""Claims of what a state holds and what rounding does to it: as expected, verified, tampered with."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from dsf.certificate import Budget, Claim, Level, Status, Task
from dsf.certify import certify, outcome
from dsf.claims import (
    delta_stability,
    gauge_reach,
    head_count,
    log_space,
    realizations,
    rounding,
    states,
    taylor_degrees,
)
from dsf.claims.exact import rank
from dsf.codec import digest
from dsf.numerics import require_close
from dsf.registry import claims
from dsf.verify import verify

TABLES = (
    states.CLAIMS,
    taylor_degrees.CLAIMS,
    gauge_reach.CLAIMS,
    delta_stability.CLAIMS,
    head_count.CLAIMS,
    realizations.CLAIMS,
    realizations.SANDBERG2004,
    log_space.CLAIMS,
    rounding.CLAIMS,
)
MINE: dict[str, Claim] = {claim.id: claim for table in TABLES for claim in table}
NUMERICAL = [c for c in MINE.values() if c.level is not Level.SYMBOLIC]


def evidence_of(claim: Claim, seed: int = 0) -> dict:
    return dict(claim.witness(claim.instance(Task(seed, Budget.SMOKE))))


@pytest.mark.parametrize("budget", [Budget.SMOKE, Budget.DEFAULT])
@pytest.mark.parametrize("claim", MINE.values(), ids=lambda c: c.id)
def test_as_expected_and_verified(claim: Claim, budget: Budget) -> None:
    certificate = certify(claim, seed=3, budget=budget)
    assert outcome(certificate) == "as-expected", certificate.to_json()["remark"]
    verification = verify(certificate.to_json(), claims=claims())
    assert verification.accepted, verification.reasons
    wanted = "proved" if claim.level.proves else "consistent with recorded data"
    assert verification.conclusion == wanted


@pytest.mark.parametrize("claim", NUMERICAL, ids=lambda c: c.id)
@pytest.mark.parametrize("seed", range(4))
def test_verdict_does_not_depend_on_the_draw(claim: Claim, seed: int) -> None:
    assert claim.judge(evidence_of(claim, seed)).status is claim.expected


@pytest.mark.parametrize("claim", NUMERICAL, ids=lambda c: c.id)
def test_the_controls_evidence_is_not_accepted_for_the_claims(claim: Claim) -> None:
    record = certify(claim, seed=5, budget=Budget.SMOKE).to_json()
    swapped = {**record, "evidence": record["control"]["evidence"]}
    swapped["digest"] = digest(swapped)
    assert not verify(swapped, claims=claims()).accepted


def test_there_are_thirty_and_all_are_listed() -> None:
    assert len(MINE) >= 28 and set(MINE) <= set(claims())
    assert sum(c.expected is Status.VIOLATED for c in MINE.values()) >= 7


# -- known values -------------------------------------------------------------------------------------


def test_degrees_by_hand() -> None:
    table = evidence_of(taylor_degrees.DEGREES)["degrees"]
    assert table[0].tolist() == [3, 5, 6] and table[3].tolist() == [28, 30, 31]
    low, high = taylor_degrees.exponential(1)
    assert float(low) == float(high) == np.e and high > low
    low, high = taylor_degrees.relative_error(1, 1)
    assert low <= 1 <= high  # T_1(-1) = 0, so the error is all of e^{-1}


def test_contraction_by_hand() -> None:
    half, two = Fraction(1, 2), Fraction(2)
    assert delta_stability.contracts([[half, Fraction(0)], [Fraction(0), Fraction(1)]])
    assert not delta_stability.contracts([[two]])
    shear = [[Fraction(1), half], [Fraction(0), Fraction(1)]]
    assert not delta_stability.contracts(shear)  # eigenvalues 1, and yet longer than 1
    assert delta_stability.contracts([[Fraction(0), Fraction(1)], [Fraction(-1), Fraction(0)]])


def test_two_modes_need_two_heads_by_hand() -> None:
    poles, ones = [Fraction(1, 2), Fraction(1, 4)], np.ones((2, 3), dtype=int)
    ones[1] = [1, 2, 3]
    lags = head_count._lags(poles, ones, ones.T, 5)
    assert rank(lags) == 2 and lags[0] == [2, 3, 4, 3, 5, 7, 4, 7, 10]


def test_bfloat16_stops_at_256_and_rounds_to_even() -> None:
    assert rounding.COUNTER_STALLS.judge({"steps": 1024, "bits": 8}).measured == 256
    assert rounding.rounded(Fraction(257), 8) == 256 and rounding.rounded(Fraction(259), 8) == 260
    values = np.float32([1.00390625, 257.0, 3.0])
    assert rounding._bfloat16(values).tolist() == [1.0, 256.0, 3.0]


def test_runs_are_those_of_the_analysis() -> None:
    """Two ways to find monotone runs: the judge's own, and the one that reductions report."""
    from dsf.analysis.truncation import run_bound

    rng = np.random.default_rng(0)
    for _ in range(20):
        lines = -np.sort(-rng.random((9, 3)), 1)
        found = [np.zeros(0), *lines, np.zeros(0)]
        mine = run_bound([x[1:] for x in found], [min(1, len(x)) for x in found])
        judge = realizations._runs(list(lines), 1)
        require_close(judge, min(mine, float(lines[:, 1].sum())), 64)


# -- hypotheses that fail -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "change"),
    [
        (states.SOFTMAX_SINGULAR_VALUES, lambda e: {**e, "q": e["q"][:8], "k": e["k"][:8]}),
        (states.REDUCTION_BEATS_TAYLOR, lambda e: {**e, "A": np.zeros((48, 20, 20))}),
        (gauge_reach.HANKEL_RANKS_ARE_NO_GAUGE, lambda e: {**e, "moved_a": e["a"]}),
        (
            delta_stability.OTHER_ERASES_CAN_GROW,
            lambda e: {**e, "along": [[5, 0], [1, 1]]},
        ),
        (head_count.ATTENTION_REACHES, lambda e: {**e, "exponents": []}),
        (realizations.SEQUENTIAL_BOUND, lambda e: {**e, "order": e["order"] + 1}),
        (log_space.LOG_SPACE_LOSES, lambda e: {**e, "a": 2 * e["a"]}),
        (log_space.QUOTIENT_OVERFLOWS, lambda e: {**e, "b": -e["b"]}),
        (rounding.RUNNING_BOUND, lambda e: {**e, "a": -e["a"]}),
        (rounding.COUNTER_STALLS, lambda e: {**e, "steps": 0}),
    ],
    ids=lambda x: getattr(x, "id", ""),
)
def test_hypotheses_are_looked_at_first(claim: Claim, change) -> None:
    assert claim.judge(change(evidence_of(claim))).status is Status.HYPOTHESIS_NOT_MET


def test_both_gauges_are_seen_to_have_one_map() -> None:
    claim = gauge_reach.SPECTRAL_RADIUS_IS_A_GAUGE
    assert claim.judge(evidence_of(claim)).hypotheses[0].holds


# -- metamorphic rewrites and tampering ---------------------------------------------------------------


def test_rotating_queries_and_keys_changes_nothing() -> None:
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0]
    for claim in (*states.CLAIMS, realizations.SEQUENTIAL_BOUND, realizations.PYTHAGORAS):
        evidence = evidence_of(claim)
        turned = {**evidence, "q": evidence["q"] @ turn, "k": evidence["k"] @ turn}
        assert claim.judge(turned).status is claim.judge(evidence).status is claim.expected


def test_a_change_of_basis_keeps_realizations() -> None:
    claim = realizations.HANKEL_FROM_GRAMIANS
    evidence = evidence_of(claim)
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((4, 4)))[0]
    moved = {
        **evidence,
        "A": turn @ evidence["A"] @ turn.T,
        "B": evidence["B"] @ turn.T,
        "C": evidence["C"] @ turn.T,
    }
    assert claim.judge(moved).status is Status.HOLDS


def test_permuting_modes_keeps_the_heads() -> None:
    claim = head_count.HEADS_SUFFICE
    drawn = claim.instance(Task(4, Budget.SMOKE))
    order = [2, 0, 1]
    other = {"poles": [drawn["poles"][i] for i in order], "b": drawn["b"][order]}
    assert claim.judge(claim.witness({**other, "c": drawn["c"][:, order]})).status is Status.HOLDS


def test_scaling_inputs_scales_errors() -> None:
    claim = rounding.RUNNING_BOUND
    evidence = evidence_of(claim)
    scaled = {**evidence, "x": 8 * evidence["x"], "h": 8 * evidence["h"]}
    assert claim.judge(scaled).measured == claim.judge(evidence).measured


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        (states.STATES_FOR_ONE_PERCENT, "C"),
        (states.REDUCTION_BEATS_TAYLOR, "C"),
        (realizations.HANKEL_FROM_GRAMIANS, "values"),
        (realizations.PYTHAGORAS, "dropped"),
        (realizations.SEQUENTIAL_BOUND, "C"),
        (realizations.BALANCED_BOUND, "C"),
        (rounding.RUNNING_BOUND, "h"),
    ],
    ids=lambda x: getattr(x, "id", x),
)
def test_numbers_moved_violate(claim: Claim, name: str) -> None:
    evidence = evidence_of(claim)
    moved = np.array(evidence[name], dtype=np.float64)
    moved[len(moved) // 2] += 1e3
    assert claim.judge({**evidence, name: moved}).status is Status.VIOLATED


def test_an_exact_realization_moved_by_one_violates() -> None:
    claim = realizations.MINIMAL_STATE
    evidence = evidence_of(claim)
    for name in ("B", "C", "D"):
        rows = [list(x) if isinstance(x, list) else x for x in evidence[name]]
        if name == "D":
            rows[3] += 1
        else:
            place = next(i for i, row in enumerate(rows) if row)
            rows[place][0] += 1
        assert claim.judge({**evidence, name: rows}).status is Status.VIOLATED
    table = evidence_of(taylor_degrees.DEGREES)["degrees"] + 1
    assert taylor_degrees.DEGREES.judge({"degrees": table}).status is Status.VIOLATED
    assert taylor_degrees.DEGREES.judge({"degrees": table[:1]}).status is Status.INCONCLUSIVE
