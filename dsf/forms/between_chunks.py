"""The walk from chunk to chunk, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsf.structure import Diagonal, Scalar, Structure

from .chunk_maps import ChunkMaps
from .workspace import Workspace, room


def walk(
    maps: ChunkMaps, values: Tensor, memory: Tensor, space: Workspace | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (M, y C, V), the last memory (L, K, V), and the memory at each chunk's start (M, K, V).

    `values` (M, w C, V); of the M chunks of L sequences the first of every sequence come first. With a
    workspace nothing can be differentiated, and the outputs lie in it.
    """
    if space is not None:
        return _forward(maps, values, memory, space)
    outputs, last, start = _Walk.apply(maps, values, memory, *maps.tensors)
    return outputs, last, start


class _Walk(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: ChunkMaps, values: Tensor, memory: Tensor, *tensors: Tensor) -> Any:
        maps = maps.rebuild(tensors)
        outputs, last, start = _forward(maps, values, memory, None)
        ctx.maps = maps.rebuild(tuple(x.detach() for x in tensors))
        ctx.save_for_backward(values, start, *tensors)
        ctx.mark_non_differentiable(start)
        return outputs, last, start

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_outputs: Tensor, of_last: Tensor, _: Tensor) -> Any:
        values, start, *tensors = ctx.saved_tensors
        maps = ctx.maps.rebuild(tuple(tensors))
        found, of_values, of_memory = walk_vjp(maps, values, start, (of_outputs, of_last))
        return (None, of_values, of_memory, *found)


def _forward(
    maps: ChunkMaps, values: Tensor, memory: Tensor, space: Workspace | None
) -> tuple[Tensor, Tensor, Tensor]:
    sequences = memory.shape[0]
    shape = (len(values) + sequences, *memory.shape[1:])
    if space is not None and space.keeps:
        states = space.keep("states", shape, values)
    else:
        states = room(space, "states", shape, values)
    states[:sequences] = memory
    torch.bmm(maps.writes.mT, values, out=states[sequences:])
    chunks = states.split(sequences)
    totals = each(maps.total, sequences)
    for n in range(len(chunks) - 1):
        advance(totals[n] if totals else None, chunks[n], chunks[n + 1])
    start = states[: len(values)]
    outputs = room(space, "outputs", (*maps.gram.shape[:2], values.shape[-1]), values)
    torch.bmm(maps.gram, values, out=outputs).baddbmm_(maps.reads, start)
    return outputs, chunks[-1].clone(), start


def walk_vjp(
    maps: ChunkMaps, values: Tensor, start: Tensor, cotangents: tuple[Tensor, Tensor]
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Gradients of `maps.tensors`, of the values and of the first memory."""
    of_outputs, of_last = cotangents
    sequences = of_last.shape[0]
    states = start.new_empty((len(start) + sequences, *start.shape[1:]))
    states[len(start) :] = of_last
    torch.bmm(maps.reads.mH, of_outputs, out=states[: len(start)])
    chunks = states.split(sequences)
    totals = each(maps.total.transpose().conj(), sequences)
    for n in reversed(range(len(chunks) - 1)):
        advance(totals[n] if totals else None, chunks[n + 1], chunks[n])
    later = states[sequences:]
    found = [of_outputs @ values.mH, of_outputs @ start.mH, values.conj() @ later.mT]
    found += total_vjp(maps.total, start, later)
    of_values = (maps.gram.mH @ of_outputs).baddbmm_(maps.writes.conj(), later)
    return found, of_values, chunks[0].clone()


def each(total: Structure, sequences: int) -> Sequence[Structure | Tensor]:
    """The transitions of each chunk, gates as factors of a memory; none where they change nothing."""
    if isinstance(total, Scalar | Diagonal):
        decay = total.decay[..., None]
        return (decay if decay.ndim == 3 else decay[..., None]).split(sequences)
    leaves = [leaf.split(sequences) for leaf in total.leaves]
    return [total.rebuild(own) for own in zip(*leaves, strict=True)]


def advance(total: Structure | Tensor | None, memory: Tensor, onto: Tensor) -> None:
    """Add Λ memory to `onto`."""
    if isinstance(total, Tensor):
        onto.addcmul_(total, memory)
    else:
        onto.add_(memory if total is None else total.apply(memory))


def total_vjp(
    total: Structure, start: Tensor, later: Tensor, space: Workspace | None = None
) -> list[Tensor]:
    """Gradients of the transitions' leaves, from the memory before them and the gradient of the one after."""
    if not total.leaves:
        return []
    if isinstance(total, Scalar):
        product = room(space, "product", start.shape, start)
        return [torch.mul(start.conj(), later, out=product).flatten(1).sum(1)]
    if isinstance(total, Diagonal):
        product = room(space, "product", start.shape, start)
        return [torch.mul(start.conj(), later, out=product).sum(-1)]
    with torch.enable_grad():
        leaves = [leaf.detach().requires_grad_() for leaf in total.leaves]
        return list(torch.autograd.grad(total.rebuild(tuple(leaves)).apply(start), leaves, later))
