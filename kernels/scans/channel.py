r"""The scan of a first-order gate: h_t = a_t h_{t-1} + b_t per channel, real or complex, forward and backward on a GPU.

The programs are in `triton_code/channel_scan.py`; here are their contract and their launches. minGRU, RG-LRU,
HGRN, S5 and LRU are of this form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.errors import InvalidInput
from dsf.kernels.contract import Kernel, Program, Tile
from dsf.kernels.limits import blocks, target_of
from dsf.kernels.shapes import Packing, plain
from dsf.registry import resolve

CODE = "dsf.kernels.triton_code.channel_scan"
STEPS = 64  # of a tile; half as many where numbers are complex
_SHARED = {"state": "fp32", "starts": "i64"}
_FORWARD = _SHARED | {"a": "data", "b": "data", "h": "fp32", "final": "fp32"}
_BACKWARD = _SHARED | {
    **{"a": "data", "h": "fp32", "dh": "fp32", "dfinal": "fp32"},
    **{"da": "fp32", "db": "fp32", "dstate": "fp32"},
}


def _program(name: str, pointers: dict[str, str]) -> Program:
    whole = name.endswith("complex")
    kinds = {k: "fp32" if whole and kind == "data" else kind for k, kind in pointers.items()}
    return Program(f"{CODE}:{name}", kinds, ("length", "size"), flags={"PACKED": 1})


PROGRAMS = {
    name: _program(name, _FORWARD if name.startswith("forward") else _BACKWARD)
    for name in ("forward", "backward", "forward_complex", "backward_complex")
}


def tile_for(program: Program, dtype: str, size: int, architecture: int) -> Tile:
    """Tiles of steps × channels; a complex scan carries twice as much."""
    whole = program.name.endswith("complex")
    constants = {"S": STEPS // 2 if whole else STEPS, "BC": 16 if whole else 32}
    fewer = architecture == 100 and program.name == "backward_complex"  # four warps spill there
    return Tile(constants, 2 if fewer else 4, products=False)


KERNEL = Kernel(
    name="gated-scan",
    title="Scan of a first-order gate, channels last",
    admits="Λ is a gate, real or complex, of any sign; vector states",
    form="scan",
    programs=tuple(PROGRAMS.values()),
    tile=tile_for,
    sizes=(64,),
    source="Martin and Cundy 2018 (arXiv 1709.04057), parallel linear recurrences",
)


@dataclass(frozen=True, eq=False)
class Quantities:
    """a, b (B, T, D) and a state (N, D), real or complex64, checked; state in float32 or complex64."""

    a: Tensor
    b: Tensor
    state: Tensor
    packing: Packing

    @classmethod
    def of(cls, a: Tensor, b: Tensor, state: Tensor | None, starts: Tensor | None) -> Quantities:
        """Checked and contiguous; raises `InvalidInput`."""
        packing = Packing.of(a, starts, axes=3)
        state = checked_gate(a, b, state, packing.sequences)
        wide = torch.complex64 if a.is_complex() else torch.float32
        return cls(plain(a), plain(b), plain(state.to(wide)), packing)

    def launch(self, name: str, *tensors: Tensor) -> None:
        """Run a program over (tiles of channels, sequences)."""
        program = PROGRAMS[f"{name}_complex" if self.a.is_complex() else name]
        size = self.a.shape[-1]
        tile = tile_for(program, "float32", size, target_of(self.a)[1])
        grid = blocks(-(-size // int(tile.constants["BC"])), 1, self.packing.sequences)
        if 0 in grid:
            return
        flat = [torch.view_as_real(x) if x.is_complex() else x for x in tensors]
        resolve(program.function)[grid](
            *flat,
            self.packing.starts,
            self.packing.length,
            size,
            PACKED=self.packing.starts is not None,
            num_warps=tile.warps,
            num_stages=tile.stages,
            **tile.constants,
        )


def checked_gate(a: Tensor, b: Tensor, state: Tensor | None, sequences: int) -> Tensor:
    """The initial state, zero where it is not given, once all shapes fit; raises `InvalidInput`."""
    if a.shape != b.shape:
        raise InvalidInput(f"`a` and `b` must be (B, T, D); got {tuple(a.shape)}, {tuple(b.shape)}")
    shape = (sequences, a.shape[-1])
    if state is None:
        return torch.zeros(shape, dtype=a.dtype, device=a.device)
    if state.shape != shape:
        raise InvalidInput(f"the state must be {shape}: (N, D); got {tuple(state.shape)}")
    if state.is_complex() and not a.is_complex():
        raise InvalidInput(
            f"the state is {state.dtype}, but `a` and `b` are {a.dtype}: make them complex"
        )
    return state


def forward(x: Quantities) -> tuple[Tensor, Tensor]:
    """All states (B, T, D) and the last ones (N, D), in float32 or complex64."""
    h, final = (
        torch.empty(x.a.shape, dtype=x.state.dtype, device=x.a.device),
        torch.empty_like(x.state),
    )
    x.launch("forward", x.a, x.b, x.state, h, final)
    return h, final


def backward(x: Quantities, h: Tensor, dh: Tensor, dfinal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a, b and the initial states, from the states and the gradients of all results."""
    wide = x.state.dtype
    da, db = torch.empty_like(h), torch.empty_like(h)
    dstate = torch.empty_like(x.state)
    dh, dfinal = plain(dh.to(wide)), plain(dfinal.to(wide))
    x.launch("backward", x.a, h, x.state, dh, dfinal, da, db, dstate)
    return da.to(x.a.dtype), db.to(x.b.dtype), dstate
