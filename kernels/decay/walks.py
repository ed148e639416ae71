"""Launches of scalar decay: the sums of its log-decays, and walks over chunks with any tensors in their places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dsf.kernels.contract import Program, Tile
from dsf.kernels.limits import blocks, target_of
from dsf.registry import resolve

from .chunks import Chunked, parts
from .segments import Segments

BLOCK = 64  # steps of a sum of log-decays: a multiple of the steps of every chunk
MARK = 64  # steps of a sum of the gates' gradient: a multiple of those of every chunk
AT_ONCE = 2  # programs that a multiprocessor runs

Choose = Callable[[Program, str, int, int, int], Tile]


@dataclass(frozen=True, eq=False)
class Quantities(Chunked):
    """The quantities of a run, with g (B, T, H), and what is summed up before and after its walks."""

    @property
    def rows(self) -> int:
        return self.g.shape[0] * self.g.shape[1]

    @cached_property
    def sums(self) -> Tensor:
        """Of log-decays over blocks of steps of each sequence, as a walk reads them: (H, B T, 4)."""
        found = self.g.new_empty(self.heads, self.rows, 4)
        self._per_block("sum_up", BLOCK, sums=found, g=self.g, rows=self.rows)
        return found

    def of_gates(self, reads: Tensor, writes: Tensor, meets: Tensor, far: Tensor | None) -> Tensor:
        """The gradient of log-decays: ⟨q, dq⟩, ⟨k, dk⟩ are (B, T, H, parts), what is left at marks (·, H, parts)."""
        found = torch.empty_like(self.g)
        given = {"g": self.g, "reads": reads, "writes": writes, "meets": meets, "dg": found}
        parts = {"READ_PARTS": reads, "WRITE_PARTS": writes, "MEET_PARTS": meets}
        counts = {name: x.shape[-1] for name, x in parts.items()}
        self._per_block("of_gates", MARK, **given, **counts, far=far)
        return found

    def _per_block(self, name: str, steps: int, **given: Any) -> None:
        """Run a program for each block of so many steps of each sequence and head."""
        grid = blocks(self.packing.slots(steps), self.heads, 1)[:2]
        if 0 in grid or not self.rows:
            return
        starts = self.packing.starts
        known = {
            "starts": starts,
            "owners": self.packing.owners(steps),
            "length": self.packing.length,
        }
        known |= {"heads": self.heads, "PACKED": starts is not None, "BLOCK": steps, "MARK": steps}
        function = resolve(f"dsf.kernels.triton_code.decay_gates:{name}")
        known |= given
        function[grid](**{each: known[each] for each in function.arg_names}, num_warps=1)


@dataclass(frozen=True, eq=False)
class Places:
    """What stands in the places of a walk: tensors of tokens (B, T, heads, ·), and a state or None for zero.

    Where `across`, states lie in memory as (N, H, values, keys). With `own`, which the walk's outputs are the gradient
    of, it takes ⟨own, outputs⟩; `marks` and `meets` are as the program has them.
    """

    writes: Tensor
    values: Tensor
    state: Tensor | None
    reads: Tensor | None = None
    own: Tensor | None = None
    across: bool = False
    reverse: bool = False


@dataclass(frozen=True, eq=False)
class Walk:
    """A walk of some quantities: its program, the tile it has, and what stands in its places."""

    x: Quantities
    program: Program
    tile: Tile
    places: Places
    upcast: bool

    @cached_property
    def parts(self) -> tuple[int, int]:
        """How many tiles the keys and the values of a state make."""
        return int(self.tile.constants["KT"]), parts(self.places.values, self.tile)

    @property
    def programs(self) -> int:
        return self.x.packing.sequences * self.x.heads * self.parts[0] * self.parts[1]

    def room(self, dtype: torch.dtype | None = None) -> Tensor:
        """Room for its outputs (B, T, H, parts of keys, values); float32 where they are still to be added up."""
        dtype = torch.float32 if dtype is None or self.parts[0] > 1 else dtype
        values = self.places.values
        size = (*values.shape[:2], self.x.heads, self.parts[0], values.shape[3])
        return values.new_empty(size, dtype=dtype)

    def at_marks(self) -> Tensor:
        """Room for a number at every mark (·, H, parts)."""
        count = self.x.packing.slots(MARK)
        return self.x.g.new_empty(count, self.x.heads, self.parts[0] * self.parts[1])

    def inner(self) -> Tensor:
        """Room for ⟨own, outputs⟩ (B, T, H, parts)."""
        return self.x.g.new_empty(*self.x.g.shape, self.parts[0] * self.parts[1])

    def run(self, **results: Tensor | None) -> None:
        """Run its program; results that are not named are left out."""
        if not self.programs:
            return
        x, places = self.x, self.places
        tokens = {
            "reads": places.reads,
            "writes": places.writes,
            "values": places.values,
            "own": places.own,
        }
        counts = {
            f"{name.removesuffix('s')}_heads": 1 if y is None else y.shape[2]
            for name, y in tokens.items()
        }
        left_out = dict.fromkeys(("out", "final", "decays", "inner", "marks", "meets", "far"))
        given: dict[str, Any] = {
            **left_out,
            **tokens,
            **counts,
            "sums": x.sums,
            "state": places.state,
            "starts": x.packing.starts,
            "length": x.packing.length,
            "rows": x.rows,
            "heads": x.heads,
            "scale": x.scale,
            **results,
        }
        function = resolve(self.program.function)
        function[(self.programs,)](
            **given,
            BLOCK=BLOCK,
            MARK=MARK,
            REVERSE=places.reverse,
            ACROSS=places.across,
            PACKED=x.packing.starts is not None,
            UPCAST=self.upcast,
            num_warps=self.tile.warps,
            num_stages=self.tile.stages,
            **self.tile.constants,
        )


def walk_of(
    x: Quantities, program: Program, choose: Choose, places: Places, upcast: bool = False
) -> Walk:
    """A walk with its tile on this device; the H100's where there is none (interpreted)."""
    dtype, architecture = target_of(x.v)
    keys, values = places.writes.shape[3], places.values.shape[3]
    return Walk(x, program, choose(program, dtype, keys, architecture, values), places, upcast)


def cut(walk: Walk, steps: int | None) -> Segments | None:
    """Segments of so many steps, or as `steps_of_segment` has them for a walk; None for one walk."""
    x, (of_keys, of_values) = walk.x, walk.parts
    return Segments.fitting(x.packing, x.v, x.heads * of_keys * of_values, steps, AT_ONCE)


def over(x: Quantities, segments: Segments) -> Quantities:
    """The same tokens as segments, each with an initial state of its own, still to be filled."""
    states = x.state.new_empty(segments.packing.sequences, *x.state.shape[1:])
    return replace(x, packing=segments.packing, state=states)
