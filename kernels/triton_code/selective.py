"""The selective scan (S6): one program per sequence and tile of channels holds their states.

h_t = a_t h_{t-1} + Δ_t b_t x_t per channel and state with a = e^{Δ A}, y_t = Σ_n c_t h_t + D x_t. The forward pass
keeps one state in KEEP; the backward pass makes the others again.
"""

import triton
import triton.language as tl

from .memory import place
from .selective_tiles import (
    by_channel,
    by_state,
    channels_of,
    exponential,
    owner_of,
    put_rows,
    rows_of,
    states_of,
    sum_of_channels,
    sum_of_states,
    walk,
    walk_back,
)

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def cells_of(channels, states, by_one, by_other):
    """Where the numbers of channels (RD, LD) and states (RN, LN) lie."""
    return channels[None, :, :, None] * by_one + states[:, None, None, :] * by_other


@triton.jit
def steps_of(
    x, delta, A, b, rows, ok, channels, known, states, few, size, wide, EXACT: tl.constexpr
):
    """x and Δ (S, RD, LD), b (S, RN, LN), the gates and what enters."""
    given = rows_of(x, rows, ok, channels, known, size)
    step = rows_of(delta, rows, ok, channels, known, size)
    write = rows_of(b, rows, ok, states, few, wide)
    gates = exponential(by_channel(step), A[None, :, :, :, :], EXACT)
    return given, step, write, gates, by_channel(step * given) * by_state(write)


@triton.jit
def forward(
    x, delta, rates, b, c, skip, state, y, final, kept, owners, starts, length, own, groups,
    N: tl.constexpr, KEEP: tl.constexpr, S: tl.constexpr, RN: tl.constexpr, RD: tl.constexpr,
    LD: tl.constexpr, LN: tl.constexpr, EXACT: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Outputs, the last states, and those before every KEEP steps, (rows, N, D)."""
    group, sequence = tl.program_id(1), tl.program_id(2)
    size, wide = own * groups, groups * N
    within, known = channels_of(own, tl.program_id(0), RD, LD)
    states, few = states_of(N, RN, LN)
    channels, at_states = group * own + within, group * N + states
    both = few[:, None, None, :] & known[None, :, :, None]
    cell, inner = cells_of(channels, states, N, 1), cells_of(channels, states, 1, size)
    first, steps = place(starts, sequence, length, PACKED)
    origin = sequence.to(tl.int64) * size * N
    A = tl.load(rates + cell, mask=both, other=0.0) * LOG2_E
    past = tl.load(skip + channels, mask=known, other=0.0)
    h = tl.load(state + origin + cell, mask=both, other=0.0)
    owner = owner_of(owners, sequence)
    keep = kept + (first // KEEP + owner) * size * N + inner
    offsets = tl.arange(0, S)
    for at in range(0, steps, S):
        if at % KEEP == 0:
            tl.store(keep, h, mask=both)
            keep += size * N
        ok = at + offsets < steps
        rows = first + at + offsets
        given, _, _, gates, enters = steps_of(
            x, delta, A, b, rows, ok, channels, known, at_states, few, size, wide, EXACT
        )
        read = rows_of(c, rows, ok, at_states, few, wide)
        earlier, h = walk(gates, enters, h, offsets, S)
        out = sum_of_states((gates * earlier + enters) * by_state(read))
        put_rows(y, out + past[None, :, :] * given, rows, ok, channels, known, size)
    tl.store(final + origin + cell, h, mask=both)


@triton.jit
def backward(
    x, delta, rates, b, c, skip, kept, dy, dfinal, dx, ddelta, drates, db, dc, dskip, dstate,
    owners, starts, length, own, groups,
    N: tl.constexpr, KEEP: tl.constexpr, S: tl.constexpr, RN: tl.constexpr, RD: tl.constexpr,
    LD: tl.constexpr, LN: tl.constexpr, EXACT: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """λ_t = c_t dy_t + a_{t+1} λ_{t+1} from the last tile to the first; every gradient is a sum of its products.

    dx = Σ_n λ Δ b + D dy, dΔ = Σ_n λ (A a h_{t-1} + b x), dA = Σ_t λ Δ a h_{t-1}, dD = Σ_t x dy, db = Σ λ Δ x and
    dc = Σ dy h: the last two over the channels of one program, parts (row, tile, group, N).
    """
    part, group, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    size, wide = own * groups, groups * N
    within, known = channels_of(own, part, RD, LD)
    states, few = states_of(N, RN, LN)
    channels, at_states = group * own + within, group * N + states
    parts, part_states = tl.num_programs(0) * wide, part * wide + at_states
    both = few[:, None, None, :] & known[None, :, :, None]
    cell, inner = cells_of(channels, states, N, 1), cells_of(channels, states, 1, size)
    first, steps = place(starts, sequence, length, PACKED)
    origin = sequence.to(tl.int64) * size * N
    A = tl.load(rates + cell, mask=both, other=0.0) * LOG2_E
    past = tl.load(skip + channels, mask=known, other=0.0)
    carried = tl.load(dfinal + origin + cell, mask=both, other=0.0)
    of_rates = tl.zeros((RN, RD, LD, LN), tl.float32)
    of_skip = tl.zeros((RD, LD), tl.float32)
    owner, offsets = owner_of(owners, sequence), tl.arange(0, S)
    every = offsets < S
    tiles = (steps + S - 1) // S
    for turn in range(0, tiles):
        at = (tiles - 1 - turn) * S
        keep = kept + (first // KEEP + owner + at // KEEP) * size * N + inner
        h = tl.load(keep, mask=both, other=0.0)
        for since in range(at // KEEP * KEEP, at, S):
            rows = first + since + offsets
            _, _, _, gates, enters = steps_of(
                x, delta, A, b, rows, every, channels, known, at_states, few, size, wide, EXACT
            )
            _, h = walk(gates, enters, h, offsets, S)
        ok = at + offsets < steps
        rows = first + at + offsets
        given, step, write, gates, enters = steps_of(
            x, delta, A, b, rows, ok, channels, known, at_states, few, size, wide, EXACT
        )
        read = rows_of(c, rows, ok, at_states, few, wide)
        up = rows_of(dy, rows, ok, channels, known, size)
        earlier, _ = walk(gates, enters, h, offsets, S)
        passed = gates * earlier
        of_read = sum_of_channels((passed + enters) * by_channel(up))
        put_rows(dc, of_read, rows, ok, part_states, few, parts)
        L, carried = walk_back(gates, by_channel(up) * by_state(read), carried, offsets, S)
        of_write = sum_of_channels(L * by_channel(step * given))
        put_rows(db, of_write, rows, ok, part_states, few, parts)
        of_enters = sum_of_states(L * by_state(write))
        of_x = step * of_enters + past[None, :, :] * up
        put_rows(dx, of_x, rows, ok, channels, known, size)
        of_gates = L * passed
        of_step = LN_2 * sum_of_states(of_gates * A[None, :, :, :, :]) + given * of_enters
        put_rows(ddelta, of_step, rows, ok, channels, known, size)
        of_rates += tl.sum(of_gates * by_channel(step), 0)
        of_skip += tl.sum(given * up, 0)
    tl.store(dstate + origin + cell, carried, mask=both)
    tl.store(drates + origin + cell, of_rates, mask=both)
    tl.store(dskip + sequence.to(tl.int64) * size + channels, of_skip, mask=known)
