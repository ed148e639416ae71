"""The verdict on a set of identities: proof by algebra, or a counterexample, or neither."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sympy
from sympy.matrices.matrixbase import MatrixBase

from dsf.certificate import Status, Verdict

from .algebra import Unsettled, vanishes
from .refute import counterexample_to_zero


def settle(identities: Mapping[str, tuple[Any, Any]]) -> Verdict:
    """`holds` where every difference is proved 0, `violated` with a counterexample.

    >>> x, y = sympy.symbols("x y", real=True)
    >>> settle({"sum": (sympy.exp(x + y), sympy.exp(x) * sympy.exp(y))}).status.value
    'holds'
    >>> settle({"product": (sympy.exp(x * y), sympy.exp(x) * sympy.exp(y))}).status.value
    'violated'
    """
    open_questions = []
    for name, (left, right) in identities.items():
        for difference in _differences(name, left, right):
            reason = _unproved(difference)
            if reason and (found := counterexample_to_zero(difference)):
                return Verdict(Status.VIOLATED, remark=f"{name}: {found}")
            if reason:
                open_questions.append(f"{name}: {reason}")
    if open_questions:
        return Verdict(Status.INCONCLUSIVE, remark="; ".join(open_questions))
    names = ", ".join(identities)
    return Verdict(Status.HOLDS, remark=f"left - right = 0 by exact algebra: {names}")


def _unproved(difference: Any) -> str:
    """Why a difference is not proved to be 0; empty where it is."""
    try:
        return "" if vanishes(difference) else "neither proved nor refuted"
    except Unsettled as reason:
        return str(reason)


def _differences(name: str, left: Any, right: Any) -> Iterable[Any]:
    """left − right, entry by entry for matrices, not simplified by sympy."""
    matrices = [isinstance(side, MatrixBase) for side in (left, right)]
    if not any(matrices):
        return [_minus(left, right)]
    if not all(matrices) or left.shape != right.shape:
        raise ValueError(f"{name}: the two sides have different shapes")
    return [_minus(a, b) for a, b in zip(left.flat(), right.flat(), strict=True)]


def _minus(left: Any, right: Any) -> Any:
    minus_right = sympy.Mul(sympy.Integer(-1), sympy.sympify(right, strict=True), evaluate=False)
    return sympy.Add(sympy.sympify(left, strict=True), minus_right, evaluate=False)
