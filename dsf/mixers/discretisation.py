"""From continuous to discrete time: zero-order hold and the bilinear rule for diagonal systems."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.structure import Diagonal

Rule = Literal["zoh", "bilinear"]


def check_rule(rule: str) -> None:
    """Raise `InvalidInput` for a rule of another name."""
    if rule not in ("zoh", "bilinear"):
        raise InvalidInput(f"`discretisation` must be 'zoh' or 'bilinear'; got {rule!r}")


def discretise(step: Tensor, A: Tensor, rule: Rule) -> tuple[Diagonal, Tensor]:
    r"""Λ̄ and the factor of B in B̄ for h' = diag(A) h + B u and a step Δ.

    Zero-order hold: Λ̄ = e^{ΔA}, B̄ = (e^{ΔA} - 1)/A · B. Bilinear: Λ̄ = (1 + ΔA/2)/(1 - ΔA/2),
    B̄ = Δ/(1 - ΔA/2) · B. `step` broadcasts against `A` (…, N).

    >>> gate, held = discretise(torch.tensor(2.0), torch.tensor([-1.0]), "bilinear")
    >>> float(gate.decay), float(held)
    (0.0, 1.0)
    """
    check_rule(rule)
    exponent = step * A
    if rule == "zoh":
        return Diagonal.from_log(exponent), step * expm1_over(exponent)
    return Diagonal((1 + exponent / 2) / (1 - exponent / 2)), step / (1 - exponent / 2)


def expm1_over(x: Tensor) -> Tensor:
    """(e^x - 1)/x, by its series where x is small: no cancellation, no 0/0."""
    small = x.abs() < 1e-2
    safe = torch.where(small, torch.ones_like(x), x)
    series = 1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7)))))
    return torch.where(small, series, (torch.exp(safe) - 1) / safe)
