"""Running a form piece by piece along time, with a backward that keeps only the states between pieces.

Autograd through a buffer of chunk states costs O((T/C)²); here the backward walks the pieces in
reverse, computes each again and asks autograd for that piece alone: O(T) time, one state per piece.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .core import Core, along_time

Step = Callable[[Core], tuple[Tensor, Tensor]]


def in_segments(step: Step, core: Core, segment: int) -> tuple[Tensor, Tensor]:
    """Outputs and final memory of `core`, with `step` run on at most `segment` time steps at once.

    Gradients of every tensor are exact to first order; a second derivative raises.
    """
    if core.length <= segment:
        return step(core)
    tensors = core.tensors
    if torch.is_grad_enabled() and any(x.requires_grad for x in (*tensors, core.memory)):
        return _Segments.apply(step, core, segment, core.memory, *tensors)  # type: ignore[return-value]
    outputs, memories = _walk(step, core, segment)
    return torch.cat(outputs, 1), memories[-1]


def _walk(step: Step, core: Core, segment: int) -> tuple[list[Tensor], list[Tensor]]:
    outputs, memories = [], [core.memory]
    for start in range(0, core.length, segment):
        piece = core.window(start, min(start + segment, core.length), memories[-1])
        output, memory = step(piece)
        outputs.append(output)
        memories.append(memory)
    return outputs, memories


class _Segments(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, step: Step, core: Core, segment: int, memory: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        outputs, memories = _walk(step, core.rebuild(tensors, memory), segment)
        ctx.step, ctx.segment, ctx.pieces = step, segment, len(outputs)
        ctx.shape = core.rebuild(tuple(x.detach() for x in tensors), memory.detach())
        ctx.save_for_backward(*tensors, *memories[:-1])
        return torch.cat(outputs, 1), memories[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor, grad_memory: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        tensors, memories = saved[: -ctx.pieces], saved[-ctx.pieces :]
        wanted = ctx.needs_input_grad[4:]
        length = grad_outputs.shape[1]
        grads = [torch.zeros_like(x) if w else None for x, w in zip(tensors, wanted, strict=True)]
        for piece in reversed(range(ctx.pieces)):
            start, stop = piece * ctx.segment, min((piece + 1) * ctx.segment, length)
            found, grad_memory = _backward_piece(
                ctx.step, ctx.shape, tensors, memories[piece], wanted, (start, stop, length),
                (grad_outputs[:, start:stop], grad_memory),
            )  # fmt: skip
            for total, grad in zip(grads, found, strict=True):
                if total is not None and grad is not None:
                    along_time(total, length, start, stop).add_(grad)
        return (None, None, None, grad_memory if ctx.needs_input_grad[3] else None, *grads)


def _backward_piece(
    step: Step,
    shape: Core,
    tensors: tuple[Tensor, ...],
    memory: Tensor,
    wanted: tuple[bool, ...],
    window: tuple[int, int, int],
    cotangents: tuple[Tensor, Tensor],
) -> tuple[list[Tensor | None], Tensor]:
    start, stop, length = window
    with torch.enable_grad():
        memory = memory.detach().requires_grad_()
        inputs = tuple(
            along_time(x, length, start, stop).detach().requires_grad_(w)
            for x, w in zip(tensors, wanted, strict=True)
        )
        results = step(shape.rebuild(inputs, memory))
        asked = [x for x, w in zip(inputs, wanted, strict=True) if w]
        found = torch.autograd.grad(results, [memory, *asked], cotangents, allow_unused=True)
    memory_grad = found[0] if found[0] is not None else torch.zeros_like(memory)
    rest = iter(found[1:])
    return [next(rest) if w else None for w in wanted], memory_grad
