"""Elementwise gates held as the two factors of their logarithm."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from dsf.errors import InvalidInput, require

from .base import Structure
from .gates import Elementwise


class Discretised(Elementwise):
    r"""Λ h = e^{Δ ⊙ A} ⊙ h: an `Elementwise` gate whose logarithm is a step Δ times a rate A.

    `step` (…, 1 or K, 1 or V) and `rate` (…, K, V) broadcast. A system h' = A ⊙ h that is sampled with
    steps of its own in time (Mamba-1) has a small Δ and a rate that is constant in time: the gates
    (…, K, V) are formed only where something asks for them. A product of two is `Elementwise`.

    >>> gate = Discretised(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, -torch.inf]]))
    >>> gate.decay
    tensor([[1., 0.]])
    """

    step: Tensor
    rate: Tensor

    def __init__(self, step: Tensor, rate: Tensor) -> None:
        for name, x in (("step", step), ("rate", rate)):
            require(name, x, Tensor)
            if x.ndim < 2 or not (x.is_floating_point() or x.is_complex()):
                raise InvalidInput(
                    f"Discretised needs a floating-point or complex `{name}` with the axes K, V last; "
                    f"got {x.dtype} and shape {tuple(x.shape)}"
                )
            object.__setattr__(self, name, x)
        try:
            torch.broadcast_shapes(step.shape[-2:], rate.shape[-2:])
        except RuntimeError:
            raise InvalidInput(
                "Discretised needs `step` and `rate` whose last axes (K, V) are equal or 1; "
                f"got {tuple(step.shape[-2:])} and {tuple(rate.shape[-2:])}"
            ) from None

    @property
    def value(self) -> None:  # type: ignore[override]
        return None

    @property
    def log(self) -> Tensor:  # type: ignore[override]
        """Δ ⊙ A, made anew at each call."""
        return self.step * self.rate

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return (self.step, self.rate)

    @property
    def trailing(self) -> tuple[int, ...]:
        return (2, 2)

    def rebuild(self, leaves: tuple[Tensor, ...]) -> Self:
        return type(self)(*leaves)

    @property
    def key_size(self) -> int | None:
        size = max(self.step.shape[-2], self.rate.shape[-2])
        return size if size != 1 else None

    @property
    def value_size(self) -> int | None:
        size = max(self.step.shape[-1], self.rate.shape[-1])
        return size if size != 1 else None

    def linear(self) -> Elementwise:  # type: ignore[override]
        return Elementwise(value=self.decay)

    def whole(self) -> Elementwise:
        return Elementwise(log=self.log)

    def compose(self, first: Structure) -> Elementwise:  # type: ignore[override]
        return self.whole().compose(first)  # type: ignore[arg-type]

    def neutral(self) -> tuple[Tensor, ...]:
        return tuple(x.new_zeros((1,) * (x.ndim - 2) + x.shape[-2:]) for x in self.leaves)
