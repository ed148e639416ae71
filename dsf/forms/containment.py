"""Keeping a NaN or an infinity out of the past.

Inside a chunk every output is a sum over all tokens with zeros above the diagonal, and 0 × NaN is
NaN. So a chunked step looks at its results; only where one is not finite does it look for the cause.
Outputs before the first bad token then come from the same computation with bad entries set to zero
(bit-equal to a clean run), outputs from it on come from the plain recurrence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .chunk_layout import InChunks
from .core import Core, over_time
from .plain import loop
from .segments import ByAutograd, Cotangents, Function, Kept, Step, are_finite, in_segments
from .transforms import is_transformed
from .workspace import Workspace


@dataclass(frozen=True)
class Contained(Step):
    """`step`, with bad tokens kept from reaching earlier outputs, and their gradients."""

    step: Step

    def __call__(self, core: Core, space: Workspace) -> tuple[Tensor | InChunks, Tensor, Kept]:
        outputs, memory, kept = self.step(core, space)
        if self.step.finite((outputs, memory), space):
            return outputs, memory, kept
        if isinstance(outputs, InChunks):
            outputs = outputs.fresh()
        return (*recovered(self._whole, core, outputs, memory), kept)

    def vjp(
        self, core: Core, kept: Kept, cotangents: Cotangents, space: Workspace
    ) -> Sequence[Tensor | InChunks | None]:
        found = self.step.vjp(core, kept, cotangents, space)
        if self.step.finite(found, space):
            return found
        return ByAutograd(contained(self._whole)).vjp(core, (), cotangents, space)

    def _whole(self, core: Core) -> tuple[Tensor, Tensor]:
        return in_segments(self.step, core, core.length)


def contained(step: Function) -> Function:
    """`step`, with bad tokens kept from reaching earlier outputs; costs one reduction when all is finite."""

    def run(core: Core) -> tuple[Tensor, Tensor]:
        outputs, memory = step(core)
        if is_transformed(*core.tensors, core.memory) or are_finite((outputs, memory)):
            return outputs, memory
        return recovered(step, core, outputs, memory)

    return run


def recovered(step: Function, core: Core, outputs: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Results with the bad tokens kept from the past, where those of `step` are not finite."""
    core = replace(core, transition=core.transition.linear())
    bad = bad_steps(core)
    if not bool(bad.any()):
        finite_start = bool(torch.isfinite(core.memory.sum()))
        return loop(core) if finite_start else (outputs, memory)
    clean = core.rebuild(tuple(_zero_bad(x) for x in core.tensors), core.memory)
    kept_outputs, kept_memory = step(clean)
    true_outputs, true_memory = loop(core)
    poisoned = bad.cummax(1).values.bool()
    tail = (1,) * (outputs.ndim - 3)
    outputs = torch.where(poisoned.reshape(*poisoned.shape, *tail), true_outputs, kept_outputs)
    memory = torch.where(poisoned[:, -1, :, None, None], true_memory, kept_memory)
    return outputs, memory


def bad_steps(core: Core) -> Tensor:
    """1 at each (B, T, H) where some tensor of the step is not finite (a log-decay of -inf is fine), else 0."""
    shape = (core.memory.shape[0], core.length, core.memory.shape[1])
    bad = torch.zeros(shape, dtype=torch.uint8, device=core.memory.device)
    linear = replace(core, transition=core.transition.linear())
    for x, axes in zip(linear.tensors, linear.trailing, strict=True):
        wrong = ~torch.isfinite(over_time(x, core.length))
        bad |= (wrong.flatten(3).any(-1) if axes else wrong).to(torch.uint8)
    return bad


def _zero_bad(x: Tensor) -> Tensor:
    return torch.where(torch.isfinite(x), x, torch.zeros_like(x))
