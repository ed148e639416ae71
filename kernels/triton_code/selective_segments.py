"""The selective scan in segments of time: what each adds to a state or to its gradient, from zero."""

import triton
import triton.language as tl

from .memory import place
from .selective import LOG2_E, cells_of, steps_of
from .selective_tiles import (
    by_channel,
    by_state,
    channels_of,
    exponential,
    rows_of,
    states_of,
    walk,
    walk_back,
)


@triton.jit
def over(
    states, decays, given, segments, size,
    BC: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """h_j = d_{j-1} h_{j-1} + x_{j-1} from the given h of each sequence, in place, where `states` holds what j adds.

    `segments` says where those of each sequence start. With REVERSE from the last to the first.
    """
    sequence = tl.program_id(2)
    cells = tl.program_id(0) * BC + tl.arange(0, BC)
    inside = cells < size
    h = tl.load(given + sequence.to(tl.int64) * size + cells, mask=inside, other=0.0)
    first = tl.load(segments + sequence)
    count = (tl.load(segments + sequence + 1) - first).to(tl.int32)
    for turn in range(0, count):
        at = turn
        if REVERSE:
            at = count - 1 - turn
        where = (first + at) * size + cells
        added = tl.load(states + where, mask=inside, other=0.0)
        decay = tl.load(decays + where, mask=inside, other=0.0)
        tl.store(states + where, h, mask=inside)
        h = h * decay + added


@triton.jit
def local_states(
    x, delta, rates, b, final, decays, starts, length, own, groups,
    N: tl.constexpr, KEEP: tl.constexpr, S: tl.constexpr, RN: tl.constexpr, RD: tl.constexpr,
    LD: tl.constexpr, LN: tl.constexpr, EXACT: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """The last state from zero, and e^{A ΣΔ}."""
    group, sequence = tl.program_id(1), tl.program_id(2)
    size, wide = own * groups, groups * N
    within, known = channels_of(own, tl.program_id(0), RD, LD)
    states, few = states_of(N, RN, LN)
    channels, at_states = group * own + within, group * N + states
    both = few[:, None, None, :] & known[None, :, :, None]
    cell = cells_of(channels, states, N, 1) + sequence.to(tl.int64) * size * N
    first, steps = place(starts, sequence, length, PACKED)
    A = tl.load(rates + cells_of(channels, states, N, 1), mask=both, other=0.0) * LOG2_E
    h, time = tl.zeros((RN, RD, LD, LN), tl.float32), tl.zeros((RD, LD), tl.float32)
    offsets = tl.arange(0, S)
    for at in range(0, steps, S):
        ok = at + offsets < steps
        rows = first + at + offsets
        _, step, _, gates, enters = steps_of(
            x, delta, A, b, rows, ok, channels, known, at_states, few, size, wide, EXACT
        )
        _, h = walk(gates, enters, h, offsets, S)
        time += tl.sum(step, 0)
    tl.store(final + cell, h, mask=both)
    decay = exponential(time[None, :, :, None], A, EXACT)
    tl.store(decays + cell, decay, mask=both)


@triton.jit
def local_gradients(
    delta, rates, c, dy, dstate, decays, starts, length, own, groups,
    N: tl.constexpr, KEEP: tl.constexpr, S: tl.constexpr, RN: tl.constexpr, RD: tl.constexpr,
    LD: tl.constexpr, LN: tl.constexpr, EXACT: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """The first state's gradient where the last has none, and e^{A ΣΔ}."""
    group, sequence = tl.program_id(1), tl.program_id(2)
    size, wide = own * groups, groups * N
    within, known = channels_of(own, tl.program_id(0), RD, LD)
    states, few = states_of(N, RN, LN)
    channels, at_states = group * own + within, group * N + states
    both = few[:, None, None, :] & known[None, :, :, None]
    cell = cells_of(channels, states, N, 1) + sequence.to(tl.int64) * size * N
    first, steps = place(starts, sequence, length, PACKED)
    A = tl.load(rates + cells_of(channels, states, N, 1), mask=both, other=0.0) * LOG2_E
    carried, time = tl.zeros((RN, RD, LD, LN), tl.float32), tl.zeros((RD, LD), tl.float32)
    offsets = tl.arange(0, S)
    tiles = (steps + S - 1) // S
    for turn in range(0, tiles):
        at = (tiles - 1 - turn) * S
        ok = at + offsets < steps
        rows = first + at + offsets
        step = rows_of(delta, rows, ok, channels, known, size)
        read = rows_of(c, rows, ok, at_states, few, wide)
        up = rows_of(dy, rows, ok, channels, known, size)
        gates = exponential(by_channel(step), A[None, :, :, :, :], EXACT)
        _, carried = walk_back(gates, by_channel(up) * by_state(read), carried, offsets, S)
        time += tl.sum(step, 0)
    tl.store(dstate + cell, carried, mask=both)
    decay = exponential(time[None, :, :, None], A, EXACT)
    tl.store(decays + cell, decay, mask=both)
