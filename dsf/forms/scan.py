"""All states at once: a parallel prefix over (Λ₂, x₂) ∘ (Λ₁, x₁) = (Λ₂Λ₁, Λ₂x₁ + x₂), in linear space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dsf.errors import Refusal
from dsf.numerics import Roundings
from dsf.structure import DPLR, Dense, Diagonal, Identity, Scalar
from dsf.structure.gates import Gate
from dsf.system import System

from . import native
from .base import Form, Sizes
from .core import Core, join_heads, part_heads
from .gated_scan import GatedScan, operations
from .plain import prefix
from .recurrent import inner_terms
from .segments import ByAutograd, in_segments

_STATES_AT_ONCE = 1 << 19  # numbers in the states of one segment
# What a number of a state costs a step in compiled code, against chunks there and back: measured.
_COMPILED = {Identity: 2, Scalar: 3, Diagonal: 4}


@dataclass(frozen=True)
class Scan(Form):
    r"""All states of a segment at once; segments follow one another.

    Gates are accumulated in place, in blocks where the state is small; other structures by an
    associative scan. Admits every structure that is closed under composition. Gates stay in linear space: a scan of
    logarithms loses |Σ log a| digits, and dividing cumulative products overflows.
    """

    segment: int | None = None

    name: ClassVar[str] = "scan"

    def admits(self, system: System) -> Literal[True] | Refusal:
        if isinstance(system.transition, DPLR):
            return Refusal(
                self.name,
                f"a product of DPLR transitions has rank r = {system.transition.rank} more at every step.",
                "Use chunkwise (compact WY) or recurrent, or densify the transition.",
            )
        return True

    def evaluate(self, core: Core) -> tuple[Tensor, Tensor]:
        if self.segment is None and (found := _compiled(core)) is not None:
            return found
        gated = isinstance(core.transition, Gate | Identity)
        step = GatedScan() if gated else ByAutograd(prefix)
        return in_segments(step, core, self.steps_at_once(core))

    def steps_at_once(self, core: Core) -> int:
        """The segment length: as given, or what keeps the states of a segment near a fixed size."""
        if self.segment is not None:
            return max(1, self.segment)
        return int(at_once(core.sequences * core.key_size * core.value_size))

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        depth = max(1, sizes.length).bit_length()
        return Roundings(step=4 + inner_terms(system), path=4 + 2 * system.key_size + 4 * depth)

    def operations(self, system: System, sizes: Sizes) -> float:
        if self.segment is None and native.suits_scan(system, sizes.values):
            keys, values, per_number = (
                system.key_size,
                sizes.values,
                _COMPILED[type(system.transition)],
            )
            per_step = per_number * keys * values + 8 * (keys + values)
            return sizes.length * sizes.sequences * per_step + native.CALLS
        if isinstance(system.transition, Gate | Identity):
            numbers = sizes.sequences * system.key_size * sizes.values
            return (2 if system.is_complex else 1) * operations(sizes.length, numbers)
        cost = system.transition.cost(system.key_size, sizes.values)
        product = cost.numbers * (system.key_size if isinstance(system.transition, Dense) else 1)
        states = system.key_size * sizes.values
        per_step = 24 * (cost.multiply_adds + product + 2 * states)  # many passes over all states
        return sizes.length * sizes.sequences * per_step + (sizes.length / 256 + 1) * 200_000


def _compiled(core: Core) -> tuple[Tensor, Tensor] | None:
    """Outputs and the last memory where compiled code computes them: it has channels side by side, heads of one too."""
    joined = core
    if native.can_join(core):
        joined = join_heads(core)
    if not native.admits_scan(joined):
        return None
    outputs, memory = in_segments(native.NativeScan(), joined, core.length)
    return (outputs, memory) if joined is core else part_heads(outputs, memory, core.read)


def at_once(numbers: int | torch.SymInt) -> int | torch.SymInt:
    """How many steps one segment has where the states of a step are so many numbers."""
    return max(32, _STATES_AT_ONCE // max(1, numbers))
