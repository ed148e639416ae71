"""Which form runs a system: the choice, and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dsf.errors import InvalidInput, Refusal, Refused
from dsf.registry import resolve
from dsf.system import System

from .base import Form, Sizes
from .table import FORMS


@dataclass(frozen=True)
class Choice:
    """One row of `explain`: a form, its estimated cost or its refusal, and whether it was selected."""

    form: str
    operations: float | None
    refusal: Refusal | None
    selected: bool

    def __str__(self) -> str:
        mark = "*" if self.selected else " "
        if self.refusal is not None:
            return f"{mark} {self.form:12} refused: {self.refusal.reason} {self.refusal.remedy}".rstrip()
        return f"{mark} {self.form:12} about {self.operations:.2g} operations"


def forms() -> tuple[Form, ...]:
    """Every form of the table, with its default settings."""
    return tuple(resolve(reference)() for reference in FORMS)


def named(form: Form | str) -> Form:
    """The form called `form`, or the form itself."""
    if isinstance(form, Form):
        return form
    for candidate in forms():
        if candidate.name == form:
            return candidate
    names = ", ".join(candidate.name for candidate in forms())
    raise InvalidInput(f"`form` is {form!r}; it must be a Form or one of: {names}")


def explain(system: System, tokens: Tensor) -> tuple[Choice, ...]:
    """Every form with its estimated cost on these tokens, or the reason why it refuses the system."""
    sizes = sizes_of(system, tokens)
    answers = [(form, form.admits(system)) for form in forms()]
    costs = {form.name: form.operations(system, sizes) for form, answer in answers if answer}
    best = min(costs, key=lambda name: costs[name], default=None)
    return tuple(
        Choice(
            form.name,
            costs.get(form.name),
            answer if isinstance(answer, Refusal) else None,
            form.name == best,
        )
        for form, answer in answers
    )


def select(system: System, tokens: Tensor) -> Form:
    """The admitted form with the least estimated cost on these tokens."""
    rows = explain(system, tokens)
    for row in rows:
        if row.selected:
            return named(row.form)
    reasons = "; ".join(str(row.refusal) for row in rows)
    raise Refused(Refusal("select", f"no form admits this system: {reasons}"))


def sizes_of(system: System, tokens: Tensor) -> Sizes:
    """The sizes that the cost of a run depends on."""
    batch = max(system.lead[0], tokens.shape[0])
    heads = max(system.lead[2], tokens.shape[2])
    values = 1 if system.is_vector else tokens.shape[-1]
    return Sizes(tokens.shape[1], batch * heads, values + (system.normaliser is not None))
