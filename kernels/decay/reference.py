r"""What the operators of decays compute on the CPU: the package's chunk form, forward and backward.

The way back is the form's own, from the states at the starts of chunks, which are kept where a gradient is wanted.
Heads that share are laid out, and types widened, for one piece of time after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.forms.chunk_layout import InChunks
from dsf.forms.chunkwise import Chunkwise, _Chunks
from dsf.forms.core import Core
from dsf.forms.segments import Kept, Step
from dsf.forms.workspace import Workspace
from dsf.kernels import pieces
from dsf.kernels.pieces import Piece, Pieces
from dsf.structure import Diagonal, Scalar

from .bonus import Bonus

# Of the keys and values of one piece, so that it stays near the cache; half of it where there is a way back.
_NUMBERS = 1 << 19

Held = tuple[Tensor, Tensor]


def room(q: Tensor, g: Tensor, state: Tensor, starts: Tensor | None) -> Held:
    """Where the states at the starts of chunks are kept, and whether they were.

    The chunks of sequence n begin at the place ⌊first step / C⌋ + n.
    """
    chunk, (batch, length) = _chunk(g), q.shape[:2]
    places = -(-length // chunk) if starts is None else length // chunk + state.shape[0]
    return (
        state.new_empty(places, batch, *state.shape[1:]),
        state.new_empty(places, dtype=torch.bool),
    )


def _chunk(g: Tensor) -> int:
    return Chunkwise().chunk_for(_gate(g))


def _gate(g: Tensor) -> Scalar | Diagonal:
    return (Diagonal if g.ndim == 4 else Scalar).from_log(g)


@dataclass(eq=False)
class Decays(Pieces):
    """q, k, v and g of an operator; its outputs `y`, or their cotangent; and the gradients of q, k, v and g."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    scale: float
    bonus: Bonus | None
    y: Tensor
    held: Held | None = None
    found: list[Tensor] = field(default_factory=list)

    @property
    def length(self) -> int:
        return self.q.shape[1]

    def plan(self, length: int) -> tuple[Step, int]:
        chunk = min(_chunk(self.g), 1 << max(0, length - 1).bit_length())
        batch, _, heads = self.g.shape[:3]
        numbers = batch * heads * chunk * (self.q.shape[3] + self.v.shape[3])
        at_once = _NUMBERS >> (self.held is not None)
        return _Chunks(chunk), chunk * max(1, at_once // max(1, numbers))

    def core(self, piece: Piece, memory: Tensor, space: Workspace) -> Core:
        given = zip("qkv", (self.q, self.k, self.v), strict=True)
        q, k, v = (_laid_out(x[:, piece.at], memory, f"wide {n}", space) for n, x in given)
        reads = q if self.bonus is None else self.bonus.reads(q, space)
        gate = _gate(self.g[:, piece.at].to(memory.dtype))
        return Core(gate, OuterCoupling(k), OuterCoupling(reads), v, memory)

    def put(self, piece: Piece, core: Core, outputs: Tensor | InChunks, space: Workspace) -> None:
        if self.bonus is not None:
            outputs = self.bonus.outputs(core, outputs, space)
        if self.scale != 1:
            (outputs if isinstance(outputs, Tensor) else outputs.view).mul_(self.scale)
        _put(outputs, self.y[:, piece.at])

    def keep(self, piece: Piece, memory: Tensor, kept: Kept) -> None:
        assert self.held is not None
        states, sound = self.held
        place = self._place(piece)
        sound[place] = bool(kept)
        if kept:
            rows = kept[0].view(-1, *states.shape[1:])
            states[place : place + len(rows)] = rows
        else:
            states[place] = memory

    def recall(self, piece: Piece) -> tuple[Tensor, Kept]:
        assert self.held is not None
        states, sound = self.held
        place, chunk = self._place(piece), _chunk(self.g)
        if not sound[place]:
            return states[place], ()
        count = -(-(piece.at.stop - piece.at.start) // chunk)
        return states[place], (states[place : place + count].flatten(0, 2),)

    def above(self, piece: Piece, core: Core, space: Workspace) -> Tensor:
        above = _laid_out(self.y[:, piece.at], memory := core.memory, "wide above", space)
        if self.scale != 1:
            above = torch.mul(above, self.scale, out=space("wide above", above.shape, memory))
        return above if self.bonus is None else self.bonus.above(above, space)

    def put_back(
        self,
        piece: Piece,
        core: Core,
        of_memory: Tensor,
        found: Sequence[Tensor | InChunks | None],
        space: Workspace,
    ) -> Tensor:
        of_g, of_k, of_q, of_v = found
        if self.bonus is not None:
            of_memory, of_q, of_k, of_v = self.bonus.back(
                core, of_memory, (of_q, of_k, of_v), space
            )
        for x, of_x in zip(self.found, (of_q, of_k, of_v, of_g), strict=True):
            assert of_x is not None
            _put(of_x, x[:, piece.at])
        return of_memory

    def _place(self, piece: Piece) -> int:
        chunk = _chunk(self.g)
        return piece.start // chunk + piece.sequence + (piece.at.start - piece.start) // chunk


def _laid_out(x: Tensor, memory: Tensor, name: str, space: Workspace) -> Tensor:
    """x (B, T, h, ·) for each head of the memory and in its type, in a buffer where it is not so already."""
    heads, several = memory.shape[1], x.shape[2]
    if heads == several and x.dtype == memory.dtype:
        return x
    wide = space(name, (*x.shape[:2], heads, x.shape[3]), memory)
    wide.unflatten(2, (several, -1)).copy_(x[:, :, :, None])
    return wide


def _put(piece: Tensor | InChunks, onto: Tensor) -> None:
    """Copy results of a piece to their place; where heads share one, their sum."""
    if piece.shape == onto.shape:
        onto.copy_(piece) if isinstance(piece, Tensor) else piece.copy_to(onto)
        return
    each = piece if isinstance(piece, Tensor) else piece.fresh()
    onto.copy_(each.unflatten(2, (onto.shape[2], -1)).sum(3))


def run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    state: Tensor,
    scale: float,
    starts: Tensor | None,
    bonus: Tensor | None = None,
    held: Held | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, V) and final states (N, H, K, V); what the way back needs goes to `held`.

    Decays e^g are per head or, with g (B, T, H, K), per key. With a bonus (H, K) steps are read before their update.
    """
    y = v.new_empty(*v.shape[:2], g.shape[2], v.shape[3])
    own = None if bonus is None else Bonus(bonus.to(state.dtype))
    given = Decays(q, k, v, g, scale, own, y, held)
    return y, pieces.forward(given, state, starts, keeps=held is not None)


def keeping(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    state: Tensor,
    scale: float,
    starts: Tensor | None,
    bonus: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same, and what the way back needs."""
    held = room(q, g, state, starts)
    for x in held if starts is not None else held[1:]:  # places that no chunk is at
        x.zero_()
    return (*run(q, k, v, g, state, scale, starts, bonus, held), *held)


def back(
    do: Tensor,
    dfinal: Tensor,
    held: Held,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    state: Tensor,
    scale: float,
    starts: Tensor | None,
    bonus: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, g, the initial states and, where there is one, the bonus."""
    found = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v, g)]
    own = None if bonus is None else Bonus(bonus.to(state.dtype))
    given = Decays(q, k, v, g, scale, own, do, held, found)
    of_state = pieces.backward(given, dfinal, starts)
    if bonus is None or own is None:
        return (*found, of_state)
    return (*found, of_state, own.found.to(bonus.dtype))
