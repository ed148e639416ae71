r"""The programs of the delta family and their tiles: what a compiler must know of them without a launch.

r_i = v_i - b_iᵀ h, h ← D h + β_i k_i r_iᵀ, y = s hᵀ q: DeltaNet, Gated DeltaNet, KDA, Comba, DeltaProduct, RWKV-7 and
every diagonal plus rank one are of this form, with one or several rows (micro-steps) per token.
"""

from __future__ import annotations

from dsf.kernels.contract import Kernel, Program, Tile

CODE = "dsf.kernels.triton_code"
_STREAMS = {"q": "data", "k": "data", "b": "data"}
_HEADS = ("length", "heads", "q_heads", "k_heads", "b_heads")
_PACKS = {"starts": "i64", "owners": "i64"}
_NEAR = ("near_q", "near_b", "near_k", "whole")

NAMES = ("prepare", "walk", "walk_back", "gradients")


def _programs(keyed: int, rows: int) -> tuple[Program, ...]:
    """The four programs, for a gate per head or per key, and rows per token that act one by one or together."""
    flags = {"N": rows, "KEYED": keyed, "TOGETHER": int(rows > 1), "PACKED": 1, "UPCAST": 0}
    near = dict.fromkeys(_NEAR, "none")
    if keyed:
        near = dict.fromkeys(_NEAR, "data") | {"whole": "fp32"}
    solved = {"g": "fp32", "beta": "fp32", "inverse": "fp32", "reads": "data"}
    states = {"kept": "fp32", "rests": "fp32"}
    return (
        Program(
            f"{CODE}.delta_prepare:prepare", _STREAMS | solved | near | _PACKS, _HEADS, (), flags
        ),
        Program(
            f"{CODE}.delta_walk:walk",
            _STREAMS
            | {"v": "data", "state": "fp32", "o": "data", "final": "fp32", "starts": "i64"}
            | solved
            | dict.fromkeys(states, "none"),
            (*_HEADS, "v_heads"),
            ("scale",),
            flags | {"KEEP": 0},
        ),
        Program(
            f"{CODE}.delta_walk:walk_back",
            _STREAMS
            | solved
            | {"do": "data", "dfinal": "fp32", "dv": "fp32", "kept": "fp32", "dstate": "fp32"}
            | {"starts": "i64"},
            _HEADS,
            ("scale",),
            flags,
        ),
        Program(
            f"{CODE}.delta_gradients:gradients",
            _STREAMS
            | {"g": "fp32", "beta": "fp32", "do": "data", "rests": "fp32", "dv": "fp32"}
            | dict.fromkeys(("before", "after", "dq", "dk", "db"), "fp32")
            | _PACKS,
            _HEADS,
            ("scale",),
            flags,
        ),
    )


# One row per token with a gate per head, and two that act together with a gate per key.
PROGRAMS = (*_programs(0, 1), *_programs(1, 2))

# (keys, values, warps) of each program at a chunk of so many rows, by architecture and the tile of all keys.
_TILES: dict[int, dict[int, tuple[int, tuple[tuple[int, int, int], ...]]]] = {}


def tile_for(
    program: Program, dtype: str, keys: int, architecture: int, values: int | None = None
) -> Tile:
    """The tile of a program for these head sizes; as many values as keys where they are not given."""
    values, place = keys if values is None else values, NAMES.index(program.name)
    chunk, of_keys, of_values, warps = 32, 64, 32, 4
    if place in (1, 2):
        of_keys = 256
    of_keys, of_values = min(power(keys), of_keys), min(power(values), of_values)
    constants = {
        "K": keys,
        "V": values,
        "C": chunk,
        "BK": of_keys,
        "BV": of_values,
        "KT": -(-keys // of_keys),
        "VT": -(-values // of_values),
        "LEVELS": chunk.bit_length() - 1,
        "PRECISION": "tf32x3",
    }
    return Tile(constants, warps)


def power(size: int) -> int:
    """The next power of two, 16 at least: no matrix instruction is smaller."""
    return max(16, 1 << (size - 1).bit_length()) if size else 16


KERNEL = Kernel(
    name="delta",
    title="Delta rules in chunks, by the inverse of a triangular matrix (WY)",
    admits="Λ is diagonal plus rank one or more, real, gates not negative; read after the update",
    form="chunkwise",
    programs=PROGRAMS,
    tile=tile_for,
    source="Yang et al. 2024 (arXiv 2406.06484, 2412.06464); Kimi team 2025 (arXiv 2510.26692)",
)
