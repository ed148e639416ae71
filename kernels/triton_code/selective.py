"""The selective scan (S6): one program per sequence and tile of channels holds their states (channels, N).

h_t = e^{Δ_t A} h_{t-1} + Δ_t b_t x_t per channel and state, y_t = Σ_n c_t h_t. Tiles of S steps are scanned together;
the forward pass keeps the state before each tile, and the backward pass makes the others again.
"""

import triton
import triton.language as tl

from .memory import place


@triton.jit
def then(a, b, later_a, later_b):
    """(a, b) and then (a', b'): h ↦ a' (a h + b) + b'."""
    return later_a * a, later_a * b + later_b


@triton.jit
def rows_of(pointer, rows, ok, columns, inside, size):
    """Rows × columns in float32, zero outside; `rows` counts from the pointer's first."""
    where = rows[:, None] * size + columns[None, :]
    return tl.load(pointer + where, mask=ok[:, None] & inside[None, :], other=0.0).to(tl.float32)


@triton.jit
def put_rows(pointer, value, rows, ok, columns, inside, size):
    """Store rows × columns in the pointer's type."""
    where = rows[:, None] * size + columns[None, :]
    tl.store(
        pointer + where,
        value.to(pointer.dtype.element_ty),
        mask=ok[:, None] & inside[None, :],
    )


@triton.jit
def entering(delta, x, b, A, rows, ok, channels, known, size, states, few, groups, group,
             N: tl.constexpr):  # fmt: skip
    """e^{ΔA} and Δ b x of some steps, (steps, channels, N); 1 and 0 outside."""
    step = rows_of(delta, rows, ok, channels, known, size)
    given = rows_of(x, rows, ok, channels, known, size)
    write = rows_of(b, rows * groups + group, ok, states, few, N)
    gates = tl.exp(step[:, :, None] * A[None, :, :])
    return gates, (step * given)[:, :, None] * write[:, None, :]


@triton.jit
def at_row(tile, offsets, at):
    """One row of a tile (steps, channels, N)."""
    return tl.sum(tl.where((offsets == at)[:, None, None], tile, 0.0), 0)


@triton.jit
def forward(
    x, delta, A, b, c, state, y, final, kept, starts, length, size, groups,
    N: tl.constexpr, BN: tl.constexpr, S: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Outputs, the last states, and the states before each tile of steps."""
    group, sequence = tl.program_id(1), tl.program_id(2)
    own = size // groups
    within = tl.program_id(0) * BD + tl.arange(0, BD)
    channels, known = group * own + within, within < own
    states = tl.arange(0, BN)
    few = states < N
    first, steps = place(starts, sequence, length, PACKED)
    both = known[:, None] & few[None, :]
    cell = channels[:, None] * N + states[None, :]
    rates = tl.load(A + cell, mask=both, other=0.0)
    h = tl.load(state + sequence.to(tl.int64) * size * N + cell, mask=both, other=0.0)
    keep = kept + (first // S + sequence) * size * N
    offsets = tl.arange(0, S)
    for at in range(0, steps, S):
        tl.store(keep + cell, h, mask=both)
        keep += size * N
        ok = at + offsets < steps
        rows = first + at + offsets
        gates, enters = entering(
            delta, x, b, rates, rows, ok, channels, known, size, states, few, groups, group, N
        )
        gates, enters = tl.associative_scan((gates, enters), 0, then)
        all_states = enters + gates * h[None, :, :]
        read = rows_of(c, rows * groups + group, ok, states, few, N)
        put_rows(y, tl.sum(all_states * read[:, None, :], 2), rows, ok, channels, known, size)
        h = at_row(all_states, offsets, S - 1)
    tl.store(final + sequence.to(tl.int64) * size * N + cell, h, mask=both)


@triton.jit
def backward(
    x, delta, A, b, c, kept, dy, dfinal, dx, ddelta, dA, db, dc, dstate, starts,
    length, size, groups,
    N: tl.constexpr, BN: tl.constexpr, S: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """λ_t = c_t dy_t + a_{t+1} λ_{t+1} from the last tile to the first; every gradient is a sum of its products.

    dΔ = Σ_n λ (A a h_{t-1} + b x), dx = Σ_n λ Δ b, dA = Σ_t λ Δ a h_{t-1}; db = Σ λ Δ x and dc = Σ dy h are
    sums over the channels of one program: parts (tile, row, group, N).
    """
    part, group, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    own = size // groups
    within = part * BD + tl.arange(0, BD)
    channels, known = group * own + within, within < own
    states = tl.arange(0, BN)
    few = states < N
    first, steps = place(starts, sequence, length, PACKED)
    both = known[:, None] & few[None, :]
    cell = channels[:, None] * N + states[None, :]
    whole = sequence.to(tl.int64) * size * N
    rates = tl.load(A + cell, mask=both, other=0.0)
    carried = tl.load(dfinal + whole + cell, mask=both, other=0.0)
    of_rates = tl.zeros((BD, BN), tl.float32)
    offsets = tl.arange(0, S)
    tiles = (steps + S - 1) // S
    parts = tl.num_programs(0)
    for turn in range(0, tiles):
        number = tiles - 1 - turn
        at = number * S
        rows = first + at + offsets
        ok = at + offsets < steps
        h = tl.load(kept + (first // S + sequence + number) * size * N + cell, mask=both, other=0.0)
        # The states before each step: the scan of what entered one step earlier.
        late = ok & (offsets > 0)
        gates, enters = entering(
            delta, x, b, rates, rows - 1, late, channels, known, size, states, few, groups, group, N
        )
        gates, enters = tl.associative_scan((gates, enters), 0, then)
        before = enters + gates * h[None, :, :]
        step = rows_of(delta, rows, ok, channels, known, size)
        given = rows_of(x, rows, ok, channels, known, size)
        up = rows_of(dy, rows, ok, channels, known, size)
        write = rows_of(b, rows * groups + group, ok, states, few, N)
        read = rows_of(c, rows * groups + group, ok, states, few, N)
        next_step = rows_of(delta, rows + 1, at + offsets + 1 < steps, channels, known, size)
        later = tl.exp(next_step[:, :, None] * rates[None, :, :])
        later, L = tl.associative_scan(
            (later, up[:, :, None] * read[:, None, :]), 0, then, reverse=True
        )
        L += later * carried[None, :, :]
        carried = at_row(L, offsets, 0)
        passed = tl.exp(step[:, :, None] * rates[None, :, :]) * before
        now = passed + (step * given)[:, :, None] * write[:, None, :]
        place_of_part = (rows * groups + group) * parts + part
        put_rows(dc, tl.sum(now * up[:, :, None], 1), place_of_part, ok, states, few, N)
        put_rows(db, tl.sum(L * (step * given)[:, :, None], 1), place_of_part, ok, states, few, N)
        inward = tl.sum(L * write[:, None, :], 2)
        put_rows(dx, inward * step, rows, ok, channels, known, size)
        through = L * passed
        of_step = tl.sum(through * rates[None, :, :], 2) + inward * given
        put_rows(ddelta, of_step, rows, ok, channels, known, size)
        of_rates += tl.sum(through * step[:, :, None], 0)
    once = tl.load(delta + first * size + channels, mask=known & (steps > 0), other=0.0)
    gate = tl.exp(once.to(tl.float32)[:, None] * rates)
    tl.store(dstate + whole + cell, gate * carried, mask=both)
    tl.store(dA + whole + cell, of_rates, mask=both)
