r"""Exact algebra: an identity is proved by rewriting both sides to rational functions.

`Lowering` replaces every transcendental part by a generator, using only rules which hold for all
values at which both sides are defined:

    exp(s + t) = exp(s) exp(t),  exp(n t) = exp(t)^n (n integer),  exp(log b) = b
    b^e = exp(e log b),  (exp(log(b)/n))^n = b,  i^2 = -1
    log(p w) = log p + log w for p > 0,  log(exp t) = t for real t
    tanh, sinh, cosh, sin and cos through exp,  |t|^2 = t^2 for real t

A rational function which vanishes identically in its generators vanishes for their values too, so
treating generators as independent can miss an identity but never prove a false one. No number is
ever evaluated for a proof.
"""

from __future__ import annotations

import math
from typing import Any

import sympy

_FACTORED = 10**9  # logarithms of integers up to here are split into primes
_LARGEST_POWER = 4096


class Unsettled(Exception):
    """The rules do not decide this expression."""


class Finer(Exception):
    """An exponent needs a smaller unit: its denominator."""

    def __init__(self, denominator: int) -> None:
        self.denominator = denominator


def vanishes(expression: Any) -> bool:
    """True where the rules prove that a scalar expression is 0 wherever it is defined.

    >>> from sympy.abc import a, z
    >>> vanishes(sympy.exp(-a * sympy.log(1 + sympy.exp(z))) - (1 + sympy.exp(z)) ** (-a))
    True
    >>> x = sympy.Symbol("x", real=True)
    >>> vanishes(sympy.sqrt(x**2, evaluate=False) - x)
    False
    """
    unit = 1
    while unit <= 360:
        lowering = Lowering(unit)
        try:
            numerator, denominator = sympy.fraction(sympy.together(lowering.lower(expression)))
            if lowering.reduced(denominator) == 0:
                raise Unsettled("a denominator is 0")
            return lowering.reduced(numerator) == 0
        except Finer as need:
            unit = math.lcm(unit, need.denominator)
    raise Unsettled("exponents with too many denominators")


class Lowering:
    """Rewrites expressions over common generators; exponents are counted in units of 1/unit."""

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self._made: dict[tuple[str, Any], sympy.Dummy] = {}
        self._exponent_of: dict[Any, Any] = {}  # generator g = exp(value)
        self._argument_of: dict[Any, Any] = {}  # generator g = log(value)
        self.relations: list[tuple[Any, Any]] = []  # (generator, polynomial in it that is 0)

    def lower(self, e: Any) -> Any:
        """The rational function of an expression."""
        if isinstance(e, sympy.Rational):
            return e
        if isinstance(e, sympy.Symbol):
            if e.is_commutative is not True:
                raise Unsettled(f"{e} does not commute")
            return e
        if e is sympy.pi:
            return self._generator("constant", e, positive=True)
        if e is sympy.I:
            return self._imaginary()
        if e is sympy.E:
            return self._exp(sympy.Integer(1))
        if isinstance(e, (sympy.Add, sympy.Mul)):
            return e.func(*map(self.lower, e.args))
        if isinstance(e, sympy.Pow):
            return self._power(self.lower(e.base), self.lower(e.exp))
        if isinstance(e, sympy.log):
            return self._log(self.lower(e.args[0]))
        if isinstance(e, (sympy.exp, sympy.tanh, sympy.sinh, sympy.cosh, sympy.sin, sympy.cos)):
            return self._through_exp(type(e), self.lower(e.args[0]))
        if isinstance(e, sympy.Abs):
            return self._abs(self.lower(e.args[0]))
        raise Unsettled(f"no rule for {type(e).__name__}")

    def reduced(self, polynomial: Any) -> Any:
        """A polynomial modulo the relations of the generators, last made first."""
        rest = sympy.expand(polynomial)
        for generator, relation in reversed(self.relations):
            # sympy 1.14 over FLINT raises where there is nothing to reduce, so the degree is asked.
            if sympy.degree(rest, generator) >= sympy.degree(relation, generator):
                rest = sympy.expand(sympy.prem(rest, relation, generator))
        return rest

    def _through_exp(self, head: Any, t: Any) -> Any:
        if head is sympy.exp:
            return self._exp(t)
        if head is sympy.tanh:
            square = self._exp(2 * t)
            return (square - 1) / (square + 1)
        factor = self._imaginary() if head in (sympy.sin, sympy.cos) else sympy.Integer(1)
        grows = self._exp(factor * t)
        if head in (sympy.cosh, sympy.cos):
            return (grows + 1 / grows) / 2
        return (grows - 1 / grows) / (2 * factor)

    def _power(self, base: Any, exponent: Any) -> Any:
        exponent = sympy.cancel(exponent)
        if isinstance(exponent, sympy.Integer):
            if abs(exponent) > _LARGEST_POWER:
                raise Unsettled(f"the power {exponent} is too large")
            if exponent < 0:
                self._refuse_zero(base)
            return base**exponent
        return self._exp(exponent * self._log(base))

    def _exp(self, t: Any) -> Any:
        """exp of a rational function, one factor per term of its numerator."""
        numerator, denominator = sympy.fraction(sympy.cancel(sympy.together(t)))
        if numerator == 0:
            return sympy.Integer(1)
        leading = denominator
        if generators := _generators(denominator):
            leading = sympy.Poly(denominator, *generators).LC()
            denominator = sympy.expand(denominator / leading)
        else:
            denominator = sympy.Integer(1)
        result = sympy.Integer(1)
        for term in sympy.Add.make_args(sympy.expand(numerator)):
            coefficient, monomial = term.as_coeff_Mul()
            result *= self._exp_multiple(monomial / denominator, coefficient / leading)
        return result

    def _exp_multiple(self, key: Any, coefficient: Any) -> Any:
        """exp(coefficient · key) for a rational number and a term without one."""
        steps = coefficient * self.unit
        if not isinstance(steps, sympy.Integer):
            raise Finer(int(coefficient.q))
        if abs(steps) > _LARGEST_POWER:
            raise Unsettled(f"the power {steps} is too large")
        if key not in self._argument_of:
            grows = self._generator("exp", key, **({"positive": True} if key.is_real else {}))
            self._exponent_of[grows] = key / self.unit
            return grows**steps
        base = self._argument_of[key]
        whole, part = divmod(int(steps), self.unit)
        return base**whole * (self._root(key, base) ** part if part else 1)

    def _root(self, log_of_base: Any, base: Any) -> Any:
        """exp(log(base)/unit), whose power `unit` is the base."""
        known = ("root", log_of_base) in self._made
        sign = {"positive": True} if base.is_positive else {}
        root = self._generator("root", log_of_base, **sign)
        if not known:
            above, below = sympy.fraction(sympy.together(base))
            self.relations.append((root, sympy.expand(below * root**self.unit - above)))
            self._exponent_of[root] = log_of_base / self.unit
        return root

    def _log(self, t: Any) -> Any:
        """log of a rational function, positive factors split off."""
        self._refuse_zero(t)
        number, factors = _factors(t)
        result, rest = self._log_of_positive(abs(number)), sympy.sign(number)
        for factor, power in factors:
            if factor.is_negative:
                factor, rest = -factor, rest * (-1) ** power
            if factor.is_positive:
                result += power * self._log_of_positive(factor)
            else:
                rest *= factor**power
        return result if rest == 1 else result + self._opaque_log(rest)

    def _log_of_positive(self, p: Any) -> Any:
        if p in self._exponent_of and self._exponent_of[p].is_real:
            return self._exponent_of[p]
        if isinstance(p, sympy.Rational) and max(p.p, p.q) <= _FACTORED:
            primes: Any = sympy.factorrat(p)
            return sympy.Add(*(n * self._opaque_log(sympy.Integer(q)) for q, n in primes.items()))
        return self._opaque_log(p)

    def _opaque_log(self, argument: Any) -> Any:
        argument = sympy.expand(argument) if argument.is_polynomial() else argument
        known = {"real": True} if argument.is_positive else {}
        generator = self._generator("log", argument, **known)
        self._argument_of[generator] = argument
        return generator

    def _abs(self, t: Any) -> Any:
        if t.is_nonnegative or t.is_nonpositive:
            return t if t.is_nonnegative else -t
        if not t.is_real:
            raise Unsettled("no rule for the absolute value of what may not be real")
        known = ("abs", t) in self._made
        size = self._generator("abs", t, nonnegative=True)
        if not known:
            above, below = sympy.fraction(sympy.together(t))
            self.relations.append((size, sympy.expand(below**2 * size**2 - above**2)))
        return size

    def _imaginary(self) -> Any:
        known = ("constant", sympy.I) in self._made
        unit = self._generator("constant", sympy.I)
        if not known:
            self.relations.append((unit, unit**2 + 1))
        return unit

    def _generator(self, kind: str, key: Any, **assumptions: bool) -> Any:
        if (kind, key) not in self._made:
            self._made[kind, key] = sympy.Dummy(f"{kind}{len(self._made)}", **assumptions)
        return self._made[kind, key]

    def _refuse_zero(self, base: Any) -> None:
        if self.reduced(sympy.fraction(sympy.together(base))[0]) == 0:
            raise Unsettled("0 stands under a negative power, a logarithm or a fractional power")


def _generators(expression: Any) -> list[Any]:
    return sorted(expression.free_symbols, key=sympy.default_sort_key)


def _factors(t: Any) -> tuple[Any, list[tuple[Any, int]]]:
    """The rational number and the irreducible factors, with powers, of a rational function."""
    number, factors = sympy.Integer(1), []
    for part, sign in zip(sympy.fraction(sympy.cancel(sympy.together(t))), (1, -1), strict=True):
        if not part.free_symbols:
            number *= part**sign
            continue
        factored: Any = sympy.factor_list(part, *_generators(part))
        content, found = factored
        number *= content**sign
        factors += [(factor, sign * int(power)) for factor, power in found]
    return number, factors
