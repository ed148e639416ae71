"""Linear algebra over the rationals, by `fractions`, with python-flint where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

Row = list[Fraction]
Matrix = list[Row]


def matrix(x: np.ndarray) -> Matrix:
    """The floats of a matrix as the rational numbers they are."""
    return [[Fraction(a) for a in line] for line in np.asarray(x, dtype=float).tolist()]


def transposed(x: Matrix) -> Matrix:
    return [list(line) for line in zip(*x, strict=True)]


def inner(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    """Σ_i a_i b_i."""
    return sum((p * q for p, q in zip(a, b, strict=True)), Fraction(0))


def dot(d: Sequence[Fraction], W: Matrix, z: Sequence[Fraction]) -> Fraction:
    """dᵀ W z."""
    total = Fraction(0)
    for a, line in zip(d, W, strict=True):
        if a:
            total += a * inner(line, z)
    return total


def gram(G: Matrix) -> Matrix:
    """GᵀG."""
    columns = transposed(G)
    return [[inner(one, two) for two in columns] for one in columns]


def is_psd(x: Matrix) -> bool:
    """Is a symmetric matrix positive semidefinite? By elimination without square roots."""
    rest = [list(line) for line in x]
    for i in range(len(rest)):
        pivot = rest[i][i]
        if pivot < 0 or (pivot == 0 and any(rest[i][i + 1 :])):
            return False
        for j in range(i + 1, len(rest) if pivot else 0):
            factor = rest[j][i] / pivot
            if factor:
                for k in range(j, len(rest)):
                    rest[j][k] -= factor * rest[i][k]
                    rest[k][j] = rest[j][k]
    return True


def solve(system: Matrix, target: Row) -> Row | None:
    """One solution of a linear system, other unknowns zero; None where there is none."""
    reduced, pivots = _reduced([[*line, b] for line, b in zip(system, target, strict=True)])
    width = len(system[0]) if system else 0
    if width in pivots:
        return None
    found = [Fraction(0)] * width
    for line, column in zip(reduced, pivots, strict=False):
        found[column] = line[-1]
    return found


def _reduced(x: Matrix) -> tuple[Matrix, list[int]]:
    """Reduced row echelon form and its pivot columns."""
    try:
        from flint import fmpq, fmpq_mat
    except ImportError:
        return _by_fractions(x)
    lines = [[fmpq(a.numerator, a.denominator) for a in line] for line in x]
    found, rank = fmpq_mat(lines).rref()
    back = [
        [Fraction(int(found[i, j].p), int(found[i, j].q)) for j in range(len(x[0]))]
        for i in range(rank)
    ]
    return back, [next(j for j, a in enumerate(line) if a) for line in back]


def _by_fractions(x: Matrix) -> tuple[Matrix, list[int]]:
    rest, pivots = [list(line) for line in x], []
    for column in range(len(rest[0]) if rest else 0):
        place = len(pivots)
        best = next((i for i in range(place, len(rest)) if rest[i][column]), None)
        if best is None:
            continue
        rest[place], rest[best] = rest[best], rest[place]
        pivot = rest[place][column]
        rest[place] = [a / pivot for a in rest[place]]
        for i, line in enumerate(rest):
            if i != place and line[column]:
                factor = line[column]
                rest[i] = [a - factor * b for a, b in zip(line, rest[place], strict=True)]
        pivots.append(column)
    return rest[: len(pivots)], pivots
