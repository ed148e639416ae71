r"""Positive definite or not: proofs in exact rationals, or by one floating-point factorisation.

A float64 matrix is taken as the exact dyadic numbers that it holds. Up to `EXACT` rows an LDLᵀ
elimination in rationals decides. Beyond, Cholesky's factorisation of A - sI in float64 proves that A
is positive definite where it runs to its end, and a vector with xᵀAx <= 0, evaluated exactly,
refutes it; between the two nothing is concluded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

UNIT = 2.0**-53
EXACT = 50  # rows up to which elimination in rationals takes milliseconds to a few seconds
_TINY = 2.0**-1022


@dataclass(frozen=True)
class Definiteness:
    """`positive` is True (proved), False (refuted) or None (undecided); `how` names the proof."""

    positive: bool | None
    how: str


def positive_definite(matrix: Any, *, exact: int = EXACT) -> Definiteness:
    r"""Whether a symmetric matrix (n, n) of float64 or `Fraction` entries is positive definite.

    For n <= `exact`: the pivots of A = LDLᵀ in rationals, a proof either way. Beyond, for float64:
    with R̂ the computed factor of Â = fl(A - sI), R̂ᵀR̂ = Â + E and |E| <= γ_{n+1} |R̂|ᵀ|R̂| (Higham,
    Accuracy and Stability of Numerical Algorithms, 2nd ed., theorem 10.3), so
    ‖E‖₂ <= γ_{n+1} ‖R̂‖_F² <= γ/(1-γ) tr Â, and s above that bound and the rounding of the diagonal
    makes A positive definite (Rump, BIT 46, 2006, own derivation). Raises `ValueError` unless the
    matrix is square, symmetric and finite.

    >>> positive_definite(np.array([[2.0, 1.0], [1.0, 2.0]]))
    Definiteness(positive=True, how='pivots of LDL^T in rationals')
    >>> positive_definite(np.array([[1.0, 2.0], [2.0, 1.0]])).positive
    False
    """
    array = _symmetric(matrix)
    if len(array) <= exact or array.dtype == object:
        return Definiteness(exactly_positive(array), "pivots of LDL^T in rationals")
    shift = cholesky_shift(array)
    if _factorises(array - shift * np.eye(len(array))):
        return Definiteness(True, "Cholesky of A - sI in float64 with an error bound")
    direction = np.linalg.eigh(array)[1][:, 0]
    if quadratic(array, direction) <= 0:
        return Definiteness(False, "a vector with x^T A x <= 0 in rationals")
    return Definiteness(None, "too close to singular for float64")


def exactly_positive(matrix: Any) -> bool:
    """All pivots of LDLᵀ are positive, in exact rationals."""
    rows = rationals(matrix)
    for step in range(len(rows)):
        pivot = rows[step][step]
        if not pivot > 0:
            return False
        for r in range(step + 1, len(rows)):
            factor = rows[step][r] / pivot
            if factor:
                for c in range(r, len(rows)):
                    rows[r][c] -= factor * rows[step][c]
    return True


def cholesky_shift(matrix: np.ndarray) -> float:
    """s such that A is positive definite where the factorisation of fl(A - sI) succeeds."""
    n, diagonal = len(matrix), np.diag(matrix)
    gamma = (n + 1) * UNIT / (1 - (n + 1) * UNIT)
    trace = math.fsum(np.abs(diagonal)) * (1 + 4 * UNIT)
    rounding = UNIT * float(np.abs(diagonal).max(initial=0.0)) * 2
    return (gamma / (1 - gamma) * trace + rounding) * (1 + 8 * UNIT) * 2 + n * n * _TINY


def quadratic(matrix: np.ndarray, vector: np.ndarray) -> Fraction:
    """xᵀAx, exactly, of float64 numbers: integers over one power of two."""
    a, scale_a = integers(matrix)
    x, scale_x = integers(vector)
    return Fraction(int(x @ (a @ x))) * scale_a * scale_x**2


def rationals(matrix: Any) -> list[list[Any]]:
    """Rows of exact rationals: python-flint's where it is there, which are faster, else `Fraction`."""
    exact = [[Fraction(x) for x in row] for row in np.asarray(matrix).tolist()]
    try:
        from flint import fmpq
    except ImportError:
        return exact
    return [[fmpq(x.numerator, x.denominator) for x in row] for row in exact]


def integers(array: np.ndarray) -> tuple[np.ndarray, Fraction]:
    """Python integers N and a power of two s with s N the float64 array, exactly.

    >>> whole, scale = integers(np.array([0.5, 3.0]))
    >>> [Fraction(x) * scale for x in whole]
    [Fraction(1, 2), Fraction(3, 1)]
    """
    if not array.any():
        return array.astype(int).astype(object), Fraction(1)
    _, exponents = np.frexp(array[array != 0])
    lowest = int(exponents.min()) - 53
    whole = [int(Fraction(x) / Fraction(2) ** lowest) for x in array.ravel().tolist()]
    return np.array(whole, dtype=object).reshape(array.shape), Fraction(2) ** lowest


def _factorises(matrix: np.ndarray) -> bool:
    try:
        return bool(np.isfinite(np.linalg.cholesky(matrix)).all())
    except np.linalg.LinAlgError:
        return False


def _symmetric(matrix: Any) -> np.ndarray:
    exact = isinstance(matrix, Sequence) or np.asarray(matrix).dtype == object
    array = np.array(matrix, dtype=object if exact else np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(f"a square matrix is needed; got shape {array.shape}")
    if not exact and not np.isfinite(array).all():
        raise ValueError("the matrix has entries that are not finite")
    if (array != array.T).any():
        raise ValueError("the matrix is not symmetric: give (A + A.T) / 2, which is another matrix")
    return array
