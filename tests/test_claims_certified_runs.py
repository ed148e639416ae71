"""A run of the delta rule with a proved error, judged without torch."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from dsf.certificate import Budget, Status, Task
from dsf.certify import certify, outcome
from dsf.claims.certified_runs import DELTA_RULE_RUN as CLAIM
from dsf.codec import digest
from dsf.registry import claims
from dsf.verify import verify


@pytest.mark.parametrize("budget", [Budget.SMOKE, Budget.DEFAULT])
def test_as_expected_verified_and_not_to_be_swapped(budget: Budget) -> None:
    certificate = certify(CLAIM, seed=3, budget=budget)
    assert outcome(certificate) == "as-expected", certificate.verdict.remark
    record = certificate.to_json()
    assert verify(record, claims=claims()).conclusion == "proved"
    forged = {**record, "evidence": record["control"]["evidence"]}
    forged["digest"] = digest(forged)
    assert not verify(forged, claims=claims()).accepted


def _evidence(seed: int = 0) -> dict:
    return dict(CLAIM.witness(CLAIM.instance(Task(seed, Budget.SMOKE))))


def test_exact_rationals_agree() -> None:
    """The first outputs of the evidence against the rule in fractions."""
    found = _evidence()
    q, k, v = (
        [[Fraction(x) for x in row] for row in found[n][:5].tolist()] for n in ("q", "k", "v")
    )
    beta = [Fraction(x) for x in found["beta"][:5].tolist()]
    state = [[Fraction(0)] * len(v[0]) for _ in k[0]]
    for i in range(5):
        read = [sum(k[i][a] * state[a][c] for a in range(len(k[i]))) for c in range(len(v[i]))]
        for a in range(len(k[i])):
            state[a] = [
                state[a][c] + beta[i] * k[i][a] * (v[i][c] - read[c]) for c in range(len(v[i]))
            ]
        for c in range(len(v[i])):
            exact = sum(q[i][a] * state[a][c] for a in range(len(q[i])))
            assert abs(Fraction(float(found["y"][i, c])) - exact) <= Fraction(1, 2**30)


def test_hypotheses_come_first() -> None:
    found = _evidence()
    assert CLAIM.judge({**found, "beta": found["beta"] + 2}).status is Status.HYPOTHESIS_NOT_MET
    odd = {**found, "beta": found["beta"] * 0.9}
    assert CLAIM.judge(odd).status is Status.HYPOTHESIS_NOT_MET


def test_turning_values_and_naming_keys_anew_changes_no_verdict() -> None:
    found = _evidence(1)
    order = np.random.default_rng(0).permutation(found["k"].shape[1])
    renamed = {**found, "q": found["q"][:, order], "k": found["k"][:, order]}
    flipped = {**found, "v": -found["v"], "y": -found["y"]}
    assert CLAIM.judge(renamed).status is CLAIM.judge(flipped).status is Status.HOLDS


def test_one_output_that_is_off_violates() -> None:
    found = _evidence()
    moved = found["y"].copy()
    moved[-1, 0] += 2.0**-28
    assert CLAIM.judge({**found, "y": moved}).status is Status.VIOLATED
