r"""Scalar decay in chunks: h_i = e^{g_i} h_{i-1} + k_i v_iᵀ, y_i = s h_iᵀ q_i, forward and backward on a GPU.

The programs are in `triton_code/chunk_decay.py` and `triton_code/decay_gates.py`; here are their contract and what is
walked. Linear attention, RetNet, Lightning attention, SSD and the stabilised mLSTM are of this form.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from dsf.kernels.contract import Kernel, Program, Tile
from dsf.kernels.limits import target_of
from dsf.kernels.shapes import shared

from . import walks
from .chunks import tile_of
from .segments import BLOCK as CELLS
from .segments import CARRY, Segments, multiprocessors_of
from .walks import BLOCK, MARK, Places, Quantities, Walk, walk_of

CODE = "dsf.kernels.triton_code"
_NAMES = "reads writes values sums state out final decays own inner marks meets far"
_DATA = ("reads", "writes", "values", "own", "out", "marks")
_HEADS = ("heads", "read_heads", "write_heads", "value_heads", "own_heads")


def _walk(label: str, pointers: str, *, reverse: int = 0, across: int = 0) -> Program:
    """A walk by what it is given; what it is not is left out. It is compiled for each count of heads."""
    given = {name: "data" if name in _DATA else "fp32" for name in pointers.split()}
    kinds = {name: given.get(name, "none") for name in _NAMES.split()}
    flags = dict.fromkeys(_HEADS, 16) | {"BLOCK": BLOCK, "MARK": MARK}
    flags |= {"REVERSE": reverse, "ACROSS": across, "PACKED": 1, "UPCAST": 0}
    return Program(
        f"{CODE}.chunk_decay:walk",
        kinds | {"starts": "i64"},
        ("length", "rows"),
        ("scale",),
        flags,
        label,
    )


_TOKENS = "reads writes values sums"
FORWARD = _walk("forward", f"{_TOKENS} state out final")
OF_QUERIES = _walk("of queries", f"{_TOKENS} state out own inner marks", across=1)
OF_KEYS = _walk("of keys", f"{_TOKENS} state out own inner far", reverse=1, across=1)
OF_VALUES = _walk("of values", f"{_TOKENS} state out final marks meets", reverse=1)
STATES = _walk("states of segments", "writes values sums final decays")
GRADIENTS = _walk("gradients of segments", "writes values sums final", reverse=1)
SUMS = Program(
    f"{CODE}.decay_gates:sum_up",
    {"g": "fp32", "sums": "fp32", "starts": "i64", "owners": "i64"},
    ("length", "rows", "heads"),
    flags={"BLOCK": BLOCK, "PACKED": 1},
)
OF_GATES = Program(
    f"{CODE}.decay_gates:of_gates",
    dict.fromkeys(("g", "reads", "writes", "meets", "far", "dg"), "fp32")
    | {"starts": "i64", "owners": "i64"},
    ("length", "heads"),
    flags={"READ_PARTS": 2, "WRITE_PARTS": 2, "MEET_PARTS": 2, "MARK": MARK, "PACKED": 1},
)
WALKS = (FORWARD, OF_QUERIES, OF_KEYS, OF_VALUES, STATES, GRADIENTS)

# (keys, steps, values, warps, stages) of walks, by architecture and keys: without a spill
# (`dsf kernels report` shows what they use).
_HALF = {
    80: {64: (64, 64, 64, 8, 2), 128: (128, 64, 32, 8, 2), 256: (128, 64, 32, 8, 2)},
    90: {64: (64, 64, 64, 4, 2), 128: (128, 64, 64, 4, 2), 256: (256, 64, 32, 8, 2)},
    100: {64: (64, 64, 64, 4, 2), 128: (128, 64, 64, 8, 2), 256: (256, 64, 32, 8, 2)},
}
_WIDE = {80: (64, 16, 16, 8, 1), 90: (64, 16, 32, 8, 1), 100: (64, 16, 32, 8, 1)}
# Where rows of a head do not divide by 16, addresses take more registers.
_UNALIGNED = {(90, 128): (128, 64, 32, 8, 2)}
# The same by walk and type, as (label, architecture, keys, type).
_UNALIGNED_WALKS = {
    ("of keys", 80, 64, "float16"): (64, 64, 64, 8, 1),
    ("of keys", 80, 64, "bfloat16"): (64, 64, 64, 8, 1),
    ("forward", 80, 128, "float16"): (128, 64, 32, 8, 3),
    ("forward", 80, 128, "bfloat16"): (128, 64, 32, 8, 3),
    ("forward", 80, 256, "float16"): (128, 64, 32, 8, 3),
    ("forward", 80, 256, "bfloat16"): (128, 64, 32, 8, 3),
    ("of queries", 80, 128, "float16"): (128, 64, 32, 8, 3),
    ("of queries", 80, 256, "float16"): (128, 64, 32, 8, 3),
}
# Timed on an H100.
_TIMED = {
    **dict.fromkeys((("forward", 90, 64), ("of values", 90, 64)), (64, 64, 64, 4, 3)),
    **dict.fromkeys((("of queries", 90, 64), ("of keys", 90, 64)), (64, 64, 32, 4, 2)),
}
# More loads ahead leave no room for a second program on a multiprocessor: for where there is none.
_ALONE = {("forward", 90), ("of queries", 90), ("of values", 90)}


@cache
def tile_for(
    program: Program, dtype: str, keys: int, architecture: int, values: int | None = None
) -> Tile:
    """The tile of a program for these head sizes; as many values as keys where they are not given."""
    values = values or keys
    if program is CARRY:
        return Tile({"SIZE": keys * values, "BC": CELLS}, products=False)
    if program in (SUMS, OF_GATES):
        steps = {"BLOCK": BLOCK} if program is SUMS else {"MARK": MARK}
        return Tile(steps, 1, products=False)
    wide = dtype == "float32"
    size = next((size for size in (64, 128) if keys <= size), 256)
    usual = _WIDE[architecture] if wide else _HALF[architecture][size]
    chosen = usual if wide else _TIMED.get((program.label, architecture, size), usual)
    if not wide and (keys % 16 or values % 16):
        chosen = _UNALIGNED.get((architecture, size), chosen)
        chosen = _UNALIGNED_WALKS.get((program.label, architecture, size, dtype), chosen)
    of_keys, steps, of_values, warps, stages = chosen
    tile = tile_of(keys, values, of_keys, (steps, of_values, warps), wide)
    return replace(tile, stages=stages, constants={**tile.constants, "REST": int(wide)})


KERNEL = Kernel(
    name="scalar-decay",
    title="Chunks of scalar decay, the state in registers",
    admits="Λ is Identity or Scalar, real and not negative; read after the update",
    form="chunkwise",
    programs=(*WALKS, SUMS, OF_GATES, CARRY),
    tile=tile_for,
    source="Yang et al. 2023 (arXiv 2312.06635), chunkwise form; Qin et al. 2024 (arXiv 2401.04658)",
)


def forward(
    x: Quantities, *, upcast: bool = False, steps: int | None = None
) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, V) in the type of v, and the final states (N, H, K, V) in float32.

    `steps` cuts time in segments of so many, whatever the device.
    """
    walk = _made(x, FORWARD, Places(x.k, x.v, x.state, x.q), upcast)
    segments = walks.cut(walk, steps)
    if segments is not None:
        part, _ = _segments(x, segments, upcast)
        walk = _made(part, FORWARD, Places(x.k, x.v, part.state, x.q), upcast)
    o, final = walk.room(x.v.dtype), torch.empty_like(walk.x.state)
    walk.run(out=o, final=final)
    return _whole(o).to(x.v.dtype), final if segments is None else segments.last(final)


def backward(
    x: Quantities,
    do: Tensor,
    dfinal: Tensor,
    *,
    upcast: bool = False,
    steps: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, g and the initial state, for those of the outputs and final states.

    Those of heads that share q, k or v are summed in float32. `steps` cuts time in segments of so many.
    """
    do, last = do.to(x.v.dtype).contiguous(), dfinal.float().contiguous()
    segments = walks.cut(_made(x, OF_VALUES, Places(x.q, do, last, x.k), upcast), steps)
    part = x
    if segments is not None:
        part, decays = _segments(x, segments, upcast)
        given, last = last, torch.empty_like(part.state)
        ends = _made(part, GRADIENTS, Places(x.q, do, None, reverse=True), upcast)
        ends.run(final=last)
        segments.carry(last, decays, given, reverse=True)
    queries = Places(x.v, x.k, part.state, do, x.q, across=True)
    keys = Places(do, x.q, last, x.v, x.k, across=True, reverse=True)
    values = Places(x.q, do, last, x.k, reverse=True)
    of_queries = _made(part, OF_QUERIES, queries, upcast)
    of_keys = _made(part, OF_KEYS, keys, upcast)
    of_values = _made(part, OF_VALUES, values, upcast)
    dq, dk, dv = (
        walk.room(like.dtype if like.shape[2] == x.heads else None)
        for walk, like in ((of_queries, x.q), (of_keys, x.k), (of_values, x.v))
    )
    reads, writes, dstate = of_queries.inner(), of_keys.inner(), torch.empty_like(part.state)
    count, dtype = part.packing.slots(MARK), torch.float32 if upcast else x.v.dtype
    marks, meets = x.v.new_empty(count, *x.state.shape[1:], dtype=dtype), of_values.at_marks()
    whole_blocks = of_keys.tile.constants["C"] == MARK
    far = of_keys.at_marks() if whole_blocks else None
    of_queries.run(out=dq, inner=reads, marks=marks)
    of_keys.run(out=dk, inner=writes, far=far)
    of_values.run(out=dv, final=dstate, marks=marks, meets=meets)
    dg = part.of_gates(reads, writes, meets, far)
    if segments is not None:
        dstate = segments.first(dstate)
    return (
        shared(_whole(dq), x.q),
        shared(_whole(dk), x.k),
        shared(_whole(dv), x.v),
        dg,
        dstate,
    )


def _made(x: Quantities, program: Program, places: Places, upcast: bool) -> Walk:
    walk = walk_of(x, program, tile_for, places, upcast)
    dtype, architecture = target_of(x.v)
    alone = walk.programs <= multiprocessors_of(x.v.device)
    if (
        alone
        and walk.tile.constants["BK"] == 128
        and dtype != "float32"
        and (program.label, architecture) in _ALONE
    ):
        return replace(walk, tile=replace(walk.tile, stages=3))
    return walk


def _segments(x: Quantities, segments: Segments, upcast: bool) -> tuple[Quantities, Tensor]:
    """The same tokens as segments, each with its initial state; and the segments' decays."""
    part = walks.over(x, segments)
    decays = x.g.new_empty(segments.packing.sequences, x.heads)
    _made(part, STATES, Places(x.k, x.v, None), upcast).run(final=part.state, decays=decays)
    segments.carry(part.state, decays, x.state)
    return part, decays


def _whole(parts: Tensor) -> Tensor:
    """The sum over tiles of keys of (B, T, H, parts, ·)."""
    return parts[..., 0, :] if parts.shape[3] == 1 else parts.sum(3)
