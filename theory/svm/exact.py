"""Certificates in exact rationals, for small instances: every float is taken as the rational number it is.

Nothing is shared with the solver or with `verification`: rows, equalities, norms and definiteness are computed
from the instance by `fractions` (linear systems by python-flint where it is installed). Roots and powers enter
as rational bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from math import isqrt, sqrt
from typing import TYPE_CHECKING

import numpy as np

from .rational import dot, gram, inner, is_psd, matrix, solve, transposed

if TYPE_CHECKING:
    from .infeasible import Infeasible
    from .instance import Instance
    from .solution import Solution

Row = list[Fraction]
Matrix = list[Row]

_DIGITS = 50


@dataclass(frozen=True)
class Enclosure:
    """`low` ≤ optimal norm ≤ `high`, proved in rational arithmetic."""

    low: Fraction
    high: Fraction

    @property
    def relative_gap(self) -> float:
        """(high - low) / high."""
        return float((self.high - self.low) / self.high) if self.high else 0.0


def enclose(found: Solution) -> Enclosure:
    """Bounds of the optimal norm from the two points of a solution, in exact arithmetic.

    W is moved onto the equalities by the exact projection first, then its margins are checked.

    Raises `ArithmeticError` where a margin is missed, a multiplier is negative or the equalities contradict
    each other.

    >>> from dsf.theory import att_svm
    >>> found = enclose(att_svm([np.eye(2)], [[1.0, 0.0]], [0]))
    >>> found.low <= found.high, found.low**2 <= Fraction(1, 2) <= found.high**2
    (True, True)
    """
    x = found.instance
    W, dual, equal = (
        matrix(found.W),
        list(map(Fraction, found.dual)),
        list(map(Fraction, found.equal_dual)),
    )
    rows, ties = _rows(x, x.row_tokens), _rows(x, x.equal_tokens)
    asked = list(map(Fraction, x.bounds.tolist()))
    values = [Fraction(v) for own in x.values for v in own]
    W = _projected(W, ties, values)
    if any(dot(d, W, z) < b for (d, z), b in zip(rows, asked, strict=True)):
        raise ArithmeticError("W misses a margin")
    if any(weight < 0 for weight in dual):
        raise ArithmeticError("a multiplier is negative")
    G = [[Fraction(0)] * x.d for _ in range(x.d)]
    for (d, z), weight in zip(rows + ties, dual + equal, strict=True):
        if weight:
            for line, a in zip(G, d, strict=True):
                for j, c in enumerate(z):
                    line[j] += weight * a * c
    total = sum((b * y for b, y in zip(asked + values, dual + equal, strict=True)), Fraction(0))
    high = norm_above(W, found.norm)
    size = norm_above(G, "spectral" if found.norm == "nuclear" else _conjugate(found.norm))
    return Enclosure(max(Fraction(0), total / size) if size else Fraction(0), high)


def refute(found: Infeasible) -> tuple[Row, Row] | None:
    """λ ≥ 0 and μ with A*λ + E*μ = 0 exactly and bᵀλ + cᵀμ = 1: no W exists.

    The weights' own support is kept and the equations are solved on it in rationals; None where that has no
    solution with λ ≥ 0.

    >>> from dsf.theory import att_svm
    >>> nothing = att_svm([[[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]], [[1.0, 2.0]], [0])
    >>> refute(nothing)
    ([Fraction(1, 2), Fraction(1, 2)], [])
    """
    x = found.instance
    rows, ties = _rows(x, x.row_tokens), _rows(x, x.equal_tokens)
    asked = list(map(Fraction, x.bounds.tolist()))
    values = [Fraction(v) for own in x.values for v in own]
    largest = float(np.abs(found.weights).max(initial=0.0))
    support = [k for k, w in enumerate(found.weights) if w > 1e-12 * largest]
    columns = [(rows[k], asked[k]) for k in support] + list(zip(ties, values, strict=True))
    system = [[d[i] * z[j] for (d, z), _ in columns] for i in range(x.d) for j in range(x.d)]
    system.append([b for _, b in columns])
    answer = solve(system, [Fraction(0)] * (x.d * x.d) + [Fraction(1)])
    if answer is None or any(weight < 0 for weight in answer[: len(support)]):
        return None
    weights = [Fraction(0)] * len(rows)
    for k, weight in zip(support, answer, strict=False):
        weights[k] = weight
    return weights, answer[len(support) :]


def _rows(x: Instance, pairs: list[tuple[int, int]]) -> list[tuple[Row, Row]]:
    tokens, queries = [matrix(t) for t in x.tokens], matrix(x.queries)
    found = []
    for i, t in pairs:
        best = tokens[i][int(x.selection[i])]
        found.append(([a - b for a, b in zip(best, tokens[i][t], strict=True)], queries[i]))
    return found


def _projected(W: Matrix, ties: list[tuple[Row, Row]], values: Row) -> Matrix:
    """The nearest matrix that meets the equalities."""
    if not ties:
        return W
    products = [[inner(d, e) * inner(z, y) for e, y in ties] for d, z in ties]
    off = [dot(d, W, z) - v for (d, z), v in zip(ties, values, strict=True)]
    weights = solve(products, off)
    if weights is None:
        raise ArithmeticError("the equalities contradict each other")
    found = [list(line) for line in W]
    for (d, z), weight in zip(ties, weights, strict=True):
        for line, a in zip(found, d, strict=True):
            for j, c in enumerate(z):
                line[j] -= weight * a * c
    return found


def _conjugate(norm: str | float) -> Fraction:
    p = Fraction(2) if norm == "frobenius" else Fraction(norm)
    return p / (p - 1)


def norm_above(W: Matrix, norm: str | float | Fraction) -> Fraction:
    """A rational at or just above ‖W‖: "frobenius", "nuclear", "spectral" or an exponent p."""
    if norm == "nuclear":
        return _nuclear_above(W)
    if norm == "spectral":
        return _spectral_above(W)
    p = Fraction(2) if norm == "frobenius" else Fraction(norm)
    entries = [abs(a) for line in W for a in line if a]
    if not entries:
        return Fraction(0)
    if p == 2:
        return root_above(sum((a * a for a in entries), Fraction(0)))
    return power_above(sum((power_above(a, p) for a in entries), Fraction(0)), 1 / p)


def root_above(a: Fraction, digits: int = _DIGITS) -> Fraction:
    """The square root, rounded up.

    >>> root_above(Fraction(2)) ** 2 >= 2
    True
    """
    scale = 10**digits
    whole = isqrt(a.numerator * a.denominator * scale * scale)
    return Fraction(whole + 1, a.denominator * scale)


def power_above(a: Fraction, exponent: Fraction) -> Fraction:
    """a^e for a > 0, rounded up: `decimal` rounds ln and exp correctly, and a margin covers the rest.

    >>> power_above(Fraction(8), Fraction(1, 3)) >= 2
    True
    """
    with localcontext(Context(prec=_DIGITS)):
        base = (Decimal(a.numerator) / Decimal(a.denominator)).ln()
        e = Decimal(exponent.numerator) / Decimal(exponent.denominator)
        power = (base * e).exp()
        # Relative errors: 10^(1 - prec) for each of ln, /, * acts on e ln a, one more for exp.
        slack = Decimal(10) ** (4 - _DIGITS) * (1 + abs(base)) * (1 + abs(e))
        return Fraction(power) * (1 + Fraction(slack))


def _spectral_above(G: Matrix) -> Fraction:
    """A rational s with s² I - GᵀG ⪰ 0, shown by an exact factorisation, from a float that is tried upwards."""
    guess = float(np.linalg.norm(np.array([[float(a) for a in line] for line in G]), 2))
    if not any(a for line in G for a in line):
        return Fraction(0)
    squares = gram(G)
    for attempt in range(40):
        size = Fraction(guess) * (1 + Fraction(2**attempt, 2**50))
        shifted = [[-a for a in line] for line in squares]
        for i, line in enumerate(shifted):
            line[i] += size * size
        if is_psd(shifted):
            return size
    raise ArithmeticError("no bound of the spectral norm was proved")


def _nuclear_above(W: Matrix) -> Fraction:
    """Σ ‖a_j‖ ‖c_j‖ for W = Σ a_j c_jᵀ + rest, and the rest entry by entry: a norm is convex."""
    left, sizes, right = np.linalg.svd(np.array([[float(a) for a in line] for line in W]))
    total, rest = Fraction(0), [list(line) for line in W]
    for j, size in enumerate(sizes):
        if size <= 1e-14 * sizes[0]:
            continue
        a = [Fraction(v * sqrt(size)) for v in left[:, j].tolist()]
        c = [Fraction(v * sqrt(size)) for v in right[j].tolist()]
        total += root_above(inner(a, a) * inner(c, c))
        for line, v in zip(rest, a, strict=True):
            for k, w in enumerate(c):
                line[k] -= v * w
    return total + sum((root_above(inner(col, col)) for col in transposed(rest)), Fraction(0))
