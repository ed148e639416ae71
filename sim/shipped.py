"""Tile shapes that NATTEN ships kernels for, as (query tile / KV tile), the default first.

Source: NATTEN repository, commit 8c8729f (2026-07-23), backends/configs.
"""

from __future__ import annotations

from dsf.errors import InvalidInput

from .tiling import Tiling

_BLACKWELL_FORWARD = (
    "256/128",
    "16x16/16x8 16x16/8x16 8x32/8x16 8x32/4x32",
    "8x4x8/4x4x8 8x4x8/2x8x8 2x8x16/4x4x8 2x8x16/2x8x8 4x4x16/2x4x16 2x16x8/2x8x8 4x8x8/2x8x8",
)
_BLACKWELL_BACKWARD = (
    "128/128",
    "16x8/16x8 16x8/8x16 8x16/16x8 8x16/8x16",
    "4x4x8/4x4x8 4x4x8/2x8x8 1x8x16/4x4x8 2x8x8/4x4x8 1x8x16/2x8x8 2x4x16/2x4x16 4x2x16/2x4x16 "
    "4x4x8/2x4x16 2x8x8/2x8x8",
)
_HOPPER_SMALL = ("64/128", "8x8/16x8 8x8/8x16", "4x4x4/4x4x8 4x4x4/2x8x8")
_HOPPER_FORWARD = {
    32: _HOPPER_SMALL,
    64: _HOPPER_SMALL,
    128: ("128/128", "16x8/16x8", "4x4x8/4x4x8 2x8x8/2x8x8"),
    256: ("128/64", "16x8/8x8 8x16/8x8", "4x4x8/4x4x4 2x8x8/4x4x4"),
}
_HOPPER_BACKWARD_SMALL = (
    "64/128 128/128",
    "8x8/16x8 8x8/8x16 16x8/16x8 16x8/8x16",
    "4x4x4/4x4x8 4x4x4/2x8x8 4x4x8/4x4x8 4x4x8/2x8x8",
)
_HOPPER_BACKWARD = {
    32: _HOPPER_BACKWARD_SMALL,
    64: _HOPPER_BACKWARD_SMALL,
    128: ("64/128", "8x8/16x8 8x8/8x16", "4x4x4/4x4x8 4x4x4/2x8x8 2x4x8/2x8x8 1x8x8/2x8x8"),
}
_FLEX = ("64/64", "8x8/8x8 4x16/4x16 4x16/8x8", "4x4x4/4x4x4 2x4x8/2x4x8 2x4x8/4x4x4")

KERNELS = ("blackwell-fna", "hopper-fna", "flex-fna")


def shipped(
    kernel: str, rank: int, head_dim: int = 128, backward: bool = False
) -> tuple[Tiling, ...]:
    """The tilings of a kernel for so many axes and a head dimension.

    Raises `InvalidInput` where there are none. The Ampere kernel (cutlass-fna) is generated for
    hundreds of pairs, with dynamic KV tiles, and has no table.

    >>> [str(tiling) for tiling in shipped("hopper-fna", 3)]
    ['4x4x8/4x4x8', '2x8x8/2x8x8']
    """
    if kernel not in KERNELS:
        raise InvalidInput(f"kernel {kernel!r} was given; there are {', '.join(KERNELS)}")
    if not 1 <= rank <= 3:
        raise InvalidInput(f"NATTEN has kernels for 1 to 3 axes; {rank} were given: give the tiles")
    if kernel == "flex-fna":
        by_rank = _FLEX
    elif kernel == "blackwell-fna":
        by_rank = _BLACKWELL_BACKWARD if backward else _BLACKWELL_FORWARD
    else:
        table = _HOPPER_BACKWARD if backward else _HOPPER_FORWARD
        if head_dim not in table:
            raise InvalidInput(
                f"{kernel} has no kernel for head dimension {head_dim}; there are {sorted(table)}"
            )
        by_rank = table[head_dim]
    return tuple(Tiling.parse(text) for text in by_rank[rank - 1].split())


def kernel_of(device: str) -> str:
    """The NATTEN kernel that is made for a device of the table."""
    return {"B200": "blackwell-fna", "H100": "hopper-fna", "H200": "hopper-fna"}.get(
        device, "flex-fna"
    )
