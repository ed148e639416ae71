"""Chunks: matrix products inside a chunk, a recurrence only between chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import InvalidInput, Refusal
from dsf.numerics import Roundings
from dsf.structure import DPLR, Dense, Diagonal, Elementwise, Identity, Scalar, Structure
from dsf.system import System

from . import native
from .base import Form, Sizes
from .between_chunks import walk, walk_vjp
from .chunk_layout import ChunkLayout, InChunks
from .chunk_maps import ChunkMaps, chunk_maps
from .containment import Contained
from .core import Core
from .diagonal_decay import diagonal_decay_vjp
from .low_rank import LowRank
from .segments import Cotangents, Kept, Step, gradients, in_segments
from .shared_decay import shared_decay_vjp
from .workspace import Workspace

# Multiply-adds that the calls of one run cost, however short it is.
_CALLS, _CALLS_DPLR = 8_000_000, 14_000_000

# Numbers of one segment's inputs, to keep it near the cache.
_WORKING_SET = 1 << 19


@dataclass(frozen=True)
class Chunkwise(Form):
    r"""O = G U + reads S₀ per chunk, S₁ = Λ S₀ + writes U between chunks (`dsf.forms.fold`).

    For Λ_i = D_i + P_i Q_iᵀ the products w_i = Q_iᵀ h_{i-1} solve one unit-triangular system per
    chunk, (I - M) w = Q̃ S₀ + N U, and then act as r further writes per step (compact WY). Work
    T · C (K + V) + 2 T K V per head; `chunk` = C is a power of two, by default 64, or 32 under gates. Where
    it is not given and `dsf.forms.native` admits the core, the products run in compiled code, 16 steps at once.
    """

    chunk: int | None = None

    name: ClassVar[str] = "chunkwise"

    def __post_init__(self) -> None:
        if self.chunk is not None and (self.chunk < 1 or self.chunk & (self.chunk - 1)):
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

    def chunk_for(self, transition: Structure) -> int:
        """C, as given or by default: gates cost more the longer a chunk is."""
        if self.chunk is not None:
            return self.chunk
        return 32 if isinstance(transition, DPLR | Scalar | Diagonal) else 64

    def plan(
        self, transition: Structure, length: int, numbers: int, compiled: bool = False
    ) -> tuple[Step, int]:
        """What runs `length` steps, and how many of them at once: a step has so many numbers of keys and values.

        `compiled` asks for native chunks, which the caller knows to admit the core.
        """
        chunk = self.chunk_of(transition, length, compiled)
        if compiled:
            step: Step = native.NativeChunks(chunk)
        else:
            step = LowRank(chunk) if isinstance(transition, DPLR) else _Chunks(chunk)
        return Contained(step), chunk * max(1, _WORKING_SET // max(1, chunk * numbers))

    def chunk_of(self, transition: Structure, length: int, compiled: bool = False) -> int:
        """C for so many steps: no longer than the power of two that holds them all, unless it is compiled."""
        if compiled:
            return self.chunk_for(transition)
        return min(self.chunk_for(transition), 1 << max(0, length - 1).bit_length())

    def evaluate(self, core: Core) -> tuple[Tensor, Tensor]:
        compiled = self.chunk is None and native.admits_chunks(core)
        numbers = core.sequences * (core.key_size + core.value_size)
        step, segment = self.plan(core.transition, core.length, numbers, compiled)
        return in_segments(step, core, core.length if compiled else segment)

    def roundings(self, system: System, sizes: Sizes) -> Roundings:
        chunk, rank = self.chunk_for(system.transition), 0
        if isinstance(system.transition, DPLR):
            rank = system.transition.rank
        writes = (system.writes or 1) + rank
        inner = chunk * (system.key_size + 4) * writes if rank else 4
        return Roundings(step=4 + inner, path=3 * (system.key_size + chunk * writes) + 8)

    def operations(self, system: System, sizes: Sizes) -> float:
        keys, values, chunk = system.key_size, sizes.values, self.chunk_for(system.transition)
        rank = system.transition.rank if isinstance(system.transition, DPLR) else 0
        gate = system.transition.gate if isinstance(system.transition, DPLR) else system.transition
        folding = 0 if isinstance(gate, Identity | Scalar) else 16 * keys * chunk.bit_length()
        per_step = (
            chunk * (keys + values) * (1 + rank) ** 2 + 2 * keys * values + 8 * keys + folding
        )
        chunks = -(-sizes.length // chunk)
        complex_factor = 4 if system.is_complex else 1
        calls = (_CALLS_DPLR if rank else _CALLS) + chunks * 20_000
        if self.chunk is None and native.suits_chunks(system):
            calls = native.CALLS
        return complex_factor * sizes.length * sizes.sequences * per_step + calls


@dataclass(frozen=True)
class _Chunks(Step):
    """The step of `in_segments` without low rank: it keeps the memory at each chunk's start, and nothing else."""

    chunk: int

    def __call__(self, core: Core, space: Workspace) -> tuple[Tensor | InChunks, Tensor, Kept]:
        assert isinstance(core.read, OuterCoupling)
        maps, values = self._maps(core, space)
        memory = core.memory.flatten(0, 1).to(maps.gram.dtype)
        outputs, memory, start = walk(maps, values, memory, space)
        layout = ChunkLayout(core.length, self.chunk)
        outputs = layout.back(outputs, core.memory.shape[:2], core.read.several)
        return outputs, memory.view_as(core.memory), ((start,) if space.keeps else ())

    def vjp(
        self, core: Core, kept: Kept, cotangents: Cotangents, space: Workspace
    ) -> Sequence[Tensor | InChunks | None]:
        if isinstance(core.transition, Identity | Scalar):
            return shared_decay_vjp(core, self.chunk, kept[0], cotangents, space)
        if isinstance(core.transition, Diagonal):
            return diagonal_decay_vjp(core, self.chunk, kept[0], cotangents, space)
        layout = ChunkLayout(core.length, self.chunk)
        of_outputs, of_memory = cotangents
        rows = layout.rows(of_outputs).contiguous()
        with torch.enable_grad():
            maps, values = self._maps(core, None)
        detached = maps.rebuild(tuple(x.detach() for x in maps.tensors))
        found, of_values, of_first = walk_vjp(
            detached, values.detach(), kept[0], (rows.to(maps.gram.dtype), of_memory.flatten(0, 1))
        )
        inputs = gradients((*maps.tensors, values), list(core.tensors), (*found, of_values))
        return [of_first.view_as(core.memory), *inputs]

    def _maps(self, core: Core, space: Workspace | None) -> tuple[ChunkMaps, Tensor]:
        """The chunks' maps, and their values (M, w C, V)."""
        assert isinstance(core.write, OuterCoupling) and isinstance(core.read, OuterCoupling)
        layout = ChunkLayout(core.length, self.chunk, space)
        maps = chunk_maps(
            layout.structure(core.transition.linear()),
            layout.streams(core.read.weights, "reads"),
            layout.streams(core.write.weights, "writes"),
            space,
        )
        return maps, layout.rows(core.tokens, "values").to(maps.gram.dtype)
