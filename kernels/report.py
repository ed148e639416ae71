"""What every kernel's programs use on every architecture, compiled without a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dsf.registry import resolve

from .compiling import Resources, compiled
from .contract import Kernel, Program, Tile
from .limits import LIMITS
from .table import KERNELS


@dataclass(frozen=True)
class Cell:
    """One program of one kernel, for a type, a head size and an architecture, with its tile.

    Where it is not `aligned`, heads have four channels less: their strides do not divide by 16.
    """

    kernel: Kernel
    program: Program
    dtype: str
    size: int
    architecture: int
    aligned: bool

    @property
    def tile(self) -> Tile:
        size = self.size if self.aligned else self.size - 4
        return self.kernel.tile(self.program, self.dtype, size, self.architecture)

    def compiled(self) -> Resources:
        """Compile it; needs Triton, no GPU."""
        return compiled(self.program, self.tile, self.dtype, self.architecture)

    def faults(self, found: Resources) -> tuple[str, ...]:
        """What is wrong with what was compiled."""
        return found.faults(self.architecture, self.tile.products)


def kernels() -> tuple[Kernel, ...]:
    """Every kernel of the table."""
    return tuple(resolve(reference) for reference in KERNELS)


def cells(
    architectures: Iterable[int] = tuple(LIMITS),
    dtypes: Iterable[str] | None = None,
    sizes: Iterable[int] | None = None,
    alignments: Iterable[bool] = (True, False),
) -> Iterator[Cell]:
    """Every combination that a kernel is made for, of those asked for.

    >>> from dsf.kernels.report import cells
    >>> next(cells([90], ["bfloat16"], [64])).program.name
    'walk, forward'
    """
    chosen, aligned = tuple(architectures), tuple(alignments)
    for kernel in kernels():
        for dtype in kernel.dtypes if dtypes is None else dtypes:
            for size in kernel.sizes if sizes is None else sorted(set(sizes) & set(kernel.sizes)):
                for architecture in chosen:
                    for program in kernel.programs:
                        for each in aligned:
                            yield Cell(kernel, program, dtype, size, architecture, each)
