"""How a kernel cuts queries and keys into tiles, and which cuts NATTEN ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import prod

from dsf.errors import InvalidInput

from .pattern import PerAxis, Shape, as_shape, show


class KVTiling(StrEnum):
    """Where KV tiles begin.

    `static`: on a fixed grid from token 0, as tensor-memory-accelerator loads and token permutation
    force it. `dynamic`: at the first key that the query tile needs, as in the Ampere kernel.
    """

    STATIC = "static"
    DYNAMIC = "dynamic"


@dataclass(frozen=True, init=False)
class Tiling:
    """The shapes of a query tile and of a KV tile, in tokens per axis, and where KV tiles begin.

    >>> Tiling((4, 8, 8), (2, 8, 8)).sizes
    (256, 128)
    """

    q: Shape
    kv: Shape
    kv_tiling: KVTiling

    def __init__(self, q: PerAxis, kv: PerAxis, kv_tiling: str = "static") -> None:
        object.__setattr__(self, "q", _tile("q tile", q))
        object.__setattr__(self, "kv", _tile("kv tile", kv))
        if len(self.q) != len(self.kv):
            raise InvalidInput(
                f"the q tile {show(self.q)} and the kv tile {show(self.kv)} must have "
                "one entry per axis each"
            )
        if kv_tiling not in list(KVTiling):
            raise InvalidInput(f"kv_tiling {kv_tiling!r} was given; it is 'static' or 'dynamic'")
        object.__setattr__(self, "kv_tiling", KVTiling(kv_tiling))

    @classmethod
    def parse(cls, text: str, kv_tiling: str = "static") -> Tiling:
        """Read `"4x8x8/2x8x8"`: the query tile, a slash, the KV tile."""
        q, slash, kv = text.partition("/")
        if not slash:
            raise InvalidInput(f"tiles {text!r} were given; write Q/KV, for example 4x8x8/2x8x8")
        return cls(parse_shape("q tile", q), parse_shape("kv tile", kv), kv_tiling)

    @property
    def sizes(self) -> tuple[int, int]:
        """How many queries and how many keys a tile holds."""
        return prod(self.q), prod(self.kv)

    @property
    def dynamic(self) -> bool:
        return self.kv_tiling is KVTiling.DYNAMIC

    def check(self, layout: Sequence[int]) -> None:
        """Raise `InvalidInput` unless there is one entry per axis of the layout."""
        if len(self.q) != len(layout):
            raise InvalidInput(
                f"tiles {self} have {len(self.q)} axes, the layout {show(layout)} has {len(layout)}"
            )

    def __str__(self) -> str:
        return f"{show(self.q)}/{show(self.kv)}"


def _tile(key: str, given: PerAxis) -> Shape:
    shape = as_shape(key, given)
    if min(shape) < 1:
        raise InvalidInput(
            f"{key} {show(shape)} was given, but each entry must be at least 1; "
            f"the nearest valid shape is {show([max(size, 1) for size in shape])}"
        )
    return shape


def parse_shape(key: str, text: str) -> Shape:
    """Read `"30x48x80"`.

    >>> parse_shape("layout", "30x48x80")
    (30, 48, 80)
    """
    try:
        return tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        raise InvalidInput(f"{key} {text!r} was given; write it like 30x48x80") from None
