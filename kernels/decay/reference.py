r"""What the operators of decays compute on the CPU: the package's chunk form, forward and backward.

The way back is the form's own, from the states at the starts of chunks, which are kept where a gradient is wanted.
Heads that share are laid out, and types widened, for one piece of time after another.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.forms.chunk_layout import InChunks
from dsf.forms.chunkwise import Chunkwise
from dsf.forms.core import Core
from dsf.forms.workspace import Workspace, fresh
from dsf.kernels import chunked, pieces
from dsf.kernels.chunked import Chunked, Held, cotangent, laid_out, put, scaled
from dsf.kernels.pieces import Piece
from dsf.structure import Diagonal, Scalar

from .bonus import Bonus


def room(q: Tensor, g: Tensor, state: Tensor, starts: Tensor | None) -> Held:
    """Room for what the way back needs."""
    return chunked.room(q, state, _chunk(g), 1, starts, [state.shape[2] * state.shape[3]])


def _chunk(g: Tensor) -> int:
    return Chunkwise().chunk_for(_gate(g))


def _gate(g: Tensor) -> Scalar | Diagonal:
    return (Diagonal if g.ndim == 4 else Scalar).from_log(g)


class Decays(Chunked):
    """q, k, v and g of an operator; its outputs `y`, or their cotangent; and the gradients of q, k, v and g."""

    def __init__(
        self,
        given: tuple[Tensor, Tensor, Tensor, Tensor],
        scale: float,
        bonus: Bonus | None,
        y: Tensor,
        held: Held | None,
        found: Sequence[Tensor] = (),
    ) -> None:
        q, _, v, g = given
        numbers = g.shape[0] * g.shape[2] * (q.shape[3] + v.shape[3])
        super().__init__(q.shape[0], q.shape[1], _gate(g), 1, numbers, held)
        self.given, self.scale, self.bonus, self.y, self.found = given, scale, bonus, y, found

    def shapes(self, chunk: int) -> tuple[tuple[int, ...], ...]:
        q, _, v, _ = self.given
        return ((q.shape[3], v.shape[3]),)

    def core(self, piece: Piece, memory: Tensor, space: Workspace) -> Core:
        *given, g = (x[:, piece.at] for x in self.given)
        q, k, v = (laid_out(x, memory, f"wide {i}", space) for i, x in enumerate(given))
        reads = q if self.bonus is None else self.bonus.reads(q, space)
        gate = _gate(g.to(memory.dtype))
        return Core(gate, OuterCoupling(k), OuterCoupling(reads), v, memory)

    def put(self, piece: Piece, core: Core, outputs: Tensor | InChunks, space: Workspace) -> None:
        if self.bonus is not None:
            outputs = self.bonus.outputs(core, outputs, space)
        put(scaled(outputs, self.scale), self.y[:, piece.at])

    def above(self, piece: Piece, core: Core, space: Workspace) -> Tensor:
        above = cotangent(self.y[:, piece.at], core.memory, self.scale, space)
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
            of_reads = (of_q, of_k, of_v)
            of_memory, of_q, of_k, of_v = self.bonus.back(core, of_memory, of_reads, space)
        for x, of_x in zip(self.found, (of_q, of_k, of_v, of_g), strict=True):
            assert of_x is not None
            put(of_x, x[:, piece.at])
        return of_memory


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
    y = fresh((*v.shape[:2], g.shape[2], v.shape[3]), v)
    own = None if bonus is None else Bonus(bonus.to(state.dtype))
    given = Decays((q, k, v, g), scale, own, y, held)
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
) -> tuple[Tensor, ...]:
    """The same, and what the way back needs."""
    held = chunked.emptied(room(q, g, state, starts), starts, q.shape[1], 0)
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
    given = (q, k, v, g)
    found = [fresh(x.shape, x) for x in given]
    own = None if bonus is None else Bonus(bonus.to(state.dtype))
    decays = Decays(given, scale, own, do, held, found)
    of_state = pieces.backward(decays, dfinal, starts)
    if bonus is None or own is None:
        return (*found, of_state)
    return (*found, of_state, own.found.to(bonus.dtype))
