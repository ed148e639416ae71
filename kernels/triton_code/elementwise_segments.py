"""The elementwise scan in segments of time: what each adds to a state or to its gradient, from zero."""

import triton
import triton.language as tl

from .channel_scan import then
from .elementwise import row_of, rows_of, tile_of
from .memory import place


@triton.jit
def local_states(
    x, a, w, final, decays, starts, length, own, groups,
    N: tl.constexpr, S: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """The last state from zero, and the product of the gates."""
    group, sequence = tl.program_id(1), tl.program_id(2)
    size = own * groups
    within, states = tl.program_id(0) * BD + tl.arange(0, BD), tl.arange(0, BN)
    known, few = within < own, states < N
    channels, reads = group * own + within, group * N + states
    cell, both = reads[None, :] * own + within[:, None], known[:, None] & few[None, :]
    first, steps = place(starts, sequence, length, PACKED)
    h = tl.zeros((BD, BN), tl.float32)
    decay = h + 1.0
    offsets = tl.arange(0, S)
    for at in range(0, steps, S):
        ok = at + offsets < steps
        row = first + at
        gates = tile_of(a, row, offsets, ok, cell, both, size * N, 1.0)
        writes = tile_of(w, row, offsets, ok, cell, both, size * N, 0.0)
        given = rows_of(x, row, offsets, ok, channels, known, size)
        gates, enters = tl.associative_scan((gates, writes * given[:, :, None]), 0, then)
        over = row_of(gates, offsets, S - 1)
        h = row_of(enters, offsets, S - 1) + over * h
        decay *= over
    own_cell = sequence.to(tl.int64) * size * N + cell
    tl.store(final + own_cell, h, mask=both)
    tl.store(decays + own_cell, decay, mask=both)


@triton.jit
def local_gradients(
    a, c, dy, dstate, decays, starts, length, own, groups,
    N: tl.constexpr, S: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """The first state's gradient where the last has none, and the product of the gates.

    That of h_{t-1} is μ_t = a_t (c_t dy_t + μ_{t+1}).
    """
    group, sequence = tl.program_id(1), tl.program_id(2)
    size = own * groups
    within, states = tl.program_id(0) * BD + tl.arange(0, BD), tl.arange(0, BN)
    known, few = within < own, states < N
    channels, reads = group * own + within, group * N + states
    cell, both = reads[None, :] * own + within[:, None], known[:, None] & few[None, :]
    first, steps = place(starts, sequence, length, PACKED)
    carried = tl.zeros((BD, BN), tl.float32)
    decay = carried + 1.0
    offsets = tl.arange(0, S)
    tiles = (steps + S - 1) // S
    for turn in range(0, tiles):
        at = (tiles - 1 - turn) * S
        ok = at + offsets < steps
        row = first + at
        gates = tile_of(a, row, offsets, ok, cell, both, size * N, 1.0)
        read = rows_of(c, row, offsets, ok, reads, few, groups * N)
        up = rows_of(dy, row, offsets, ok, channels, known, size)
        above = gates * (up[:, :, None] * read[:, None, :])
        gates, above = tl.associative_scan((gates, above), 0, then, reverse=True)
        over = row_of(gates, offsets, 0)
        carried = row_of(above, offsets, 0) + over * carried
        decay *= over
    own_cell = sequence.to(tl.int64) * size * N + cell
    tl.store(dstate + own_cell, carried, mask=both)
    tl.store(decays + own_cell, decay, mask=both)
