"""The second schedule, for few sequences and heads: time cut into segments that are walked at the same time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from dsf.kernels.contract import Program
from dsf.kernels.limits import blocks
from dsf.kernels.shapes import Packing
from dsf.registry import resolve

LEAST = 1024  # steps: a shorter segment is not worth the programs that are launched for it
ENOUGH = 4  # segments: with fewer, what is walked twice costs what is won
ALIGNED = 64  # steps: a segment is whole chunks of every tile
BLOCK = 1024  # numbers of a state that one program carries

CARRY = Program(
    "dsf.kernels.triton_code.carry:over",
    {"states": "fp32", "decays": "fp32", "given": "fp32", "segments": "i64"},
    ("heads",),
    flags={"REVERSE": 0},
)


def steps_of_segment(walks: int, length: int, at_once: int) -> int:
    r"""How many steps one program walks: `length`, or a segment's where the walks leave the device idle.

    `walks` is the number of programs that walk `length` steps: sequences · heads · tiles of the state; a device runs
    `at_once` of them at once. One walk takes a time of T = `length`; in n segments that run at once it takes at most
    2 T / n, since a segment is walked once for what it adds to the state and once from its true initial state. So n
    fills the device, no segment is shorter than 1024 steps, and with fewer than four segments there is one walk.

    >>> steps_of_segment(4, 16384, 132), steps_of_segment(64, 16384, 132), steps_of_segment(4, 1000, 132)
    (1024, 16384, 1000)
    """
    count = min(at_once // max(1, walks), length // LEAST)
    if count < ENOUGH:
        return length
    return ALIGNED * -(-length // (ALIGNED * count))


@cache
def multiprocessors_of(device: torch.device) -> int:
    """Those of a GPU; one where there is none, so that what is interpreted is one walk."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


@dataclass(frozen=True, eq=False)
class Segments:
    """Every sequence of a packing cut into segments, themselves packed one after the other.

    Those of sequence n are `bounds[n]` … `bounds[n + 1]` - 1, one at least: an empty one where it has no steps.
    """

    packing: Packing
    bounds: Tensor

    @classmethod
    def of(cls, packing: Packing, steps: int, device: torch.device) -> Segments:
        """Segments of at most `steps` steps; nothing waits for the device unless sequences are packed."""
        starts = packing.starts
        if starts is None:
            each = max(1, -(-packing.length // steps))
            sequences = torch.arange(packing.sequences + 1, device=device)
            within = steps * torch.arange(each, device=device)
            begins = (packing.length * sequences[:-1, None] + within).flatten()
            ends, bounds = packing.length * sequences[-1:], each * sequences
        else:
            counts = (-(-starts.diff() // steps)).clamp_min(1)
            bounds = torch.cat([torch.zeros_like(starts[:1]), counts.cumsum(0)])
            sequence = torch.repeat_interleave(counts)
            within = torch.arange(len(sequence), device=device) - bounds[sequence]
            begins, ends = starts[sequence] + steps * within, starts[-1:]
        rows = packing.length if starts is not None else packing.sequences * packing.length
        return cls(Packing(len(begins), rows, torch.cat([begins, ends])), bounds)

    @classmethod
    def fitting(
        cls, packing: Packing, x: Tensor, tiles: int, steps: int | None, at_once: int
    ) -> Segments | None:
        """Segments of `steps`, or as many as fill the device of x (B, T, …); None where one walk does.

        `tiles` is the number of programs of a sequence; a multiprocessor runs `at_once`.
        """
        longest = packing.longest
        if steps is None:
            full = -(-x.shape[0] * x.shape[1] // max(1, longest))
            steps = steps_of_segment(full * tiles, longest, at_once * multiprocessors_of(x.device))
        return cls.of(packing, steps, x.device) if steps < longest else None

    def carry(
        self, states: Tensor, decays: Tensor, given: Tensor, *, reverse: bool = False
    ) -> None:
        """Replace what each segment adds, `states` (segments, H, K, V), by the state before it, or after it in reverse.

        `decays` (segments, H) are their whole decays; `given` (N, H, K, V) is where the sequences begin (end).
        """
        sequences, heads, *sizes = given.shape
        size = sizes[0] * sizes[1]
        grid = blocks(-(-size // BLOCK), heads, sequences)
        if 0 not in grid:
            resolve(CARRY.function)[grid](
                states, decays, given, self.bounds, heads, SIZE=size, BC=BLOCK, REVERSE=reverse
            )

    def last(self, x: Tensor) -> Tensor:
        """What x (segments, …) is of the last segment of each sequence."""
        return x[self.bounds[1:] - 1]

    def first(self, x: Tensor) -> Tensor:
        """What x (segments, …) is of the first segment of each sequence."""
        return x[self.bounds[:-1]]
