"""Exact rational certificates of small instances: they enclose, agree with the float ones, and cannot be bent."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from dsf.theory.svm import (
    Infeasible,
    Instance,
    Solution,
    att_svm,
    enclose,
    finite_part,
    kept_sets,
    refute,
    token_graph,
)
from dsf.theory.svm.exact import norm_above
from dsf.theory.svm.rational import is_psd, matrix, solve

NORMS = ("frobenius", "nuclear", 1.5, 3.0)


def unit(*shape: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


INSTANCES = {
    "two samples": lambda: Instance(unit(2, 3, 4, seed=0), unit(2, 4, seed=1), np.array([0, 2])),
    "ragged": lambda: Instance(
        [unit(2, 4, seed=2), unit(4, 4, seed=3)], unit(2, 4, seed=4), np.array([1, 0])
    ),
    "kept sets": lambda: kept_sets(unit(2, 4, 5, seed=5), unit(2, 5, seed=6), [[0, 2], [1]]),
    "finite part": lambda: finite_part(
        unit(2, 3, 4, seed=7), unit(2, 4, seed=8), [[0.25, 0.75, 0.0], [0.5, 0.125, 0.375]]
    ),
    "graph": lambda: token_graph(
        unit(4, 5, seed=9), np.array([[0, 1, 2], [0, 2, 2]]), np.array([[1, 3, 0]])
    ),
    "a margin of zero": lambda: Instance(
        unit(2, 3, 4, seed=10), unit(2, 4, seed=11), np.array([0, 1]), least=[0.0, 1.0]
    ),
}  # fmt: skip


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", INSTANCES)
def test_rationals_enclose_what_floats_say(name: str, norm: str | float) -> None:
    found = att_svm(INSTANCES[name](), norm=norm)
    assert isinstance(found, Solution)
    exact = enclose(found)
    assert 0 <= exact.low <= exact.high
    assert Fraction(found.lower) <= exact.high and exact.low <= Fraction(found.primal)
    assert exact.relative_gap <= 1e-6  # the aim of the solvers


BENT = {
    "a smaller W": lambda s: replace(s, W=0.999 * s.W),
    "a negative multiplier": lambda s: replace(s, dual=-s.dual),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("change", BENT)
def test_bent_points_are_refused(change: str, norm: str | float) -> None:
    honest = att_svm(INSTANCES["two samples"](), norm=norm)
    assert isinstance(honest, Solution)
    with pytest.raises(ArithmeticError):
        enclose(BENT[change](honest))


@pytest.mark.parametrize("norm", NORMS)
def test_a_larger_multiplier_proves_less(norm: str | float) -> None:
    honest = att_svm(INSTANCES["two samples"](), norm=norm)
    assert isinstance(honest, Solution)
    bent = replace(honest, dual=honest.dual + np.arange(len(honest.dual)))
    assert enclose(bent).low < enclose(honest).low


def between() -> Infeasible:
    """A token midway between two others, in numbers that halve exactly."""
    ends = np.round(64 * unit(2, 6, seed=20)) / 64
    tokens = [np.stack([ends.mean(0), *ends])]
    found = att_svm(tokens, unit(1, 6, seed=21), [0])
    assert isinstance(found, Infeasible)
    return found


def test_infeasibility_is_proved_without_rounding() -> None:
    found = between()
    answer = refute(found)
    assert answer is not None
    weights, equal = answer
    tokens, z = (
        [list(map(Fraction, x)) for x in found.instance.tokens[0].tolist()],
        found.instance.queries[0],
    )
    assert sum(weights) == 1 and min(weights) >= 0 and equal == []
    total = [
        sum(w * (tokens[0][j] - x[j]) for w, x in zip(weights, tokens[1:], strict=True))
        for j in range(6)
    ]
    assert total == [0] * 6 and z.any()


def test_contradicting_equalities_are_refuted() -> None:
    tokens = [np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 0.0]])]
    twice = Instance(
        tokens, np.array([[1.0, 1.0]] * 2), np.array([0, 0]), [[1], [1]], [[1.0], [2.0]]
    )
    found = att_svm(twice)
    assert isinstance(found, Infeasible) and found.verify()
    answer = refute(found)
    assert answer is not None and answer[0] == [] and answer[1][0] == -answer[1][1] != 0


def test_weights_of_what_can_be_separated_refute_nothing() -> None:
    found = INSTANCES["two samples"]()
    assert refute(Infeasible(found, np.full(4, 0.25), np.zeros(0))) is None


@pytest.mark.parametrize("norm", ["frobenius", "nuclear", "spectral", 1.5, 3.0])
def test_norms_are_bounded_from_above_and_closely(norm: str | float) -> None:
    x = unit(3, 4, seed=30)
    names = {"frobenius": "fro", "nuclear": "nuc", "spectral": 2}
    floats = (
        np.linalg.norm(x, names[norm]) if norm in names else (np.abs(x) ** norm).sum() ** (1 / norm)
    )
    bound = norm_above(matrix(x), norm)
    # The floats' own roundings: at most one per entry and three per power.
    slack = Fraction(2 * x.size + 8) * Fraction(2) ** -53
    assert bound * (1 + slack) >= Fraction(float(floats)) >= bound * (1 - 100 * slack)


def test_definiteness_and_systems_are_decided_exactly() -> None:
    tiny = Fraction(1, 10**40)
    assert is_psd([[Fraction(1), Fraction(1)], [Fraction(1), Fraction(1)]])
    assert not is_psd([[Fraction(1), Fraction(1)], [Fraction(1), 1 - tiny]])
    assert not is_psd([[Fraction(0), tiny], [tiny, Fraction(1)]])
    assert solve([[Fraction(1), Fraction(2)]], [Fraction(3)]) == [3, 0]
    assert solve([[Fraction(1)], [Fraction(1)]], [Fraction(1), 1 + tiny]) is None
