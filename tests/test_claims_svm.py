"""Claims about token selection: as expected, verified, tampered with, rewritten, and judged on known values."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from dsf.certificate import Budget, Claim, Level, Status, Task
from dsf.certify import certify, claim_seed, outcome
from dsf.codec import digest
from dsf.registry import claims, resolve
from dsf.theory.claims import asymptotics, judging, nonlinear
from dsf.theory.claims.problem import Problem, Unusable
from dsf.theory.instances import equal_scores, sphere
from dsf.theory.svm import att_svm
from dsf.verify import verify
from dsf.verify.judging import judged

PAPERS = (
    "tarzanagh2023-svm",
    "tarzanagh2023-max-margin",
    "li2024",
    "julistiono2024",
    "sheen2024",
    "vasudeva2024",
)
MINE = {name: claim for name, claim in claims().items() if claim.paper in PAPERS}
U = 2.0**-53


def evidence_of(claim: Claim, seed: int = 0) -> dict:
    return dict(claim.witness(claim.instance(Task(claim_seed(seed, claim.id), Budget.SMOKE))))


@pytest.mark.parametrize("name", MINE)
def test_as_expected_and_verified(name: str) -> None:
    claim = MINE[name]
    certificate = certify(claim, claim_seed(0, name), Budget.SMOKE)
    assert outcome(certificate) == "as-expected", certificate.to_json()["remark"]
    record = certificate.to_json()
    verification = verify(record, claims=MINE)
    assert verification.accepted, verification.reasons
    proves = claim.level.proves
    assert verification.conclusion == ("proved" if proves else "consistent with recorded data")
    swapped = {**record, "evidence": record["control"]["evidence"]}
    swapped["digest"] = digest(swapped)
    assert not verify(swapped, claims=MINE).accepted


def test_refuted_claims_are_the_ones_said() -> None:
    refuted = {name for name, claim in MINE.items() if claim.expected is Status.VIOLATED}
    assert refuted == {
        "tarzanagh2023-svm.gd-stays-everywhere",
        "tarzanagh2023-svm.feasible-only-above",
        "tarzanagh2023-svm.gd-kq-any-width",
        "tarzanagh2023-svm.no-stationary-generic",
        "tarzanagh2023-svm.rank-at-absolute-tolerance",
    }
    assert len(MINE) >= 20 and len({claim.title for claim in MINE.values()}) == len(MINE)


# Tampering: evidence that is bent must not be judged as the claim is expected to be.

WITH_SVM = [
    name
    for name in MINE
    if name.rpartition(".")[2] in ("rp-global-w", "rp-local-w", "gd-global", "gd-local", "causal")
    or name in ("tarzanagh2023-max-margin.prompt", "vasudeva2024.direction-rate")
]

BENT: dict[str, Callable[[dict], dict]] = {
    "the dual point made larger": lambda e: {
        **e,
        "dual": e["dual"] * (1 + np.arange(len(e["dual"]))),
    },
    "a negative multiplier": lambda e: {**e, "dual": -e["dual"]},
    "another primal point": lambda e: {**e, "primal": e["primal"] + 0.1 * np.eye(len(e["primal"]))},
    "other tokens": lambda e: {**e, "tokens": e["tokens"][:, ::-1].copy()},
    "other queries": lambda e: {**e, "queries": -e["queries"]},
    "another selection": lambda e: {**e, "selection": (e["selection"] + 1) % e["lengths"]},
    "other weights": lambda e: {**e, "W": e["W"] + 5.0},
    "weights of no run": lambda e: {
        **e,
        "W": e["W"] + np.random.default_rng(0).standard_normal(e["W"].shape),
    },
    "other times": lambda e: {**e, "at": e["at"] * np.linspace(1, 3, len(e["at"]))},
    "less than a decade": lambda e: {**e, "at": np.linspace(1e3, 5e3, len(e["at"]))},
    "no snapshots but one": lambda e: {**e, "W": e["W"][:1], "at": e["at"][:1]},
    "no numbers": lambda e: {**e, "W": np.full_like(e["W"], np.nan)},
    "scores without order": lambda e: {**e, "scores": np.zeros_like(e["scores"])},
}


@pytest.mark.parametrize("fault", BENT)
@pytest.mark.parametrize("name", WITH_SVM)
def test_bent_evidence_is_not_judged_as_expected(name: str, fault: str) -> None:
    if fault == "other times" and "rp-" not in name:
        pytest.skip("the times of descent are not tied to the norms")
    claim, evidence = MINE[name], evidence_of(MINE[name])
    assert judged(claim, evidence).status is claim.expected
    assert judged(claim, BENT[fault](evidence)).status is not claim.expected


def straight(evidence: dict) -> dict:
    """The limit's direction with an error that falls as it should, on no path of any training."""
    unit = evidence["primal"] / np.linalg.norm(evidence["primal"])
    off = np.random.default_rng(0).standard_normal(unit.shape)
    at = np.linalg.norm(evidence["W"], axis=(1, 2))[:, None, None]
    turned = unit + 0.1 / at * off
    return {**evidence, "W": at * turned / np.linalg.norm(turned, axis=(1, 2), keepdims=True)}


def on_rays(parts: np.ndarray, at: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Vectors of the same lengths whose directions tend to the limit's as they should, and are not stationary."""
    off = np.random.default_rng(0).standard_normal(limit.shape)
    turned = limit / np.linalg.norm(limit) + off / at[:, None]
    sizes = np.linalg.norm(parts, axis=1, keepdims=True)
    return sizes * turned / np.linalg.norm(turned, axis=1, keepdims=True)


INVENTED: dict[str, tuple[str, Callable[[dict], dict]]] = {
    "a path to the graph's solution": ("li2024.graph-svm", straight),
    "a path of a nonlinear head": ("tarzanagh2023-svm.nonlinear-direction", straight),
    "another finite part": (
        "tarzanagh2023-svm.nonlinear-finite-part",
        lambda e: {**e, "W": e["W"] + 1e-2},
    ),
    "weights whose softmax is nearly right": (
        "tarzanagh2023-svm.sparsemax",
        lambda e: {**e, "W": e["W"] * (1 + 1e-4), "after_W": e["after_W"] * (1 + 1e-4)},
    ),
    "snapshots that follow no step": (
        "tarzanagh2023-svm.sparsemax",
        lambda e: {**e, "after_W": e["W"]},
    ),
    "factors out of balance": ("sheen2024.nuclear-margin", lambda e: {**e, "K": 1.1 * e["K"]}),
    "factors of another start": (
        "sheen2024.nuclear-margin",
        lambda e: {**e, "start": e["start"] + 0.1},
    ),
    "a prompt that is not the best of its norm": (
        "tarzanagh2023-max-margin.joint-prompt",
        lambda e: {**e, "P": on_rays(e["P"], e["at"], e["primal"])},
    ),
    "a head that is not the best of its norm": (
        "tarzanagh2023-max-margin.joint-head",
        lambda e: {**e, "V": on_rays(e["V"], e["at"], e["head_primal"])},
    ),
    "heads of other lengths": (
        "tarzanagh2023-max-margin.joint-head",
        lambda e: {**e, "V": 1.1 * e["V"]},
    ),
    "a curve shorter than its chords": (
        "sheen2024.nuclear-margin",
        lambda e: {**e, "at": e["at"] / 2},
    ),
}


@pytest.mark.parametrize("fault", INVENTED)
def test_invented_weights_are_not_judged_as_expected(fault: str) -> None:
    name, invent = INVENTED[fault]
    evidence = evidence_of(MINE[name])
    assert judged(MINE[name], evidence).status is MINE[name].expected
    assert judged(MINE[name], invent(evidence)).status is Status.HYPOTHESIS_NOT_MET


def test_descents_snapshots_must_be_steps() -> None:
    claim = MINE["tarzanagh2023-svm.gd-global"]
    evidence = evidence_of(claim)
    moved = {**evidence, "after_W": evidence["after_W"] + 1e-6}
    verdict = judged(claim, moved)
    assert verdict.status is Status.HYPOTHESIS_NOT_MET
    assert [h.name for h in verdict.hypotheses if not h.holds] == [
        "largest error of a step over its roundings"
    ]


# Hypotheses that fail are said to, and nothing is concluded.


def test_unequal_scores_are_a_hypothesis_that_fails() -> None:
    claim = MINE["tarzanagh2023-svm.gd-global"]
    evidence = evidence_of(claim)
    scores = evidence["scores"].copy()
    others = np.setdiff1d(np.arange(scores.shape[1]), evidence["selection"][:1])
    scores[0, others[0]] -= 0.1
    assert judged(claim, {**evidence, "scores": scores}).status is Status.HYPOTHESIS_NOT_MET


def test_a_dimension_on_the_wrong_side_is_a_hypothesis_that_fails() -> None:
    above, below = (MINE[f"tarzanagh2023-svm.{n}"] for n in ("feasible", "feasible-only-above"))
    assert judged(above, evidence_of(below)).status is Status.HYPOTHESIS_NOT_MET
    assert judged(below, evidence_of(above)).status is Status.HYPOTHESIS_NOT_MET


def test_a_selection_that_a_support_token_beats_is_not_locally_optimal() -> None:
    claim = MINE["tarzanagh2023-svm.rp-local-w"]
    evidence = evidence_of(claim)
    assert judged(claim, {**evidence, "scores": -evidence["scores"]}).status is (
        Status.HYPOTHESIS_NOT_MET
    )


# Metamorphic: a change of basis, and the order of samples and tokens, change nothing.


@pytest.mark.parametrize("name", ["tarzanagh2023-svm.rp-global-w", "tarzanagh2023-svm.gd-global"])
def test_a_change_of_basis_changes_nothing(name: str) -> None:
    claim, evidence = MINE[name], evidence_of(MINE[name])
    d = evidence["queries"].shape[1]
    rng = np.random.default_rng(0)
    a, b = (np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(2))
    turned = {
        **evidence,
        "tokens": evidence["tokens"] @ a,
        "queries": evidence["queries"] @ b,
        **{k: a.T @ evidence[k] @ b for k in ("primal", "W", "after_W") if k in evidence},
    }
    first, second = judged(claim, evidence), judged(claim, turned)
    assert first.status is second.status is Status.HOLDS
    assert first.measured is not None and second.measured is not None
    assert abs(first.measured - second.measured) <= 1e-6  # error bars of the certificate are larger


def test_the_order_of_samples_changes_nothing() -> None:
    claim = MINE["tarzanagh2023-svm.rp-margin-w"]
    evidence = evidence_of(claim)
    n, most = evidence["scores"].shape
    order = np.random.default_rng(0).permutation(n)
    moved = {
        **evidence,
        **{k: evidence[k][order] for k in ("tokens", "queries", "scores", "lengths", "selection")},
        "dual": evidence["dual"].reshape(n, most - 1)[order].ravel(),
    }
    first, second = judged(claim, evidence), judged(claim, moved)
    assert first.status is second.status is Status.HOLDS
    assert abs(first.measured - second.measured) <= 64 * U * 1e5 * n * most  # type: ignore[operator]


# Known values.


def test_the_gap_of_a_problem_solved_by_hand() -> None:
    """One sample, tokens e_1 (selected) and -e_1, query e_1: W = e_1 e_1ᵀ / 2, λ = 1/4."""
    problem = Problem(
        np.array([[[1.0, 0.0], [-1.0, 0.0]]]),
        np.array([[1.0, 0.0]]),
        np.array([[1.0, 0.0]]),
        np.ones((1, 2), dtype=bool),
        np.array([0]),
    )
    w = np.diag([7.0, 0.0])
    for norm in (2.0, "nuc", 3.0, 1.5):
        low, high = problem.gap(w, np.array([0.3]), norm)
        assert low <= 0.5 <= high and high - low <= 1e3 * U
    low, high = problem.gap(np.diag([7.0, 7.0]), np.array([0.3]), 2.0)
    assert abs(low - 0.5) <= 1e3 * U and abs(high - np.sqrt(0.5)) <= 1e3 * U
    with pytest.raises(Unusable):
        problem.gap(-w, np.array([0.3]), 2.0)


@pytest.mark.parametrize("norm", ["frobenius", "nuclear", 1.75, 3.0])
def test_the_judges_gap_is_that_of_the_solver(norm: str | float) -> None:
    data = sphere(3, 4, 6, seed=5)
    found = att_svm(data.ragged(), data.queries, data.optimal, norm=norm)
    assert found
    problem = Problem(data.tokens, data.queries, data.scores, data.mask, data.optimal)
    name = {"frobenius": 2.0, "nuclear": "nuc"}.get(norm, norm)  # type: ignore[call-overload]
    low, high = problem.gap(found.W, found.dual, name)
    assert low <= found.primal <= high
    assert (high - low) / high <= float(found.relative_gap) + 1e-10


def test_sparsemax_by_hand() -> None:
    weights, loss = nonlinear.sparsemax(np.array([[1.0, 0.8, 0.0]]), 0.5)
    assert np.abs(weights - [[0.6, 0.4, 0.0]]).max() <= 4 * U
    assert np.abs(loss - [[0.0, 0.0, 0.4]]).max() <= 4 * U


def test_the_bound_on_the_margin_is_not_met_by_accident() -> None:
    """C of the lemma against the deficit of W^mm itself, which is zero."""
    claim = MINE["tarzanagh2023-svm.rp-margin-w"]
    verdict = judged(claim, evidence_of(claim))
    assert verdict.measured is not None and verdict.bound is not None
    assert 0 < verdict.measured < verdict.bound < 20


def test_a_slope_by_hand_and_what_bars_do_to_it() -> None:
    at = np.array([1.0, 10.0, 100.0, 1000.0])
    found, spread = asymptotics.slope(at, 3 / at, np.zeros(4))
    assert abs(found + 1) <= 8 * U and spread == 0
    assert asymptotics.rate(at, 3 / at, np.zeros(4)).status is Status.HOLDS
    assert asymptotics.rate(at, 3 / np.sqrt(at), np.zeros(4)).status is Status.VIOLATED
    assert asymptotics.rate(at, 3 / at, 2.9 / at).status is Status.INCONCLUSIVE
    assert asymptotics.at_least(at, 3 / at, np.zeros(4), -0.75).status is Status.HOLDS
    assert asymptotics.at_least(at, 3 / np.sqrt(at), np.zeros(4), -0.75).status is Status.VIOLATED
    for errors, bars in ((3 / at, 4 / at), (-3 / at, np.zeros(4))):
        with pytest.raises(Unusable):
            asymptotics.slope(at, errors, bars)
    with pytest.raises(Unusable):
        asymptotics.slope(at[:3], at[:3], np.zeros(3))


def test_feasibility_is_exact() -> None:
    claim = MINE["tarzanagh2023-svm.feasible"]
    evidence = evidence_of(claim)
    verdict = judged(claim, evidence)
    assert claim.level is Level.ENCLOSED and verdict.measured == 1.0
    # The smallest change of one entry that flips a margin's sign is seen.
    w = [[Fraction(0) * entry for entry in row] for row in evidence["W"]]
    assert judged(claim, {**evidence, "W": w}).status is Status.INCONCLUSIVE


def test_the_judges_gradient_is_that_of_the_dynamics() -> None:
    """They share no code: one sums pairs, the other differences from the largest logit."""
    from dsf.theory.dynamics import Objective

    for make in (sphere, equal_scores):
        data = make(3, 4, 6, seed=1)
        problem = Problem(data.tokens, data.queries, data.scores, data.mask, data.optimal)
        for size in (0.0, 1.0, 1e3):
            w = size * np.random.default_rng(2).standard_normal((6, 6))
            log_scale, direction = problem.descent_direction(w)
            found = Objective.of(data).gradient(w)
            norm = np.linalg.norm(direction)
            allowed = 64 * 6 * 12 * U * (1 + 6 * size)
            assert np.abs(direction / norm - found.unit()).max() <= allowed
            assert abs(log_scale + np.log(norm) - found.log_norm()) <= allowed


def test_judges_use_neither_solver_nor_dynamics_nor_torch() -> None:
    import ast
    import inspect

    for module in (judging, asymptotics, resolve("dsf.theory.claims.problem:Problem").__module__):
        source = inspect.getsource(module) if not isinstance(module, str) else None
        if source is None:
            import importlib

            source = inspect.getsource(importlib.import_module(module))
        named = {
            node.module or ""
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.ImportFrom)
        }
        assert not [
            name for name in named if "svm" in name or "dynamics" in name or "torch" in name
        ]
