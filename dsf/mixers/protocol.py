"""What anything that maps a sequence of values to outputs can be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from dsf.errors import Refusal
from dsf.forms import run
from dsf.forms.mixing import mixing_matrix
from dsf.state import State
from dsf.system import System


class Mixer(ABC):
    """A map from values (B, T, H, V) to outputs of the same shape, with its gates fixed.

    Answers are values or a `Refusal` (falsy) with the reason, never an exception.
    """

    @abstractmethod
    def __call__(self, values: Tensor) -> Tensor:
        """The outputs for a whole sequence."""

    @abstractmethod
    def matrix(self) -> Tensor | Refusal:
        """Φ (B, H, T, T) with y = Φ v, or why there is none."""

    @abstractmethod
    def system(self) -> System | Refusal:
        """(Λ, B, C, D), or why there is no system of finite state."""

    @property
    @abstractmethod
    def causal(self) -> bool:
        """True where no output depends on a later value."""

    @property
    @abstractmethod
    def gate_looks_ahead(self) -> bool:
        """True where a gate or weight depends on later tokens, whatever Φ's triangle looks like."""

    @property
    @abstractmethod
    def linear_in_values(self) -> bool:
        """True where Φ exists: the outputs are linear in the values."""

    @abstractmethod
    def state_size(self, length: int) -> int:
        """Numbers per head that must be kept to continue after `length` tokens."""

    @abstractmethod
    def multiply_adds(self, length: int, values: int) -> int:
        """Multiply-adds per head for a whole sequence of `length` tokens of `values` channels."""


@dataclass(frozen=True, eq=False)
class Recurrence(Mixer):
    """A mixer that is a system; the six architectures of the table are all of this kind."""

    of: System

    def __call__(self, values: Tensor) -> Tensor:
        return run(self.of, values)[0]

    def continued(self, values: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Outputs and final state from an initial state."""
        return run(self.of, values, state)

    def matrix(self) -> Tensor | Refusal:
        if self.of.length is None:
            reason = "the system is time-invariant and has no length of its own."
            return Refusal("matrix", reason, "Use `dsf.mixing_matrix(system, length)`.")
        return mixing_matrix(self.of)

    def system(self) -> System:
        return self.of

    @property
    def causal(self) -> bool:
        return self.of.timing != "end"

    @property
    def gate_looks_ahead(self) -> bool:
        return False

    @property
    def linear_in_values(self) -> bool:
        return True

    def state_size(self, length: int) -> int:
        extra = self.of.key_size * (self.of.normaliser is not None) + (
            self.of.log_write is not None
        )
        return self.of.key_size * (self.of.value_size or 1) + extra

    def multiply_adds(self, length: int, values: int) -> int:
        keys = self.of.key_size
        step = self.of.transition.cost(keys, values).multiply_adds
        return length * (step + 2 * keys * values * (self.of.writes or 1))
