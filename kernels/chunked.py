"""Operators that run the package's chunk form on a CPU, and go back from the states at the starts of chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsf.forms.chunk_layout import InChunks
from dsf.forms.chunkwise import _Chunks
from dsf.forms.segments import Kept, Step
from dsf.forms.workspace import Workspace

from .pieces import Piece, Pieces

# Of the keys and values of one piece, so that it stays near the cache; half of it where there is a way back.
_NUMBERS = 1 << 19

Held = tuple[Tensor, Tensor]


@dataclass(eq=False)
class Chunked(Pieces):
    """Tokens of `rows` steps each, in chunks of `chunk` steps, each step with so many `numbers` of keys and values."""

    length: int
    chunk: int
    rows: int
    numbers: int
    held: Held | None

    def plan(self, length: int) -> tuple[Step, int]:
        steps = length * self.rows
        chunk = min(self.chunk, 1 << max(0, steps - 1).bit_length())
        at_once = _NUMBERS >> (self.held is not None)
        return _Chunks(chunk), chunk * max(1, at_once // max(1, self.rows * self.numbers * chunk))

    def keep(self, piece: Piece, memory: Tensor, kept: Kept) -> None:
        assert self.held is not None
        states, sound = self.held
        place = self._place(piece)
        sound[place] = bool(kept)
        if kept:
            rows = kept[0].view(-1, *states.shape[1:])
            states[place : place + len(rows)] = rows
        else:  # a piece that met a NaN or an overflow
            states[place] = memory

    def recall(self, piece: Piece) -> tuple[Tensor, Kept]:
        assert self.held is not None
        states, sound = self.held
        place, steps = self._place(piece), (piece.at.stop - piece.at.start) * self.rows
        if not sound[place]:
            return states[place], ()
        return states[place], (states[place : place - (-steps // self.chunk)].flatten(0, 2),)

    def _place(self, piece: Piece) -> int:
        before, own = piece.start * self.rows, (piece.at.start - piece.start) * self.rows
        return before // self.chunk + piece.sequence + own // self.chunk


def room(
    q: Tensor, state: Tensor, chunk: int, rows: int | torch.SymInt, starts: Tensor | None
) -> Held:
    """Where the states at the starts of chunks are kept, and whether they were.

    The chunks of sequence n begin at the place ⌊first step / C⌋ + n.
    """
    steps: Any = q.shape[1] * rows
    places = -(-steps // chunk) if starts is None else steps // chunk + state.shape[0]
    return (
        state.new_empty(places, q.shape[0], *state.shape[1:]),
        state.new_empty(places, dtype=torch.bool),
    )


def emptied(held: Held, starts: Tensor | None) -> Held:
    """Zeros at the places that no chunk of a packed sequence is at."""
    if starts is not None:
        held[0].zero_()
    held[1].zero_()
    return held


def laid_out(x: Tensor, memory: Tensor, name: str, space: Workspace) -> Tensor:
    """x (B, T, h, ·) for each head of the memory and in its type, in a buffer where it is not so already."""
    heads, several = memory.shape[1], x.shape[2]
    if heads == several and x.dtype == memory.dtype:
        return x
    wide = space(name, (*x.shape[:2], heads, x.shape[3]), memory)
    wide.unflatten(2, (several, -1)).copy_(x[:, :, :, None])
    return wide


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


def own(x: Tensor | InChunks | None) -> Tensor:
    """Results of a piece as a tensor."""
    assert x is not None
    return x if isinstance(x, Tensor) else x.fresh()
