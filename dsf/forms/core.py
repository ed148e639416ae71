"""What a form computes: the recurrence alone, after everything around it has been lowered away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from dsf.coupling import ChannelCoupling, Coupling, OuterCoupling, ScaledCoupling
from dsf.structure import Diagonal, Elementwise, Scalar, Structure


@dataclass(frozen=True, eq=False)
class Core:
    """h_i = Λ_i h_{i-1} + B_i u_i, y_i = C_i h_i, from an initial memory (B, H, K, V).

    Read after the update, no normaliser, no feedthrough, no packing, accumulator dtype. Leaves of
    size 1 along B, T or H are constant there.
    """

    transition: Structure
    write: Coupling
    read: Coupling
    tokens: Tensor
    memory: Tensor

    @property
    def length(self) -> int:
        return self.tokens.shape[1]

    @property
    def key_size(self) -> int:
        return self.memory.shape[-2]

    @property
    def value_size(self) -> int:
        return self.memory.shape[-1]

    @property
    def sequences(self) -> int:
        """B · H, the number of independent recurrences."""
        return self.memory.shape[0] * self.memory.shape[1]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor along time; the memory is apart."""
        couplings = (*self.write.tensors, *self.read.tensors)
        return (*self.transition.leaves, *couplings, self.tokens)

    @property
    def trailing(self) -> tuple[int, ...]:
        """How many axes each of `tensors` has behind (B, T, H)."""
        return (
            *self.transition.trailing,
            *(x.ndim - 3 for x in (*self.write.tensors, *self.read.tensors, self.tokens)),
        )

    def rebuild(self, tensors: tuple[Tensor, ...], memory: Tensor) -> Self:
        """The same problem on other tensors."""
        first = len(self.transition.leaves)
        second = first + len(self.write.tensors)
        return replace(
            self,
            transition=self.transition.rebuild(tensors[:first]),
            write=self.write.rebuild(tensors[first:second]),
            read=self.read.rebuild(tensors[second:-1]),
            tokens=tensors[-1],
            memory=memory,
        )

    def window(self, start: int, stop: int, memory: Tensor) -> Self:
        """Steps start … stop - 1, beginning from `memory`."""
        return self.rebuild(
            tuple(along_time(x, self.length, start, stop) for x in self.tensors), memory
        )

    def empty_outputs(self) -> Tensor:
        """The outputs of no steps at all; like any outputs, they have gradients (zero) in every input."""
        shape = self.read.extract(self.memory[:, None]).shape
        empty = self.memory.new_zeros((shape[0], 0, *shape[2:]))
        for x in (*self.tensors, self.memory):
            nothing = x.flatten()[:0].sum()
            empty = empty + (nothing if empty.is_complex() else nothing.real)
        return empty


def along_time(x: Tensor, length: int, start: int, stop: int) -> Tensor:
    """`x[:, start:stop]`, or `x` itself where it is constant in time."""
    constant = x.shape[1] == 1 and length != 1
    return x if constant else x[:, start:stop]


def select(structure: Structure, step: int) -> Structure:
    """The transition of one step, (B, H) leading, from leaves (B, T or 1, H, …)."""
    return structure.map(lambda leaf, _: leaf[:, step if leaf.shape[1] > 1 else 0])


def over_time(x: Tensor, length: int) -> Tensor:
    """Expand a constant leaf along time."""
    return x if x.shape[1] == length else x.expand(x.shape[0], length, *x.shape[2:])


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """float32 for float16 and bfloat16; wider types stay."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def differs_by_channel(core: Core) -> bool:
    """True where value channels have transitions or couplings of their own."""
    channelwise = (core.write, core.read)
    return isinstance(core.transition, Elementwise) or any(
        isinstance(c, ChannelCoupling) for c in channelwise
    )


def split_channels(core: Core) -> Core:
    """The same recurrence with every value channel in a head of its own: H · V heads, V = 1."""
    values = core.value_size

    def repeat(x: Tensor) -> Tensor:
        return x[:, :, :, None].expand(*x.shape[:3], values, *x.shape[3:]).flatten(2, 3)

    def move(x: Tensor) -> Tensor:
        return x.expand(*x.shape[:-1], values).movedim(-1, 3).flatten(2, 3)

    def coupling(c: Coupling) -> Coupling:
        if isinstance(c, ChannelCoupling):
            return OuterCoupling(move(c.weights))
        return c.map(repeat)

    if isinstance(core.transition, Elementwise):
        gate = core.transition
        value, log = (None if x is None else move(x) for x in (gate.value, gate.log))
        transition: Structure = Diagonal(value, log)
    else:
        transition = core.transition.map(lambda leaf, _: repeat(leaf))
    return Core(
        transition,
        coupling(core.write),
        coupling(core.read),
        move(core.tokens)[..., None],
        core.memory.movedim(-1, 2).flatten(1, 2)[..., None],
    )


def merge_channels(outputs: Tensor, memory: Tensor, values: int) -> tuple[Tensor, Tensor]:
    """Undo `split_channels` on results."""
    outputs = outputs[..., 0].unflatten(2, (-1, values)).movedim(3, -1)
    return outputs, memory[..., 0].unflatten(1, (-1, values)).movedim(2, -1)


def join_heads(core: Core) -> Core:
    """Heads of one number, K = V = 1, as the channels of one head that is read with 1: undoes `split_channels`.

    For Identity and Scalar gates and single vectors; what the heads are read with is left out.
    """
    heads, gate = core.memory.shape[1], core.transition
    if isinstance(gate, Scalar):
        (leaf,) = gate.leaves
        wide = leaf.expand(*leaf.shape[:2], heads)[:, :, None, None]
        gate = Elementwise(wide) if gate.log is None else Elementwise.from_log(wide)
    gains = core.write.tensors[0][..., 0]
    one = core.memory.new_ones(1, 1, 1, 1)
    write = ScaledCoupling(one, gains.expand(*gains.shape[:2], heads)[:, :, None])
    tokens, memory = core.tokens.mT, core.memory[:, :, 0, 0][:, None, None]
    return Core(gate, write, OuterCoupling(one), tokens, memory)


def part_heads(outputs: Tensor, memory: Tensor, read: Coupling) -> tuple[Tensor, Tensor]:
    """Undo `join_heads` on results, and read."""
    return outputs.mT * read.tensors[0], memory[:, 0, 0, :, None, None]
