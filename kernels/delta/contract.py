r"""The programs of the delta family and their tiles: what a compiler must know of them without a launch.

r_i = v_i - b_iᵀ h, h ← D h + β_i k_i r_iᵀ, y = s hᵀ q: DeltaNet, Gated DeltaNet, KDA, Comba, DeltaProduct, RWKV-7 and
all of diagonal plus low rank are of this form, with one or several rows (micro-steps) per token.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from dsf.kernels.contract import NARROWEST, Kernel, Program, Tile, power_of_two

CODE = "dsf.kernels.triton_code"
NAMES = ("prepare", "walk", "outputs", "walk_back", "gradients")
NEAR = ("near_q", "near_b", "near_k", "whole")
_KINDS: dict[str, str] = {
    **dict.fromkeys(("q", "k", "b", "v", "reads", "do", "o", "before", "after", "kept"), "data"),
    **dict.fromkeys(("inverse", "dq", "dk", "db", "dv"), "data"),
    **dict.fromkeys(("g", "beta", "rests", "dg", "dbeta"), "fp32"),
    **dict.fromkeys(("state", "final", "dfinal", "dstate"), "fp32"),
    **dict.fromkeys(("starts", "owners"), "i64"),
}
_POINTERS: dict[str, tuple[str, ...]] = {
    "prepare": ("q", "k", "b", "g", "beta", "inverse", "reads", "starts", "owners"),
    "walk": ("k", "b", "v", "g", "beta", "inverse", "state", "final", "kept", "rests", "starts"),
    "outputs": ("q", "g", "beta", "reads", "before", "rests", "o", "starts", "owners"),
    "walk_back": (
        *("q", "k", "b", "g", "beta", "inverse", "reads", "do", "dfinal", "dv", "kept", "dstate"),
        "starts",
    ),
    "gradients": (
        *("q", "k", "b", "g", "beta", "do", "rests", "dv", "before", "after", "dq", "dk", "db"),
        *("dbeta", "dg", "starts", "owners"),
    ),
}
_FILES = {"walk_back": "walk"}


def _programs(keyed: int, rows: int) -> tuple[Program, ...]:
    """The programs for a gate per head or per key, with rows per token that act one by one or together."""
    flags = {"N": rows, "KEYED": keyed, "TOGETHER": int(rows > 1), "PACKED": 1, "UPCAST": 0}
    near: dict[str, str] = {x: "data" if keyed else "none" for x in NEAR}
    if keyed:
        near["whole"] = "fp32"
    return tuple(
        Program(
            f"{CODE}.delta_{_FILES.get(name, name)}:{name}",
            {x: _KINDS[x] for x in _POINTERS[name]} | (near if name == "prepare" else {}),
            ("length", "heads", *(f"{x}_heads" for x in "qkbv" if x in _POINTERS[name])),
            () if name in ("prepare", "walk") else ("scale",),
            flags,
        )
        for name in NAMES
    )


# One row per token with a gate per head, and two that act together with a gate per key.
PROGRAMS = (*_programs(0, 1), *_programs(1, 2))
# With a gate per key and one row per token the gradients have a tile of their own.
ONE_ROW = replace(_programs(1, 1)[-1], label="one row")

# (keys, values, warps, stages) of each program: the largest without a spill, with a gate per head and per key. More
# warps than two would share no rows of a chunk; the walks, one chunk after the other, wait for what they load.
_NARROW = (
    ((64, 16, 2, 1), (128, 32, 4, 2), (64, 64, 4, 2), (64, 32, 4, 2), (64, 32, 4, 1)),
    ((32, 16, 2, 1), (128, 32, 4, 2), (64, 64, 4, 2), (64, 32, 4, 2), (16, 32, 4, 1)),
)
_WIDE = (
    ((32, 16, 1, 1), (64, 32, 4, 1), (32, 32, 2, 1), (64, 32, 4, 1), (32, 32, 2, 1)),
    ((16, 16, 1, 1), (64, 32, 4, 1), (32, 32, 2, 1), (64, 32, 4, 1), (16, 16, 4, 1)),
)
# Where these do not fit: by architecture, program, gate per key, float32.
_OTHERWISE: dict[tuple[int, str, bool, bool], tuple[int, int, int, int]] = {
    (90, "gradients", False, False): (64, 32, 4, 2),
    (80, "prepare", True, False): (16, 16, 2, 1),
    (80, "walk", False, False): (128, 16, 4, 2),
    (80, "gradients", True, True): (16, 32, 4, 1),
    (100, "prepare", True, False): (16, 16, 2, 1),
    (100, "prepare", True, True): (16, 16, 4, 1),
    (100, "gradients", True, False): (16, 16, 4, 1),
}
# By architecture, float32 and whether there are more than 64 keys.
_OF_ONE_ROW = {
    **dict.fromkeys(((90, False, True), (90, False, False)), (16, 32, 2, 2)),
    (100, False, True): (16, 16, 2, 1),
}
# Where rows of a head do not divide by 16.
_UNALIGNED = {(90, "prepare", True, False): (16, 16, 2, 1)}
# Single cells where all of these spill: by architecture, program, gate per key, float32, the power of two of the keys,
# and whether rows of a head divide by 16. A state in memory is not loaded ahead of what is stored: one stage.
_CELLS: dict[tuple[int, str, bool, bool, int, bool], tuple[int, int, int, int]] = {
    (80, "walk", True, True, 64, False): (64, 32, 8, 1),
    (80, "walk_back", False, True, 128, False): (64, 16, 8, 1),
    (80, "outputs", False, False, 64, False): (64, 64, 8, 2),
    (90, "outputs", False, False, 64, False): (64, 64, 8, 2),
    (100, "gradients", False, True, 128, False): (32, 32, 2, 2),
    (100, "gradients", False, True, 256, False): (32, 32, 2, 2),
    (100, "gradients", True, True, 64, False): (16, 32, 4, 1),
    (100, "gradients", True, True, 128, False): (16, 32, 4, 1),
    (100, "gradients", True, True, 256, False): (16, 32, 4, 1),
    (100, "gradients", True, False, 64, True): (16, 32, 8, 1),
    (100, "gradients", True, False, 64, False): (16, 32, 4, 1),
    (100, "gradients", True, False, 128, False): (16, 32, 4, 1),
    (100, "gradients", True, False, 256, False): (16, 32, 4, 1),
    (100, "gradients, one row", True, False, 64, True): (16, 32, 2, 1),
    (100, "gradients, one row", True, False, 64, False): (16, 16, 2, 1),
}
# Of the walks, where the state is not held in registers: any size fits.
_IN_MEMORY = {"walk": (64, 32, 4, 1), "walk_back": (64, 16, 4, 1)}


@cache
def tile_for(
    program: Program, dtype: str, keys: int, architecture: int, values: int | None = None
) -> Tile:
    """The tile of a program for these head sizes; as many values as keys where they are not given."""
    values, wide = keys if values is None else values, dtype == "float32"
    keyed, chunk = bool(program.flags["KEYED"]), 16 if wide else 32
    name = program.function.partition(":")[2]
    usual = (_WIDE if wide else _NARROW)[keyed][NAMES.index(name)]
    case = (architecture, name, keyed, wide)
    chosen = _OTHERWISE.get(case, usual)
    aligned = not (keys % 16 or values % 16)
    if not aligned:
        chosen = _UNALIGNED.get(case, chosen)
    held = not wide and keys <= 128
    if name in _IN_MEMORY and not held:
        chosen = _IN_MEMORY[name]
    if program is ONE_ROW:
        chosen = _OF_ONE_ROW.get((architecture, wide, keys > 64), chosen)
    cell = (architecture, program.name, keyed, wide, power_of_two(keys), aligned)
    chosen = _CELLS.get(cell, chosen)
    of_keys, of_values, warps, stages = chosen
    of_keys, of_values = (
        min(power_of_two(keys, NARROWEST), of_keys),
        min(power_of_two(values, NARROWEST), of_values),
    )
    constants = {
        "K": keys,
        "V": values,
        "C": chunk,
        "BK": of_keys,
        "BV": of_values,
        "KT": -(-keys // of_keys),
        "VT": -(-values // of_values),
        "LEVELS": chunk.bit_length() - 1,
        "HELD": int(held),
        "PRECISION": "tf32x3",
    }
    return Tile(constants, warps, stages)


KERNEL = Kernel(
    name="delta",
    title="Delta rules in chunks, by the inverse of a triangular matrix (WY)",
    admits="Λ is diagonal plus low rank, real, gates in [0, 1]; read after the update",
    form="chunkwise",
    programs=(*PROGRAMS, ONE_ROW),
    tile=tile_for,
    source="Yang et al. 2024 (arXiv 2406.06484, 2412.06464); Kimi team 2025 (arXiv 2510.26692)",
)
