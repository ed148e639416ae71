"""What the selective scan computes on the CPU: the package's scan, its gates held as Δ ⊗ A, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling, ScaledCoupling
from dsf.forms import native
from dsf.forms.chunk_layout import InChunks
from dsf.forms.core import Core
from dsf.forms.gated_scan import GatedScan
from dsf.forms.native.scan import STEPS
from dsf.forms.scan import at_once
from dsf.forms.segments import Kept, Step
from dsf.forms.workspace import Workspace, fresh
from dsf.kernels import pieces, shapes
from dsf.kernels.pieces import Piece, Pieces, own
from dsf.structure import Discretised

_PIECE = 64 * STEPS  # of compiled code, which keeps a state of every so many steps by itself


def _compiled() -> bool:
    return native.missing("scan") is None


def _steps(numbers: int | torch.SymInt) -> int | torch.SymInt:
    """How many steps lie between two states that are kept, where a state is so many numbers."""
    return STEPS if _compiled() else at_once(numbers)


@dataclass(eq=False)
class Selective(Pieces):
    """The operator's tensors, A as rates; its outputs `y`, or their cotangent; the states kept before pieces.

    Groups are heads of N keys, each with its channels as values. The way back fills `found`, gradients of x, Δ, b, c,
    the rates and D.
    """

    x: Tensor
    delta: Tensor
    b: Tensor
    c: Tensor
    rates: Tensor
    skip: Tensor
    y: Tensor
    kept: Tensor | None = None
    found: tuple[Tensor, ...] = ()

    @property
    def length(self) -> int:
        return self.x.shape[1]

    def plan(self, length: int) -> tuple[Step, int]:
        if _compiled():
            return native.NativeScan(), _PIECE
        return GatedScan(), self.steps

    @property
    def steps(self) -> int:
        """Between two states that are kept."""
        return int(_steps(self.x.shape[0] * self.rates.numel()))

    def core(self, piece: Piece, memory: Tensor, space: Workspace) -> Core:
        u, step = (self._of(y, piece).to(memory.dtype) for y in (self.x, self.delta))
        write, read = (y[:, piece.at].to(memory.dtype) for y in (self.b, self.c))
        rate = self.rates.expand(len(u), 1, *self.rates.shape)
        transition = Discretised(step[..., None, :], rate)
        return Core(transition, ScaledCoupling(write, step), OuterCoupling(read), u, memory)

    def put(self, piece: Piece, core: Core, outputs: Tensor | InChunks, space: Workspace) -> None:
        self._of(self.y, piece).copy_(own(outputs).addcmul_(self.skip, core.tokens))

    def keep(self, piece: Piece, memory: Tensor, kept: Kept) -> None:
        assert self.kept is not None
        states = kept[0] if _compiled() else memory
        self._of_piece(piece).copy_(states.reshape(-1, *memory.shape))

    def recall(self, piece: Piece) -> tuple[Tensor, Kept]:
        states = self._of_piece(piece)
        return states[0], ((states.flatten(0, 2),) if _compiled() else ())

    def above(self, piece: Piece, core: Core, space: Workspace) -> Tensor:
        return self._of(self.y, piece).to(core.memory.dtype)

    def put_back(
        self,
        piece: Piece,
        core: Core,
        of_memory: Tensor,
        found: Sequence[Tensor | InChunks | None],
        space: Workspace,
    ) -> Tensor:
        of_step, of_rate, of_write, of_gain, of_read, of_x = map(own, found)
        dx, ddelta, db, dc, drates, dskip = self.found
        above = self.above(piece, core, space)
        self._of(dx, piece).copy_(of_x.addcmul_(self.skip, above))
        self._of(ddelta, piece).copy_(of_gain.add_(of_step[..., 0, :]))
        db[:, piece.at], dc[:, piece.at] = of_write, of_read
        drates += of_rate.sum((0, 1))
        dskip += (above * core.tokens).sum((0, 1))
        return of_memory

    def _of(self, x: Tensor, piece: Piece) -> Tensor:
        """A piece of tokens (B, T, D) by groups of channels."""
        return x[:, piece.at].unflatten(2, (self.b.shape[2], -1))

    def _of_piece(self, piece: Piece) -> Tensor:
        """The states that are kept of a piece."""
        assert self.kept is not None
        first, last = (at - piece.start for at in (piece.at.start, piece.at.stop - 1))
        place = piece.start // self.steps + piece.sequence
        return self.kept[place + first // self.steps : place + last // self.steps + 1]


def _by_groups(state: Tensor, groups: int) -> Tensor:
    """(B, D, N) as a memory (B, G, N, D / G)."""
    return state.unflatten(1, (groups, -1)).mT.contiguous()


def _by_channels(memory: Tensor) -> Tensor:
    return memory.mT.flatten(1, 2).contiguous()


def room(x: Tensor, b: Tensor, state: Tensor, starts: Tensor | None) -> Tensor:
    """Where the memories at the starts of pieces are kept.

    The pieces of sequence n begin at the place ⌊first step / steps of a piece⌋ + n.
    """
    (batch, length), (channels, size), groups = x.shape[:2], state.shape[1:], b.shape[2]
    steps: Any = _steps(batch * channels * size)
    places = -(-length // steps) if starts is None else length // steps + len(state)
    return shapes.room((places, batch, groups, size, channels // groups), state)


def run(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
    skip: Tensor,
    starts: Tensor | None,
    kept: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, D) and the last states; what the way back needs goes to `kept`."""
    y, groups = fresh(x.shape, x), b.shape[2]
    rates, wide_skip = _by_groups(A[None], groups)[0], skip.unflatten(0, (groups, -1))
    given = Selective(x, delta, b, c, rates, wide_skip, y, kept)
    final = pieces.forward(given, _by_groups(state, groups), starts, keeps=kept is not None)
    return y, _by_channels(final)


def keeping(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
    skip: Tensor,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same, and what the way back needs."""
    kept = room(x, b, state, starts)
    if starts is not None:
        kept.zero_()  # places that no piece begins at
    return (*run(x, delta, A, b, c, state, skip, starts, kept), kept)


def backward(
    dy: Tensor,
    dfinal: Tensor,
    kept: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
    skip: Tensor,
    starts: Tensor | None,
) -> tuple[Tensor, ...]:
    """Gradients of x, Δ, A, b, c, the initial states and D: Δ is a step and a gain, and A is shared."""
    groups = b.shape[2]
    rates, wide_skip = _by_groups(A[None], groups)[0], skip.unflatten(0, (groups, -1))
    dx, ddelta, db, dc = (fresh(y.shape, y) for y in (x, delta, b, c))
    drates, dskip = torch.zeros_like(rates), torch.zeros_like(wide_skip)
    found = (dx, ddelta, db, dc, drates, dskip)
    given = Selective(x, delta, b, c, rates, wide_skip, dy, kept, found)
    begun = pieces.backward(given, _by_groups(dfinal, groups), starts)
    dA = _by_channels(drates[None])[0]
    return dx, ddelta, dA, db, dc, _by_channels(begun), dskip.flatten()
