"""What a block of threads may use on each architecture, by compute capability."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from dsf.errors import Refusal, Refused

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Limits:
    """Shared memory of a block in bytes, registers of a block, tensor-memory columns."""

    name: str
    shared: int
    registers: int = 65_536
    columns: int = 0


LIMITS: dict[int, Limits] = {
    80: Limits("A100", 166_912),
    90: Limits("H100, H200", 232_448),
    100: Limits("B200", 232_448, columns=512),
}


def nearest(capability: tuple[int, int]) -> int:
    """The architecture of the table whose tiles fit a device: the newest that is not newer.

    >>> nearest((9, 0)), nearest((8, 9)), nearest((12, 0))
    (90, 80, 80)
    """
    found = 10 * capability[0] + capability[1]
    if found >= 120:  # consumer devices: little shared memory and no tensor memory
        return 80
    return max((each for each in LIMITS if each <= found), default=min(LIMITS))


def target_of(x: Tensor) -> tuple[str, int]:
    """The name of a tensor's type, and the architecture of the table for its device; the H100's where it is no GPU."""
    return _name_of(x.dtype), _architecture_of(x.device) if x.is_cuda else 90


@cache
def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@cache
def _architecture_of(device: torch.device) -> int:
    import torch

    return nearest(torch.cuda.get_device_capability(device))


MOST = 65_535  # blocks along the second and third axis of a grid, on every CUDA device


def blocks(tiles: int, heads: int, sequences: int) -> tuple[int, int, int]:
    """A grid of tiles × heads (or groups) × sequences; raises `Refused` where a device has no such grid.

    >>> blocks(2, 3, 4)
    (2, 3, 4)
    """
    for name, count in (("heads or groups", heads), ("sequences", sequences)):
        if count > MOST:
            reason = f"one launch has at most {MOST} {name}; got {count}."
            raise Refused(Refusal("kernels", reason, "Run them in parts."))
    return tiles, heads, sequences
