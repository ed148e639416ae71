r"""Scalar decay in chunks: h_i = e^{g_i} h_{i-1} + k_i v_iᵀ, y_i = s h_iᵀ q_i, forward and backward on a GPU.

The programs are in `triton_code.chunk_decay.py`; here are their contract and their launches. Linear attention, RetNet,
Lightning attention, SSD and the stabilised mLSTM are of this form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dsf.kernels.contract import Kernel, Program, Tile
from dsf.kernels.limits import blocks, nearest
from dsf.kernels.shapes import Packing, checked_decay, shared
from dsf.registry import resolve

from .gates import of_gates
from .segments import BLOCK, CARRY, Segments, multiprocessors_of, steps_of_segment

CODE = "dsf.kernels.triton_code.chunk_decay"
_DATA = {"q": "data", "k": "data", "v": "data", "g": "fp32", "state": "fp32", "starts": "i64"}
_RESULTS = {"o": "data", "final": "fp32", "decays": "fp32"}
_BACKWARD = {"do": "data"} | dict.fromkeys(("dfinal", "dq", "dk", "dv", "dstate"), "fp32")


def _program(name: str, pointers: str, *heads: str, left_out: str = "") -> Program:
    """A program by the names of its pointers, and of those that share heads."""
    kinds = _DATA | _RESULTS | _BACKWARD | dict.fromkeys(left_out.split(), "none")
    own = {each: kinds[each] for each in f"{pointers} {left_out} starts".split()}
    counts = ("length", "heads", *(f"{each}_heads" for each in heads))
    scale = () if name == "local_states" else ("scale",)
    return Program(f"{CODE}:{name}", own, counts, scale, {"PACKED": 1, "UPCAST": 0})


_ALL = (
    _program("forward", "q k v g state o final", "q", "k", "v", left_out="decays"),
    _program("backward_of_reads", "k v g state do dq", "k", "v"),
    _program("backward_of_writes", "q k v g do dfinal dk dv dstate", "q", "k", "v"),
    _program("local_states", "k v g final decays", "k", "v"),
    _program("local_gradients", "q g do dstate", "q"),
)
PROGRAMS = {program.name: program for program in _ALL}

# Which tile a program has: what adds up states alone has that of the program which it leaves things out of.
_PLACES = dict(zip(PROGRAMS, (0, 1, 2, 0, 2), strict=True))

# (steps, values, warps) of each program, by architecture and tile of keys: the largest without a spill
# (`dsf kernels report` shows what they use). Exact products where three of TF32 spill.
_HALF = {
    80: {64: ((64, 32, 4), (64, 32, 4), (32, 32, 4)), 128: ((32, 32, 4), (64, 32, 8), (32, 16, 8))},
    90: {64: ((64, 64, 8), (64, 64, 8), (32, 32, 4)), 128: ((64, 64, 8), (64, 64, 8), (32, 16, 4))},
    100: {
        64: ((64, 64, 8), (64, 64, 8), (64, 64, 8)),
        128: ((64, 64, 8), (64, 64, 8), (16, 16, 4)),
    },
}
_WIDE = {
    80: ((32, 16, 8), (16, 32, 8), (32, 16, 8)),
    90: ((16, 32, 8), (32, 32, 8), (16, 32, 8)),
    100: ((32, 16, 8), (32, 32, 8), (16, 32, 8)),
}
_EXACT = {(80, 2)}
# Where strides do not divide by 16, addresses take more registers: smaller tiles than those of `_HALF`, and on
# sm_100 tiles of 64 keys at most.
_UNALIGNED = {
    (80, 64): ((64, 32, 4), (64, 32, 4), (32, 16, 4)),
    (80, 128): ((32, 32, 8), (32, 32, 8), (32, 16, 8)),
    (90, 128): ((32, 64, 8), (32, 64, 8), (16, 16, 8)),
}


def tile_for(
    program: Program, dtype: str, keys: int, architecture: int, values: int | None = None
) -> Tile:
    """The tile of a program for these head sizes; as many values as keys where they are not given."""
    values = values or keys
    if program is CARRY:
        return Tile({"SIZE": keys * values, "BC": BLOCK}, products=False)
    place, wide = _PLACES[program.name], dtype == "float32"
    aligned = not (keys % 16 or values % 16)
    of_keys = min(_power(keys), 64 if wide or (architecture == 100 and not aligned) else 128)
    if wide:
        chunk, of_values, warps = _WIDE[architecture][place]
    else:
        row = 64 if of_keys <= 64 else 128
        tiles_of_all = _HALF[architecture][row]
        if not aligned:
            tiles_of_all = _UNALIGNED.get((architecture, row), tiles_of_all)
        chunk, of_values, warps = tiles_of_all[place]
    exact = wide and (architecture, place) in _EXACT
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
    programs=(*_ALL, CARRY),
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

    def launch(self, name: str, upcast: bool, **results: Tensor | None) -> None:
        """Run a program over tiles of the state, heads and sequences; its other arguments are named."""
        tile = self.tile(name)
        grid = blocks(tiles(self.v, tile), self.heads, self.packing.sequences)
        if 0 in grid:
            return
        program = resolve(PROGRAMS[name].function)
        tokens = {"q": self.q, "k": self.k, "v": self.v}
        given = {
            **tokens,
            **{f"{each}_heads": x.shape[2] for each, x in tokens.items()},
            **{"g": self.g, "state": self.state, "scale": self.scale, "heads": self.heads},
            **{"starts": self.packing.starts, "length": self.packing.length},
            **results,
        }
        program[grid](
            **{each: given[each] for each in program.arg_names if each in given},
            PACKED=self.packing.starts is not None,
            UPCAST=upcast,
            num_warps=tile.warps,
            num_stages=tile.stages,
            **tile.constants,
        )

    def tile(self, name: str) -> Tile:
        """The tile of a program on this device; the H100's where there is none (interpreted)."""
        architecture = 90
        if self.v.is_cuda:
            architecture = nearest(torch.cuda.get_device_capability(self.v.device))
        dtype = str(self.v.dtype).removeprefix("torch.")
        return tile_for(PROGRAMS[name], dtype, self.q.shape[-1], architecture, self.v.shape[-1])

    def cut(self, name: str, steps: int | None) -> Segments | None:
        """Segments of so many steps, or as `steps_of_segment` has them for a program; None for one walk."""
        longest, device = self.packing.longest, self.v.device
        if steps is None:
            full = -(-self.v.shape[0] * self.v.shape[1] // max(1, longest))
            walks = full * self.heads * tiles(self.v, self.tile(name))
            steps = steps_of_segment(walks, longest, multiprocessors_of(device))
        return Segments.of(self.packing, steps, device) if steps < longest else None

    def over(self, segments: Segments, upcast: bool) -> tuple[Quantities, Tensor]:
        """The same tokens as segments, each with its own initial state; and the segments' decays."""
        count = segments.packing.sequences
        states = self.state.new_empty(count, *self.state.shape[1:])
        decays = self.g.new_empty(count, self.heads)
        cut = replace(self, packing=segments.packing, state=states)
        cut.launch("local_states", upcast, final=states, decays=decays)
        segments.carry(states, decays, self.state)
        return cut, decays


def parts(v: Tensor, tile: Tile) -> int:
    """How many tiles the value channels make."""
    return -(-v.shape[-1] // int(tile.constants["BV"]))


def tiles(v: Tensor, tile: Tile) -> int:
    """How many tiles a state makes."""
    return int(tile.constants["KT"]) * parts(v, tile)


def forward(
    x: Quantities, *, upcast: bool = False, steps: int | None = None
) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, V) in the type of v, and the final states (N, H, K, V) in float32.

    `steps` cuts time in segments of so many, whatever the device.
    """
    segments = x.cut("forward", steps)
    walks = x if segments is None else x.over(segments, upcast)[0]
    pieces, values = int(x.tile("forward").constants["KT"]), x.v.shape[-1]
    lead = (*x.v.shape[:2], x.heads)
    dtype = x.v.dtype if pieces == 1 else torch.float32
    o = x.v.new_empty(*lead, pieces, values, dtype=dtype)
    final = torch.empty_like(walks.state)
    walks.launch("forward", upcast, o=o, final=final, decays=None)
    final = final if segments is None else segments.last(final)
    return (o[..., 0, :] if pieces == 1 else o.sum(3).to(x.v.dtype)), final


def backward(
    x: Quantities,
    do: Tensor,
    dfinal: Tensor,
    final: Tensor,
    *,
    upcast: bool = False,
    steps: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, g and the initial state, for those of the outputs and final states.

    Parts over tiles of the state, and those of heads that share q, k or v, are summed in float32.
    """
    do, dfinal = do.to(x.v.dtype).contiguous(), dfinal.float().contiguous()
    lead, (keys, values) = (*x.q.shape[:2], x.heads), (x.q.shape[-1], x.v.shape[-1])
    reads, writes = x.tile("backward_of_reads"), x.tile("backward_of_writes")
    new = x.g.new_empty
    dq, dk = new(*lead, parts(x.v, reads), keys), new(*lead, parts(x.v, writes), keys)
    dv = new(*lead, int(writes.constants["KT"]), values)
    walks, last, segments = x, dfinal, x.cut("backward_of_writes", steps)
    if segments is not None:
        walks, decays = x.over(segments, upcast)
        last = torch.empty_like(walks.state)
        walks.launch("local_gradients", upcast, do=do, dstate=last)
        segments.carry(last, decays, dfinal, reverse=True)
    dstate = torch.empty_like(walks.state)
    walks.launch("backward_of_reads", upcast, do=do, dq=dq)
    walks.launch("backward_of_writes", upcast, do=do, dfinal=last, dk=dk, dv=dv, dstate=dstate)
    dstate = dstate if segments is None else segments.first(dstate)
    dq, dk, dv = dq.sum(3), dk.sum(3), dv.sum(3)
    inner = (dfinal.double() * final.double()).sum((-1, -2))
    dg = of_gates(x.q, x.k, dq, dk, x.g, inner, x.packing)
    return shared(dq, x.q), shared(dk, x.k), shared(dv, x.v), dg, dstate
