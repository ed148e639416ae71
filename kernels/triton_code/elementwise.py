"""The scan of gates per state and channel: one program per sequence and tile of channels holds their states.

h_t = a_t h_{t-1} + w_t x_t, y_t = Σ_n c_t h_t, a and w given whole, (rows, G, N, D/G). Tiles (S, D, N) of S steps are
scanned at once; the forward pass keeps the state before each tile, and the backward pass makes the others again.
"""

import triton
import triton.language as tl

from .channel_scan import then
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
    """Rows of numbers per channel and state, in float32."""
    where = offsets[:, None, None] * size + cell[None, :, :]
    mask = ok[:, None, None] & both[None, :, :]
    return tl.load(pointer + row * size + where, mask=mask, other=other).to(tl.float32)


@triton.jit
def put_tile(pointer, value, row, offsets, ok, cell, both, size):
    """Store rows of numbers per channel and state in the pointer's type."""
    where = offsets[:, None, None] * size + cell[None, :, :]
    value = value.to(pointer.dtype.element_ty)
    tl.store(pointer + row * size + where, value, mask=ok[:, None, None] & both[None, :, :])


@triton.jit
def row_of(tile, offsets, at):
    """One row of a tile."""
    return tl.sum(tl.where((offsets == at)[:, None, None], tile, 0.0), 0)


@triton.jit
def forward(
    x, a, w, c, state, y, final, kept, owners, starts, length, own, groups,
    N: tl.constexpr, S: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Outputs, the last states, and those before each tile of steps."""
    group, sequence = tl.program_id(1), tl.program_id(2)
    size = own * groups
    within, states = tl.program_id(0) * BD + tl.arange(0, BD), tl.arange(0, BN)
    known, few = within < own, states < N
    channels, reads = group * own + within, group * N + states
    cell, both = reads[None, :] * own + within[:, None], known[:, None] & few[None, :]
    first, steps = place(starts, sequence, length, PACKED)
    origin = sequence.to(tl.int64) * size * N
    h = tl.load(state + origin + cell, mask=both, other=0.0)
    keep = kept + (first // S + owner_of(owners, sequence)) * size * N
    offsets = tl.arange(0, S)
    for at in range(0, steps, S):
        tl.store(keep + cell, h, mask=both)
        keep += size * N
        ok = at + offsets < steps
        row = first + at
        gates = tile_of(a, row, offsets, ok, cell, both, size * N, 1.0)
        writes = tile_of(w, row, offsets, ok, cell, both, size * N, 0.0)
        given = rows_of(x, row, offsets, ok, channels, known, size)
        gates, enters = tl.associative_scan((gates, writes * given[:, :, None]), 0, then)
        all_states = enters + gates * h[None, :, :]
        read = rows_of(c, row, offsets, ok, reads, few, groups * N)
        put_rows(
            y, tl.sum(all_states * read[:, None, :], 2), row, offsets, ok, channels, known, size
        )
        h = row_of(all_states, offsets, S - 1)
    tl.store(final + origin + cell, h, mask=both)


@triton.jit
def backward(
    x, a, w, c, kept, dy, dfinal, dx, da, dw, dc, dstate, owners, starts, length, own, groups,
    N: tl.constexpr, S: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """λ_t = c_t dy_t + a_{t+1} λ_{t+1} from the last tile to the first; da = λ h_{t-1}, dw = λ x, dx = Σ_n λ w.

    dc = Σ dy h is a sum over the channels of one program: parts (row, tile, group, N).
    """
    part, group, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    size, wide = own * groups, groups * N
    within, states = part * BD + tl.arange(0, BD), tl.arange(0, BN)
    known, few = within < own, states < N
    channels, reads = group * own + within, group * N + states
    cell, both = reads[None, :] * own + within[:, None], known[:, None] & few[None, :]
    first, steps = place(starts, sequence, length, PACKED)
    origin = sequence.to(tl.int64) * size * N
    carried = tl.load(dfinal + origin + cell, mask=both, other=0.0)
    keep = kept + (first // S + owner_of(owners, sequence)) * size * N + cell
    offsets = tl.arange(0, S)
    tiles = (steps + S - 1) // S
    for turn in range(0, tiles):
        number = tiles - 1 - turn
        at = number * S
        row = first + at
        ok = at + offsets < steps
        h = tl.load(keep + number.to(tl.int64) * size * N, mask=both, other=0.0)
        # The states before each step: the scan of what entered one step earlier.
        late = ok & (offsets > 0)
        gates = tile_of(a, row - 1, offsets, late, cell, both, size * N, 1.0)
        writes = tile_of(w, row - 1, offsets, late, cell, both, size * N, 0.0)
        earlier = rows_of(x, row - 1, offsets, late, channels, known, size)
        gates, enters = tl.associative_scan((gates, writes * earlier[:, :, None]), 0, then)
        before = enters + gates * h[None, :, :]
        given = rows_of(x, row, offsets, ok, channels, known, size)
        up = rows_of(dy, row, offsets, ok, channels, known, size)
        read = rows_of(c, row, offsets, ok, reads, few, wide)
        later = tile_of(a, row + 1, offsets, at + offsets + 1 < steps, cell, both, size * N, 1.0)
        later, L = tl.associative_scan(
            (later, up[:, :, None] * read[:, None, :]), 0, then, reverse=True
        )
        L += later * carried[None, :, :]
        carried = row_of(L, offsets, 0)
        gates = tile_of(a, row, offsets, ok, cell, both, size * N, 1.0)
        writes = tile_of(w, row, offsets, ok, cell, both, size * N, 0.0)
        now = gates * before + writes * given[:, :, None]
        of_read = tl.sum(now * up[:, :, None], 1)
        put_rows(dc, of_read, row, offsets, ok, part * wide + reads, few, tl.num_programs(0) * wide)
        put_rows(dx, tl.sum(L * writes, 2), row, offsets, ok, channels, known, size)
        put_tile(da, L * before, row, offsets, ok, cell, both, size * N)
        put_tile(dw, L * given[:, :, None], row, offsets, ok, cell, both, size * N)
    gate = tl.load(a + first * size * N + cell, mask=both & (steps > 0), other=1.0).to(tl.float32)
    tl.store(dstate + origin + cell, gate * carried, mask=both)
