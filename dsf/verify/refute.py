"""Refuting an identity: a rational point at which an enclosure of the difference excludes 0."""

from __future__ import annotations

from typing import Any

import sympy
from mpmath.ctx_iv import MPIntervalContext

_CANDIDATES = [
    sympy.Rational(*pair)
    for pair in ((1, 2), (2, 1), (-1, 3), (3, 1), (-2, 1), (5, 3), (-5, 4), (1, 7), (7, 5), (-1, 1))
]
_POINTS = 12
_PRECISION = 200  # bits of the interval arithmetic


class Undefined(Exception):
    """The expression has no real value at this point, or no finite enclosure."""


def counterexample_to_zero(expression: Any) -> str | None:
    """A point and an interval without 0 that holds the expression there, in words, or None.

    >>> x = sympy.Symbol("x", real=True)
    >>> counterexample_to_zero(sympy.sqrt(x**2) - x)
    'at x = -1/3: left - right lies in [0.666667, 0.666667]'
    """
    symbols = sorted(expression.free_symbols, key=lambda s: (s.name, str(sorted(s.assumptions0))))
    allowed = {symbol: _allowed(symbol) for symbol in symbols}
    if not all(allowed.values()):
        return None
    context = MPIntervalContext()
    context.prec = _PRECISION
    for k in range(_POINTS if symbols else 1):
        point = {s: v[(k * (j + 1) + 5 * j) % len(v)] for j, (s, v) in enumerate(allowed.items())}
        try:
            value = enclosure(expression, point, context)
        except Undefined:
            continue
        if value.a > 0 or value.b < 0:
            where = ", ".join(f"{symbol} = {number}" for symbol, number in point.items())
            low, high = (format(float(end.mid), ".6g") for end in (value.a, value.b))
            return f"{f'at {where}: ' if where else ''}left - right lies in [{low}, {high}]"
    return None


def _allowed(symbol: Any) -> list[Any]:
    """The candidates that satisfy every assumption of a symbol."""
    return [
        number
        for number in _CANDIDATES
        if all(getattr(number, f"is_{k}") == wanted for k, wanted in symbol.assumptions0.items())
    ]


def enclosure(e: Any, point: dict[Any, Any], context: Any) -> Any:
    """An interval that contains the real value of an expression at a rational point."""
    value = _enclosure(e, point, context)
    if not (context.mpf("-inf") < value.a and value.b < context.mpf("inf")):
        raise Undefined("unbounded")
    return value


def _enclosure(e: Any, point: dict[Any, Any], context: Any) -> Any:
    if isinstance(e, sympy.Symbol):
        e = point[e]
    if isinstance(e, sympy.Rational):
        return context.mpf(int(e.p)) / context.mpf(int(e.q))
    if e is sympy.pi:
        return +context.pi
    if e is sympy.E:
        return +context.e
    args = [enclosure(arg, point, context) for arg in e.args]
    if isinstance(e, sympy.Add):
        return sum(args, context.mpf(0))
    if isinstance(e, sympy.Mul):
        product = context.mpf(1)
        for arg in args:
            product *= arg
        return product
    if isinstance(e, sympy.Pow):
        return _power(args[0], args[1], e.exp, context)
    if isinstance(e, sympy.log):
        return context.log(_positive(*args))
    if isinstance(e, (sympy.exp, sympy.sin, sympy.cos)):
        return getattr(context, e.func.__name__)(*args)
    if isinstance(e, (sympy.tanh, sympy.sinh, sympy.cosh)):
        up, down = context.exp(args[0]), context.exp(-args[0])
        sinh, cosh = (up - down) / 2, (up + down) / 2
        return {sympy.sinh: sinh, sympy.cosh: cosh, sympy.tanh: sinh / cosh}[e.func]
    if isinstance(e, sympy.Abs):
        return abs(args[0])
    raise Undefined(f"no enclosure of {type(e).__name__}")


def _power(base: Any, exponent: Any, exact: Any, context: Any) -> Any:
    if not isinstance(exact, sympy.Integer):
        return context.exp(exponent * context.log(_positive(base)))
    if exact < 0 and 0 in base:
        raise Undefined("division by an interval with 0")
    return base ** int(exact)


def _positive(value: Any) -> Any:
    if not value.a > 0:
        raise Undefined("not positive")
    return value
