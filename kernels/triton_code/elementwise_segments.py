"""The elementwise scan in segments of time: what each adds to a state or to its gradient, from zero."""

import triton
import triton.language as tl

from .elementwise import rows_of, tile_of, walk, walk_back
from .memory import place


@triton.jit
def local_states(
    x, a, w, final, decays, starts, length, own, groups,
    N: tl.constexpr, KEEP: tl.constexpr, S: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    PACKED: tl.constexpr,
):  # fmt: skip
    """The last state from zero, and the product of the gates."""
    group, sequence = tl.program_id(1), tl.program_id(2)
    size = own * groups
    within, states = tl.program_id(0) * BD + tl.arange(0, BD), tl.arange(0, BN)
    known, few = within < own, states < N
    channels = group * own + within
    cell = (group * N + states)[:, None] * own + within[None, :]
    both = few[:, None] & known[None, :]
    first, steps = place(starts, sequence, length, PACKED)
    h = tl.zeros((BN, BD), tl.float32)
    decay = h + 1.0
    offsets = tl.arange(0, S)
    for at in range(0, steps, S):
        ok = at + offsets < steps
        row = first + at
        gates = tile_of(a, row, offsets, ok, cell, both, size * N, 1.0)
        writes = tile_of(w, row, offsets, ok, cell, both, size * N, 0.0)
        given = rows_of(x, row, offsets, ok, channels, known, size)
        _, h = walk(gates, writes * given[None, :, :], h, offsets, S)
        _, decay = walk(gates, tl.zeros_like(gates), decay, offsets, S)
    own_cell = sequence.to(tl.int64) * size * N + cell
    tl.store(final + own_cell, h, mask=both)
    tl.store(decays + own_cell, decay, mask=both)


@triton.jit
def local_gradients(
    a, c, dy, dstate, decays, starts, length, own, groups,
    N: tl.constexpr, KEEP: tl.constexpr, S: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    PACKED: tl.constexpr,
):  # fmt: skip
    """The first state's gradient where the last has none, and the product of the gates."""
    group, sequence = tl.program_id(1), tl.program_id(2)
    size = own * groups
    within, states = tl.program_id(0) * BD + tl.arange(0, BD), tl.arange(0, BN)
    known, few = within < own, states < N
    channels, reads = group * own + within, group * N + states
    cell, both = reads[:, None] * own + within[None, :], few[:, None] & known[None, :]
    first, steps = place(starts, sequence, length, PACKED)
    carried = tl.zeros((BN, BD), tl.float32)
    decay = carried + 1.0
    offsets = tl.arange(0, S)
    tiles = (steps + S - 1) // S
    for turn in range(0, tiles):
        at = (tiles - 1 - turn) * S
        ok = at + offsets < steps
        row = first + at
        gates = tile_of(a, row, offsets, ok, cell, both, size * N, 1.0)
        read = tl.trans(rows_of(c, row, offsets, ok, reads, few, groups * N))
        up = rows_of(dy, row, offsets, ok, channels, known, size)
        _, carried = walk_back(gates, up[None, :, :] * read[:, :, None], carried, offsets, S)
        _, decay = walk_back(gates, tl.zeros_like(gates), decay, offsets, S)
    own_cell = sequence.to(tl.int64) * size * N + cell
    tl.store(dstate + own_cell, carried, mask=both)
    tl.store(decays + own_cell, decay, mask=both)
