"""The claims of Sieber et al.: every one as expected and verified; known values; failing hypotheses;
metamorphic rewrites; tampering."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from dsf.certificate import Budget, Claim, Level, Status, Task
from dsf.certify import certify, outcome
from dsf.claims import conversions, gates, hankel, normalisers, separable, taylor
from dsf.claims.exact import hankel_ranks, rank, rationals
from dsf.codec import digest
from dsf.registry import claims, papers
from dsf.verify import verify

MINE = {name: claim for name, claim in claims().items() if claim.paper == "sieber2024"}
NUMERICAL = [c for c in MINE.values() if c.level is not Level.SYMBOLIC]


def _judge(claim: Claim, seed: int = 0, **changes: object) -> Status:
    drawn = claim.instance(Task(seed, Budget.SMOKE))
    return claim.judge({**claim.witness(drawn), **changes}).status


@pytest.mark.parametrize("budget", [Budget.SMOKE, Budget.DEFAULT])
@pytest.mark.parametrize("name", MINE)
def test_as_expected_and_verified(name: str, budget: Budget) -> None:
    certificate = certify(MINE[name], seed=3, budget=budget)
    assert outcome(certificate) == "as-expected", certificate.to_json()["remark"]
    verification = verify(certificate.to_json(), claims=MINE)
    assert verification.accepted, verification.reasons
    assert verification.conclusion == "proved"


@pytest.mark.parametrize("claim", NUMERICAL, ids=lambda c: c.id)
@pytest.mark.parametrize("seed", range(5))
def test_verdict_does_not_depend_on_the_draw(claim: Claim, seed: int) -> None:
    assert _judge(claim, seed) is claim.expected


def test_the_paper_has_ten_claims_four_of_them_symbolic_each_with_a_control() -> None:
    assert "sieber2024" in [p.slug for p in papers()] and len(MINE) >= 10
    assert sum(c.level is Level.SYMBOLIC for c in MINE.values()) >= 4
    for claim in MINE.values():
        verdict = claim.judge(claim.control(claim.instance(Task(1, Budget.SMOKE))))
        assert verdict.status.definite and verdict.status is not claim.expected, claim.id


@pytest.mark.parametrize("claim", NUMERICAL, ids=lambda c: c.id)
def test_tampered_evidence_is_refused(claim: Claim) -> None:
    record = certify(claim, seed=5, budget=Budget.SMOKE).to_json()
    swapped = {**record, "evidence": record["control"]["evidence"]}
    swapped["digest"] = digest(swapped)
    assert not verify(swapped, claims=MINE).accepted


def test_outputs_moved_beyond_the_bound_violate() -> None:
    for claim in (separable.SEPARABLE_ATTENTION_RUN, taylor.TRUNCATED_SOFTMAX):
        evidence = claim.witness(claim.instance(Task(0, Budget.SMOKE)))
        bound = claim.judge(evidence).bound
        assert bound is not None
        moved = np.array(evidence["y"])
        moved[-1, -1] += np.abs(evidence["v"]).max()
        assert claim.judge({**evidence, "y": moved}).status is Status.VIOLATED


# -- hypotheses that fail ----------------------------------------------------------------------------


def test_hypotheses_are_looked_at_first() -> None:
    drawn = hankel.SOFTMAX_RANK.instance(Task(0, Budget.SMOKE))
    large = {"q": drawn["q"] * 10_000, "k": drawn["k"], "kernel": "exponential"}
    assert hankel.SOFTMAX_RANK.judge(large).status is Status.HYPOTHESIS_NOT_MET

    drawn = normalisers.LINEAR_ATTENTION_DECAYS.instance(Task(0, Budget.SMOKE))
    signed = {"phi_q": -drawn["phi_q"], "phi_k": drawn["phi_k"]}
    assert normalisers.LINEAR_ATTENTION_DECAYS.judge(signed).status is Status.HYPOTHESIS_NOT_MET

    evidence = taylor.TRUNCATED_SOFTMAX.witness(taylor.TRUNCATED_SOFTMAX.instance(Task(0)))
    hot = {**evidence, "q": 10 * evidence["q"]}
    assert taylor.TRUNCATED_SOFTMAX.judge(hot).status is Status.HYPOTHESIS_NOT_MET

    claim = conversions.DELTA_RULE_ORTHONORMAL
    evidence = claim.witness(claim.instance(Task(0, Budget.SMOKE)))
    long = [[2 * x for x in key] for key in evidence["k"]]
    assert claim.judge({**evidence, "k": long}).status is Status.HYPOTHESIS_NOT_MET


# -- known values -------------------------------------------------------------------------------------


def test_exact_ranks() -> None:
    hilbert = [[Fraction(1, i + j + 1) for j in range(6)] for i in range(6)]
    assert rank(hilbert) == 6
    outer = rationals(np.outer([1, 2, 3], [4, 5, 6]).tolist())
    assert rank(outer) == 1
    assert rank([]) == 0
    decay = [
        [Fraction(1, 2) ** (i - j) if j <= i else Fraction(0) for j in range(5)] for i in range(5)
    ]
    assert hankel_ranks(decay) == [1, 1, 1, 1]


def test_first_transition_above_one_by_hand() -> None:
    # η_1 = (1, 8)·(1, 1) = 9, η_2 = (1, 1)·(2, 2) = 4: the transition is 9/4.
    evidence = {"phi_q": np.array([[1, 8], [1, 1]]), "phi_k": np.array([[1, 1], [1, 1]])}
    verdict = normalisers.LINEAR_ATTENTION_DECAYS.judge(evidence)
    assert verdict.status is Status.VIOLATED
    assert verdict.measured == 9 / 4


def test_two_keys_of_linear_attention_by_hand() -> None:
    same = {"q": np.array([[1, 1]] * 4), "k": np.array([[1, 2]] * 4), "kernel": "linear"}
    verdict = hankel.LINEAR_ATTENTION_RANK.judge(same)
    assert verdict.measured == 1.0 and verdict.status is Status.VIOLATED


# -- metamorphic rewrites -----------------------------------------------------------------------------


def test_permuting_or_scaling_features_changes_no_verdict() -> None:
    claim = normalisers.LINEAR_ATTENTION_DECAYS
    drawn = claim.instance(Task(2, Budget.SMOKE))
    order = np.array([2, 0, 3, 1])
    rewritten = {name: x[:, order] * 3 for name, x in drawn.items()}
    assert claim.judge(rewritten).measured == claim.judge(dict(drawn)).measured


def test_rotating_keys_and_queries_keeps_attention() -> None:
    claim = taylor.TRUNCATED_SOFTMAX
    evidence = dict(claim.witness(claim.instance(Task(4, Budget.SMOKE))))
    swapped = {**evidence, "q": evidence["q"][:, ::-1].copy(), "k": evidence["k"][:, ::-1].copy()}
    assert claim.judge(swapped).status is claim.judge(evidence).status is Status.HOLDS


def test_symbolic_claims_refuse_another_statement() -> None:
    other = gates.GRU_GATE.witness({})
    assert gates.REVERSED_SIGMOID.judge(other).status is Status.INCONCLUSIVE
