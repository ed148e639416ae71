"""Running a form piece by piece along time, with a backward that keeps only what the pieces ask to keep.

Autograd through a buffer of chunk states costs O((T/C)²); here the backward walks the pieces in
reverse and asks each for its own gradients: O(T) time, one state per piece and what it kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .core import Core, along_time

Function = Callable[[Core], tuple[Tensor, Tensor]]
Kept = tuple[Tensor, ...]
Cotangents = tuple[Tensor, Tensor]


class Step(ABC):
    """One piece: outputs and final memory, and how to go back."""

    @abstractmethod
    def __call__(self, core: Core) -> tuple[Tensor, Tensor, Kept]:
        """Outputs, final memory, and tensors to keep for `vjp`."""

    @abstractmethod
    def vjp(self, core: Core, kept: Kept, cotangents: Cotangents) -> list[Tensor | None]:
        """Gradients of the memory and of each of `core.tensors`, None where it asks for none."""


@dataclass(frozen=True)
class ByAutograd(Step):
    """A step that is computed again in the backward and left to autograd."""

    function: Function

    def __call__(self, core: Core) -> tuple[Tensor, Tensor, Kept]:
        return (*self.function(core), ())

    def vjp(self, core: Core, kept: Kept, cotangents: Cotangents) -> list[Tensor | None]:
        with torch.enable_grad():
            memory = core.memory.detach().requires_grad_()
            results = self.function(core.rebuild(core.tensors, memory))
            return gradients(results, [memory, *core.tensors], cotangents)


def gradients(
    results: tuple[Tensor, ...], inputs: list[Tensor], cotangents: tuple[Tensor, ...]
) -> list[Tensor | None]:
    """Gradients of those inputs that ask for one, None for the others."""
    asked = [x for x in inputs if x.requires_grad]
    used = [(r, c) for r, c in zip(results, cotangents, strict=True) if r.requires_grad]
    if not used:
        return [torch.zeros_like(x) if x.requires_grad else None for x in inputs]
    roots, given = zip(*used, strict=True)
    found = iter(torch.autograd.grad(roots, asked, given, allow_unused=True))
    return [next(found) if x.requires_grad else None for x in inputs]


def in_segments(step: Step, core: Core, segment: int) -> tuple[Tensor, Tensor]:
    """Outputs and final memory of `core`, with `step` run on at most `segment` time steps at once.

    Gradients of every tensor are exact to first order; a second derivative raises.
    """
    if core.length == 0:
        return core.empty_outputs(), core.memory
    tensors = core.tensors
    if torch.is_grad_enabled() and any(x.requires_grad for x in (*tensors, core.memory)):
        if core.length <= segment and isinstance(step, ByAutograd):
            return step.function(core)
        return _Segments.apply(step, core, segment, core.memory, *tensors)  # type: ignore[return-value]
    outputs, memories, _ = _walk(step, core, segment)
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)), memories[-1]


def _walk(step: Step, core: Core, segment: int) -> tuple[list[Tensor], list[Tensor], list[Kept]]:
    outputs, memories, kept = [], [core.memory], []
    for start in range(0, core.length, segment):
        piece = core.window(start, min(start + segment, core.length), memories[-1])
        output, memory, own = step(piece)
        outputs.append(output)
        memories.append(memory)
        kept.append(own)
    return outputs, memories, kept


class _Segments(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, step: Step, core: Core, segment: int, memory: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        shape = core.rebuild(tuple(x.detach() for x in tensors), memory.detach())
        outputs, memories, kept = _walk(step, shape, segment)
        ctx.step, ctx.segment, ctx.shape = step, segment, shape
        ctx.kept = [len(own) for own in kept]
        flat = [x for own in kept for x in own]
        ctx.save_for_backward(*tensors, *memories[:-1], *flat)
        return torch.cat(outputs, 1), memories[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor, grad_memory: Tensor) -> tuple[Any, ...]:
        count, pieces = len(ctx.shape.tensors), len(ctx.kept)
        saved = ctx.saved_tensors
        tensors, memories = saved[:count], saved[count : count + pieces]
        kept = list(saved[count + pieces :])
        wanted = ctx.needs_input_grad[4:]
        length = grad_outputs.shape[1]
        found: list[list[Tensor | None]] = []
        for piece in reversed(range(pieces)):
            start, stop = piece * ctx.segment, min((piece + 1) * ctx.segment, length)
            inputs = tuple(
                along_time(x, length, start, stop).detach().requires_grad_(w)
                for x, w in zip(tensors, wanted, strict=True)
            )
            own = tuple(kept[len(kept) - ctx.kept[piece] :])
            del kept[len(kept) - ctx.kept[piece] :]
            of_memory, *of_inputs = ctx.step.vjp(
                ctx.shape.rebuild(inputs, memories[piece]),
                own,
                (grad_outputs[:, start:stop], grad_memory),
            )
            grad_memory = torch.zeros_like(memories[piece]) if of_memory is None else of_memory
            found.append(of_inputs)
        grads = [
            _joined([of_inputs[i] for of_inputs in reversed(found)], x, length) if w else None
            for i, (x, w) in enumerate(zip(tensors, wanted, strict=True))
        ]
        return (None, None, None, grad_memory if ctx.needs_input_grad[3] else None, *grads)


def _joined(pieces: list[Tensor | None], x: Tensor, length: int) -> Tensor | None:
    """The gradient of x from those of its pieces: joined along time, or added where x is constant."""
    present = [piece for piece in pieces if piece is not None]
    if not present:
        return None
    if x.shape[1] == 1 and length != 1:
        return torch.stack(present).sum(0)
    if len(present) == 1 == len(pieces):
        return present[0]
    assert len(present) == len(pieces), "a tensor along time enters every piece"
    return torch.cat(present, 1)
