r"""Scalar decay in chunks: h_i = e^{g_i} h_{i-1} + k_i v_iᵀ, y_i = s h_iᵀ q_i, forward and backward on a GPU.

The programs are in `triton_code.chunk_decay.py`; here are their contract and their launches. Linear attention, RetNet,
Lightning attention, SSD and the stabilised mLSTM are of this form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dsf.kernels.contract import Kernel, Program, Tile
from dsf.kernels.shapes import shared

from .chunks import Chunked, gradients, programs_of, tile_of
from .chunks import forward as forward
from .gates import of_gates

PROGRAMS = programs_of("dsf.kernels.triton_code.chunk_decay")
_NAMES = tuple(program.name for program in PROGRAMS)

# (steps, values, warps) of each program, by architecture and tile of keys: the largest without a spill
# (`dsf kernels report` shows what they use). Exact products where three of TF32 spill.
_HALF = {
    80: {64: ((64, 32, 4), (64, 32, 4), (32, 32, 4)), 128: ((32, 32, 4), (32, 32, 8), (16, 32, 8))},
    90: {64: ((64, 64, 8), (64, 64, 8), (32, 32, 4)), 128: ((64, 64, 8), (64, 64, 8), (16, 16, 4))},
    100: {
        64: ((64, 64, 8), (64, 64, 8), (64, 64, 8)),
        128: ((64, 64, 8), (64, 64, 8), (16, 16, 4)),
    },
}
_WIDE = {
    80: ((32, 16, 8), (16, 32, 8), (16, 16, 8)),
    90: ((16, 32, 8), (32, 32, 8), (16, 32, 8)),
    100: ((32, 16, 8), (32, 32, 8), (16, 32, 8)),
}
_EXACT = {(80, "backward_of_writes")}


def tile_for(
    program: Program, dtype: str, keys: int, architecture: int, values: int | None = None
) -> Tile:
    """The tile of a program for these head sizes; as many values as keys where they are not given."""
    values, place, wide = values or keys, _NAMES.index(program.name), dtype == "float32"
    of_keys = 64 if wide or keys <= 64 else 128
    chosen = _WIDE[architecture][place] if wide else _HALF[architecture][of_keys][place]
    exact = wide and (architecture, program.name) in _EXACT
    return tile_of(keys, values, of_keys, chosen, wide, exact)


KERNEL = Kernel(
    name="scalar-decay",
    title="Chunks of scalar decay, the state in registers",
    admits="Λ is Identity or Scalar, real and not negative; read after the update",
    form="chunkwise",
    programs=PROGRAMS,
    tile=tile_for,
    source="Yang et al. 2023 (arXiv 2312.06635), chunkwise form; Qin et al. 2024 (arXiv 2401.04658)",
)


@dataclass(frozen=True, eq=False)
class Quantities(Chunked):
    """The quantities of a run, with g (B, T, H)."""

    programs: ClassVar[tuple[Program, Program, Program]] = PROGRAMS
    choose = staticmethod(tile_for)


def backward(
    x: Quantities, do: Tensor, dfinal: Tensor, final: Tensor, *, upcast: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, g and the initial state, for those of the outputs and final states.

    Those of heads that share q, k or v are summed in float32.
    """
    do, dfinal = do.to(x.v.dtype).contiguous(), dfinal.float().contiguous()
    dq, dk, dv, dstate = gradients(x, do, dfinal, upcast=upcast)
    inner = (dfinal.double() * final.double()).sum((-1, -2))
    dg = of_gates(x.q, x.k, dq, dk, x.g, inner, x.packing)
    return shared(dq, x.q), shared(dk, x.k), shared(dv, x.v), dg, dstate
