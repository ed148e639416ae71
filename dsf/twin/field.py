"""A large prime field: exact arithmetic at random points, where polynomials are too large to expand."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import sympy

from dsf.verify.algebra import Finer, Lowering, Unsettled


@dataclass(frozen=True)
class Residue:
    """A number modulo a prime; dividing by 0 raises `ZeroDivisionError`."""

    value: int
    prime: int

    def _other(self, other: Any) -> int:
        return other.value if isinstance(other, Residue) else int(other)

    def __add__(self, other: Any) -> Residue:
        return Residue((self.value + self._other(other)) % self.prime, self.prime)

    def __sub__(self, other: Any) -> Residue:
        return Residue((self.value - self._other(other)) % self.prime, self.prime)

    def __mul__(self, other: Any) -> Residue:
        return Residue(self.value * self._other(other) % self.prime, self.prime)

    def __truediv__(self, other: Any) -> Residue:
        divisor = self._other(other) % self.prime
        if not divisor:
            raise ZeroDivisionError("a denominator is 0 at this point")
        return Residue(self.value * pow(divisor, -1, self.prime) % self.prime, self.prime)

    def __pow__(self, power: int) -> Residue:
        if power < 0:
            return Residue(1, self.prime) / self**-power
        return Residue(pow(self.value, power, self.prime), self.prime)

    __radd__ = __add__
    __rmul__ = __mul__


def random_prime(source: random.Random) -> int:
    """A prime of 64 bits that is 1 modulo 4, so that -1 has a root."""
    while True:
        prime = int(sympy.nextprime(source.randrange(2**63, 2**64 - 2**12)))
        if prime % 4 == 1:
            return prime


def root_of_minus_one(prime: int) -> int:
    """i with i² = -1 modulo a prime that is 1 modulo 4.

    >>> root_of_minus_one(13) ** 2 % 13
    12
    """
    for base in range(2, prime):
        root = pow(base, (prime - 1) // 4, prime)
        if root * root % prime == prime - 1:
            return root
    raise ValueError(f"{prime} has no root of -1")


class Generators:
    """Expressions as rational functions of generators (`dsf.verify.algebra`), for all at once.

    A function that vanishes with its generators taken as independent vanishes for their values, so an
    equality found here is one; an inequality need not be.
    """

    def __init__(self) -> None:
        self._lowering = Lowering(1)
        self._known: dict[Any, Any] = {}

    def lower(self, expression: Any) -> Any:
        if expression not in self._known:
            try:
                self._known[expression] = self._lowering.lower(sympy.sympify(expression))
            except Finer as need:
                raise Unsettled(
                    f"{expression} has an exponent with denominator {need.denominator}"
                ) from None
            if any(relation != g**2 + 1 for g, relation in self._lowering.relations):
                raise Unsettled(f"{expression} has a root or an absolute value")
        return self._known[expression]

    @property
    def imaginary(self) -> set[Any]:
        return {g for g, _ in self._lowering.relations}

    def degree(self, expression: Any) -> tuple[int, Any, int]:
        """Total degree of the numerator, the denominator, and its total degree."""
        above, below = sympy.fraction(sympy.together(self.lower(expression)))
        return _total(above), below, _total(below)


def _total(polynomial: Any) -> int:
    generators = sorted(polynomial.free_symbols, key=sympy.default_sort_key)
    return int(sympy.Poly(polynomial, *generators).total_degree()) if generators else 0


def at_point(lowered: Any, point: dict[Any, Residue], prime: int) -> Residue:
    """A rational function at a point of the field."""
    if isinstance(lowered, sympy.Rational):
        return Residue(int(lowered.p) % prime, prime) / int(lowered.q)
    if isinstance(lowered, sympy.Symbol):
        return point[lowered]
    if isinstance(lowered, sympy.Pow):
        return at_point(lowered.base, point, prime) ** int(lowered.exp)
    total = None
    for arg in lowered.args:
        part = at_point(arg, point, prime)
        if total is None:
            total = part
        else:
            total = total + part if isinstance(lowered, sympy.Add) else total * part
    assert total is not None
    return total
