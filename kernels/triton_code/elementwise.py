"""The scan of gates per state and channel: one program per sequence and tile of channels holds their states.

h_t = a_t h_{t-1} + w_t x_t, y_t = Σ_n c_t h_t, a and w given whole, (rows, G, N, D/G). A tile is (N, S, D):
neighbouring threads have neighbouring channels, then states, so that all steps of a number are in one thread. The
forward pass keeps one state in KEEP; the backward pass makes the others again.
"""

import triton
import triton.language as tl

from .memory import place
from .selective_tiles import owner_of


@triton.jit
def rows_of(pointer, row, offsets, ok, columns, known, size):
    """Rows × columns in float32, zero outside."""
    where = offsets[:, None] * size + columns[None, :]
    return tl.load(pointer + row * size + where, mask=ok[:, None] & known[None, :], other=0.0).to(
        tl.float32
    )


@triton.jit
def put_rows(pointer, value, row, offsets, ok, columns, known, size):
    """Store rows × columns in the pointer's type."""
    where = offsets[:, None] * size + columns[None, :]
    value = value.to(pointer.dtype.element_ty)
    tl.store(pointer + row * size + where, value, mask=ok[:, None] & known[None, :])


@triton.jit
def tile_of(pointer, row, offsets, ok, cell, both, size, other):
    """Rows of numbers per state and channel, in float32."""
    where = offsets[None, :, None] * size + cell[:, None, :]
    mask = ok[None, :, None] & both[:, None, :]
    return tl.load(pointer + row * size + where, mask=mask, other=other).to(tl.float32)


@triton.jit
def put_tile(pointer, value, row, offsets, ok, cell, both, size):
    """Store rows of numbers per state and channel in the pointer's type."""
    where = offsets[None, :, None] * size + cell[:, None, :]
    value = value.to(pointer.dtype.element_ty)
    tl.store(pointer + row * size + where, value, mask=ok[None, :, None] & both[:, None, :])


@triton.jit
def row_of(tile, offsets, at):
    """One row of a tile beside it; what is added to -0.0 stays as it is, so a compiler adds nothing."""
    return tl.sum(tl.where((offsets == at)[None, :, None], tile, -0.0), 1)[:, None, :]


@triton.jit
def with_row(tile, offsets, at, row):
    """A tile with another row."""
    return tl.where((offsets == at)[None, :, None], row, tile)


@triton.jit
def walk(gates, enters, h, offsets, S: tl.constexpr):
    """h_{t-1} of every step, and the last h, where h_t = a_t h_{t-1} + what enters."""
    earlier, row = tl.zeros_like(gates), h[:, None, :]
    for at in tl.static_range(S):
        earlier = with_row(earlier, offsets, at, row)
        row = row_of(gates * row + enters, offsets, at)
    return earlier, tl.reshape(row, h.shape)


@triton.jit
def walk_back(gates, above, carried, offsets, S: tl.constexpr):
    """λ of every step and a λ of the first, where λ_t = above_t + a_{t+1} λ_{t+1}."""
    found, row = tl.zeros_like(gates), carried[:, None, :]
    for turn in tl.static_range(S):
        L = above + row
        found = with_row(found, offsets, S - 1 - turn, L)
        row = row_of(gates * L, offsets, S - 1 - turn)
    return found, tl.reshape(row, carried.shape)


@triton.jit
def forward(
    x, a, w, c, state, y, final, kept, owners, starts, length, own, groups,
    N: tl.constexpr, KEEP: tl.constexpr, S: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    PACKED: tl.constexpr,
):  # fmt: skip
    """Outputs, the last states, and those before every KEEP steps."""
    group, sequence = tl.program_id(1), tl.program_id(2)
    size = own * groups
    within, states = tl.program_id(0) * BD + tl.arange(0, BD), tl.arange(0, BN)
    known, few = within < own, states < N
    channels, reads = group * own + within, group * N + states
    cell, both = reads[:, None] * own + within[None, :], few[:, None] & known[None, :]
    first, steps = place(starts, sequence, length, PACKED)
    origin = sequence.to(tl.int64) * size * N
    h = tl.load(state + origin + cell, mask=both, other=0.0)
    owner = owner_of(owners, sequence)
    keep = kept + (first // KEEP + owner) * size * N + cell
    offsets = tl.arange(0, S)
    for at in range(0, steps, S):
        if at % KEEP == 0:
            tl.store(keep, h, mask=both)
            keep += size * N
        ok = at + offsets < steps
        row = first + at
        gates = tile_of(a, row, offsets, ok, cell, both, size * N, 1.0)
        writes = tile_of(w, row, offsets, ok, cell, both, size * N, 0.0)
        enters = writes * rows_of(x, row, offsets, ok, channels, known, size)[None, :, :]
        read = tl.trans(rows_of(c, row, offsets, ok, reads, few, groups * N))
        earlier, h = walk(gates, enters, h, offsets, S)
        out = tl.sum((gates * earlier + enters) * read[:, :, None], 0)
        put_rows(y, out, row, offsets, ok, channels, known, size)
    tl.store(final + origin + cell, h, mask=both)


@triton.jit
def backward(
    x, a, w, c, kept, dy, dfinal, dx, da, dw, dc, dstate, owners, starts, length, own, groups,
    N: tl.constexpr, KEEP: tl.constexpr, S: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
    PACKED: tl.constexpr,
):  # fmt: skip
    """λ_t = c_t dy_t + a_{t+1} λ_{t+1} from the last tile to the first; da = λ h_{t-1}, dw = λ x, dx = Σ_n λ w.

    dc = Σ dy h is a sum over the channels of one program: parts (row, tile, group, N).
    """
    part, group, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    size, wide = own * groups, groups * N
    within, states = part * BD + tl.arange(0, BD), tl.arange(0, BN)
    known, few = within < own, states < N
    channels, reads = group * own + within, group * N + states
    cell, both = reads[:, None] * own + within[None, :], few[:, None] & known[None, :]
    first, steps = place(starts, sequence, length, PACKED)
    origin = sequence.to(tl.int64) * size * N
    carried = tl.load(dfinal + origin + cell, mask=both, other=0.0)
    owner, offsets = owner_of(owners, sequence), tl.arange(0, S)
    tiles = (steps + S - 1) // S
    for turn in range(0, tiles):
        at = (tiles - 1 - turn) * S
        keep = kept + (first // KEEP + owner + at // KEEP) * size * N + cell
        h = tl.load(keep, mask=both, other=0.0)
        for since in range(at // KEEP * KEEP, at, S):
            row, every = first + since, offsets < S
            gates = tile_of(a, row, offsets, every, cell, both, size * N, 1.0)
            writes = tile_of(w, row, offsets, every, cell, both, size * N, 0.0)
            given = rows_of(x, row, offsets, every, channels, known, size)
            _, h = walk(gates, writes * given[None, :, :], h, offsets, S)
        ok = at + offsets < steps
        row = first + at
        gates = tile_of(a, row, offsets, ok, cell, both, size * N, 1.0)
        writes = tile_of(w, row, offsets, ok, cell, both, size * N, 0.0)
        given = rows_of(x, row, offsets, ok, channels, known, size)
        up = rows_of(dy, row, offsets, ok, channels, known, size)
        read = tl.trans(rows_of(c, row, offsets, ok, reads, few, wide))
        enters = writes * given[None, :, :]
        earlier, _ = walk(gates, enters, h, offsets, S)
        of_read = tl.trans(tl.sum((gates * earlier + enters) * up[None, :, :], 2))
        put_rows(dc, of_read, row, offsets, ok, part * wide + reads, few, tl.num_programs(0) * wide)
        L, carried = walk_back(gates, up[None, :, :] * read[:, :, None], carried, offsets, S)
        put_rows(dx, tl.sum(L * writes, 0), row, offsets, ok, channels, known, size)
        put_tile(da, L * earlier, row, offsets, ok, cell, both, size * N)
        put_tile(dw, L * given[None, :, :], row, offsets, ok, cell, both, size * N)
    tl.store(dstate + origin + cell, carried, mask=both)
