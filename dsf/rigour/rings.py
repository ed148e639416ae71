"""Arithmetics in which a recurrence can be run without losing the exact result: balls and rationals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from dsf.errors import InvalidInput

Arithmetic = Literal["balls", "rationals"]


@dataclass(frozen=True)
class Ring:
    """How a float enters, its exponential, the larger of two, the real part, and the way back to floats."""

    number: Callable[[Any], Any]
    exp: Callable[[Any], Any]
    larger: Callable[[Any, Any], Any]
    real: Callable[[Any], Any]
    rounded: Callable[[Any], tuple[complex | float, float]]


@contextmanager
def ring_of(arithmetic: str, complex_: bool, bits: int) -> Iterator[Ring]:
    """The ring of a run; the precision of balls is set inside the context alone."""
    if arithmetic == "rationals":
        if complex_:
            raise InvalidInput(
                "rationals are real here: use arithmetic='balls' for complex numbers"
            )
        yield Ring(_fraction, _rational_exp, max, lambda x: x, _round_fraction)
        return
    if arithmetic != "balls":
        raise InvalidInput(f"`arithmetic` must be 'balls' or 'rationals'; got {arithmetic!r}")
    try:
        import flint
    except ImportError:
        raise InvalidInput(
            "balls need python-flint: pip install 'dsf-dynamics[exact]', or use arithmetic='rationals'"
        ) from None
    with flint.ctx.workprec(bits):
        yield _complex_balls(flint) if complex_ else _real_balls(flint)


def _real_balls(flint: Any) -> Ring:
    return Ring(
        lambda x: flint.arb(_finite(x)),
        lambda x: flint.arb(0) if x == -math.inf else flint.arb(_finite(x)).exp(),
        lambda x, y: x.max(y),
        lambda x: x,
        lambda x: _round_ball(flint, x),
    )


def _complex_balls(flint: Any) -> Ring:
    def number(x: complex | float) -> Any:
        return flint.acb(_finite(x.real), _finite(x.imag))

    return Ring(
        number,
        lambda x: flint.acb(0) if x == -math.inf else number(x).exp(),
        _unordered,
        lambda x: x.real,
        lambda x: _round_complex(flint, x),
    )


def _finite(x: float) -> float:
    if not math.isfinite(x):
        raise InvalidInput(f"only finite numbers can be enclosed; got {x}")
    return x


def _fraction(x: float) -> Fraction:
    return Fraction(_finite(x))


def _rational_exp(x: float) -> Fraction:
    if x == 0:
        return Fraction(1)
    if x == -math.inf:
        return Fraction(0)
    raise InvalidInput("exp of a logarithm is no rational number: use arithmetic='balls'")


def _unordered(x: Any, y: Any) -> Any:
    raise InvalidInput("a floor compares real denominators; these are complex")


def may_vanish(eta: Any) -> bool:
    return eta == 0 if isinstance(eta, Fraction) else bool(eta.contains(0))


def _round_fraction(x: Fraction) -> tuple[float, float]:
    middle = float(x)
    distance = float(abs(x - Fraction(middle)))
    return middle, math.nextafter(distance, math.inf) if distance else 0.0


def _round_ball(flint: Any, x: Any) -> tuple[float, float]:
    middle = float(x.mid())
    if not (x.is_finite() and math.isfinite(middle)):
        return math.nan, math.inf
    distance = float(abs(x - flint.arb(middle)).upper())
    return middle, math.nextafter(distance, math.inf) if distance else 0.0


def _round_complex(flint: Any, x: Any) -> tuple[complex | float, float]:
    if isinstance(x, flint.arb):
        return _round_ball(flint, x)
    parts = [_round_ball(flint, part) for part in (x.real, x.imag)]
    radius = math.hypot(parts[0][1], parts[1][1]) * (1 + 2.0**-50)
    return complex(parts[0][0], parts[1][0]), radius
