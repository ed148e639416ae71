r"""The selective scan of S6 (Mamba-1) on a GPU, forward and backward: its contract and its launches.

The programs are in `triton_code/selective.py`.
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

CODE = "dsf.kernels.triton_code.selective"
STEPS = 16  # of a tile: a state is kept before each

_GIVEN = {"x": "data", "a": "data", "rates": "fp32", "w": "data", "c": "data", "starts": "i64"}
_INTEGERS = ("length", "size", "groups")
PROGRAMS = (
    Program(
        f"{CODE}:forward",
        _GIVEN | {"state": "fp32", "y": "data", "final": "fp32", "kept": "fp32"},
        _INTEGERS,
        flags={"PACKED": 1},
    ),
    Program(
        f"{CODE}:backward",
        _GIVEN
        | {"dy": "data", "kept": "fp32"}
        | dict.fromkeys(("dfinal", "dx", "da", "drates", "dw", "dc", "dstate"), "fp32"),
        _INTEGERS,
        flags={"PACKED": 1},
    ),
)


def tile_for(program: Program, dtype: str, size: int, architecture: int) -> Tile:
    """Tiles of 16 steps and some channels, for `size` states N of each: fewer channels where N is large."""
    wide = power_of_two(size, 2)
    numbers = 256 if wide <= 32 or program.name == "forward" else 128
    channels = max(1, min(32, numbers // wide))
    return Tile({"N": size, "BN": wide, "S": STEPS, "BD": channels}, 8, products=False)


KERNEL = Kernel(
    name="selective-scan",
    title="Selective scan of S6, the states of a tile of channels in registers",
    admits="Λ is e^{ΔA} per channel and state, A constant; writes Δ b x, reads shared by channels",
    form="scan",
    programs=PROGRAMS,
    tile=tile_for,
    sizes=(16, 64),
    source="Gu and Dao 2023 (arXiv 2312.00752), algorithm 2",
)


@dataclass(frozen=True, eq=False)
class Quantities:
    """x, Δ (B, T, D), A (D, N), b, c (B, T, G, N) and a state (sequences, D, N), checked; G divides D."""

    x: Tensor
    delta: Tensor
    A: Tensor
    b: Tensor
    c: Tensor
    state: Tensor
    packing: Packing

    @classmethod
    def of(
        cls,
        x: Tensor,
        delta: Tensor,
        A: Tensor,
        b: Tensor,
        c: Tensor,
        state: Tensor | None,
        starts: Tensor | None,
    ) -> Quantities:
        """Checked, contiguous, A and state in float32; raises `InvalidInput`."""
        packing = Packing.of(x, starts, axes=3)
        state = checked(x, delta, A, b, c, state, packing.sequences)
        x, delta, b, c = (each.contiguous() for each in (x, delta, b, c))
        return cls(x, delta, A.float().contiguous(), b, c, state.float().contiguous(), packing)

    def launch(self, place: int, *pointers: Tensor) -> None:
        """Run a program over (tiles of channels, groups, sequences)."""
        D, groups = self.x.shape[-1], self.b.shape[2]
        tile = self.tile(place)
        grid = blocks(self.parts(place), groups, self.packing.sequences)
        if 0 in grid:
            return
        resolve(PROGRAMS[place].function)[grid](
            *pointers,
            self.packing.starts,
            self.packing.length,
            D,
            groups,
            PACKED=self.packing.starts is not None,
            num_warps=tile.warps,
            num_stages=tile.stages,
            **tile.constants,
        )

    def tile(self, place: int) -> Tile:
        return tile_for(PROGRAMS[place], "float32", self.A.shape[1], 90)

    def parts(self, place: int) -> int:
        """Tiles of channels in a group."""
        return -(-(self.x.shape[-1] // self.b.shape[2]) // int(self.tile(place).constants["BD"]))


def room(x: Tensor, state: Tensor) -> Tensor:
    """Where the states before each tile are kept: those of sequence n from row ⌊first step / 16⌋ + n on."""
    return state.new_empty(x.shape[0] * x.shape[1] // STEPS + state.shape[0], *state.shape[1:])


def checked(
    x: Tensor, delta: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor | None, sequences: int
) -> Tensor:
    """The initial state, zero where it is not given, once all shapes and types fit; raises `InvalidInput`."""
    B, T, D = x.shape
    if delta.shape != x.shape:
        raise InvalidInput(f"`delta` must be {tuple(x.shape)}, like `x`; got {tuple(delta.shape)}")
    if A.ndim != 2 or A.shape[0] != D or A.shape[1] < 1:
        raise InvalidInput(f"`A` must be ({D}, N) with N >= 1; got {tuple(A.shape)}")
    N = A.shape[1]
    for name, each in (("b", b), ("c", c)):
        if each.ndim != 4 or each.shape[:2] != (B, T) or each.shape[3] != N:
            raise InvalidInput(f"`{name}` must be ({B}, {T}, G, {N}); got {tuple(each.shape)}")
    groups = b.shape[2]
    if c.shape[2] != groups or not groups or D % groups:
        raise InvalidInput(
            f"`b` and `c` have {groups} and {c.shape[2]} groups: equal, and a divisor of D = {D}"
        )
    if any(each.dtype != x.dtype or each.device != x.device for each in (delta, b, c)):
        raise InvalidInput("x, delta, b and c must be of one type, on one device")
    shape = (sequences, D, N)
    if state is None:
        return torch.zeros(shape, device=x.device)
    if state.shape != shape:
        raise InvalidInput(
            f"the state must be {shape}: (sequences, D, N); got {tuple(state.shape)}"
        )
    return state


def forward(q: Quantities) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (B, T, D) in the type of x; the last states and those before each tile, in float32."""
    y, final = torch.empty_like(q.x), torch.empty_like(q.state)
    kept = room(q.x, q.state)
    q.launch(0, q.x, q.delta, q.A, q.b, q.c, q.state, y, final, kept)
    return y, final, kept


def backward(q: Quantities, kept: Tensor, dy: Tensor, dfinal: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, Δ, A, b, c and the initial states; sums over tiles of channels in float32."""
    dy, dfinal = dy.to(q.x.dtype).contiguous(), dfinal.float().contiguous()
    new = q.state.new_empty
    dx, ddelta = new(q.x.shape), new(q.x.shape)
    dA, dstate = torch.zeros_like(q.state), torch.empty_like(q.state)
    shape = (*q.b.shape[:3], q.parts(1), q.b.shape[3])
    db, dc = new(shape), new(shape)
    given = (q.x, q.delta, q.A, q.b, q.c, kept, dy, dfinal)
    q.launch(1, *given, dx, ddelta, dA, db, dc, dstate)
    narrow = q.x.dtype
    return (
        dx.to(narrow),
        ddelta.to(narrow),
        dA.sum(0),
        db.sum(3).to(narrow),
        dc.sum(3).to(narrow),
        dstate,
    )
