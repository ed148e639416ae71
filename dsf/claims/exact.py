"""Exact arithmetic on rational matrices, standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

Matrix = list[list[Fraction]]
Vector = list[Fraction]


def rationals(rows: Sequence[Sequence[float | int | Fraction]]) -> Matrix:
    """Every entry as the exact rational that it is."""
    return [[Fraction(x) for x in row] for row in rows]


def dot(x: Vector, y: Vector) -> Fraction:
    return sum((a * b for a, b in zip(x, y, strict=True)), Fraction(0))


def rank(matrix: Matrix) -> int:
    """The exact rank, by elimination.

    >>> rank(rationals([[1, 2], [2, 4]]))
    1
    """
    rows = [list(row) for row in matrix]
    found = 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((r for r in range(found, len(rows)) if rows[r][column]), None)
        if pivot is None:
            continue
        rows[found], rows[pivot] = rows[pivot], rows[found]
        for r in range(found + 1, len(rows)):
            factor = rows[r][column] / rows[found][column]
            if factor:
                rows[r] = [a - factor * b for a, b in zip(rows[r], rows[found], strict=True)]
        found += 1
    return found


def hankel_ranks(matrix: Matrix) -> list[int]:
    """rank Φ[i:, :i] for every cut i = 1 … T-1: the states that a recurrence needs there."""
    return [rank([row[:i] for row in matrix[i:]]) for i in range(1, len(matrix))]
