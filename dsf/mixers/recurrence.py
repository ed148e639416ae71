"""A mixer that is a system: the architectures of the table, and summaries that every query reads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dsf.composition import adjoint
from dsf.coupling import OuterCoupling
from dsf.errors import InvalidInput, Refusal
from dsf.forms import run
from dsf.forms.mixing import mixing_matrix
from dsf.state import State
from dsf.structure import Identity
from dsf.system import System

from .band import EVERYTHING, Band
from .protocol import Adjoint, Mixer


@dataclass(frozen=True, eq=False)
class Recurrence(Mixer):
    """A mixer whose system is not refused; with timing "end" a summary that all queries read.

    What a system cannot say of itself is given: whether its gates were made from `later` tokens, what
    its rows sum to, and the multiply-adds per sequence and head that its `gates` took. A length is
    needed for the matrix of a time-invariant system: use `System.expand`.
    """

    of: System
    later: bool = False
    rows: float | None = None
    gates: int = 0

    def __call__(self, values: Tensor) -> Tensor:
        return run(self.of, values)[0]

    def continued(self, values: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Outputs and final state from an initial state."""
        return run(self.of, values, state)

    def matrix(self) -> Tensor | Refusal:
        if self.of.length is None:
            reason = "the system is time-invariant and has no length of its own."
            return Refusal("matrix", reason, "Use `System.expand` or `dsf.mixing_matrix`.")
        return mixing_matrix(self.of)

    def system(self) -> System:
        return self.of

    def adjoint(self) -> Mixer | Refusal:
        if self.of.writes is not None:
            reason = "with several writes per step the values have an axis that the outputs lack."
            return Refusal("adjoint", reason, "Give each write a step of its own.")
        if self._is_summary and isinstance(self.of.transition, Identity):
            swapped = self.of.replace(write=self.of.read, read=self.of.write)
            return Recurrence(swapped, self.later, None, self.gates)
        try:
            return Backward(self, adjoint(self.of)) if self.causal else Adjoint(self)
        except InvalidInput:  # a normaliser, or couplings without a transpose in the vocabulary
            return Adjoint(self)

    @property
    def _is_summary(self) -> bool:
        return self.of.timing == "end"

    @property
    def band(self) -> Band:
        if self._is_summary:
            return EVERYTHING
        reads_itself = self.of.timing == "after" or self.of.feedthrough is not None
        return Band(None, 0 if reads_itself else -1)

    @property
    def gate_looks_ahead(self) -> bool:
        return self.later

    @property
    def linear_in_values(self) -> bool:
        return True

    @property
    def row_sum(self) -> float | None:
        normaliser = self.of.normaliser
        own = normaliser is not None and normaliser.floor is None and self.of.feedthrough is None
        return 1.0 if own and self.of.timing == "after" else self.rows

    def state_size(self, length: int) -> int:
        return self.of.key_size * (2 if self.of.is_complex else 1)

    def state_bytes(self, length: int, values: int, width: int = 4) -> int:
        keys, parts = self.of.key_size, 2 if self.of.is_complex else 1
        memory = keys if self.of.is_vector else keys * values
        normaliser = keys if self.of.normaliser is not None else 0
        return width * (parts * (memory + normaliser) + (self.of.log_write is not None))

    def moved_bytes(self, length: int, values: int, width: int = 4) -> int:
        total = length * values * ((self.of.writes or 1) + 1)
        for x in self._tensors():
            steps = length if x.shape[1] != 1 else 1
            total += steps * x[:1, :1, :1].numel() * (2 if x.is_complex() else 1)
        return width * total

    def _tensors(self) -> list[Tensor]:
        direct = () if self.of.feedthrough is None else self.of.feedthrough.leaves
        optional = [x for x in (self.of.log_write, self.of.offset) if x is not None]
        couplings = [*self.of.write.tensors, *self.of.read.tensors]
        return [*self.of.transition.leaves, *couplings, *direct, *optional]

    def multiply_adds(self, length: int, values: int) -> int:
        keys, system = self.of.key_size, self.of
        if system.is_vector:
            step = system.transition.cost(keys, 1).multiply_adds + 2 * keys * values
        else:
            reads = system.read.several if isinstance(system.read, OuterCoupling) else None
            step = system.transition.cost(keys, values).multiply_adds
            step += ((system.writes or 1) + (reads or 1)) * keys * values
        if system.normaliser is not None:
            step += system.transition.cost(keys, 1).multiply_adds + keys
        if system.feedthrough is not None:
            step += system.feedthrough.cost(values, 1).multiply_adds
        return self.gates + length * step


@dataclass(frozen=True, eq=False)
class Backward(Mixer):
    """The adjoint of a causal recurrence: its adjoint system, run on reversed time."""

    of: Recurrence
    reverse: System

    def __call__(self, values: Tensor) -> Tensor:
        return run(self.reverse, values.flip(1))[0].flip(1)

    def matrix(self) -> Tensor | Refusal:
        return Adjoint(self.of).matrix()

    def system(self) -> System | Refusal:
        return Adjoint(self.of).system()

    def adjoint(self) -> Mixer:
        return self.of

    @property
    def band(self) -> Band:
        return self.of.band.reversed()

    @property
    def gate_looks_ahead(self) -> bool:
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
        return Recurrence(self.reverse).state_bytes(length, values, width)

    def moved_bytes(self, length: int, values: int, width: int = 4) -> int:
        return Recurrence(self.reverse).moved_bytes(length, values, width)

    def multiply_adds(self, length: int, values: int) -> int:
        return Recurrence(self.reverse).multiply_adds(length, values)
