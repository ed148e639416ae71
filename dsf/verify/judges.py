"""Small sound judges that claims are built from; sympy is imported for symbolic ones only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from dsf.certificate import Hypothesis, Status, Task, Verdict
from dsf.codec import canonical, encode

Identities = Mapping[str, tuple[Any, Any]]
"""Named pairs (left, right) of sympy expressions, or of matrices, stated to be equal wherever both
sides are defined."""


def within(
    measured: float, bound: float, *, predicted: float | None = None, error: float = 0.0
) -> Verdict:
    """`holds` where measured + error ≤ bound, `violated` where measured − error > bound.

    In between, and where any number is NaN or infinite, nothing is concluded: a computation that
    broke down confirms neither a claim nor its negative control.

    >>> [within(x, 2.0).status.value for x in (1.0, 3.0, float("nan"))]
    ['holds', 'violated', 'inconclusive']
    >>> within(2.0, 2.0, error=0.5).status.value
    'inconclusive'
    """
    given = {"measured": measured, "bound": bound, "predicted": predicted, "error": error}
    bad = [f"{k} is {v}" for k, v in given.items() if v is not None and not math.isfinite(v)]
    if bad:
        return Verdict(Status.INCONCLUSIVE, remark="not finite: " + ", ".join(bad))
    if error < 0:
        raise ValueError(f"`error` is {error}; it must not be negative")
    numbers = (float(measured), None if predicted is None else float(predicted), float(bound))
    if measured + error <= bound:
        return Verdict(Status.HOLDS, *numbers)
    if measured - error > bound:
        return Verdict(Status.VIOLATED, *numbers)
    remark = f"the error bar {error!r} reaches across the bound"
    return Verdict(Status.INCONCLUSIVE, *numbers, remark=remark)


def counterexample(left: Fraction | int | float, right: Fraction | int | float) -> Verdict:
    """Compare two exact numbers: `violated` where they differ, `holds` where they are equal.

    Floats stand for the dyadic rationals that they are. `measured` is |left − right|, the bound 0.

    >>> counterexample(0.1 + 0.2, 0.3).status.value
    'violated'
    """
    for number in (left, right):
        if not math.isfinite(number):
            return Verdict(Status.INCONCLUSIVE, remark=f"not finite: {number}")
    gap = abs(Fraction(left) - Fraction(right))
    status = Status.VIOLATED if gap else Status.HOLDS
    return Verdict(status, float(gap), None, 0.0, remark=f"left {left}, right {right}")


def under(hypotheses: Iterable[Hypothesis], conclude: Callable[[], Verdict]) -> Verdict:
    """The verdict of `conclude` where every hypothesis holds, `hypothesis-not-met` otherwise."""
    found = tuple(hypotheses)
    if failed := [h.name for h in found if not h.holds]:
        remark = "not met: " + ", ".join(failed)
        return Verdict(Status.HYPOTHESIS_NOT_MET, hypotheses=found, remark=remark)
    return replace(conclude(), hypotheses=found)


@dataclass(frozen=True)
class SymbolicIdentity:
    """The four functions of a claim of exact algebra, made from a statement and a false variant."""

    statement: Callable[[], Identities]
    falsehood: Callable[[], Identities]

    def instance(self, task: Task) -> dict[str, Any]:
        """Nothing is drawn: the identity is proved for all values at once."""
        return {}

    def witness(self, instance: Mapping[str, Any]) -> dict[str, Any]:
        return {"identities": _listed(self.statement())}

    def control(self, instance: Mapping[str, Any]) -> dict[str, Any]:
        return {"identities": _listed(self.falsehood())}

    def judge(self, evidence: Mapping[str, Any]) -> Verdict:
        """Prove or refute the package's own expressions; the evidence may only name which."""
        from .settle import settle

        given = canonical(encode(evidence))
        for build in (self.statement, self.falsehood):
            identities = build()
            if given == canonical(encode({"identities": _listed(identities)})):
                return settle(identities)
        remark = "the evidence is neither the package's statement nor its negative control"
        return Verdict(Status.INCONCLUSIVE, remark=remark)


def symbolic_identity(
    statement: Callable[[], Identities], falsehood: Callable[[], Identities]
) -> SymbolicIdentity:
    """A claim's functions for identities that exact algebra proves.

    `statement()` gives the identities by name as pairs of sympy expressions, built from the
    package's definitions; `falsehood()` gives a variant that is false somewhere, the control. Both
    are called again by the judge, which refuses evidence that states anything else.

    >>> import sympy
    >>> x = sympy.Symbol("x", real=True)
    >>> square = symbolic_identity(
    ...     lambda: {"square": ((x + 1) ** 2, x**2 + 2 * x + 1)},
    ...     lambda: {"square": ((x + 1) ** 2, x**2 + 1)},
    ... )
    >>> square.judge(square.witness({})).status.value, square.judge(square.control({})).status.value
    ('holds', 'violated')
    """
    return SymbolicIdentity(statement, falsehood)


def _listed(identities: Identities) -> dict[str, Any]:
    if not identities:
        raise ValueError("a symbolic claim must state at least one identity")
    return {name: list(sides) for name, sides in identities.items()}
