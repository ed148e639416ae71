r"""Launches of the delta family, forward and backward: r_i = v_i - b_iᵀ h, h ← D h + β_i k_i r_iᵀ, y = s hᵀ q."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dsf.kernels.contract import Program, Tile
from dsf.kernels.limits import target_of
from dsf.registry import resolve

from .contract import NAMES, NEAR, ONE_ROW, PROGRAMS, tile_for
from .gathered import gathered, room
from .quantities import Quantities


def program_of(x: Quantities, name: str) -> tuple[Program, Tile]:
    """A program and its tile on this device; the H100's where there is none (interpreted)."""
    program = PROGRAMS[NAMES.index(name) + (len(NAMES) if x.keyed else 0)]
    if name == "gradients" and x.keyed and x.rows == 1:
        program = ONE_ROW
    dtype, architecture = target_of(x.v)
    return program, tile_for(program, dtype, x.q.shape[-1], architecture, x.v.shape[-1])


def launch(x: Quantities, name: str, grid: tuple[int, int], given: Mapping[str, Any]) -> None:
    """Run a program with what it asks for of these quantities and of what is given besides."""
    if 0 in grid:
        return
    program, tile = program_of(x, name)
    function = resolve(program.function)
    known = {
        "starts": x.packing.starts,
        "length": x.packing.length,
        "heads": x.heads,
        "N": x.rows,
        "KEYED": x.keyed,
        "TOGETHER": x.together,
        "PACKED": x.packing.starts is not None,
        "scale": x.scale,
        **{f"{stream}_heads": getattr(x, stream).shape[2] for stream in "qkbv"},
        **{each: getattr(x, each) for each in ("q", "k", "b", "v", "beta", "g", "state")},
        **tile.constants,
        **given,
    }
    asked = {each: known[each] for each in function.arg_names}
    function[grid](**asked, num_warps=tile.warps, num_stages=tile.stages)


@dataclass(frozen=True, eq=False)
class Solved:
    """What `prepare` makes: x as the walks take it, and tables (slots, H, C, C)."""

    x: Quantities
    given: dict[str, Any]
    slots: int
    owners: Tensor | None


def _solved(x: Quantities, upcast: bool) -> Solved:
    """(I + L)⁻¹ and P of every chunk, in the slots of `Packing.slots`."""
    tile = program_of(x, "prepare")[1]
    chunk = int(tile.constants["C"])
    each = chunk // x.rows
    slots, owners = x.packing.slots(each), x.packing.owners(each)
    dtype = torch.float32 if upcast else x.v.dtype
    new = x.v.new_empty
    table = (slots, x.heads, chunk, chunk)
    given = {
        "inverse": new(table, dtype=dtype),
        "reads": new(table, dtype=dtype),
        "UPCAST": upcast,
    }
    near: dict[str, Tensor | None] = dict.fromkeys(NEAR)
    walked = x
    if x.keyed:
        keys, whole = x.q.shape[-1], new(slots, x.heads, x.q.shape[-1], dtype=torch.float32)
        q, b, k = (new(*y.shape[:2], x.heads, keys, dtype=dtype) for y in (x.q, x.b, x.k))
        near = dict(zip(NEAR, (q, b, k, whole), strict=True))
        walked = replace(x, q=q, b=b, k=k, g=whole[None])
    launch(x, "prepare", (slots, x.heads), given | near | {"owners": owners})
    return Solved(walked, given, slots, owners)


def _tiles(x: Quantities, name: str, axis: str) -> int:
    """How many tiles a program makes of the keys ("KT") or of the values ("VT")."""
    return int(program_of(x, name)[1].constants[axis])


def forward(x: Quantities, *, upcast: bool = False) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, V) in the type of v, and the final states (N, H, K, V) in float32."""
    solved = _solved(x, upcast)
    before, rests, final = _kept(solved)
    o = x.v.new_empty(*x.q.shape[:2], x.heads, x.v.shape[-1])
    own = {"before": before, "rests": rests, "o": o, "owners": solved.owners}
    grid = (solved.slots, x.heads * _tiles(x, "outputs", "VT"))
    launch(solved.x, "outputs", grid, solved.given | own)
    return o, final


def residuals(x: Quantities, *, upcast: bool = False) -> tuple[Tensor, Tensor]:
    """The states before each chunk (slots, H, K, V), in the type of v, and r of every row (B, T n, H, V)."""
    return _kept(_solved(x, upcast))[:2]


def _kept(solved: Solved) -> tuple[Tensor, Tensor, Tensor]:
    """The states before each chunk, r of every row, and the final states."""
    x = solved.x
    rests = x.state.new_empty(*x.v.shape[:2], x.heads, x.v.shape[-1])
    final = torch.empty_like(x.state)
    before = rests.new_empty(solved.slots, *x.state.shape[1:], dtype=solved.given["reads"].dtype)
    own = {"kept": before, "rests": rests, "final": final}
    grid = (x.packing.sequences * x.heads, _tiles(x, "walk", "VT"))
    launch(x, "walk", grid, solved.given | own)
    return before, rests, final


def backward(
    x: Quantities, do: Tensor, dfinal: Tensor, *, upcast: bool = False
) -> tuple[Tensor, ...]:
    """Gradients of q, k, b, v, β, g and the initial state, for those of the outputs and final states."""
    solved = _solved(x, upcast)
    do, dfinal = do.to(x.v.dtype).contiguous(), dfinal.float().contiguous()
    before, rests, _ = _kept(solved)
    found = room(x, tiles=_tiles(x, "gradients", "KT"), upcast=upcast)
    after, dstate = torch.empty_like(before), torch.empty_like(x.state)
    walks = x.packing.sequences * x.heads
    own = {"kept": after, "do": do, "dfinal": dfinal, "dv": found["dv"], "dstate": dstate}
    launch(solved.x, "walk_back", (walks, _tiles(x, "walk_back", "VT")), solved.given | own)
    own = {"before": before, "after": after, "rests": rests, "do": do}
    own |= {"owners": solved.owners, "UPCAST": upcast}
    grid = (solved.slots, x.heads * _tiles(x, "gradients", "KT"))
    launch(x, "gradients", grid, own | found)
    return *gathered(x, found), dstate
