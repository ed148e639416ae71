"""The programs of decay per key, and the tiles that they are compiled with."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from dsf.kernels.contract import Program, Tile

from .chunks import tile_of

CODE = "dsf.kernels.triton_code"
CHUNK = 64  # steps: a state is kept before each so many, and no sum of a gate's gradient is longer

_FLOATS = (
    "g",
    "whole",
    "self_meetings",
    "state",
    "final",
    "dfinal",
    "dstate",
    "dg",
    "bonus",
    "dbonus",
)
_PLACES = ("starts", "owners")
_POINTERS = {
    "pairs:pairs": "q k g reads near_q near_k whole bonus starts owners",
    "states:states": "near_k v whole state before final starts",
    "values:outputs": "v reads near_q before o starts owners",
    "states:state_gradients": "near_q do whole dfinal after dstate starts",
    "values:of_pairs": "v do meetings self_meetings starts owners",
    "keys:of_keys": "q k v g do before after meetings self_meetings dq dk dg bonus dbonus starts owners",
    "values:of_values": "do reads near_k after dv starts owners",
}
_UNSCALED = ("pairs", "states")


def _programs() -> tuple[Program, ...]:
    """All of them, and once more those that differ where steps are read before their update."""
    found = []
    for function, pointers in _POINTERS.items():
        kinds = dict.fromkeys(pointers.split(), "data")
        kinds |= {name: "fp32" for name in kinds if name in _FLOATS}
        kinds |= {name: "i64" for name in kinds if name in _PLACES}
        integers = ("length", "heads", *(f"{each}_heads" for each in "qkv" if each in kinds))
        name, flags = function.partition(":")[2], {"PACKED": 1, "UPCAST": 0}
        floats = () if name in _UNSCALED else ("scale",)
        path, left_out = f"{CODE}.diagonal_{function}", {x: "none" for x in kinds if "bonus" in x}
        if left_out:
            told, label = {**flags, "BEFORE": 1}, "read before"
            found.append(Program(path, kinds, integers, floats, told, label))
            flags |= {"BEFORE": 0}
        found.append(Program(path, kinds | left_out, integers, floats, flags))
    return tuple(found)


ALL = _programs()
PROGRAMS = {program.name: program for program in ALL if not program.label}

# (keys, values, warps, stages) of each program: none spills on heads of any size (`dsf kernels report` shows what they
# use), and some need another on some architectures.
_HALF = {
    "pairs": (32, 64, 8, 1),
    "states": (64, 64, 4, 2),
    "outputs": (64, 64, 4, 2),
    "state_gradients": (64, 64, 4, 2),
    "of_pairs": (64, 64, 4, 2),
    "of_keys": (32, 64, 8, 1),
    "of_values": (64, 64, 4, 2),
}
_SMALLER = {
    (90, "pairs"): (64, 64, 8, 1),
    (80, "states"): (64, 32, 4, 2),
    (80, "of_keys"): (16, 32, 8, 1),
    (100, "of_keys"): (16, 64, 8, 1),
}
_WIDE = dict.fromkeys(_HALF, (32, 32, 8, 1)) | dict.fromkeys(("pairs", "of_keys"), (16, 32, 8, 1))
_LARGER_WIDE = {(100, "pairs"): (32, 32, 8, 1)}


@cache
def tile_for(
    program: Program, dtype: str, keys: int, architecture: int, values: int | None = None
) -> Tile:
    """The tile of a program for these head sizes; as many values as keys where they are not given."""
    name, wide = program.function.partition(":")[2], dtype == "float32"
    usual, other = (_WIDE, _LARGER_WIDE) if wide else (_HALF, _SMALLER)
    of_keys, of_values, warps, stages = other.get((architecture, name), usual[name])
    tile = tile_of(keys, values or keys, of_keys, (CHUNK, of_values, warps), wide)
    constants = {**tile.constants, "LEVELS": CHUNK.bit_length() - 1}
    return replace(tile, constants=constants, stages=stages)
