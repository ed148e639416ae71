r"""Norms and spectral radii, enclosed: numbers below and above which the exact value cannot lie.

Both upper bounds are positive-definiteness proofs, so they are exact up to `positive.EXACT` rows and
floating-point factorisations with an error bound beyond:

    ‖A‖₂ < s  where s²I - AᵀA is positive definite,
    ρ(A) < r  where P and r²P - AᵀPA are (Stein's inequality; P may come from any solver).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .positive import EXACT, UNIT, exactly_positive, integers, positive_definite

_STEPS = 40  # at most this many widenings of a bound before giving up


@dataclass(frozen=True)
class Between:
    """lower <= exact value <= upper, with the proofs named; `upper` is inf where none was found."""

    lower: float
    upper: float
    how: str

    def __contains__(self, value: float) -> bool:
        return self.lower <= value <= self.upper


def spectral_norm(matrix: np.ndarray, *, exact: int = EXACT) -> Between:
    r"""‖A‖₂ of a real or complex float64 matrix, enclosed.

    Below, the Rayleigh quotient of an approximate singular vector in rationals; above, the smallest
    s tried for which s²I - AᵀA is proved positive definite, from a few roundings up.

    >>> found = spectral_norm(np.array([[3.0, 0.0], [4.0, 5.0]]))
    >>> found.lower <= 45**0.5 <= found.upper, found.upper - found.lower < 1e-12
    (True, True)
    """
    a = _real_form(matrix)
    if not a.any():
        return Between(0.0, 0.0, "the matrix is 0")
    a = a if a.shape[0] >= a.shape[1] else a.T
    _, sizes, rows = np.linalg.svd(a, full_matrices=False)
    lower = _rayleigh(a, rows[0])
    n = a.shape[1]
    slack = 4 * UNIT if n <= exact else 64 * n * UNIT
    for _ in range(_STEPS):
        upper = math.nextafter(max(float(sizes[0]), lower) * (1 + slack), math.inf)
        if _norm_below(a, upper, exact):
            how = "s^2 I - A^T A positive definite, " + ("rationals" if n <= exact else "float64")
            return Between(lower, upper, how)
        slack *= 4
    return Between(lower, math.inf, "no bound above was proved")


def spectral_radius(matrix: np.ndarray, *, exact: int = EXACT) -> Between:
    r"""ρ(A) of a square real or complex float64 matrix, enclosed.

    Up to `exact` rows by python-flint's eigenvalue enclosures, where it is installed. Otherwise above
    by Stein's inequality, below by |tr A| / n.

    >>> 0.5 in spectral_radius(np.array([[0.5, 100.0], [0.0, 0.25]]))
    True
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a square matrix is needed; got shape {matrix.shape}")
    if len(matrix) <= exact and (found := _by_balls(matrix)) is not None:
        return found
    a = _real_form(matrix)
    lower = _down(abs(float(np.trace(matrix))) / max(1, len(matrix)) * (1 - 8 * UNIT * len(a)))
    radius = float(np.abs(np.linalg.eigvals(a)).max(initial=0.0))
    gap = 2.0**-20
    for _ in range(_STEPS):
        upper = radius * (1 + gap) + _tiny(a)
        if radius_below(a, upper, exact=exact):
            return Between(lower, upper, "Stein's inequality for a P from its equation")
        gap *= 2
    return Between(lower, math.inf, "no bound above was proved")


def radius_below(
    matrix: np.ndarray, bound: float, weight: np.ndarray | None = None, *, exact: int = EXACT
) -> bool:
    r"""Proves ρ(A) < r by P > 0 and r²P - AᵀPA > 0; False where the proof fails, which refutes nothing.

    `weight` P is found from AᵀPA - r²P = -I if it is not given. A weight from elsewhere is as good:
    only the two inequalities are used.

    >>> radius_below(np.array([[0.5, 100.0], [0.0, 0.25]]), 0.51)
    True
    """
    a = _real_form(matrix)
    n = len(a)
    p = _stein(a, bound) if weight is None else _real_form(weight)
    if p is None or not np.isfinite(p).all():
        return False
    p = (p + p.T) / 2
    if not positive_definite(p, exact=exact).positive:
        return False
    if n <= exact:
        whole, scale = integers(a)
        weights, _ = integers(p)  # any positive multiple of P will do
        return exactly_positive(
            Fraction(bound) ** 2 / scale**2 * weights - whole.T @ weights @ whole
        )
    with np.errstate(all="ignore"):
        difference = bound**2 * p - a.T @ (p @ a)
        size = bound**2 * np.abs(p) + np.abs(a).T @ (np.abs(p) @ np.abs(a))
    return _surely_positive(difference, size, 2 * n + 8)


def _norm_below(a: np.ndarray, bound: float, exact: int) -> bool:
    n = a.shape[1]
    if n <= exact:
        whole, scale = integers(a)
        square = Fraction(bound) ** 2 / scale**2
        return exactly_positive(square * np.eye(n, dtype=int).astype(object) - whole.T @ whole)
    difference = bound**2 * np.eye(n) - a.T @ a
    size = bound**2 * np.eye(n) + np.abs(a).T @ np.abs(a)
    return _surely_positive(difference, size, len(a) + 4)


def _surely_positive(computed: np.ndarray, size: np.ndarray, roundings: int) -> bool:
    """M > 0 for the exact M with |M - computed| <= γ size: ‖M - computed‖₂ is at most a row sum."""
    gamma = roundings * UNIT / (1 - roundings * UNIT)
    error = 2 * gamma * float(size.sum(1).max()) + 2.0**-1000
    symmetric = (computed + computed.T) / 2
    moved = symmetric - error * np.eye(len(computed))
    return bool(np.isfinite(moved).all()) and positive_definite(moved, exact=0).positive is True


def _rayleigh(a: np.ndarray, x: np.ndarray) -> float:
    """A lower bound of ‖Ax‖ / ‖x‖, from exact integers where small, else with an error bound."""
    if a.size <= 1 << 16:
        whole, scale = integers(a)
        vector, _ = integers(x)
        image = whole @ vector
        return _root_below(Fraction(int(image @ image), int(vector @ vector)) * scale**2)
    gamma = (a.shape[1] + 4) * UNIT * 2
    image = np.maximum(np.abs(a @ x) - gamma * (np.abs(a) @ np.abs(x)), 0)
    return _down(math.sqrt(math.fsum(image**2) / math.fsum(x**2)) * (1 - 8 * UNIT))


def _root_below(square: Fraction) -> float:
    root = math.sqrt(square)
    while Fraction(root) ** 2 > square:
        root = math.nextafter(root, 0.0)
    return root


def _by_balls(matrix: np.ndarray) -> Between | None:
    """Two-sided, from enclosures of all eigenvalues; None without python-flint or where they fail."""
    try:
        import flint
    except ImportError:
        return None
    entries = [[flint.acb(x.real, x.imag) for x in row] for row in matrix.astype(complex).tolist()]
    for bits in (128, 256, 512):
        with flint.ctx.workprec(bits):
            try:
                sizes = [abs(x) for x in flint.acb_mat(entries).eig(multiple=True)]
            except (ValueError, ArithmeticError):
                continue
            if not sizes:
                return Between(0.0, 0.0, "no rows")
            lower = max(_down(float(x.lower())) for x in sizes)
            upper = max(_up(float(x.upper())) for x in sizes)
            return Between(max(0.0, lower), upper, f"eigenvalue enclosures at {bits} bits")
    return None


def _stein(a: np.ndarray, bound: float) -> np.ndarray | None:
    """P of AᵀPA - r²P = -I by doubling: P = Σ_j (A/r)ᵀʲ (A/r)ʲ / r²."""
    power, total = a / bound, np.eye(len(a))
    with np.errstate(all="ignore"):
        for _ in range(64):
            step = power.T @ total @ power
            total, power = total + step, power @ power
            if not np.isfinite(total).all():
                return None
            if np.abs(step).max(initial=0.0) <= UNIT * np.abs(total).max(initial=0.0):
                break
    return total


def _real_form(matrix: np.ndarray) -> np.ndarray:
    """The matrix, or [[Re, -Im], [Im, Re]], which has the same norm and spectral radius."""
    array = np.asarray(matrix)
    if array.ndim != 2 or not np.isfinite(array).all():
        raise ValueError(f"a matrix of finite numbers is needed; got shape {array.shape}")
    if not np.iscomplexobj(array):
        return array.astype(np.float64)
    wide = array.astype(np.complex128)
    return np.block([[wide.real, -wide.imag], [wide.imag, wide.real]])


def _tiny(a: np.ndarray) -> float:
    return UNIT * float(np.abs(a).max(initial=0.0)) + 2.0**-1000


def _down(x: float) -> float:
    return math.nextafter(x, -math.inf)


def _up(x: float) -> float:
    return math.nextafter(x, math.inf)
