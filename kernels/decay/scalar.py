r"""Scalar decay in chunks: h_i = e^{g_i} h_{i-1} + k_i v_iᵀ, y_i = s h_iᵀ q_i, forward and backward on a GPU.

The programs are in `triton_code.chunk_decay.py`; here are their contract and their launches. Linear attention, RetNet,
Lightning attention, SSD and the stabilised mLSTM are of this form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsf.kernels.contract import Kernel, Program, Tile
from dsf.kernels.limits import nearest
from dsf.kernels.shapes import Packing, checked_decay, shared
from dsf.registry import resolve

from .gates import of_gates

CODE = "dsf.kernels.triton_code.chunk_decay"
_DATA = {"q": "data", "k": "data", "v": "data", "g": "fp32", "state": "fp32", "starts": "i64"}
_HEADS = ("heads", "q_heads", "k_heads", "v_heads")
_FLAGS = {"PACKED": 1, "UPCAST": 0}

PROGRAMS = (
    Program(
        f"{CODE}:forward",
        _DATA | {"o": "data", "final": "fp32"},
        ("length", *_HEADS),
        ("scale",),
        _FLAGS,
    ),
    Program(
        f"{CODE}:backward_of_reads",
        {name: kind for name, kind in _DATA.items() if name != "q"} | {"do": "data", "dq": "fp32"},
        ("length", "heads", "k_heads", "v_heads"),
        ("scale",),
        _FLAGS,
    ),
    Program(
        f"{CODE}:backward_of_writes",
        {name: kind for name, kind in _DATA.items() if name != "state"}
        | {"do": "data", "dfinal": "fp32", "dk": "fp32", "dv": "fp32", "dstate": "fp32"},
        ("length", *_HEADS),
        ("scale",),
        _FLAGS,
    ),
)


_NAMES = ("forward", "backward_of_reads", "backward_of_writes")

# (steps, values, warps) of each program, by architecture and tile of keys: the largest without a spill
# (`dsf kernels report` shows what they use). Exact products where three of TF32 spill.
_HALF = {
    80: {64: ((64, 32, 4), (64, 32, 4), (32, 32, 4)), 128: ((32, 32, 4), (64, 32, 8), (32, 32, 8))},
    90: {64: ((64, 64, 8), (64, 64, 8), (32, 32, 4)), 128: ((64, 64, 8), (64, 64, 8), (32, 16, 4))},
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
    of_keys = min(_power(keys), 64 if wide else 128)
    if wide:
        chunk, of_values, warps = _WIDE[architecture][place]
    else:
        chunk, of_values, warps = _HALF[architecture][64 if of_keys <= 64 else 128][place]
    exact = wide and (architecture, program.name) in _EXACT
    constants = {
        "K": keys,
        "V": values,
        "C": chunk,
        "BK": of_keys,
        "BV": min(_power(values), of_values),
        "KT": -(-keys // of_keys) or 1,
        "PRECISION": "tf32x3" if wide and not exact else "ieee",
    }
    return Tile(constants, warps, products=not exact)


def _power(size: int) -> int:
    """The next power of two, 16 at least: no matrix instruction is smaller."""
    return max(16, 1 << (size - 1).bit_length()) if size else 16


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
class Quantities:
    """q (B, T, Hq, K), k (B, T, Hk, K), v (B, T, Hv, V), g (B, T, H) and a state (N, H, K, V), checked.

    H is divisible by the others; head h reads q, k, v of head h·Hq/H, h·Hk/H, h·Hv/H. `packing` says where
    N sequences lie in one row of tokens.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    state: Tensor
    scale: float
    packing: Packing

    @classmethod
    def of(
        cls,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        state: Tensor | None,
        scale: float,
        starts: Tensor | None,
    ) -> Quantities:
        """Checked, contiguous, gates and state in float32; raises `InvalidInput`."""
        packing = Packing.of(q, starts)
        state = checked_decay(q, k, v, g, state, packing.sequences)
        return cls(
            q.contiguous(),
            k.contiguous(),
            v.contiguous(),
            g.float().contiguous(),
            state.float().contiguous(),
            scale,
            packing,
        )

    @property
    def heads(self) -> int:
        return self.g.shape[2]

    def launch(self, place: int, tile: Tile, upcast: bool, *pointers: Tensor) -> None:
        """Run a program over (tiles of the state, sequences · heads)."""
        program = resolve(PROGRAMS[place].function)
        present = {"q": self.q, "k": self.k, "v": self.v}
        counts = [x.shape[2] for n, x in present.items() if f"{n}_heads" in program.arg_names]
        grid = (
            int(tile.constants["KT"]) * parts(self.v, tile),
            self.packing.sequences * self.heads,
        )
        if 0 in grid:
            return
        program[grid](
            *pointers,
            self.packing.starts,
            self.packing.length,
            self.heads,
            *counts,
            self.scale,
            PACKED=self.packing.starts is not None,
            UPCAST=upcast,
            num_warps=tile.warps,
            num_stages=tile.stages,
            **tile.constants,
        )

    def tile(self, place: int) -> Tile:
        """The tile of a program on this device; the H100's where there is none (interpreted)."""
        architecture = 90
        if self.v.is_cuda:
            architecture = nearest(torch.cuda.get_device_capability(self.v.device))
        dtype = str(self.v.dtype).removeprefix("torch.")
        return tile_for(PROGRAMS[place], dtype, self.q.shape[-1], architecture, self.v.shape[-1])


def parts(v: Tensor, tile: Tile) -> int:
    """How many tiles the value channels make."""
    return -(-v.shape[-1] // int(tile.constants["BV"]))


def forward(x: Quantities, *, upcast: bool = False) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, V) in the type of v, and the final states (N, H, K, V) in float32."""
    tile = x.tile(0)
    pieces, values = int(tile.constants["KT"]), x.v.shape[-1]
    lead = (*x.v.shape[:2], x.heads)
    dtype = x.v.dtype if pieces == 1 else torch.float32
    o = x.v.new_empty(*lead, pieces, values, dtype=dtype)
    final = torch.empty_like(x.state)
    x.launch(0, tile, upcast, x.q, x.k, x.v, x.g, x.state, o, final)
    return (o[..., 0, :] if pieces == 1 else o.sum(3).to(x.v.dtype)), final


def backward(
    x: Quantities, do: Tensor, dfinal: Tensor, final: Tensor, *, upcast: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, g and the initial state, for those of the outputs and final states.

    Parts over tiles of the state, and those of heads that share q, k or v, are summed in float32.
    """
    do, dfinal = do.to(x.v.dtype).contiguous(), dfinal.float().contiguous()
    lead, (keys, values) = (*x.q.shape[:2], x.heads), (x.q.shape[-1], x.v.shape[-1])
    reads, writes = x.tile(1), x.tile(2)
    new = x.g.new_empty
    dq, dk = new(*lead, parts(x.v, reads), keys), new(*lead, parts(x.v, writes), keys)
    dv, dstate = new(*lead, int(writes.constants["KT"]), values), torch.empty_like(x.state)
    x.launch(1, reads, upcast, x.k, x.v, x.g, x.state, do, dq)
    x.launch(2, writes, upcast, x.q, x.k, x.v, x.g, do, dfinal, dk, dv, dstate)
    dq, dk, dv = dq.sum(3), dk.sum(3), dv.sum(3)
    inner = (dfinal.double() * final.double()).sum((-1, -2))
    dg = of_gates(x.q, x.k, dq, dk, x.g, inner, x.packing)
    return shared(dq, x.q), shared(dk, x.k), shared(dv, x.v), dg, dstate
