"""What every transition structure can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dsf.precision import keeps_precision


@keeps_precision
def matmul(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` where one factor may be complex and the other real."""
    dtype = torch.promote_types(left.dtype, right.dtype)
    return left.to(dtype) @ right.to(dtype)


@dataclass(frozen=True)
class Cost:
    """Work of one transition on a K × V state: multiply-adds to apply it, numbers that describe it."""

    multiply_adds: int
    numbers: int


class Structure(ABC):
    r"""A batched array of linear maps Λ on a K × V state, with any leading shape.

    A structure is a frozen value made of tensors, its *leaves*. Each leaf has the leading shape of
    the array (in a `System`: batch, time, heads) followed by its own trailing axes. Leading axes
    broadcast, so a leaf of size 1 along time is constant in time.
    """

    @property
    @abstractmethod
    def leaves(self) -> tuple[Tensor, ...]:
        """The tensors that make up the array."""

    @property
    @abstractmethod
    def trailing(self) -> tuple[int, ...]:
        """How many trailing axes each leaf has."""

    @abstractmethod
    def rebuild(self, leaves: tuple[Tensor, ...]) -> Self:
        """The same kind of structure with other leaves."""

    @property
    @abstractmethod
    def key_size(self) -> int | None:
        """K, or None where any K will do."""

    @property
    def value_size(self) -> int | None:
        """V, or None where any V will do."""
        return None

    @abstractmethod
    def apply(self, state: Tensor) -> Tensor:
        """Λ h for a state (…, K, V)."""

    @abstractmethod
    def compose(self, first: Self) -> Self:
        """Λ₂ Λ₁ within one kind: `self` acts after `first`. Across kinds see `compose`."""

    @abstractmethod
    def transpose(self) -> Self:
        """Λᵀ, without conjugation."""

    @abstractmethod
    def dense(self, key_size: int) -> Tensor:
        """The matrices (…, K, K); `Elementwise` gives (…, V, K, K), one matrix per value channel."""

    @abstractmethod
    def neutral(self) -> tuple[Tensor, ...]:
        """Leaves of the identity, shaped as one element (all leading axes of size 1)."""

    @abstractmethod
    def norm(self) -> Tensor:
        """An upper bound of the spectral norm, per element; exact where it is cheap."""

    @abstractmethod
    def growth(self) -> Tensor:
        """An upper bound of the norm of the entrywise absolute computation: what rounding is scaled by."""

    @abstractmethod
    def cost(self, key_size: int, value_size: int) -> Cost:
        """Multiply-adds to apply one Λ to a K × V state, and numbers that describe one Λ."""

    @property
    def lead(self) -> torch.Size:
        """The broadcast leading shape."""
        shapes = [
            leaf.shape[: leaf.ndim - trailing]
            for leaf, trailing in zip(self.leaves, self.trailing, strict=True)
        ]
        return torch.broadcast_shapes(*shapes) if shapes else torch.Size()

    @property
    def is_complex(self) -> bool:
        return any(leaf.is_complex() for leaf in self.leaves)

    def map(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        """Apply `function(leaf, number_of_trailing_axes)` to every leaf."""
        return self.rebuild(
            tuple(
                function(leaf, trailing)
                for leaf, trailing in zip(self.leaves, self.trailing, strict=True)
            )
        )

    def linear(self) -> Self:
        """The same maps with every gate held in linear space (no logarithms)."""
        return self

    def whole(self) -> Structure:
        """The same maps as a member of one of the seven kinds: a structure held in factors multiplied out."""
        return self

    def conj(self) -> Self:
        """The complex conjugate; the structure itself where it is real."""
        return self.map(lambda leaf, _: leaf.conj()) if self.is_complex else self
