r"""What the operator computes on the CPU: the package's chunk form on a system of diagonal plus low rank.

Rows that act one by one are steps of their own, Λ = D - β k (D b)ᵀ with D = I after a token's first row; rows that act
together are the columns of one step, Λ = D - Σ β k bᵀ. The form's own backward gives the gradients of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.forms import native
from dsf.forms.chunk_layout import InChunks
from dsf.forms.chunkwise import Chunkwise
from dsf.forms.core import Core
from dsf.forms.workspace import Workspace, fresh
from dsf.kernels import chunked, pieces
from dsf.kernels.chunked import Chunked, Held, cotangent, laid_out, put, scaled
from dsf.kernels.pieces import Piece, own
from dsf.structure import DPLR, Diagonal, Scalar

Given = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _gate(g: Tensor) -> Scalar | Diagonal:
    return Diagonal.from_log(g) if g.ndim == 4 else Scalar.from_log(g)


def _kind(state: Tensor) -> DPLR:
    """A transition of the operator's kind."""
    none = state.new_zeros(1, 1, 1, state.shape[2], 1)
    return DPLR(Scalar.from_log(none[..., 0, 0]), none, none)


def _chunk(state: Tensor) -> int:
    return Chunkwise().chunk_for(_kind(state))


def _rows(q: Tensor, k: Tensor) -> int | torch.SymInt:
    """n, the rows of a token; also where sizes are symbols."""
    return k.shape[1] // q.shape[1] if q.shape[1] else 1


def room(q: Tensor, k: Tensor, state: Tensor, together: bool, starts: Tensor | None) -> Held:
    """Room for what the way back needs."""
    (keys, values), chunk, n = state.shape[2:], _chunk(state), _rows(q, k)
    rows, rank = (1, n) if together else (n, 1)
    inner: Any = chunk * rank
    inverses = 0 if _compiled(together) else inner * inner
    numbers = (keys * values, inner * values, inverses)
    return chunked.room(q, state, chunk, rows, starts, numbers)


def _compiled(together: bool) -> bool:
    """Compiled code keeps no inverses: it solves row by row."""
    return not together and native.missing("chunks") is None


class Rows(Chunked):
    """q, k, b, v, β and g of the operator; its outputs `y`, or their cotangent; and the gradients of the six."""

    def __init__(
        self,
        given: Given,
        state: Tensor,
        scale: float,
        together: bool,
        y: Tensor,
        held: Held | None,
        found: Sequence[Tensor] = (),
    ) -> None:
        q, k, _, v, beta, _ = given
        self.each, self.together = int(_rows(q, k)), together
        numbers = q.shape[0] * beta.shape[2] * (q.shape[3] + v.shape[3])
        steps, wide = (1, self.each) if together else (self.each, 1)
        held = held[:2] if held is not None and _compiled(together) else held
        super().__init__(q.shape[0], q.shape[1], _kind(state), steps, numbers * wide, held)
        self.given, self.scale, self.y, self.found = given, scale, y, found

    def shapes(self, chunk: int) -> tuple[tuple[int, ...], ...]:
        q, _, _, v, _, _ = self.given
        keys, values, inner = q.shape[3], v.shape[3], chunk * (self.each // self.rows)
        kept = (keys, values), (inner, values), (inner, inner)
        return kept[:2] if self.compiled else kept

    @property
    def compiled(self) -> bool:
        return _compiled(self.together)

    def core(self, piece: Piece, memory: Tensor, space: Workspace) -> Core:
        q, k, b, v, beta, g = self._of(piece, self.given)
        q, k, b, v = (laid_out(x, memory, f"wide {i}", space) for i, x in enumerate((q, k, b, v)))
        self._k, self._b, self._beta = k, b, beta.to(memory.dtype)[..., None]
        write = torch.mul(self._beta, k, out=space("write", k.shape, k))
        gates = g.to(memory.dtype)
        if self.together:
            write, b, v = (self._columns(x) for x in (write, b, v))
            left, right = -write.mT, b.mT
        else:
            gates, q = self._beside(gates, 0, "gates", space), self._beside(q, -1, "reads", space)
            self._decay = (gates if gates.ndim == 4 else gates[..., None]).exp()
            left, right = -write[..., None], (self._decay * b)[..., None]
        transition = DPLR(_gate(gates), left, right)
        return Core(transition, OuterCoupling(write), OuterCoupling(q), v, memory)

    def put(self, piece: Piece, core: Core, outputs: Tensor | InChunks, space: Workspace) -> None:
        outputs = scaled(outputs, self.scale)
        if self.rows > 1:
            outputs = own(outputs)[:, self.rows - 1 :: self.rows]
        put(outputs, self.y[:, piece.at])

    def above(self, piece: Piece, core: Core, space: Workspace) -> Tensor:
        above = cotangent(self.y[:, piece.at], core.memory, self.scale, space)
        return above if self.together else self._beside(above, -1, "above", space)

    def put_back(
        self,
        piece: Piece,
        core: Core,
        of_memory: Tensor,
        found: Sequence[Tensor | InChunks | None],
        space: Workspace,
    ) -> Tensor:
        of_g, of_left, of_right, of_write, of_q, of_v = map(own, found)
        if self.together:
            of_write, of_b = of_write - of_left.mT, of_right.mT
            of_write, of_b, of_v = (x.transpose(2, 3).flatten(1, 2) for x in (of_write, of_b, of_v))
        else:
            of_write, of_b = of_write - of_left[..., 0], self._decay * of_right[..., 0]
            through = of_b * self._b
            of_g = of_g + (through if of_g.ndim == 4 else through.sum(-1))
            of_g, of_q = of_g[:, :: self.rows], of_q[:, self.rows - 1 :: self.rows]
        of_beta = (of_write * self._k).sum(-1)
        results = (of_q, of_write * self._beta, of_b, of_v, of_beta, of_g)
        for x, of_x in zip(self._of(piece, tuple(self.found)), results, strict=True):
            put(of_x, x)
        return of_memory

    def _of(self, piece: Piece, tensors: tuple[Tensor, ...]) -> list[Tensor]:
        """A piece of q, k, b, v, β and g: of rows, or of tokens."""
        rows = slice(piece.at.start * self.each, piece.at.stop * self.each)
        at = (piece.at, rows, rows, rows, rows, piece.at)
        return [x[:, steps] for x, steps in zip(tensors, at, strict=True)]

    def _beside(self, x: Tensor, place: int, name: str, space: Workspace) -> Tensor:
        """x (B, T, …) at one row of each token, zero at the others: (B, T n, …)."""
        if self.rows == 1:
            return x
        shape = (x.shape[0], x.shape[1], self.rows, *x.shape[2:])
        steps = space(f"beside {name}", shape, x).zero_()
        steps[:, :, place] = x
        return steps.flatten(1, 2)

    def _columns(self, x: Tensor) -> Tensor:
        """Rows (B, T n, H, ·) as those of a step, (B, T, H, n, ·)."""
        return x.unflatten(1, (-1, self.each)).transpose(2, 3)


def run(
    q: Tensor,
    k: Tensor,
    b: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    state: Tensor,
    scale: float,
    together: bool,
    starts: Tensor | None,
    held: Held | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, V) and final states (N, H, K, V), shapes as the operator's; fills `held` for the way back."""
    y = fresh((*q.shape[:2], beta.shape[2], v.shape[3]), v)
    given = Rows((q, k, b, v, beta, g), state, scale, together, y, held)
    return y, pieces.forward(given, state, starts, keeps=held is not None)


def keeping(
    q: Tensor,
    k: Tensor,
    b: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    state: Tensor,
    scale: float,
    together: bool,
    starts: Tensor | None,
) -> tuple[Tensor, ...]:
    """The same, and what the way back needs."""
    rows = 1 if together else int(_rows(q, k))
    held = chunked.emptied(
        room(q, k, state, together, starts), starts, q.shape[1] * rows, _chunk(state)
    )
    return (*run(q, k, b, v, beta, g, state, scale, together, starts, held), *held)


def back(
    do: Tensor,
    dfinal: Tensor,
    states: Tensor,
    inner: Tensor,
    inverses: Tensor,
    q: Tensor,
    k: Tensor,
    b: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    state: Tensor,
    scale: float,
    together: bool,
    starts: Tensor | None,
) -> tuple[Tensor, ...]:
    """Gradients of q, k, b, v, β, g and the initial states."""
    given = (q, k, b, v, beta, g)
    found = [fresh(x.shape, x) for x in given]
    rows = Rows(given, state, scale, together, do, (states, inner, inverses), found)
    return (*found, pieces.backward(rows, dfinal, starts))
