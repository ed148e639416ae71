r"""Minimal realizations of rational maps, exactly, on Python's fractions alone.

The state at cut i is a set of earlier tokens whose columns of Φ[i:, :i] are a basis of all its
columns. A column that was no basis vector at one cut never becomes one (its later part is the same
combination), so each step chooses among the old basis and the new token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from dsf.errors import InvalidInput

Rows = list[list[Fraction]]


@dataclass(frozen=True)
class ExactRealization:
    """x_{i+1} = A_i x_i + B_i u_i, y_i = C_i x_i + D_i u_i in rationals, for one head.

    `tokens[i]` are the earlier tokens whose values the state of cut i can be read as.
    """

    A: tuple[Rows, ...]
    B: tuple[list[Fraction], ...]
    C: tuple[list[Fraction], ...]
    D: tuple[Fraction, ...]
    tokens: tuple[tuple[int, ...], ...]

    @property
    def orders(self) -> tuple[int, ...]:
        """n_0 … n_T: the exact ranks of Φ[i:, :i]."""
        return tuple(map(len, self.tokens))

    def matrix(self) -> Rows:
        """Φ, exactly."""
        columns: Rows = []
        rows = []
        length = len(self.D)
        for i in range(length):
            row = [_dot(self.C[i], x) for x in columns]
            rows.append([*row, self.D[i], *[Fraction(0)] * (length - i - 1)])
            columns = [[_dot(a, x) for a in self.A[i]] for x in columns] + [list(self.B[i])]
        return rows


def exact_realization(phi: Sequence[Sequence[int | float | Fraction]]) -> ExactRealization:
    """The minimal realization of a causal matrix of integers, fractions, or floats taken as they are.

    Raises `InvalidInput` for a matrix that is not square or not causal. Work T⁴ at most, in
    fractions: for T up to about 40.

    >>> exact_realization([[1, 0, 0], [2, 1, 0], [4, 2, 1]]).orders
    (0, 1, 1, 0)
    """
    rows = [[Fraction(x) for x in row] for row in phi]
    length = len(rows)
    if any(len(row) != length for row in rows) or any(any(rows[i][i + 1 :]) for i in range(length)):
        raise InvalidInput("give a square matrix with zeros above the diagonal")
    held: tuple[int, ...] = ()
    tokens: list[tuple[int, ...]] = [held]
    A, B, C = [], [], []
    for i in range(length):
        C.append([rows[i][j] for j in held])
        offered = (*held, i)
        basis, weights = _column_basis([[row[j] for j in offered] for row in rows[i + 1 :]])
        A.append([row[:-1] for row in weights])
        B.append([row[-1] for row in weights])
        held = tuple(offered[j] for j in basis)
        tokens.append(held)
    diagonal = tuple(rows[i][i] for i in range(length))
    return ExactRealization(tuple(A), tuple(B), tuple(C), diagonal, tuple(tokens))


def _column_basis(matrix: Rows) -> tuple[list[int], Rows]:
    """Columns that form a basis, and every column as a combination of them: reduced echelon form."""
    rows = [list(row) for row in matrix]
    pivots: list[int] = []
    for column in range(len(rows[0]) if rows else 0):
        at = len(pivots)
        found = next((r for r in range(at, len(rows)) if rows[r][column]), None)
        if found is None:
            continue
        rows[at], rows[found] = rows[found], rows[at]
        rows[at] = [x / rows[at][column] for x in rows[at]]
        for r, row in enumerate(rows):
            if r != at and row[column]:
                factor = row[column]
                rows[r] = [x - factor * y for x, y in zip(row, rows[at], strict=True)]
        pivots.append(column)
    return pivots, rows[: len(pivots)]


def _dot(x: Sequence[Fraction], y: Sequence[Fraction]) -> Fraction:
    return sum((a * b for a, b in zip(x, y, strict=True)), Fraction(0))
