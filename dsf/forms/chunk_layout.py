"""Time cut into chunks: (B, T, H, …) and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.structure import Structure
from dsf.structure.gates import Gate

from .core import over_time
from .workspace import Workspace


@dataclass(frozen=True, eq=False)
class InChunks:
    """A tensor (B, T, H, …) that still lies in chunks, as a view (B, N, C, H, …) with steps beyond T at the end."""

    view: Tensor
    length: int

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.view.shape[0], self.length, *self.view.shape[3:]))

    def fresh(self) -> Tensor:
        """The same in memory of its own."""
        return self.copy_to(self.view.new_empty(self.shape))

    def copy_to(self, onto: Tensor) -> Tensor:
        """Copy it to its place `onto`, (B, T, H, …)."""
        chunk = self.view.shape[2]
        whole = self.length // chunk
        if whole:
            there = onto[:, : whole * chunk].unflatten(1, (whole, chunk))
            there.copy_(self.view[:, :whole])
        if whole * chunk < self.length:
            onto[:, whole * chunk :] = self.view[:, whole, : self.length - whole * chunk]
        return onto


@dataclass(frozen=True)
class ChunkLayout:
    """(B, T, H, …) to (M, C, …) with M = N · B · H chunks, the first chunk of every sequence first.

    The end is padded with steps that change nothing.
    """

    length: int
    chunk: int

    @property
    def padding(self) -> int:
        return -self.length % self.chunk

    @property
    def chunks(self) -> int:
        """N, the number of chunks of one sequence."""
        return -(-self.length // self.chunk)

    space: Workspace | None = None
    """Where the copies lie, so that their owner may overwrite them; a run with gradients has none."""

    def __call__(self, x: Tensor, neutral: Tensor | None = None, name: str = "") -> Tensor:
        x = self._view(x, neutral)
        if self.space is not None:
            x = self.space(name, x.shape, x).copy_(x)
        return x.flatten(0, 2)

    def _view(self, x: Tensor, neutral: Tensor | None = None) -> Tensor:
        """(N, B, H, C, …)"""
        x = over_time(x, self.length)
        if self.padding:
            shape = (x.shape[0], self.padding, *x.shape[2:])
            extra = x.new_zeros(shape) if neutral is None else neutral.expand(shape)
            x = torch.cat([x, extra], 1)
        return x.unflatten(1, (self.chunks, self.chunk)).movedim(1, 0).movedim(3, 2)

    def stacked(self, tensors: Sequence[Tensor], name: str, like: Tensor, room: int = 0) -> Tensor:
        """Streams (B, T, H, R, ·) or (B, T, H, ·) of each tensor, all one after another, (M, R C, ·).

        In the type of `like`, with `room` for that many more streams at the end.
        """
        views = [self._view(x) for x in tensors]
        views = [x[..., None, :] if x.ndim == 5 else x for x in views]
        streams = sum(x.shape[4] for x in views) + room
        assert self.space is not None
        lead = views[0].shape[:3]
        rows = self.space(name, (*lead, streams, self.chunk, views[0].shape[-1]), like)
        first = 0
        for x in views:
            rows[:, :, :, first : first + x.shape[4]] = x.transpose(3, 4)
            first += x.shape[4]
        return rows.flatten(3, 4).flatten(0, 2)

    def structure(self, structure: Structure) -> Structure:
        """Every leaf in chunks, padded with the identity."""
        own = zip(structure.leaves, structure.neutral(), strict=True)
        return structure.rebuild(
            tuple(self(leaf, neutral, f"leaf {i}") for i, (leaf, neutral) in enumerate(own))
        )

    def gates(self, gate: Gate) -> Tensor:
        """The decays of a gate in chunks, padded with one."""
        (leaf,), (neutral,) = gate.leaves, gate.neutral()
        x = self(leaf, neutral, "decay")
        if gate.log is None:
            return x
        return x.exp() if self.space is None else x.exp_()

    def streams(self, x: Tensor, name: str = "") -> list[Tensor]:
        """The R vectors of each step, (B, T, H, R, ·) or (B, T, H, ·), each as (M, C, ·)."""
        x = self(x, name=name)
        return [x] if x.ndim == 3 else list(x.unbind(2))

    def rows(self, x: Tensor, name: str = "") -> Tensor:
        """The same, one stream after another: (M, R C, ·)."""
        x = self(x, name=name)
        return x if x.ndim == 3 else x.transpose(1, 2).flatten(1, 2)

    def back(self, x: Tensor, lead: Sequence[int], several: int | None) -> InChunks:
        """Rows (M, R C, V), one stream after another, seen as (B, T, H, [R,] V); `lead` is (B, H)."""
        streams = 1 if several is None else several
        x = x.view(self.chunks, *lead, streams, self.chunk, x.shape[-1])
        x = x.permute(1, 0, 4, 2, 3, 5)
        return InChunks(x[..., 0, :] if several is None else x, self.length)
