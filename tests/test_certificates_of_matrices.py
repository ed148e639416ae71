"""Definiteness, norms and spectral radii against exact algebra and closed forms; bounds that lie are caught."""

from __future__ import annotations

import sys
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy

import dsf.verify.positive as positive
import dsf.verify.spectra as spectra
from dsf.verify.positive import exactly_positive, positive_definite, quadratic
from dsf.verify.spectra import radius_below, spectral_norm, spectral_radius


def laplacian(n: int) -> np.ndarray:
    """Eigenvalues 2 - 2 cos(k π/(n+1)), k = 1 … n."""
    return 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)


def eigenvalue(n: int, k: int) -> Any:
    with mpmath.workdps(60):
        return 2 - 2 * mpmath.cos(k * mpmath.pi / (n + 1))


def symmetric(n: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    half = draw.integers(-9, 10, (n, n)) / 8
    return half + half.T


@pytest.fixture(params=["flint", "standard library"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "flint":
        monkeypatch.setitem(sys.modules, "flint", None)
    return request.param


@pytest.mark.parametrize("n", [0, 1, 2, 5, 9])
@pytest.mark.parametrize("seed", range(6))
def test_small_matrices_as_sympy_decides(n: int, seed: int, arithmetic: str) -> None:
    matrix = symmetric(n, seed)
    shifts = (0.0, float(n), 2.5 * n)
    for shift in shifts:
        moved = matrix + shift * np.eye(n)
        rational = sympy.Matrix(n, n, [sympy.Rational(x) for x in moved.ravel().tolist()])
        assert positive_definite(moved).positive is bool(n == 0 or rational.is_positive_definite)


@pytest.mark.parametrize("n", [12, 51, 130])
@pytest.mark.parametrize("margin", [1e-3, 1e-9, 1e-11])
def test_matrices_whose_smallest_eigenvalue_is_known(n: int, margin: float) -> None:
    matrix, least = laplacian(n), float(eigenvalue(n, 1))
    inside = positive_definite(matrix - (least - margin * 10) * np.eye(n))
    outside = positive_definite(matrix - (least + margin * 10) * np.eye(n))
    assert inside.positive is True and outside.positive is False


def singular(n: int, seed: int) -> np.ndarray:
    """B Bᵀ of integers with B (n, n - 1): exactly singular."""
    b = np.random.default_rng(seed).integers(-3, 4, (n, n - 1)).astype(float)
    return b @ b.T


def law_never_positive(n: int) -> None:
    for seed in range(20):
        assert positive_definite(singular(n, seed)).positive is not True


@pytest.mark.parametrize("n", [6, 60])
def test_singular_matrices_are_never_proved_positive(n: int) -> None:
    law_never_positive(n)


def test_a_factorisation_without_its_error_bound_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positive, "cholesky_shift", lambda matrix: 0.0)
    with pytest.raises(AssertionError):
        law_never_positive(60)


def test_a_quadratic_form_is_exact() -> None:
    matrix = np.array([[1.0, 2.0**-60], [2.0**-60, -1.0]])
    assert quadratic(matrix, np.array([1.0, 1.0])) == sympy.Rational(2, 2**60)


# -- norms and radii ------------------------------------------------------------------------------------


def law_norm_is_enclosed(n: int) -> None:
    """‖tridiag‖₂ = 2 + 2 cos(π/(n+1)), between bounds that are close."""
    found, exact = spectral_norm(laplacian(n)), eigenvalue(n, n)
    with mpmath.workdps(60):
        own = mpmath.mpf(10) ** -50  # the reference's own rounding
        assert found.lower - own <= exact <= found.upper + own, (found, exact)


@pytest.mark.parametrize("n", [1, 2, 20, 51, 120])
def test_norms_of_known_matrices(n: int, arithmetic: str) -> None:
    law_norm_is_enclosed(n)
    found = spectral_norm(laplacian(n))
    # From `EXACT` rows on AᵀA is formed in float64: γ_n relative to n row sums, for the square.
    assert found.upper - found.lower <= 64 * n * n * positive.UNIT * found.upper


def test_norm_of_a_rectangle_a_complex_matrix_and_nothing() -> None:
    wide = np.array([[3.0, 4.0, 0.0]])
    assert 5.0 in spectral_norm(wide) and 5.0 in spectral_norm(1j * wide.T)
    assert spectral_norm(np.zeros((2, 3))).upper == 0.0


def test_a_bound_above_that_is_too_low_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    proved = spectra._norm_below
    monkeypatch.setattr(
        spectra, "_norm_below", lambda a, s, exact: proved(a, s * (1 + 1e-6), exact)
    )
    monkeypatch.setattr(spectra, "_rayleigh", lambda a, x: 0.0)
    real = np.linalg.svd
    monkeypatch.setattr(
        np.linalg,
        "svd",
        lambda a, **k: tuple(x * (1 - 1e-7) if i == 1 else x for i, x in enumerate(real(a, **k))),
    )
    with pytest.raises(AssertionError):
        law_norm_is_enclosed(20)


@pytest.mark.parametrize("n", [1, 3, 20, 60])
def test_radius_of_triangular_matrices(n: int, arithmetic: str) -> None:
    """The radius is the largest diagonal entry, however far from normal the matrix is."""
    draw = np.random.default_rng(n)
    matrix = np.triu(draw.standard_normal((n, n)), 1) / n + np.diag(np.arange(1, n + 1) / n)
    turned = matrix.copy()
    found = spectral_radius(turned)
    assert 1.0 in found and found.upper < 1.5
    assert radius_below(matrix, 1.2) and not radius_below(matrix, 1.0)


def test_radius_of_a_nilpotent_and_of_a_rotation() -> None:
    assert 0.0 in spectral_radius(np.eye(6, k=1))
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = spectral_radius(turn)
    assert found.lower > 1 - 1e-12 and found.upper < 1 + 1e-12
    assert spectral_radius(np.exp(0.3j) * np.eye(2)).upper < 1 + 1e-12


def test_a_weight_that_proves_nothing_is_refused() -> None:
    matrix = np.array([[0.5, 100.0], [0.0, 0.25]])
    assert radius_below(matrix, 0.6)
    assert not radius_below(matrix, 0.6, weight=np.eye(2))  # ‖A‖ is far above 0.6
    assert not radius_below(matrix, 0.4, weight=np.array([[1.0, 0.0], [0.0, -1.0]]))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((2, 3)), "square"),
        (np.array([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (np.array([[np.nan]]), "finite"),
    ],
)
def test_bad_matrices_are_refused(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        positive_definite(matrix)


def test_pivots_of_hilbert_matrices() -> None:
    exact = [[Fraction(1, i + j + 1) for j in range(12)] for i in range(12)]
    assert exactly_positive(exact)  # of condition 1e16, where float64 sees nothing
    exact[11][11] -= Fraction(1, 10**13)
    assert not exactly_positive(exact)
