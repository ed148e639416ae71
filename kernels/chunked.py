"""Operators that run the package's chunk form on a CPU, and go back from the states at the starts of chunks."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsf.forms import native
from dsf.forms.chunk_layout import InChunks
from dsf.forms.chunkwise import Chunkwise
from dsf.forms.segments import Kept, Step
from dsf.forms.workspace import Workspace
from dsf.structure import Structure

from . import shapes
from .pieces import Piece, Pieces, own

Held = tuple[Tensor, ...]


@dataclass(eq=False)
class Chunked(Pieces):
    """Tokens of `rows` steps each, under transitions of a `kind`, each step with so many `numbers` of keys and values.

    `held` are what the steps of the form keep, each (places, sequences, numbers of a chunk).
    """

    batch: int
    length: int
    kind: Structure
    rows: int
    numbers: int
    held: Held | None

    @abstractmethod
    def shapes(self, chunk: int) -> tuple[tuple[int, ...], ...]:
        """Those of what it keeps of a chunk of a sequence."""

    @property
    def chunk(self) -> int:
        """C, in steps."""
        return Chunkwise().chunk_for(self.kind)

    @property
    def compiled(self) -> bool:
        """Whether the steps of the form run compiled code."""
        return native.missing("chunks") is None

    def plan(self, length: int) -> tuple[Step, int]:
        numbers = self.rows * self.numbers
        return Chunkwise().plan(self.kind, length * self.rows, numbers, self.compiled)

    def keep(self, piece: Piece, memory: Tensor, kept: Kept) -> None:
        assert self.held is not None
        first = self._place(piece)
        for onto, x in zip(self.held, kept, strict=True):
            rows = x.reshape(-1, onto.shape[1], x[0].numel())
            onto[first : first + len(rows), :, : rows.shape[2]] = rows

    def recall(self, piece: Piece) -> tuple[Tensor, Kept]:
        assert self.held is not None
        first, steps = self._place(piece), (piece.at.stop - piece.at.start) * self.rows
        kept = []
        for x, shape in zip(self.held, self.shapes(self._chunk(piece.length)), strict=True):
            rows = x[first : first - (-steps // self.chunk), :, : math.prod(shape)]
            kept.append(rows.reshape(-1, *shape))
        memory = kept[0][: self.held[0].shape[1]].unflatten(0, (self.batch, -1))
        return memory, tuple(kept)

    def _chunk(self, length: int) -> int:
        return Chunkwise().chunk_of(self.kind, length * self.rows, self.compiled)

    def _place(self, piece: Piece) -> int:
        before, own = piece.start * self.rows, (piece.at.start - piece.start) * self.rows
        return before // self.chunk + piece.sequence + own // self.chunk


def room(
    q: Tensor,
    state: Tensor,
    chunk: int,
    rows: int | torch.SymInt,
    starts: Tensor | None,
    numbers: Sequence[Any],
) -> Held:
    """Where so many numbers are kept of every chunk: those of sequence n from the place ⌊first step / C⌋ + n on."""
    steps: Any = q.shape[1] * rows
    places = -(-steps // chunk) if starts is None else steps // chunk + state.shape[0]
    return tuple(
        shapes.room((places, q.shape[0] * state.shape[1], each), state) for each in numbers
    )


def emptied(held: Held, starts: Tensor | None, length: int, chunk: int) -> Held:
    """Zeros where a place may be that no chunk, or only a short one, is kept at."""
    if starts is not None or length < chunk:
        for x in held:
            x.zero_()
    return held


def laid_out(x: Tensor, memory: Tensor, name: str, space: Workspace) -> Tensor:
    """x (B, T, h, ·) for each head of the memory and in its type, in a buffer where it is not so already."""
    heads, several = memory.shape[1], x.shape[2]
    if heads == several and x.dtype == memory.dtype:
        return x
    wide = space(name, (*x.shape[:2], heads, x.shape[3]), memory)
    wide.unflatten(2, (several, -1)).copy_(x[:, :, :, None])
    return wide


def cotangent(x: Tensor, memory: Tensor, scale: float, space: Workspace) -> Tensor:
    """That of a core's outputs, from x, that of the scaled outputs."""
    above = laid_out(x, memory, "wide above", space)
    if scale == 1:
        return above
    return torch.mul(above, scale, out=space("wide above", above.shape, memory))


def scaled(x: Tensor | InChunks, scale: float) -> Tensor | InChunks:
    """x times a scale, in its place."""
    if scale != 1:
        (x if isinstance(x, Tensor) else x.view).mul_(scale)
    return x


def put(piece: Tensor | InChunks, onto: Tensor) -> None:
    """Copy results of a piece to their place; where heads share one, their sum."""
    if piece.shape == onto.shape:
        onto.copy_(piece) if isinstance(piece, Tensor) else piece.copy_to(onto)
        return
    onto.copy_(own(piece).unflatten(2, (onto.shape[2], -1)).sum(3))
