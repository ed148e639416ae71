"""A form: one way to compute u → y and the final state of a system."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from dsf.errors import Refusal
from dsf.numerics import Roundings
from dsf.system import System

from .core import Core


@dataclass(frozen=True)
class Sizes:
    """What the cost of a run depends on besides the system: T, B · H and V."""

    length: int
    sequences: int
    values: int


class Form(ABC):
    """A way to compute: it says whether it admits a system, what it costs, and how it rounds.

    `dsf.run` lowers a system to a `Core` and hands that to `evaluate`; all forms agree within the
    sum of the error bounds that `roundings` implies.
    """

    name: ClassVar[str]

    @abstractmethod
    def admits(self, system: System) -> Literal[True] | Refusal:
        """True, or the reason why this form cannot run the system (a `Refusal` is falsy)."""

    @abstractmethod
    def evaluate(self, core: Core) -> tuple[Tensor, Tensor]:
        """Outputs (B, T, H, …) and the final memory (B, H, K, V)."""

    @abstractmethod
    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        """How many roundings a product path C Λ … Λ B u passes through (see `dsf.numerics`)."""

    @abstractmethod
    def operations(self, system: System, sizes: Sizes) -> float:
        """Estimated cost in multiply-adds, with overheads counted as multiply-adds."""
