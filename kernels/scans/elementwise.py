r"""The scan of gates per key and channel on a GPU: h_t = a_t ⊙ h_{t-1} + w_t diag(x_t), y_t = h_tᵀ c_t.

S6 (Mamba-1) and every other real elementwise gate are of this form. The programs are in
`triton_code/elementwise.py`; of the states one in sixteen is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels.contract import Kernel, Program, Tile, power_of_two
from dsf.kernels.limits import blocks
from dsf.kernels.shapes import Packing
from dsf.registry import resolve

from .selective import STEPS, THREADS, room

CODE = "dsf.kernels.triton_code.elementwise"
NUMBERS = 4  # per state and channel of a step that one thread holds

_GIVEN = dict.fromkeys(("x", "a", "w", "c"), "data") | {"kept": "fp32", "starts": "i64"}
_INTEGERS = ("length", "own", "groups")
FORWARD = Program(
    f"{CODE}:forward",
    _GIVEN | {"state": "fp32", "y": "data", "final": "fp32"},
    _INTEGERS,
    flags={"PACKED": 1},
)
BACKWARD = Program(
    f"{CODE}:backward",
    _GIVEN
    | dict.fromkeys(("dy", "dx", "da", "dw"), "data")
    | dict.fromkeys(("dfinal", "dc", "dstate"), "fp32"),
    _INTEGERS,
    flags={"PACKED": 1},
)


def tile_for(program: Program, dtype: str, size: int, architecture: int) -> Tile:
    """`size` states N and some channels, four numbers of a step in each of 128 threads; fewer steps on the way back."""
    states = power_of_two(size, 2)
    channels = max(1, NUMBERS * THREADS // states)
    steps = 8 if program is FORWARD else 4
    constants = {"N": size, "KEEP": STEPS, "S": steps, "BN": states, "BD": channels}
    return Tile(constants, THREADS // 32, products=False)


KERNEL = Kernel(
    name="elementwise-scan",
    title="Scan of gates per key and channel, the states of a tile of channels in registers",
    admits="Λ is Elementwise and real; reads shared by channels",
    form="scan",
    programs=(FORWARD, BACKWARD),
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

    def launch(self, program: Program, *pointers: Tensor) -> None:
        """Run a program over (tiles of channels, heads, sequences)."""
        _, _, heads, values = self.x.shape
        tile = tile_for(program, "float32", self.c.shape[3], 90)
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

    def parts(self, program: Program) -> int:
        """Tiles of channels in a head."""
        tile = tile_for(program, "float32", self.c.shape[3], 90)
        return -(-self.x.shape[3] // int(tile.constants["BD"]))


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
    if any(each.dtype != x.dtype or each.device != x.device for each in (a, w, c)):
        raise InvalidInput("x, a, w and c must be of one type, on one device")
    if x.is_complex():
        raise InvalidInput(f"x, a, w and c must be real; got {x.dtype}")
    shape = (sequences, H, K, V)
    if state is None:
        return torch.zeros(shape, device=x.device)
    if state.shape != shape:
        raise InvalidInput(f"the state must be {shape}: (N, H, K, V); got {tuple(state.shape)}")
    return state


def forward(q: Quantities) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (B, T, H, V) in the type of x; the last states and those before each tile, in float32."""
    y, final, kept = torch.empty_like(q.x), torch.empty_like(q.state), room(q.x, q.state)
    q.launch(FORWARD, q.x, q.a, q.w, q.c, q.state, y, final, kept)
    return y, final, kept


def backward(q: Quantities, kept: Tensor, dy: Tensor, dfinal: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, a, w, c and the initial states; sums over tiles of channels in float32."""
    dy, dfinal = dy.to(q.x.dtype).contiguous(), dfinal.float().contiguous()
    dx, da, dw, dstate = (torch.empty_like(each) for each in (q.x, q.a, q.w, q.state))
    batch, length, *reads = q.c.shape
    dc = q.state.new_empty(batch, length, q.parts(BACKWARD), *reads)
    q.launch(BACKWARD, q.x, q.a, q.w, q.c, kept, dy, dfinal, dx, da, dw, dc, dstate)
    return dx, da, dw, dc.sum(2).to(q.x.dtype), dstate
