"""Scans of few sequences and channels in segments of time, which are walked at the same time."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.kernels.contract import Program
from dsf.kernels.decay.segments import BLOCK, Segments
from dsf.kernels.limits import blocks
from dsf.kernels.shapes import Packing
from dsf.registry import resolve

AT_ONCE = 4  # programs that a multiprocessor runs

CARRY = Program(
    "dsf.kernels.triton_code.selective_segments:over",
    {"states": "fp32", "decays": "fp32", "given": "fp32", "segments": "i64"},
    ("size",),
    flags={"REVERSE": 0},
)


def segments_of(packing: Packing, x: Tensor, tiles: int, steps: int | None) -> Segments | None:
    """Segments of `steps` (a multiple of 16), or as many as fill x's device; None where one walk does.

    `tiles` is the number of programs of a sequence.
    """
    return Segments.fitting(packing, x, tiles, steps, AT_ONCE)


def owners_of(segments: Segments | None) -> Tensor | None:
    """The sequence of every segment."""
    if segments is None:
        return None
    counts = segments.bounds.diff()
    return torch.repeat_interleave(counts, output_size=segments.packing.sequences)


def carry(
    segments: Segments, states: Tensor, decays: Tensor, given: Tensor, *, reverse: bool = False
) -> None:
    """Replace what each segment adds by the state before it, or after it in reverse; decays are its states' own."""
    size = given[:1].numel()
    grid = blocks(-(-size // BLOCK), 1, len(given))
    if 0 not in grid:
        resolve(CARRY.function)[grid](
            states, decays, given, segments.bounds, size, BC=BLOCK, REVERSE=reverse
        )
