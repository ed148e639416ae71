"""The solvers of attention's SVM: what they return proves itself, and agrees with general solvers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dsf.errors import InvalidInput
from dsf.theory.svm import (
    Infeasible,
    Instance,
    Solution,
    att_svm,
    att_svm_batch,
    causal,
    self_attention,
)

NORMS = ("frobenius", "nuclear", 1.5, 3.0)
GAP = {"frobenius": 1e-10, "nuclear": 1e-6, 1.5: 1e-6, 3.0: 1e-6}  # the aims of the solvers


def unit(*shape: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def sphere(n: int, t: int, d: int, seed: int) -> Instance:
    selection = np.random.default_rng(seed + 1000).integers(0, t, n)
    return Instance(unit(n, t, d, seed=seed), unit(n, d, seed=seed + 500), selection)


def ragged(seed: int) -> Instance:
    sizes = (1, 4, 2, 5)
    tokens = [unit(t, 8, seed=seed + i) for i, t in enumerate(sizes)]
    return Instance(tokens, unit(4, 8, seed=seed + 9), np.array([0, 3, 1, 2]))


def repeated(seed: int) -> Instance:
    one = sphere(3, 4, 8, seed)
    doubled = [np.concatenate([x, x[1:2]]) for x in one.tokens]
    selection = np.where(one.selection == 1, 0, one.selection)
    return Instance(doubled, one.queries, selection)


def with_equal(seed: int) -> Instance:
    one = sphere(3, 5, 8, seed)
    return Instance(
        one.tokens, one.queries, one.selection, [[(int(a) + 1) % 5] for a in one.selection]
    )


INSTANCES = {
    "one sample": lambda: sphere(1, 3, 4, 0),
    "small": lambda: sphere(4, 5, 8, 1),
    "more samples than channels": lambda: sphere(9, 3, 6, 2),
    "ragged": lambda: ragged(3),
    "repeated tokens": lambda: repeated(4),
    "equalities": lambda: with_equal(5),
    "self-attention": lambda: self_attention(unit(4, 5, 8, seed=6), np.array([1, 2, 0, 4])),
    "causal": lambda: causal(unit(5, 8, seed=7), np.array([0, 1, 2, 0])),
    "huge": lambda: Instance(1e6 * unit(3, 4, 8, seed=8), unit(3, 8, seed=9), np.array([0, 1, 2])),
}  # fmt: skip


def solved(name: str, norm: str | float) -> Solution:
    instance = INSTANCES[name]()
    found = att_svm(instance, norm=norm)
    assert isinstance(found, Solution)
    return found


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", INSTANCES)
def test_a_solution_proves_itself(name: str, norm: str | float) -> None:
    found = solved(name, norm)
    checked = found.verify()
    assert checked.accepted and checked.relative_gap <= GAP[norm]
    assert checked.lower <= checked.upper * (1 + 1e-12)
    assert (checked.direction_error is None) == (norm == "nuclear")
    assert found.margins.min() >= 1 - 1e-12
    on_support = [found.instance.row_tokens.index(pair) for pair in found.support]
    assert checked.complementarity <= np.sqrt(GAP[norm]) and on_support


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["small", "ragged", "equalities", "repeated tokens"])
def test_a_general_solver_agrees(name: str, norm: str | float) -> None:
    pytest.importorskip("cvxpy")
    found = solved(name, norm)
    peer = att_svm(found.instance, norm=norm, solver="cvxpy:clarabel")
    assert isinstance(peer, Solution) and peer.verify().accepted
    low, high = max(found.lower, peer.lower), min(found.primal, peer.primal)
    assert low <= high * (1 + 1e-12), "the intervals of the two do not meet"
    assert peer.relative_gap <= 1e-6


TAMPERED = {
    "a smaller W": lambda s: replace(s, W=0.999 * s.W),
    "a W turned away": lambda s: replace(s, W=s.W + 1e-2 * np.abs(s.W).max()),
    "a larger W": lambda s: replace(s, W=1.01 * s.W),
    "a negative multiplier": lambda s: replace(s, dual=-s.dual),
    "another multiplier": lambda s: replace(s, dual=s.dual + s.dual.max() * (np.arange(len(s.dual)) == 0)),
    "multipliers of other rows": lambda s: replace(s, dual=np.roll(s.dual, 1)),
    "another query": lambda s: replace(
        s, instance=Instance(s.instance.tokens, s.instance.queries[::-1], s.instance.selection)
    ),
    "another selection": lambda s: replace(
        s, instance=Instance(s.instance.tokens, s.instance.queries, (s.instance.selection + 1) % 5)
    ),
    "no number": lambda s: replace(s, W=np.full_like(s.W, np.nan)),
}  # fmt: skip


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("change", TAMPERED)
def test_tampering_is_noticed(change: str, norm: str | float) -> None:
    """A changed point is refused, or proves less than the true one does."""
    honest = solved("small", norm)
    forged = TAMPERED[change](honest).verify()
    assert not (forged.accepted and forged.relative_gap <= 10 * GAP[norm])


def planted(seed: int) -> Instance:
    """A token between two others cannot be selected, whatever the query weights are."""
    ends = unit(2, 6, seed=seed)
    return Instance([np.stack([ends.mean(0), *ends])], unit(1, 6, seed=seed + 1), np.array([0]))


@pytest.mark.parametrize("norm", NORMS)
def test_what_cannot_be_separated_has_a_certificate(norm: str | float) -> None:
    found = att_svm(planted(0), norm=norm)
    assert isinstance(found, Infeasible) and not found and found.verify()
    assert not replace(found, weights=found.weights[::-1] * np.array([1.0, 0.5])).verify()
    assert not replace(found, weights=-found.weights).verify()
    apart = sphere(1, 3, 6, 0)
    assert not Infeasible(apart, np.array([0.5, 0.5]), np.zeros(0)).verify()


def test_every_small_instance_is_decided() -> None:
    """At d = 2 most random selections are infeasible; each gets one of the two certificates."""
    kinds = set()
    for found in att_svm_batch([sphere(4, 4, 2, seed) for seed in range(40)]):
        kinds.add(bool(found))
        assert found.verify().accepted if isinstance(found, Solution) else found.verify()
    assert kinds == {True, False}


def test_a_batch_is_each_alone() -> None:
    instances = [sphere(3, 4, 6, seed) for seed in range(6)]
    for one, found in zip(instances, att_svm_batch(instances), strict=True):
        alone = att_svm(one)
        assert isinstance(alone, Solution) and isinstance(found, Solution)
        assert np.array_equal(alone.W, found.W)


@pytest.mark.parametrize("norm", NORMS)
def test_order_and_scale_do_not_matter(norm: str | float) -> None:
    """Samples permuted; tokens scaled by c: the optimal norm is divided by c."""
    one = sphere(4, 5, 8, 11)
    found, order = att_svm(one, norm=norm), np.array([2, 0, 3, 1])
    moved = att_svm(
        Instance([4.0 * one.tokens[i] for i in order], one.queries[order], one.selection[order]), norm=norm
    )  # fmt: skip
    assert isinstance(found, Solution) and isinstance(moved, Solution)
    low, high = max(found.lower, 4 * moved.lower), min(found.primal, 4 * moved.primal)
    assert low <= high * (1 + 1e-12)


def test_nothing_to_separate() -> None:
    found = att_svm([unit(1, 3, seed=0)], unit(1, 3, seed=1), np.array([0]))
    assert isinstance(found, Solution) and found.primal == 0 and found.verify().accepted


def test_the_nuclear_solution_has_a_certified_rank() -> None:
    found = att_svm(sphere(6, 8, 10, 0), norm="nuclear")
    full = att_svm(sphere(6, 8, 10, 0))
    assert isinstance(found, Solution) and isinstance(full, Solution)
    assert found.rank <= found.rank_bound < full.rank == 6


@pytest.mark.parametrize("name", ["small", "ragged", "more samples than channels", "causal"])
def test_a_bound_on_the_rank_is_met(name: str) -> None:
    """From the rank of the nuclear solution on nothing is lost; below, the norm falls as the bound is relaxed."""
    free = solved(name, "nuclear")
    norms = []
    for rank in range(1, free.rank + 1):
        try:
            found = att_svm(INSTANCES[name](), norm="nuclear", rank=rank)
        except ArithmeticError:  # no such W was found: then none was found of lower rank either
            assert not norms
            continue
        assert isinstance(found, Solution) and found.rank <= rank and found.verify().accepted
        assert np.linalg.matrix_rank(found.W) <= rank
        assert found.lower <= free.primal and found.primal >= free.lower
        norms.append(found.primal)
    assert norms == sorted(norms, reverse=True)
    assert norms[-1] == free.primal


@pytest.mark.parametrize("seed", range(12))
def test_rank_one_in_the_plane_is_the_best_of_all_angles(seed: int) -> None:
    """W = s k qᵀ with k and q on circles: a grid of angles knows the smallest s up to its spacing."""
    rng = np.random.default_rng(seed)
    instance = Instance(
        rng.standard_normal((2, 3, 2)), rng.standard_normal((2, 2)), np.array([0, 1])
    )
    angles = np.linspace(0, 2 * np.pi, 1441)[:-1]
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    rows, queries = instance.differences @ circle.T, instance.queries[instance.owner] @ circle.T
    margins = (rows[:, :, None] * queries[:, None, :]).min(0)
    # Half a step of both angles moves a margin by no more than ‖d‖ ‖z‖ times the step.
    lengths = np.linalg.norm(instance.queries, axis=1)[instance.owner]
    spacing = angles[1] * (np.linalg.norm(instance.differences, axis=1) * lengths).max()
    best = float(margins.max())
    try:
        found = att_svm(instance, norm="nuclear", rank=1)
    except ArithmeticError:
        found = None
    if not isinstance(found, Solution):
        assert best <= 0
        return
    assert found.rank == 1 and best + spacing > 0
    assert found.primal >= 1 / (best + spacing)
    assert best <= 0 or found.primal <= (1 + 1e-9) / best


BAD = {
    "rank": (lambda: att_svm(sphere(2, 3, 4, 0), norm="nuclear", rank=0), "a rank of 1 or more"),
    "rank of a norm": (lambda: att_svm(sphere(2, 3, 4, 0), rank=1), "goes with norm='nuclear'"),
    "rank and ties": (lambda: att_svm(with_equal(5), norm="nuclear", rank=1), "without equalities"),
    "queries": (lambda: att_svm(unit(2, 3, 4, seed=0), unit(3, 4, seed=1), np.array([0, 1])), "one query"),
    "selection": (lambda: att_svm(unit(2, 3, 4, seed=0), unit(2, 4, seed=1), np.array([0, 3])), "0 … 2"),
    "kind": (lambda: att_svm(unit(2, 3, 4, seed=0), unit(2, 4, seed=1), np.array([0.0, 1.0])), "integers"),
    "norm": (lambda: att_svm(sphere(2, 3, 4, 0), norm="max"), "p > 1"),
    "p": (lambda: att_svm(sphere(2, 3, 4, 0), norm=1.0), "p > 1"),
    "solver": (lambda: att_svm(sphere(2, 3, 4, 0), solver="gurobi"), "cvxpy:clarabel"),
    "nan": (lambda: Instance([np.full((2, 2), np.nan)], np.ones((1, 2)), np.array([0])), "finite"),
    "equal": (lambda: Instance([np.eye(3)], np.ones((1, 3)), np.array([0]), [[0]]), "without the selected"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_explained(name: str) -> None:
    call, words = BAD[name]
    with pytest.raises(InvalidInput, match=words):
        call()
