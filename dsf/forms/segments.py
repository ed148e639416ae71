"""Running a form piece by piece along time, with a backward that keeps only what the pieces ask to keep.

Autograd through a buffer of chunk states costs O((T/C)²); here the backward walks the pieces in
reverse and asks each for its own gradients: O(T) time, one state per piece and what it kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsf.precision import keeps_precision

from .chunk_layout import InChunks
from .core import Core, along_time
from .plain import plainly
from .transforms import is_transformed
from .workspace import Workspace, fresh

Function = Callable[[Core], tuple[Tensor, Tensor]]
Kept = tuple[Tensor, ...]
Cotangents = tuple[Tensor, Tensor]


class Step(ABC):
    """One piece: outputs and final memory, and how to go back."""

    @abstractmethod
    def __call__(self, core: Core, space: Workspace) -> tuple[Tensor | InChunks, Tensor, Kept]:
        """Outputs, final memory, and, where the workspace keeps, tensors to keep for `vjp`.

        Outputs that are `InChunks` may lie in the workspace; tensors are memory of their own.
        """

    @abstractmethod
    def vjp(
        self, core: Core, kept: Kept, cotangents: Cotangents, space: Workspace
    ) -> Sequence[Tensor | InChunks | None]:
        """Gradients of the memory and of each of `core.tensors`, None where it asks for none."""

    def finite(self, found: Sequence[Tensor | InChunks | None], space: Workspace) -> bool:
        """Whether what was just found with this workspace is finite: by one reduction, or as seen on the way."""
        return are_finite(found)


def are_finite(found: Sequence[Tensor | InChunks | None]) -> bool:
    """Whether all results are finite, by one reduction."""
    sums = [(x.view if isinstance(x, InChunks) else x).sum() for x in found if x is not None]
    return bool(torch.isfinite(sum(sums[1:], sums[0])))


@dataclass(frozen=True)
class ByAutograd(Step):
    """A step that is computed again in the backward and left to autograd."""

    function: Function

    def __call__(self, core: Core, space: Workspace) -> tuple[Tensor, Tensor, Kept]:
        return (*self.function(core), ())

    def vjp(
        self, core: Core, kept: Kept, cotangents: Cotangents, space: Workspace
    ) -> list[Tensor | None]:
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

    Transforms of `torch.func`, tangents and second derivatives go through the plain recurrence.
    """
    if core.length == 0:
        return core.empty_outputs(), core.memory
    tensors = core.tensors
    if is_transformed(*tensors, core.memory):
        return plainly(core)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (*tensors, core.memory)):
        if core.length <= segment and isinstance(step, ByAutograd):
            return step.function(core)
        return _Segments.apply(step, core, segment, core.memory, *tensors)  # type: ignore[return-value]
    outputs, memories, _ = walk(step, core, segment, keeps=False)
    return outputs, memories[-1]


def walk(
    step: Step, core: Core, segment: int, keeps: bool
) -> tuple[Tensor, list[Tensor], list[Kept]]:
    """Outputs, the memory at the start of each piece and at the end, and what each piece kept.

    Where nothing is kept, the memory at the end alone.
    """
    outputs, memories, kept = Joined(core.length), [core.memory], []
    space = Workspace(keeps, pieces=-(-core.length // segment))
    for start in range(0, core.length, segment):
        piece = core.window(start, min(start + segment, core.length), memories[-1])
        output, memory, own = step(piece, space)
        outputs.put(start, output)
        if not keeps:
            memories.clear()
        memories.append(memory)
        kept.append(own)
    assert outputs.whole is not None
    return outputs.whole, memories, kept


@keeps_precision
def walk_back(
    step: Step,
    core: Core,
    segment: int,
    held: tuple[list[Tensor], list[Kept]],
    cotangents: Cotangents,
    wanted: Sequence[bool],
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradients of the initial memory and of those of `core.tensors` that are `wanted`.

    `held` are the memory at the start of each piece and what `step` kept there.
    """
    (memories, kept), (grad_outputs, grad_memory) = held, cotangents
    found, space = [Joined(core.length) for _ in core.tensors], Workspace(True, len(kept))
    for piece in reversed(range(len(kept))):
        start, stop = piece * segment, min((piece + 1) * segment, core.length)
        inputs = tuple(
            along_time(x, core.length, start, stop).detach().requires_grad_(w)
            for x, w in zip(core.tensors, wanted, strict=True)
        )
        of_memory, *of_inputs = step.vjp(
            core.rebuild(inputs, memories[piece]),
            kept.pop(),
            (grad_outputs[:, start:stop], grad_memory),
            space,
        )
        assert not isinstance(of_memory, InChunks)
        grad_memory = torch.zeros_like(memories[piece]) if of_memory is None else of_memory
        for joined, x, of_input in zip(found, core.tensors, of_inputs, strict=True):
            if of_input is not None:
                constant = x.shape[1] == 1 and core.length != 1
                joined.add(of_input) if constant else joined.put(start, of_input)
    return grad_memory, [
        joined.whole if w else None for joined, w in zip(found, wanted, strict=True)
    ]


class Joined:
    """Pieces joined along time: each is copied to its place while it is still in the cache."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._whole: Tensor | None = None

    def put(self, start: int, piece: Tensor | InChunks) -> None:
        """Put `piece` at time `start`; a tensor of the whole length is taken as it is."""
        steps = piece.shape[1]
        if isinstance(piece, Tensor) and steps == self._length:
            self._whole = piece
            return
        if self._whole is None:
            like = piece if isinstance(piece, Tensor) else piece.view
            self._whole = fresh((piece.shape[0], self._length, *piece.shape[2:]), like)
        there = self._whole[:, start : start + steps]
        if isinstance(piece, InChunks):
            piece.copy_to(there)
        else:
            there.copy_(piece)

    def add(self, piece: Tensor | InChunks) -> None:
        """Add the gradient of what is constant in time."""
        piece = piece if isinstance(piece, Tensor) else piece.fresh()
        self._whole = piece if self._whole is None else self._whole + piece

    @property
    def whole(self) -> Tensor | None:
        """What was put, or None if nothing was."""
        return self._whole


class _Segments(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, step: Step, core: Core, segment: int, memory: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        shape = core.rebuild(tuple(x.detach() for x in tensors), memory.detach())
        outputs, memories, kept = walk(step, shape, segment, keeps=True)
        ctx.step, ctx.segment, ctx.shape = step, segment, shape
        ctx.kept = [len(own) for own in kept]
        flat = [x for own in kept for x in own]
        ctx.save_for_backward(*tensors, memory, *memories[1:-1], *flat)
        return outputs, memories[-1].clone()

    @staticmethod
    def backward(ctx: Any, grad_outputs: Tensor, grad_memory: Tensor) -> tuple[Any, ...]:
        count, pieces = len(ctx.shape.tensors), len(ctx.kept)
        saved = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # as for create_graph
            inputs = saved[count], *saved[:count]
            wanted = ctx.needs_input_grad[3:]
            return None, None, None, *_again(ctx.shape, inputs, (grad_outputs, grad_memory), wanted)
        tensors, memories = saved[:count], list(saved[count : count + pieces])
        flat, kept = iter(saved[count + pieces :]), []
        for own in ctx.kept:
            kept.append(tuple(next(flat) for _ in range(own)))
        core = ctx.shape.rebuild(tensors, memories[0])
        grad_memory, grads = walk_back(
            ctx.step,
            core,
            ctx.segment,
            (memories, kept),
            (grad_outputs, grad_memory),
            ctx.needs_input_grad[4:],
        )
        return (None, None, None, grad_memory if ctx.needs_input_grad[3] else None, *grads)


def _again(
    shape: Core, inputs: Sequence[Tensor], cotangents: Cotangents, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients of the memory and of each tensor that have gradients themselves."""
    memory, *tensors = (x.view_as(x) for x in inputs)  # apart, where one depends on another
    asked = [x for x, w in zip((memory, *tensors), wanted, strict=True) if w]
    results = plainly(shape.rebuild(tuple(tensors), memory))
    found = iter(torch.autograd.grad(results, asked, cotangents, None, True, allow_unused=True))
    return [next(found) if w else None for w in wanted]
