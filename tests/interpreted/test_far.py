"""Index arithmetic far beyond 2³¹: every program on the last rows of tensors that are mapped, and hardly touched.

Rows begin at 2³¹ + 16 and have two numbers or more, so an offset in 32 bits would wrap to the first rows, which are
zero.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from dsf.kernels.contract import Program
from dsf.kernels.decay import scalar
from dsf.kernels.decay.segments import CARRY
from dsf.kernels.decay.walks import Places, walk_of
from dsf.kernels.scans import channel, elementwise, selective
from dsf.kernels.shapes import Packing
from dsf.kernels.triton_code import chunk_decay, memory
from dsf.registry import resolve

ROWS, STEPS = 2**31 + 16, 5
NEAR, FAR = (Packing(1, STEPS, torch.tensor([at, at + STEPS])) for at in (0, ROWS))


def mapped(near: Tensor, rows: int = ROWS, axis: int = 1) -> Tensor:
    """A tensor with so many rows of zeros more before those of `near`; no memory is reserved for them."""
    shape = list(near.shape)
    shape[axis] += rows
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    room = mmap.mmap(-1, math.prod(shape) * near.element_size(), flags=flags)
    found = torch.frombuffer(room, dtype=near.dtype).reshape(shape)
    found.narrow(axis, rows, near.shape[axis]).copy_(near)
    return found


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(math.prod(shape)), dtype=dtype
    )


def law(
    launch: Callable[..., None], over_time: dict[str, Tensor], others: dict[str, Tensor]
) -> None:
    """`launch(packing, tensors)` writes the same numbers near and far."""
    near = {name: x.clone() for name, x in (over_time | others).items()}
    launch(NEAR, near)
    far = {name: mapped(x) for name, x in over_time.items()}
    far |= {name: x.clone() for name, x in others.items()}
    launch(FAR, far)
    for name, x in near.items():
        y = far[name][:, ROWS:] if name in over_time else far[name]
        assert torch.equal(x, y), name
    changed = [name for name, x in near.items() if not torch.equal(x, (over_time | others)[name])]
    assert changed


STREAMS = {"reads": "q", "writes": "k", "values": "v", "own": "own"}
RESULTS = {
    "forward": ("out", "final"),
    "of queries": ("out", "inner", "marks"),
    "of keys": ("out", "inner", "far"),
    "of values": ("out", "final", "marks", "meets"),
    "states of segments": ("final", "decays"),
    "gradients of segments": ("final",),
}


def slots(packing: Packing, like: Tensor) -> Tensor:
    """Where the marks of these sequences lie."""
    return like if packing is NEAR else mapped(like, ROWS // scalar.MARK, 0)


def scalar_decay(program: Program) -> None:
    lead, names = (1, STEPS, 2), RESULTS[program.label]
    time = {each: drawn(*lead, 1) for each in ("q", "k", "v", "own", "out")}
    time |= {"g": -drawn(*lead).abs(), "inner": drawn(*lead, 1)}
    rest = {each: drawn(1, 2, 1, 1) for each in ("state", "final", "marks")}
    rest |= {"decays": drawn(1, 2), "meets": drawn(1, 2, 1), "far": drawn(1, 2, 1)}

    def launch(packing: Packing, given: dict[str, Tensor]) -> None:
        x = scalar.Quantities(
            *(given[each] for each in ("q", "k", "v", "g", "state")), 1.0, packing
        )
        if packing is FAR:  # its programs, one per block of steps, are too many to interpret
            near = {name: y[:, ROWS:] for name, y in given.items() if name in time}
            own = (near[each] for each in ("q", "k", "v", "g"))
            summed = scalar.Quantities(*own, given["state"], 1.0, NEAR).sums
            vars(x)["sums"] = mapped(summed)
        taken = {
            place: given[name] if program.pointers[place] != "none" else None
            for place, name in STREAMS.items()
        }
        state = given["state"] if program.pointers["state"] != "none" else None
        across, reverse = (bool(program.flags[each]) for each in ("ACROSS", "REVERSE"))
        places = Places(state=state, across=across, reverse=reverse, **taken)
        walk = walk_of(x, program, scalar.tile_for, places)
        results = {each: given[each] for each in names}
        for each in {"marks", "meets", "far"} & set(names):
            results[each] = slots(packing, given[each])
        walk.run(**results)
        for each in {"marks", "meets", "far"} & set(names):
            given[each].copy_(results[each][-1:])

    law(launch, time, rest)


@pytest.mark.parametrize("program", scalar.WALKS, ids=lambda program: program.label)
def test_scalar_decay(program: Program) -> None:
    scalar_decay(program)


def test_states_are_carried() -> None:
    segments, heads, size = 3, 2, 2
    states, decays, given = (
        drawn(segments, heads, size),
        drawn(segments, heads),
        drawn(1, heads, size),
    )

    def carried(states: Tensor, decays: Tensor, first: int) -> None:
        bounds = torch.tensor([first, first + segments])
        program = resolve(CARRY.function)[(1, heads, 1)]
        program(states, decays, given, bounds, heads, SIZE=size, BC=2, REVERSE=False)

    far = mapped(states, ROWS, 0), mapped(decays, ROWS, 0)
    before = states.clone()
    carried(states, decays, 0)
    carried(*far, ROWS)
    assert torch.equal(states, far[0][ROWS:]) and not torch.equal(states, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("name", ["forward", "backward"])
def test_gated_scan(name: str, dtype: torch.dtype) -> None:
    lead = (1, STEPS, 2)
    time = {each: drawn(*lead, dtype=dtype) for each in ("a", "b", "h", "dh", "da", "db")}
    rest = {each: drawn(1, 2, dtype=dtype) for each in ("state", "final", "dfinal", "dstate")}
    names = {"forward": "a b state h final", "backward": "a h state dh dfinal da db dstate"}

    def launch(packing: Packing, given: dict[str, Tensor]) -> None:
        x = channel.Quantities(given["a"], given["b"], given["state"], packing)
        x.launch(name, *(given[each] for each in names[name].split()))

    law(launch, time, rest)


def kept_for(packing: Packing, like: Tensor) -> Tensor:
    """Where the states before the tiles lie, with those of the first tile."""
    return like if packing is NEAR else mapped(like, ROWS // 16, 0)


@pytest.mark.parametrize("place", [0, 1], ids=["forward", "backward"])
def test_selective_scan(place: int) -> None:
    lead = (1, STEPS)
    time = {each: drawn(*lead, 2) for each in ("x", "dy", "y", "dx", "da")}
    time["delta"] = drawn(*lead, 2).abs()
    time |= {each: drawn(*lead, 1, 2) for each in ("b", "c")}
    time |= {each: drawn(*lead, 1, 1, 2) for each in ("db", "dc")}
    rest = {each: drawn(1, 2, 2) for each in ("state", "final", "dfinal", "dA", "dstate")}
    rest |= {"A": -drawn(2, 2).abs(), "skip": drawn(2), "dskip": drawn(1, 2)}
    names = ("state y final", "dy dfinal dx da dA db dc dskip dstate")[place].split()

    def launch(packing: Packing, given: dict[str, Tensor]) -> None:
        inputs = [given[each] for each in ("x", "delta", "A", "b", "c", "skip")]
        kept = kept_for(packing, drawn(1, 2, 2))
        own = [given[each] for each in names]
        own = [*own, kept] if place == 0 else [kept, *own]
        *tensors, skip = inputs
        q = selective.Quantities(*tensors, given["state"], skip, packing)
        q.launch(place, *inputs, *own, None)

    law(launch, time, rest)


@pytest.mark.parametrize("forward", [True, False], ids=["forward", "backward"])
def test_elementwise_scan(forward: bool) -> None:
    lead = (1, STEPS, 1)
    time = {each: drawn(*lead, 2) for each in ("x", "c", "y", "dy", "dx", "dc")}
    time |= {each: drawn(*lead, 2, 2) for each in ("a", "w", "da", "dw")}
    rest = {each: drawn(1, 1, 2, 2) for each in ("state", "final", "dfinal", "dstate")}
    names = ("state y final" if forward else "dy dfinal dx da dw dc dstate").split()

    def launch(packing: Packing, given: dict[str, Tensor]) -> None:
        inputs = [given[each] for each in ("x", "a", "w", "c")]
        kept = kept_for(packing, drawn(1, 1, 2, 2))
        own = [given[each] for each in names]
        own = [*own, kept] if forward else [kept, *own]
        program = elementwise.FORWARD if forward else elementwise.BACKWARD
        elementwise.Quantities(*inputs, given["state"], packing).launch(
            program, *inputs, *own, None
        )

    law(launch, time, rest)


@triton.jit
def in_32_bits(
    pointer, row, offsets, left, heads, head, channels, size: tl.constexpr, UPCAST: tl.constexpr
):
    where = (row.to(tl.int32) + offsets)[:, None] * (heads * size) + head * size
    mask = (offsets < left)[:, None] & (channels < size)[None, :]
    return tl.load(pointer + where + channels[None, :], mask=mask, other=0.0)


def test_a_planted_bug_is_caught(monkeypatch) -> None:
    monkeypatch.setattr(chunk_decay, "tile_of_chunk", in_32_bits)
    with pytest.raises(AssertionError):
        scalar_decay(scalar.FORWARD)


@triton.jit
def first_row(out, length):
    first, steps = memory.place(out, tl.program_id(0) + 65_535, length, False)
    tl.store(out, first)
    tl.store(out + 1, steps)


def test_sequences_that_are_not_packed_begin_in_64_bits() -> None:
    out = torch.zeros(2, dtype=torch.int64)
    first_row[(1,)](out, 70_000)
    assert out.tolist() == [65_535 * 70_000, 70_000]
