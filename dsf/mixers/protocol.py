"""What anything that maps a sequence of values to outputs can be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.errors import Refusal
from dsf.system import System

from .band import Band, BlockCounts


class Mixer(ABC):
    r"""A map from values (B, T, H, V) to outputs of the same shape, with its gates fixed.

    Where it is linear in the values it has a token-mixing matrix, y = Φ v. Answers are values or a
    `Refusal` (falsy) with the reason, never an exception. Counters are per sequence and head.

    >>> import dsf.mixers as m
    >>> q = k = torch.eye(4)[None, :, None, :2]
    >>> window = m.SoftmaxAttention(q, k, m.Band(1, 0))  # a token and the one before it
    >>> window.causal, window.gate_looks_ahead, window.row_sum, window.state_size(100)
    (True, False, 1.0, 1)
    >>> window.block_counts(4, (2, 2))
    BlockCounts(total=4, visited=3, full=0)
    >>> print(m.SoftmaxAttention(q, k, m.EVERYTHING).system().reason)
    outputs read later tokens, so no recurrence gives them in order.
    """

    @abstractmethod
    def __call__(self, values: Tensor) -> Tensor:
        """The outputs for a whole sequence."""

    @abstractmethod
    def matrix(self) -> Tensor | Refusal:
        """Φ (B, H, T, T) with y = Φ v, or (B, H, V, T, T) where channels differ, or why there is none."""

    @abstractmethod
    def system(self) -> System | Refusal:
        """(Λ, B, C, D), or why there is no system of finite state."""

    def adjoint(self) -> Mixer | Refusal:
        """The mixer of Φᵀ: ⟨Φ u, y⟩ = ⟨u, Φᵀ y⟩ for real u, y; or why there is none."""
        if not self.linear_in_values:
            return Refusal("adjoint", "the outputs are not linear in the values.")
        return Adjoint(self)

    @property
    @abstractmethod
    def band(self) -> Band:
        """Which weights of Φ may be nonzero, by position."""

    @property
    def causal(self) -> bool:
        """True where no output depends on a later value."""
        return self.band.causal

    @property
    @abstractmethod
    def gate_looks_ahead(self) -> bool:
        """True where a weight Φ_ij depends on tokens after both i and j."""

    @property
    @abstractmethod
    def linear_in_values(self) -> bool:
        """True where Φ exists: the outputs are linear in the values."""

    @property
    @abstractmethod
    def row_sum(self) -> float | None:
        """What every row of Φ sums to, or None where that depends on the tokens."""

    @abstractmethod
    def state_size(self, length: int) -> int:
        """Real numbers per value channel that a cut after `length` tokens passes on, in either direction.

        Bounds the rank of Φ[i:, :i] and Φ[:i, i:]; quantities made of the keys alone are not counted.
        """

    @abstractmethod
    def state_bytes(self, length: int, values: int, width: int = 4) -> int:
        """Bytes kept to continue after `length` tokens of `values` channels, `width` bytes a real number."""

    @abstractmethod
    def moved_bytes(self, length: int, values: int, width: int = 4) -> int:
        """Bytes that any computation moves at least: quantities and values read once, outputs written."""

    @abstractmethod
    def multiply_adds(self, length: int, values: int) -> int:
        """Multiplications of two numbers that depend on tokens, each with its addition.

        From the quantities that the mixer holds to the outputs; functions of one number, divisions,
        and products with a constant are not counted.
        """

    def block_counts(self, length: int, tile: tuple[int, int]) -> BlockCounts:
        """Tiles of Φ that a kernel with tiles of these rows and columns visits."""
        return self.band.blocks(length, tile)


@dataclass(frozen=True, eq=False)
class Adjoint(Mixer):
    """Φᵀ of a mixer: what each token sends out instead of what it gathers."""

    of: Mixer

    def __call__(self, values: Tensor) -> Tensor:
        with torch.enable_grad():
            start = torch.zeros_like(values, requires_grad=True)
            (found,) = torch.autograd.grad(
                self.of(start), start, values, create_graph=values.requires_grad
            )
        return found

    def matrix(self) -> Tensor | Refusal:
        phi = self.of.matrix()
        return phi if isinstance(phi, Refusal) else phi.transpose(-1, -2)

    def system(self) -> System | Refusal:
        if self.of.causal:
            reason = "the adjoint of a causal map reads later tokens only."
            return Refusal("adjoint", reason, "Run `dsf.composition.adjoint` on reversed time.")
        return Refusal(
            "adjoint", "outputs read later tokens, so no recurrence gives them in order."
        )

    def adjoint(self) -> Mixer:
        return self.of

    @property
    def band(self) -> Band:
        return self.of.band.reversed()

    @property
    def gate_looks_ahead(self) -> bool:
        """A weight Φ_ji is made of the tokens up to j, none of them after both."""
        return self.of.gate_looks_ahead

    @property
    def linear_in_values(self) -> bool:
        return True

    @property
    def row_sum(self) -> None:
        return None

    def state_size(self, length: int) -> int:
        return self.of.state_size(length)

    def state_bytes(self, length: int, values: int, width: int = 4) -> int:
        return self.of.state_bytes(length, values, width)

    def moved_bytes(self, length: int, values: int, width: int = 4) -> int:
        return self.of.moved_bytes(length, values, width)

    def multiply_adds(self, length: int, values: int) -> int:
        return self.of.multiply_adds(length, values)
