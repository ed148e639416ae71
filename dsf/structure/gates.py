"""Gates: transitions that multiply entries and never mix them (Identity, Scalar, Diagonal, Elementwise)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from dsf.errors import InvalidInput, require

from .base import Cost, Structure


@dataclass(frozen=True)
class Identity(Structure):
    """Λ = I, for a memory that only adds."""

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return ()

    @property
    def trailing(self) -> tuple[int, ...]:
        return ()

    def rebuild(self, leaves: tuple[Tensor, ...]) -> Self:
        return self

    @property
    def key_size(self) -> None:
        return None

    def apply(self, state: Tensor) -> Tensor:
        return state

    def compose(self, first: Self) -> Self:
        return self

    def transpose(self) -> Self:
        return self

    def dense(self, key_size: int) -> Tensor:
        return torch.eye(key_size)

    def neutral(self) -> tuple[Tensor, ...]:
        return ()

    def norm(self) -> Tensor:
        return torch.ones(())

    def growth(self) -> Tensor:
        return torch.ones(())

    def cost(self, key_size: int, value_size: int) -> Cost:
        return Cost(0, 0)


@dataclass(frozen=True, eq=False)
class Gate(Structure):
    """Entrywise multiplication by `value`, or by exp(`log`): exactly one of the two is given.

    The logarithm is kept where the caller has it, so that a log-decay of -inf is an exact zero with
    a zero gradient; a `value` of zero keeps its own gradient. Complex values and logs are allowed.
    """

    value: Tensor | None = None
    log: Tensor | None = None

    own_axes: ClassVar[int]

    def __post_init__(self) -> None:
        kind = type(self).__name__
        if (self.value is None) == (self.log is None):
            given = "neither" if self.value is None else "both"
            raise InvalidInput(f"{kind} takes one of `value` and `log`; {given} was given")
        require("value" if self.log is None else "log", self.leaves[0], Tensor)
        if self.leaves[0].ndim < self.own_axes:
            raise InvalidInput(
                f"{kind} needs at least {self.own_axes} axes ({self._axes()} last); "
                f"got shape {tuple(self.leaves[0].shape)}"
            )
        if not (self.leaves[0].is_floating_point() or self.leaves[0].is_complex()):
            raise InvalidInput(
                f"{kind} needs floating-point or complex gates; got {self.leaves[0].dtype}"
            )

    @classmethod
    def from_log(cls, log: Tensor) -> Self:
        """The gate exp(log)."""
        return cls(log=log)

    @classmethod
    def _axes(cls) -> str:
        return {0: "none of its own", 1: "K", 2: "K, V"}[cls.own_axes]

    @property
    def decay(self) -> Tensor:
        """The multipliers themselves, in linear space."""
        if self.value is not None:
            return self.value
        assert self.log is not None
        return torch.exp(self.log)

    def linear(self) -> Self:
        """The same gate held in linear space."""
        return self if self.value is not None else type(self)(value=self.decay)

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        leaf = self.value if self.value is not None else self.log
        assert leaf is not None
        return (leaf,)

    @property
    def trailing(self) -> tuple[int, ...]:
        return (self.own_axes,)

    def rebuild(self, leaves: tuple[Tensor, ...]) -> Self:
        return type(self)(value=leaves[0]) if self.value is not None else type(self)(log=leaves[0])

    @property
    def key_size(self) -> int | None:
        if self.own_axes == 0:
            return None
        size = self.leaves[0].shape[-self.own_axes]
        return size if size != 1 else None

    def compose(self, first: Self) -> Self:
        if self.log is not None and first.log is not None:
            return type(self)(log=self.log + first.log)
        return type(self)(value=self.decay * first.decay)

    def transpose(self) -> Self:
        return self

    def neutral(self) -> tuple[Tensor, ...]:
        (leaf,) = self.leaves
        shape = (1,) * (leaf.ndim - self.own_axes) + leaf.shape[leaf.ndim - self.own_axes :]
        return (leaf.new_ones(shape) if self.value is not None else leaf.new_zeros(shape),)

    def norm(self) -> Tensor:
        size = self.decay.abs()
        return size.amax(tuple(range(-self.own_axes, 0))) if self.own_axes else size

    def growth(self) -> Tensor:
        return self.norm()


class Scalar(Gate):
    """Λ = a I, one gate per step and head: leaf (…)."""

    own_axes = 0

    def apply(self, state: Tensor) -> Tensor:
        return self.decay[..., None, None] * state

    def dense(self, key_size: int) -> Tensor:
        decay = self.decay
        return decay[..., None, None] * torch.eye(key_size, dtype=decay.dtype, device=decay.device)

    def cost(self, key_size: int, value_size: int) -> Cost:
        return Cost(key_size * value_size, 1)


class Diagonal(Gate):
    """Λ = diag(a), one gate per key channel, real or complex: leaf (…, K)."""

    own_axes = 1

    def apply(self, state: Tensor) -> Tensor:
        return self.decay[..., None] * state

    def dense(self, key_size: int) -> Tensor:
        return torch.diag_embed(self.decay.expand(*self.decay.shape[:-1], key_size))

    def cost(self, key_size: int, value_size: int) -> Cost:
        return Cost(key_size * value_size, key_size)


class Elementwise(Gate):
    """Λ h = A ⊙ h, one gate per key and value channel (Mamba-1): leaf (…, K, V)."""

    own_axes = 2

    @property
    def value_size(self) -> int | None:
        size = self.leaves[0].shape[-1]
        return size if size != 1 else None

    def apply(self, state: Tensor) -> Tensor:
        return self.decay * state

    def dense(self, key_size: int) -> Tensor:
        decay = self.decay
        return torch.diag_embed(
            decay.expand(*decay.shape[:-2], key_size, decay.shape[-1]).transpose(-1, -2)
        )

    def cost(self, key_size: int, value_size: int) -> Cost:
        return Cost(key_size * value_size, key_size * value_size)
