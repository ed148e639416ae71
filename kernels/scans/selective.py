r"""The selective scan of S6 (Mamba-1) on a GPU, forward and backward: its contract and its launches.

The programs are in `triton_code/selective.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels.contract import Kernel, Program, Tile, power_of_two
from dsf.kernels.decay.segments import BLOCK, Segments
from dsf.kernels.limits import blocks, target_of
from dsf.kernels.shapes import Packing
from dsf.registry import resolve

from .segments import CARRY, carry, owners_of, segments_of

CODE = "dsf.kernels.triton_code.selective"
STEPS = 16  # a state is kept before each so many
THREADS = 128
NUMBERS = 32  # of a tile that one thread holds

_GIVEN = dict.fromkeys(("x", "delta", "b", "c"), "data") | dict.fromkeys(("rates", "skip"), "fp32")
_PLACES = {"owners": "i64", "starts": "i64"}
_INTEGERS = ("length", "own", "groups")
PROGRAMS = (
    Program(
        f"{CODE}:forward",
        _GIVEN | {"state": "fp32", "y": "data", "final": "fp32", "kept": "fp32"} | _PLACES,
        _INTEGERS,
        flags={"PACKED": 1},
    ),
    Program(
        f"{CODE}:backward",
        _GIVEN
        | {"dy": "data", "dx": "data", "ddelta": "data"}
        | dict.fromkeys(("kept", "dfinal", "drates", "db", "dc", "dskip", "dstate"), "fp32")
        | _PLACES,
        _INTEGERS,
        flags={"PACKED": 1},
    ),
    Program(
        f"{CODE}_segments:local_states",
        dict.fromkeys(("x", "delta", "b"), "data")
        | dict.fromkeys(("rates", "final", "decays"), "fp32")
        | {"starts": "i64"},
        _INTEGERS,
        flags={"PACKED": 1},
    ),
    Program(
        f"{CODE}_segments:local_gradients",
        dict.fromkeys(("delta", "c", "dy"), "data")
        | dict.fromkeys(("rates", "dstate", "decays"), "fp32")
        | {"starts": "i64"},
        _INTEGERS,
        flags={"PACKED": 1},
    ),
)


def tile_for(program: Program, dtype: str, size: int, architecture: int) -> Tile:
    """How `size` states N and some channels lie across 128 threads, and 32 numbers of a tile in each.

    The forward pass sums over states, so a thread has four; the backward pass sums over channels too.
    """
    if program is CARRY:
        return Tile({"BC": BLOCK}, products=False)
    states, forward = power_of_two(size), program.name != "backward"
    own = max(min(4 if forward else 2, states), states // 8 if forward else states // 32)
    channels = 1 if forward else 2
    shape = {"RN": own, "RD": channels, "LN": states // own, "LD": THREADS * own // states}
    fewer = dtype == "float32" if forward else architecture == 80  # a spill otherwise
    numbers = NUMBERS // 2 if fewer else NUMBERS
    steps = max(1, min(STEPS, numbers // (own * channels)))
    constants = {"N": size, "KEEP": STEPS, "S": steps, **shape}
    constants["EXACT"] = int(dtype == "float32" or not forward)
    return Tile(constants, THREADS // 32, products=False)


KERNEL = Kernel(
    name="selective-scan",
    title="Selective scan of S6, the states of a tile of channels in registers",
    admits="Λ is e^{ΔA} per channel and state, A constant; writes Δ b x, reads shared by channels",
    form="scan",
    programs=(*PROGRAMS, CARRY),
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

    def launch(self, place: int, *pointers: Tensor | None) -> None:
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
        dtype, architecture = target_of(self.x)
        return tile_for(PROGRAMS[place], dtype, self.A.shape[1], architecture)

    def parts(self, place: int) -> int:
        """Tiles of channels in a group."""
        constants = self.tile(place).constants
        channels = int(constants["RD"]) * int(constants["LD"])
        return -(-(self.x.shape[-1] // self.b.shape[2]) // channels)

    def cut(self, place: int, steps: int | None) -> Segments | None:
        """Segments of so many steps, or as many as fill the device; None for one walk."""
        return segments_of(self.packing, self.x, self.parts(place) * self.b.shape[2], steps)

    def over(self, segments: Segments) -> Self:
        """The same tokens as segments, each with its own initial state."""
        count = segments.packing.sequences
        states, decays = self.state.new_empty(2, count, *self.state.shape[1:])
        cut = replace(self, packing=segments.packing, state=states)
        cut.launch(2, self.x, self.delta, self.A, self.b, states, decays)
        carry(segments, states, decays, self.state)
        return cut

    def over_gradients(self, segments: Segments, dy: Tensor, dfinal: Tensor) -> tuple[Self, Tensor]:
        """The same tokens as segments, and the gradient of the last state of each."""
        count = segments.packing.sequences
        last, decays = dfinal.new_empty(2, count, *dfinal.shape[1:])
        cut = replace(self, packing=segments.packing)
        cut.launch(3, self.delta, self.A, self.c, dy, last, decays)
        carry(segments, last, decays, dfinal, reverse=True)
        return cut, last


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


def forward(q: Quantities, *, steps: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (B, T, D) in the type of x; the last states and the kept ones, in float32.

    `steps`, a multiple of 16, cuts time in segments of so many, whatever the device.
    """
    segments = q.cut(0, steps)
    walks = q if segments is None else q.over(segments)
    y, final, kept = torch.empty_like(q.x), torch.empty_like(walks.state), room(q.x, q.state)
    given = (q.x, q.delta, q.A, q.b, q.c, q.skip, walks.state)
    walks.launch(0, *given, y, final, kept, owners_of(segments))
    return y, final if segments is None else segments.last(final), kept


def backward(
    q: Quantities, kept: Tensor, dy: Tensor, dfinal: Tensor, *, steps: int | None = None
) -> tuple[Tensor, ...]:
    """Gradients of x, Δ, A, b, c, the initial states and D; sums over tiles of channels in float32."""
    dy, dfinal = dy.to(q.x.dtype).contiguous(), dfinal.float().contiguous()
    segments, walks, last = q.cut(1, steps), q, dfinal
    if segments is not None:
        walks, last = q.over_gradients(segments, dy, dfinal)
    dx, ddelta = torch.empty_like(q.x), torch.empty_like(q.x)
    dA, dstate = torch.empty_like(last), torch.empty_like(last)
    batch, length, groups, size = q.b.shape
    new = q.state.new_empty
    db, dc = (new(batch, length, q.parts(1), groups, size) for _ in range(2))
    dskip = new(last.shape[:2])
    given = (q.x, q.delta, q.A, q.b, q.c, q.skip, kept, dy, last)
    walks.launch(1, *given, dx, ddelta, dA, db, dc, dskip, dstate, owners_of(segments))
    dstate = dstate if segments is None else segments.first(dstate)
    db, dc = (each.sum(2).to(q.x.dtype) for each in (db, dc))
    return dx, ddelta, dA.sum(0), db, dc, dstate, dskip.sum(0)
