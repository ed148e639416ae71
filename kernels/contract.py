"""What a kernel promises: the form it computes, what it admits, and the tiles it is compiled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dsf.errors import InvalidInput

DTYPES = ("float32", "float16", "bfloat16")
NARROWEST = 16  # no matrix instruction is smaller


def power_of_two(size: int, least: int = 1) -> int:
    """The next power of two, `least` or more.

    >>> power_of_two(5), power_of_two(0), power_of_two(5, NARROWEST)
    (8, 1, 16)
    """
    return max(least, 1 << max(0, size - 1).bit_length())


@dataclass(frozen=True)
class Tile:
    """One way to compile a program: its constants, warps and pipeline stages.

    `products` says whether matrices are multiplied by matrix instructions: not in exact float32.
    """

    constants: Mapping[str, int | float | str]
    warps: int = 4
    stages: int = 1
    products: bool = True

    def __post_init__(self) -> None:
        if self.warps not in (1, 2, 4, 8, 16) or self.stages < 1:
            raise InvalidInput(
                f"a tile has 1, 2, 4, 8 or 16 warps and a stage or more; got {self.warps}, {self.stages}"
            )


@dataclass(frozen=True, eq=False)
class Program:
    """One Triton function of a kernel, with what a compiler must know of it without a launch: equal to itself alone.

    `function` is `"module:NAME"`; `pointers` maps its pointer arguments to "data" (of the kernel's
    type), a Triton type, or "none" where an optional one is left out; `integers` and `floats` are its
    other arguments. `label` tells programs of one function apart.
    """

    function: str
    pointers: Mapping[str, str]
    integers: tuple[str, ...] = ()
    floats: tuple[str, ...] = ()
    flags: Mapping[str, int | str] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        """The name of its function, and its label."""
        own = self.function.partition(":")[2]
        return f"{own}, {self.label}" if self.label else own


@dataclass(frozen=True)
class Kernel:
    """A kernel: its programs, its types, its tiles per head size, and the form of which it is one more.

    `admits` says in words which systems it runs; `form` is the form of `dsf.run` that it agrees with;
    `tile` chooses for a program, a type, a head size and an architecture's compute capability; `sizes`
    are the head sizes that it is compiled and checked for.
    """

    name: str
    title: str
    admits: str
    form: str
    programs: tuple[Program, ...]
    tile: Callable[[Program, str, int, int], Tile]
    sizes: tuple[int, ...] = (64, 128, 256)
    dtypes: tuple[str, ...] = DTYPES
    source: str = ""

    def __post_init__(self) -> None:
        unknown = set(self.dtypes) - set(DTYPES)
        if unknown:
            raise InvalidInput(f"types of a kernel are {', '.join(DTYPES)}; got {sorted(unknown)}")
