r"""The scan of gates per key and channel on a GPU: h_t = a_t ⊙ h_{t-1} + w_t diag(x_t), y_t = h_tᵀ c_t.

S6 (Mamba-1) and every other real elementwise gate are of this form. The programs are in
`triton_code/elementwise.py`; of the states one in sixteen is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels.contract import Kernel, Program, Tile, power_of_two
from dsf.kernels.decay.segments import Segments
from dsf.kernels.limits import blocks, target_of
from dsf.kernels.shapes import Packing
from dsf.registry import resolve

from .segments import carry, owners_of, segments_of
from .selective import STEPS, room

CODE = "dsf.kernels.triton_code.elementwise"

_GIVEN: dict[str, str] = {x: "data" for x in "xawc"} | {x: "i64" for x in ("owners", "starts")}
_INTEGERS = ("length", "own", "groups")
FORWARD = Program(
    f"{CODE}:forward",
    _GIVEN | {"state": "fp32", "y": "data", "final": "fp32", "kept": "fp32"},
    _INTEGERS,
    flags={"PACKED": 1},
)
BACKWARD = Program(
    f"{CODE}:backward",
    _GIVEN
    | dict.fromkeys(("dy", "dx", "da", "dw"), "data")
    | dict.fromkeys(("kept", "dfinal", "dc", "dstate"), "fp32"),
    _INTEGERS,
    flags={"PACKED": 1},
)

LOCAL_STATES = Program(
    f"{CODE}_segments:local_states",
    dict.fromkeys(("x", "a", "w"), "data") | {"final": "fp32", "decays": "fp32", "starts": "i64"},
    _INTEGERS,
    flags={"PACKED": 1},
)
LOCAL_GRADIENTS = Program(
    f"{CODE}_segments:local_gradients",
    dict.fromkeys(("a", "c", "dy"), "data") | {"dstate": "fp32", "decays": "fp32", "starts": "i64"},
    _INTEGERS,
    flags={"PACKED": 1},
)


# Where 33 to 64 states do not divide by 16, eight warps spill for lack of registers that a block could have.
_FEWER_WARPS = {
    (90, "backward", "float32"),
    (90, "local_states", "float16"),
    (100, "local_states", "float16"),
}


def tile_for(program: Program, dtype: str, size: int, architecture: int) -> Tile:
    """Tiles of 16 steps and some channels, for `size` states N of each: fewer channels where N is large."""
    states = power_of_two(size, 2)
    numbers = 256 if program is not BACKWARD else 128 if states <= 32 else 64  # more spill
    channels = max(1, min(32, numbers // states))
    few = states == 64 and size % 16 and (architecture, program.name, dtype) in _FEWER_WARPS
    constants = {"N": size, "S": STEPS, "BN": states, "BD": channels}
    return Tile(constants, 4 if few else 8, products=False)


KERNEL = Kernel(
    name="elementwise-scan",
    title="Scan of gates per key and channel, the states of a tile of channels in registers",
    admits="Λ is Elementwise and real; reads shared by channels",
    form="scan",
    programs=(FORWARD, BACKWARD, LOCAL_STATES, LOCAL_GRADIENTS),
    tile=tile_for,
    sizes=(16, 64),
    source="Gu and Dao 2023 (arXiv 2312.00752), algorithm 2, with gates and writes given whole",
)


@dataclass(frozen=True, eq=False)
class Quantities:
    """x (B, T, H, V), a and w (B, T, H, K, V), c (B, T, H, K) and a state (N, H, K, V), checked."""

    x: Tensor
    a: Tensor
    w: Tensor
    c: Tensor
    state: Tensor
    packing: Packing

    @classmethod
    def of(
        cls,
        x: Tensor,
        a: Tensor,
        w: Tensor,
        c: Tensor,
        state: Tensor | None,
        starts: Tensor | None,
    ) -> Quantities:
        """Checked, contiguous, the state in float32; raises `InvalidInput`."""
        packing = Packing.of(x, starts)
        state = checked(x, a, w, c, state, packing.sequences)
        x, a, w, c = (each.contiguous() for each in (x, a, w, c))
        return cls(x, a, w, c, state.float().contiguous(), packing)

    def launch(self, program: Program, *pointers: Tensor | None) -> None:
        """Run a program over (tiles of channels, heads, sequences)."""
        _, _, heads, values = self.x.shape
        tile = self.tile(program)
        grid = blocks(self.parts(program), heads, self.packing.sequences)
        if 0 in grid:
            return
        resolve(program.function)[grid](
            *pointers,
            self.packing.starts,
            self.packing.length,
            values,
            heads,
            PACKED=self.packing.starts is not None,
            num_warps=tile.warps,
            num_stages=tile.stages,
            **tile.constants,
        )

    def tile(self, program: Program) -> Tile:
        dtype, architecture = target_of(self.x)
        return tile_for(program, dtype, self.c.shape[3], architecture)

    def parts(self, program: Program) -> int:
        """Tiles of channels in a head."""
        tile = self.tile(program)
        return -(-self.x.shape[3] // int(tile.constants["BD"]))

    def cut(self, program: Program, steps: int | None) -> Segments | None:
        """Segments of so many steps, or as many as fill the device; None for one walk."""
        tiles = self.parts(program) * self.x.shape[2]
        return segments_of(self.packing, self.x, tiles, steps)

    def over(self, segments: Segments) -> Self:
        """The same tokens as segments, each with its own initial state."""
        count = segments.packing.sequences
        states, decays = self.state.new_empty(2, count, *self.state.shape[1:])
        cut = replace(self, packing=segments.packing, state=states)
        cut.launch(LOCAL_STATES, self.x, self.a, self.w, states, decays)
        carry(segments, states, decays, self.state)
        return cut

    def over_gradients(self, segments: Segments, dy: Tensor, dfinal: Tensor) -> tuple[Self, Tensor]:
        """The same tokens as segments, and the gradient of the last state of each."""
        count = segments.packing.sequences
        last, decays = dfinal.new_empty(2, count, *dfinal.shape[1:])
        cut = replace(self, packing=segments.packing)
        cut.launch(LOCAL_GRADIENTS, self.a, self.c, dy, last, decays)
        carry(segments, last, decays, dfinal, reverse=True)
        return cut, last


def checked(
    x: Tensor, a: Tensor, w: Tensor, c: Tensor, state: Tensor | None, sequences: int
) -> Tensor:
    """The initial state, zero where it is not given, once all shapes and types fit; raises `InvalidInput`."""
    if c.ndim != 4 or c.shape[:3] != x.shape[:3] or c.shape[3] < 1:
        raise InvalidInput(f"`c` must be (B, T, H, K) for x {tuple(x.shape)}; got {tuple(c.shape)}")
    B, T, H, V = x.shape
    K = c.shape[3]
    for name, each in (("a", a), ("w", w)):
        if each.shape != (B, T, H, K, V):
            raise InvalidInput(f"`{name}` must be {(B, T, H, K, V)}; got {tuple(each.shape)}")
    shape = (sequences, H, K, V)
    if state is None:
        return torch.zeros(shape, device=x.device)
    if state.shape != shape:
        raise InvalidInput(f"the state must be {shape}: (N, H, K, V); got {tuple(state.shape)}")
    return state


def forward(q: Quantities, *, steps: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (B, T, H, V) in the type of x; the last states and the kept ones, in float32.

    `steps`, a multiple of 16, cuts time in segments of so many, whatever the device.
    """
    segments = q.cut(FORWARD, steps)
    walks = q if segments is None else q.over(segments)
    y, final, kept = torch.empty_like(q.x), torch.empty_like(walks.state), room(q.x, q.state)
    given = (q.x, q.a, q.w, q.c, walks.state)
    walks.launch(FORWARD, *given, y, final, kept, owners_of(segments))
    return y, final if segments is None else segments.last(final), kept


def backward(
    q: Quantities, kept: Tensor, dy: Tensor, dfinal: Tensor, *, steps: int | None = None
) -> tuple[Tensor, ...]:
    """Gradients of x, a, w, c and the initial states; sums over tiles of channels in float32."""
    dy, dfinal = dy.to(q.x.dtype).contiguous(), dfinal.float().contiguous()
    segments, walks, last = q.cut(BACKWARD, steps), q, dfinal
    if segments is not None:
        walks, last = q.over_gradients(segments, dy, dfinal)
    dx, da, dw, dstate = (torch.empty_like(each) for each in (q.x, q.a, q.w, last))
    batch, length, *reads = q.c.shape
    dc = q.state.new_empty(batch, length, q.parts(BACKWARD), *reads)
    given = (q.x, q.a, q.w, q.c, kept, dy, last)
    walks.launch(BACKWARD, *given, dx, da, dw, dc, dstate, owners_of(segments))
    dstate = dstate if segments is None else segments.first(dstate)
    return dx, da, dw, dc.sum(2).to(q.x.dtype), dstate
