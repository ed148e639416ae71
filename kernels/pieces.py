"""Operators of sequences on a CPU: a `Step` of the package on one piece of time after another, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.forms.chunk_layout import InChunks
from dsf.forms.core import Core
from dsf.forms.segments import Kept, Step
from dsf.forms.workspace import Workspace

from .library import above_autograd
from .shapes import windows


@dataclass(frozen=True)
class Piece:
    """The steps `at` of a sequence (or of a batch of them) of `length` steps that begins at `start`."""

    sequence: int
    start: int
    length: int
    at: slice


class _Reused(Workspace):
    """What a step keeps is copied to where the operator keeps it before the next piece."""

    def keep(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        return self(f"kept {name}", shape, like)


class Pieces(ABC):
    """An operator's tensors: how a piece of them becomes a `Core`, and where its results go."""

    length: int
    """Of all sequences together, T."""

    @abstractmethod
    def plan(self, length: int) -> tuple[Step, int]:
        """What runs a sequence of so many steps, and how many of them at once."""

    @abstractmethod
    def core(self, piece: Piece, memory: Tensor, space: Workspace) -> Core:
        """The piece in the type of states, a head for each state."""

    @abstractmethod
    def put(self, piece: Piece, core: Core, outputs: Tensor | InChunks, space: Workspace) -> None:
        """Take the outputs of a piece."""

    @abstractmethod
    def keep(self, piece: Piece, memory: Tensor, kept: Kept) -> None:
        """Keep what the way back needs: the memory that the piece began with, and what its step kept."""

    @abstractmethod
    def recall(self, piece: Piece) -> tuple[Tensor, Kept]:
        """The memory and the rest, as they were kept."""

    @abstractmethod
    def above(self, piece: Piece, core: Core, space: Workspace) -> Tensor:
        """The cotangent of the outputs of a piece's core."""

    @abstractmethod
    def put_back(
        self,
        piece: Piece,
        core: Core,
        of_memory: Tensor,
        found: Sequence[Tensor | InChunks | None],
        space: Workspace,
    ) -> Tensor:
        """Take the gradients of `core.tensors`; gives that of the memory that the piece began with."""

    def cut(self, sequence: int, steps: slice) -> tuple[Step, list[Piece]]:
        """A sequence in pieces, and what runs them."""
        step, own = self.plan(steps.stop - steps.start)
        starts = range(steps.start, steps.stop, own)
        ats = (slice(start, min(start + own, steps.stop)) for start in starts)
        length = steps.stop - steps.start
        return step, [Piece(sequence, steps.start, length, at) for at in ats]


def forward(given: Pieces, memory: Tensor, starts: Tensor | None, *, keeps: bool) -> Tensor:
    """Every piece in turn, from the memories (N, …) of the sequences; the last ones."""
    final, space = memory.clone(memory_format=torch.contiguous_format), _Reused(keeps)
    for n, (steps, state) in enumerate(windows(memory, given.length, starts)):
        first, (step, pieces) = len(state), given.cut(n, steps)
        for piece in pieces:
            core = given.core(piece, state, space)
            outputs, last, kept = step(core, space)
            given.put(piece, core, outputs, space)
            if keeps:
                given.keep(piece, state, kept)
            state = last
        final[n : n + first] = state
    return final


def backward(given: Pieces, of_final: Tensor, starts: Tensor | None) -> Tensor:
    """Every piece in turn from the last, from the gradients of the last memories; those of the first."""
    found = of_final.clone(memory_format=torch.contiguous_format)
    space = Workspace(keeps=True)
    with above_autograd(), torch.no_grad():
        for n, (steps, carried) in enumerate(windows(of_final, given.length, starts)):
            first, (step, pieces) = len(carried), given.cut(n, steps)
            for piece in reversed(pieces):
                memory, kept = given.recall(piece)
                core = given.core(piece, memory, space)
                above = given.above(piece, core, space)
                asked = tuple(x.detach().requires_grad_() for x in core.tensors)
                of_memory, *of_tensors = step.vjp(
                    core.rebuild(asked, memory), kept, (above, carried), space
                )
                of_memory = torch.zeros_like(memory) if of_memory is None else of_memory
                assert isinstance(of_memory, Tensor)
                carried = given.put_back(piece, core, of_memory, of_tensors, space)
            found[n : n + first] = carried
    return found


def own(x: Tensor | InChunks | None) -> Tensor:
    """Results of a piece as a tensor."""
    assert x is not None
    return x if isinstance(x, Tensor) else x.fresh()
