"""The recurrence, step by step: the oracle of the other forms, and the one that decodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dsf.errors import Refusal
from dsf.numerics import Roundings
from dsf.system import System

from .base import Form, Sizes
from .core import Core
from .gated_scan import PASS
from .plain import loop


@dataclass(frozen=True)
class Recurrent(Form):
    """h ← Λ_i h + B_i u_i, one step after another; admits every system, twice differentiable.

    Work T · K · V. Without gradients the memory used does not grow with T beyond the outputs;
    `block` steps share one call for writes and read-outs.
    """

    block: int = 64

    name: ClassVar[str] = "recurrent"

    def admits(self, system: System) -> Literal[True] | Refusal:
        return True

    def evaluate(self, core: Core) -> tuple[Tensor, Tensor]:
        memory, outputs = core.memory, []
        for start in range(0, core.length, self.block):
            piece = core.window(start, min(start + self.block, core.length), memory)
            output, memory = loop(piece)
            outputs.append(output)
        return (torch.cat(outputs, 1) if outputs else core.empty_outputs()), memory

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        return Roundings(step=4 + inner_terms(system), path=4 + 2 * system.key_size)

    def operations(self, system: System, sizes: Sizes) -> float:
        step = system.transition.cost(system.key_size, sizes.values).multiply_adds
        per_step = step + (2 + 3 * PASS) * system.key_size * sizes.values
        return sizes.length * (per_step * sizes.sequences + _LOOP_OVERHEAD)


_LOOP_OVERHEAD = 200_000  # multiply-adds that one pass of the Python loop costs


def inner_terms(system: System) -> int:
    """The length of the longest sum inside one application of Λ."""
    structure = system.transition
    if structure.cost(system.key_size, 1).multiply_adds <= system.key_size:
        return 0
    return 2 * system.key_size
