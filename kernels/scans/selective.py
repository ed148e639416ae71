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
STEPS = 16  # a state is kept before each so many
THREADS = 128
NUMBERS = 32  # of a tile that one thread holds

_GIVEN = dict.fromkeys(("x", "delta", "b", "c"), "data") | dict.fromkeys(("rates", "skip"), "fp32")
_INTEGERS = ("length", "own", "groups")
PROGRAMS = (
    Program(
        f"{CODE}:forward",
        _GIVEN | {"state": "fp32", "y": "data", "final": "fp32", "kept": "fp32", "starts": "i64"},
        _INTEGERS,
        flags={"PACKED": 1},
    ),
    Program(
        f"{CODE}:backward",
        _GIVEN
        | {"dy": "data", "dx": "data", "ddelta": "data", "starts": "i64"}
        | dict.fromkeys(("kept", "dfinal", "drates", "db", "dc", "dskip", "dstate"), "fp32"),
        _INTEGERS,
        flags={"PACKED": 1},
    ),
)


def tile_for(program: Program, dtype: str, size: int, architecture: int) -> Tile:
    """How `size` states N and some channels lie across 128 threads, and 32 numbers of a tile in each.

    The forward pass sums over states, so a thread has four; the backward pass sums over channels too.
    """
    states, forward = power_of_two(size), program.name == "forward"
    own = max(min(4 if forward else 2, states), states // 8 if forward else states // 32)
    channels = 1 if forward else 2
    shape = {"RN": own, "RD": channels, "LN": states // own, "LD": THREADS * own // states}
    steps = max(1, min(STEPS, NUMBERS // (own * channels)))
    constants = {"N": size, "KEEP": STEPS, "S": steps, **shape}
    return Tile(constants, THREADS // 32, products=False)


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
    """x, Δ (B, T, D), A (D, N), b, c (B, T, G, N), a state (sequences, D, N) and D (D,), checked; G divides D."""

    x: Tensor
    delta: Tensor
    A: Tensor
    b: Tensor
    c: Tensor
    state: Tensor
    skip: Tensor
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
        skip: Tensor,
        starts: Tensor | None,
    ) -> Quantities:
        """Checked, contiguous; A, the state and the skip in float32; raises `InvalidInput`."""
        packing = Packing.of(x, starts, axes=3)
        state = checked(x, delta, A, b, c, state, packing.sequences)
        x, delta, b, c = (each.contiguous() for each in (x, delta, b, c))
        A, state, skip = (each.float().contiguous() for each in (A, state, skip))
        return cls(x, delta, A, b, c, state, skip, packing)

    def launch(self, place: int, *pointers: Tensor) -> None:
        """Run a program over (tiles of channels, groups, sequences)."""
        groups = self.b.shape[2]
        tile = self.tile(place)
        grid = blocks(self.parts(place), groups, self.packing.sequences)
        if 0 in grid:
            return
        resolve(PROGRAMS[place].function)[grid](
            *pointers,
            self.packing.starts,
            self.packing.length,
            self.x.shape[-1] // groups,
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
        constants = self.tile(place).constants
        channels = int(constants["RD"]) * int(constants["LD"])
        return -(-(self.x.shape[-1] // self.b.shape[2]) // channels)


def room(x: Tensor, state: Tensor) -> Tensor:
    """Where one state in 16 is kept: those of sequence n from row ⌊first step / 16⌋ + n on."""
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


def checked_skip(skip: Tensor, x: Tensor) -> Tensor:
    """D, one number a channel; raises `InvalidInput`."""
    if skip.shape != x.shape[2:]:
        raise InvalidInput(f"`skip` must be ({x.shape[2]},); got {tuple(skip.shape)}")
    return skip


def forward(q: Quantities) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (B, T, D) in the type of x; the last states and the kept ones, in float32."""
    y, final = torch.empty_like(q.x), torch.empty_like(q.state)
    kept = room(q.x, q.state)
    q.launch(0, q.x, q.delta, q.A, q.b, q.c, q.skip, q.state, y, final, kept)
    return y, final, kept


def backward(q: Quantities, kept: Tensor, dy: Tensor, dfinal: Tensor) -> tuple[Tensor, ...]:
    """Gradients of x, Δ, A, b, c, the initial states and D; sums over tiles of channels in float32."""
    dy, dfinal = dy.to(q.x.dtype).contiguous(), dfinal.float().contiguous()
    dx, ddelta = torch.empty_like(q.x), torch.empty_like(q.x)
    dA, dstate = torch.empty_like(q.state), torch.empty_like(q.state)
    batch, length, groups, size = q.b.shape
    new = q.state.new_empty
    db, dc = (new(batch, length, q.parts(1), groups, size) for _ in range(2))
    dskip = new(q.state.shape[:2])
    given = (q.x, q.delta, q.A, q.b, q.c, q.skip, kept, dy, dfinal)
    q.launch(1, *given, dx, ddelta, dA, db, dc, dskip, dstate)
    narrow = q.x.dtype
    db, dc = (each.sum(2).to(narrow) for each in (db, dc))
    return dx, ddelta, dA.sum(0), db, dc, dstate, dskip.sum(0)
