"""Chunks: matrix products inside a chunk, a recurrence only between chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import InvalidInput, Refusal
from dsf.numerics import Roundings
from dsf.structure import DPLR, Dense, Elementwise, Identity, Scalar, Structure
from dsf.structure.base import matmul
from dsf.system import System

from .base import Form, Sizes
from .containment import contained
from .core import Core, over_time
from .fold import Folded, fold
from .segments import in_segments

_WORKING_SET = 1 << 19  # numbers of one segment's inputs; keeps a segment near the cache


@dataclass(frozen=True)
class Chunkwise(Form):
    r"""O = G U + reads S₀ per chunk, S₁ = Λ S₀ + writes U between chunks (`dsf.forms.fold`).

    For Λ_i = D_i + P_i Q_iᵀ the products w_i = Q_iᵀ h_{i-1} solve one unit-triangular system per
    chunk, (I - M) w = Q̃ S₀ + N U, and then act as r further writes per step (compact WY). Work
    T · C (K + V) + 2 T K V per head; `chunk` = C is a power of two.
    """

    chunk: int = 64

    name: ClassVar[str] = "chunkwise"

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.chunk & (self.chunk - 1):
            raise InvalidInput(f"`chunk` must be a power of two; got {self.chunk}")

    def admits(self, system: System) -> Literal[True] | Refusal:
        outer = isinstance(system.write, OuterCoupling) and isinstance(system.read, OuterCoupling)
        if not outer:
            return Refusal(
                self.name,
                "needs outer couplings, so that a chunk is a product of Gram matrices.",
                "Use scan or recurrent.",
            )
        if isinstance(system.transition, Elementwise):
            return Refusal(
                self.name,
                "Elementwise gates differ per value channel, so a chunk is no matrix product.",
                "Use scan.",
            )
        if isinstance(system.transition, Dense):
            return Refusal(
                self.name,
                "a product of Dense transitions costs K³ per step and gains nothing.",
                "Use recurrent or scan; a Block or DPLR transition is admitted.",
            )
        return True

    def evaluate(self, core: Core) -> tuple[Tensor, Tensor]:
        chunk = min(self.chunk, 1 << max(0, core.length - 1).bit_length())
        per_chunk = core.sequences * chunk * (core.key_size + core.value_size)
        segment = chunk * max(1, _WORKING_SET // max(1, per_chunk))
        return in_segments(contained(lambda piece: _chunks(piece, chunk)), core, segment)

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        chunk, rank = self.chunk, 0
        if isinstance(system.transition, DPLR):
            rank = system.transition.rank
        writes = (system.writes or 1) + rank
        inner = chunk * (system.key_size + 4) * writes if rank else 4
        return Roundings(step=4 + inner, path=3 * (system.key_size + chunk * writes) + 8)

    def operations(self, system: System, sizes: Sizes) -> float:
        keys, values, chunk = system.key_size, sizes.values, self.chunk
        rank = system.transition.rank if isinstance(system.transition, DPLR) else 0
        gate = system.transition.gate if isinstance(system.transition, DPLR) else system.transition
        folding = 0 if isinstance(gate, Identity | Scalar) else 16 * keys * chunk.bit_length()
        per_step = (
            chunk * (keys + values) * (1 + rank) ** 2 + 2 * keys * values + 8 * keys + folding
        )
        chunks = -(-sizes.length // chunk)
        complex_factor = 4 if system.is_complex else 1
        return complex_factor * sizes.length * sizes.sequences * per_step + chunks * 20_000


def _chunks(core: Core, chunk: int) -> tuple[Tensor, Tensor]:
    if core.length == 0:
        return core.empty_outputs(), core.memory
    assert isinstance(core.write, OuterCoupling) and isinstance(core.read, OuterCoupling)
    several = core.write.several is not None
    tokens = core.tokens if several else core.tokens[..., None, :]
    to_chunks = _Layout(core.length, chunk)
    reads = to_chunks(core.read.stacked()).transpose(-1, -2)
    writes = to_chunks(core.write.stacked()).transpose(-1, -2)
    values = to_chunks(tokens).flatten(-3, -2)
    transition = to_chunks.structure(core.transition)
    if isinstance(transition, DPLR):
        folded, low_rank = _fold_dplr(transition, reads, writes, values)
    else:
        folded, low_rank = fold(transition, reads, writes), None
    outputs, memory = _between_chunks(folded, low_rank, values, core.memory)
    outputs = outputs.unflatten(-2, (chunk, reads.shape[-1]))
    outputs = outputs.movedim(1, 3).flatten(1, 2)[:, : core.length]
    return (outputs if core.read.several is not None else outputs[..., 0, :]), memory


@dataclass(frozen=True)
class _Layout:
    """(B, T, H, …) to (B, H, N, C, …), padded at the end with steps that change nothing."""

    length: int
    chunk: int

    @property
    def padding(self) -> int:
        return -self.length % self.chunk

    def __call__(self, x: Tensor, neutral: Tensor | None = None) -> Tensor:
        x = over_time(x, self.length)
        if self.padding:
            shape = (x.shape[0], self.padding, *x.shape[2:])
            extra = x.new_zeros(shape) if neutral is None else neutral.expand(shape)
            x = torch.cat([x, extra], 1)
        return x.unflatten(1, (-1, self.chunk)).movedim(3, 1)

    def structure(self, structure: Structure) -> Structure:
        neutral = iter(structure.neutral())
        return structure.map(lambda leaf, _: self(leaf, next(neutral)))


@dataclass(frozen=True, eq=False)
class _LowRank:
    """w = `of_memory` S₀ + `of_values` (…, C r, …); it enters outputs by `gram`, the memory by `writes`."""

    of_memory: Tensor
    of_values: Tensor
    gram: Tensor
    writes: Tensor


def _fold_dplr(
    transition: DPLR, reads: Tensor, writes: Tensor, values: Tensor
) -> tuple[Folded, _LowRank]:
    """Fold with P as further writes and Q as further reads of the step before, and solve for w."""
    left, right = transition.left, transition.right
    chunk, width, rank, outputs = (
        reads.shape[-3],
        writes.shape[-1],
        transition.rank,
        reads.shape[-1],
    )
    earlier = torch.cat([right[..., 1:, :, :], torch.zeros_like(right[..., :1, :, :])], -3)
    both = fold(transition.gate, _beside(reads, earlier), _beside(writes, left))
    gram = both.gram.unflatten(-1, (chunk, -1)).unflatten(-3, (chunk, -1))
    to_y, to_w = gram[..., :outputs, :, :], _later(gram[..., outputs:, :, :], -4)
    back = both.reads.unflatten(-1, (chunk, -1))
    first = right[..., :1, :, :].movedim(-2, -3).expand(*back.shape[:-2], 1, rank)
    w_back = torch.cat([first.to(back.dtype), back[..., :-1, outputs:]], -2)
    onward = both.writes.unflatten(-1, (chunk, -1))
    system = -to_w[..., width:].flatten(-2).flatten(-3, -2)
    right_hand = torch.cat(
        [
            w_back.flatten(-2).transpose(-1, -2).expand(*system.shape[:-1], -1),
            matmul(to_w[..., :width].flatten(-2).flatten(-3, -2), values),
        ],
        -1,
    )
    system = system + torch.eye(chunk * rank, dtype=system.dtype, device=system.device)
    solved = torch.linalg.solve_triangular(system, right_hand, upper=False, unitriangular=True)
    keys = reads.shape[-2]
    folded = Folded(
        to_y[..., :width].flatten(-2).flatten(-3, -2),
        back[..., :outputs].flatten(-2),
        onward[..., :width].flatten(-2),
        both.total,
    )
    low_rank = _LowRank(
        solved[..., :keys],
        solved[..., keys:],
        to_y[..., width:].flatten(-2).flatten(-3, -2),
        onward[..., width:].flatten(-2),
    )
    return folded, low_rank


def _between_chunks(
    folded: Folded, low_rank: _LowRank | None, values: Tensor, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """Walk the chunks (axis 2) with the memory, then read all of them at once."""
    local = matmul(folded.writes, values)
    if low_rank is not None:
        local = local + matmul(low_rank.writes, low_rank.of_values)
        onto, back = _per_chunk(low_rank.writes), _per_chunk(low_rank.of_memory)
    increments = local.unbind(2)
    leaves = [leaf.unbind(2) for leaf in folded.total.leaves]
    starts = []
    for n, increment in enumerate(increments):
        starts.append(memory)
        total = folded.total.rebuild(tuple(leaf[n] for leaf in leaves))
        moved = total.apply(memory) + increment
        if low_rank is not None:
            moved = moved + matmul(onto[n], matmul(back[n], memory))
        memory = moved
    start = torch.stack(starts, 2)
    outputs = matmul(folded.gram, values) + matmul(folded.reads.transpose(-1, -2), start)
    if low_rank is not None:
        inner = matmul(low_rank.of_memory, start) + low_rank.of_values
        outputs = outputs + matmul(low_rank.gram, inner)
    return outputs, memory


def _per_chunk(x: Tensor) -> tuple[Tensor, ...]:
    """The chunks (axis 2), each contiguous: a strided factor is copied by every product."""
    return x.movedim(2, 0).contiguous().unbind(0)


def _beside(first: Tensor, second: Tensor) -> Tensor:
    lead = torch.broadcast_shapes(first.shape[:-1], second.shape[:-1])
    dtype = torch.promote_types(first.dtype, second.dtype)
    return torch.cat([x.expand(*lead, x.shape[-1]).to(dtype) for x in (first, second)], -1)


def _later(x: Tensor, axis: int) -> Tensor:
    """Shift one step later along `axis`, zeros first."""
    moved = x.movedim(axis, 0)
    return torch.cat([torch.zeros_like(moved[:1]), moved[:-1]], 0).movedim(0, axis)
