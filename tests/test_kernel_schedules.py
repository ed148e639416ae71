"""When time is cut into segments, and where the segments lie: no GPU is needed to know."""

from __future__ import annotations

import itertools

import pytest
import torch

from dsf.errors import Refused
from dsf.kernels.decay.segments import ALIGNED, ENOUGH, LEAST, Segments, steps_of_segment
from dsf.kernels.limits import MOST, blocks
from dsf.kernels.shapes import Packing

SIZES = list(
    itertools.product((1, 2, 7, 33, 132, 4096), (0, 1, 300, 1024, 16384, 131072), (1, 108, 132))
)


@pytest.mark.parametrize(("walks", "length", "multiprocessors"), SIZES)
def test_segments_fill_the_device_and_no_more(
    walks: int, length: int, multiprocessors: int
) -> None:
    steps = steps_of_segment(walks, length, multiprocessors)
    if steps == length:
        few = min(multiprocessors // walks, length // LEAST) < ENOUGH
        assert few
        return
    count = -(-length // steps)
    assert steps % ALIGNED == 0 and LEAST <= steps < length
    assert walks * count <= multiprocessors  # all run at once
    assert 2 * steps <= length  # twice a segment is shorter than one walk


def test_many_walks_are_never_cut_and_few_are() -> None:
    assert steps_of_segment(132, 1 << 20, 132) == 1 << 20
    assert steps_of_segment(1, 1 << 16, 132) == 1024
    finer = [steps_of_segment(walks, 1 << 20, 132) for walks in (1, 2, 4, 8, 16, 32)]
    assert finer == sorted(finer)


@pytest.mark.parametrize("starts", [None, (0, 0, 5, 5, 21, 30), (0, 0), (0,)])
@pytest.mark.parametrize("steps", [1, 4, 64])
def test_segments_are_the_sequences_once_more(starts: tuple[int, ...] | None, steps: int) -> None:
    packing = Packing(3, 10)
    if starts is not None:
        packing = Packing(len(starts) - 1, starts[-1], torch.tensor(starts))
    cut = Segments.of(packing, steps, torch.device("cpu"))
    marks = list(range(0, 31, 10)) if starts is None else list(starts)
    assert cut.packing.starts is not None
    found, bounds = cut.packing.starts.tolist(), cut.bounds.tolist()
    assert [found[n] for n in bounds] == marks and bounds[-1] == cut.packing.sequences
    for n, (first, stop) in enumerate(itertools.pairwise(marks)):
        own = found[bounds[n] : bounds[n + 1] + 1]
        expected = [*range(first, stop, steps), stop] if stop > first else [first, stop]
        assert own == expected
    numbers = torch.arange(cut.packing.sequences)
    assert cut.first(numbers).tolist() == bounds[:-1]
    assert cut.last(numbers).tolist() == [n - 1 for n in bounds[1:]]


def test_the_longest_sequence_is_what_takes_time() -> None:
    assert Packing(3, 10).longest == 10
    assert Packing(2, 9, torch.tensor([0, 7, 9])).longest == 7
    assert Packing(0, 0, torch.tensor([0])).longest == 0


def test_a_grid_that_no_device_has_is_refused() -> None:
    assert blocks(70_000, MOST, MOST) == (70_000, MOST, MOST)
    with pytest.raises(Refused, match="65535 sequences; got 65536"):
        blocks(1, 1, MOST + 1)
    with pytest.raises(Refused, match="heads"):
        blocks(1, MOST + 1, 1)
