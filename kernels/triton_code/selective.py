"""The selective scan (S6): one program per sequence and tile of channels holds their states (channels, N).

h_t = a_t h_{t-1} + w_t x_t per channel and state, y_t = Σ_n c_t h_t, where a = e^{Δ A} and w = Δ b, or both are given
whole. Tiles of S steps are scanned together; the forward pass keeps the state before each tile, and the backward pass
makes the others again.
"""

import triton
import triton.language as tl

from .channel_scan import then
from .memory import place


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
def whole_rows(pointer, rows, ok, place, inside, size, other):
    """Rows of a tensor with a number per channel and state, (steps, channels, N), in float32."""
    where = rows[:, None, None] * size + place[None, :, :]
    mask = ok[:, None, None] & inside[None, :, :]
    return tl.load(pointer + where, mask=mask, other=other).to(tl.float32)


@triton.jit
def put_whole_rows(pointer, value, rows, ok, place, inside, size):
    """Store rows of numbers per channel and state."""
    where = rows[:, None, None] * size + place[None, :, :]
    tl.store(pointer + where, value, mask=ok[:, None, None] & inside[None, :, :])


@triton.jit
def place_of(group, own, within, states, N: tl.constexpr, WHOLE: tl.constexpr):
    """Where the states of a tile of channels lie: (D, N), or (G, N, D/G) as the gates do that are given whole."""
    if WHOLE:
        return (group * N + states[None, :]) * own + within[:, None]
    else:
        return (group * own + within)[:, None] * N + states[None, :]


@triton.jit
def gates_of(a, rates, rows, ok, channels, known, place, inside, size,
             N: tl.constexpr, WHOLE: tl.constexpr):  # fmt: skip
    """a (steps, channels, N), 1 outside; e^{Δ A} where `a` is Δ."""
    if WHOLE:
        return whole_rows(a, rows, ok, place, inside, size * N, 1.0)
    else:
        step = rows_of(a, rows, ok, channels, known, size)
        return tl.exp(step[:, :, None] * rates[None, :, :])


@triton.jit
def writes_of(a, w, rows, ok, channels, known, states, few, groups, group, place, inside, size,
              N: tl.constexpr, WHOLE: tl.constexpr):  # fmt: skip
    """w (steps, channels, N), 0 outside; Δ b where `w` is b and `a` is Δ."""
    if WHOLE:
        return whole_rows(w, rows, ok, place, inside, size * N, 0.0)
    else:
        step = rows_of(a, rows, ok, channels, known, size)
        write = rows_of(w, rows * groups + group, ok, states, few, N)
        return step[:, :, None] * write[:, None, :]


@triton.jit
def at_row(tile, offsets, at):
    """One row of a tile (steps, channels, N)."""
    return tl.sum(tl.where((offsets == at)[:, None, None], tile, 0.0), 0)


@triton.jit
def forward(
    x, a, rates, w, c, state, y, final, kept, starts, length, size, groups,
    N: tl.constexpr, BN: tl.constexpr, S: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Outputs, the last states, and those before each tile of steps.

    With `rates` A, `a` is Δ (rows, D) and `w` is b (rows, G, N); without, both are whole (rows, G, N, D/G).
    """
    WHOLE: tl.constexpr = rates is None
    group, sequence = tl.program_id(1), tl.program_id(2)
    own = size // groups
    within = tl.program_id(0) * BD + tl.arange(0, BD)
    channels, known = group * own + within, within < own
    states = tl.arange(0, BN)
    few = states < N
    first, steps = place(starts, sequence, length, PACKED)
    both = known[:, None] & few[None, :]
    cell = place_of(group, own, within, states, N, WHOLE)
    A = 0.0
    if rates is not None:
        A = tl.load(rates + cell, mask=both, other=0.0)
    h = tl.load(state + sequence.to(tl.int64) * size * N + cell, mask=both, other=0.0)
    keep = kept + (first // S + sequence) * size * N
    offsets = tl.arange(0, S)
    for at in range(0, steps, S):
        tl.store(keep + cell, h, mask=both)
        keep += size * N
        ok = at + offsets < steps
        rows = first + at + offsets
        gates = gates_of(a, A, rows, ok, channels, known, cell, both, size, N, WHOLE)
        writes = writes_of(
            a, w, rows, ok, channels, known, states, few, groups, group, cell, both, size, N, WHOLE
        )
        given = rows_of(x, rows, ok, channels, known, size)
        gates, enters = tl.associative_scan((gates, writes * given[:, :, None]), 0, then)
        all_states = enters + gates * h[None, :, :]
        read = rows_of(c, rows * groups + group, ok, states, few, N)
        put_rows(y, tl.sum(all_states * read[:, None, :], 2), rows, ok, channels, known, size)
        h = at_row(all_states, offsets, S - 1)
    tl.store(final + sequence.to(tl.int64) * size * N + cell, h, mask=both)


@triton.jit
def forward_whole(
    x, a, w, c, state, y, final, kept, starts, length, size, groups,
    N: tl.constexpr, BN: tl.constexpr, S: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """`forward` where a and w are given whole."""
    forward(
        x, a, None, w, c, state, y, final, kept, starts, length, size, groups, N, BN, S, BD, PACKED
    )


@triton.jit
def backward(
    x, a, rates, w, c, kept, dy, dfinal, dx, da, drates, dw, dc, dstate, starts,
    length, size, groups,
    N: tl.constexpr, BN: tl.constexpr, S: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """λ_t = c_t dy_t + a_{t+1} λ_{t+1} from the last tile to the first; every gradient is a sum of its products.

    Of a whole a and w they are λ h_{t-1} and λ x; dx = Σ_n λ w. With `rates` A: dΔ = Σ_n λ (A a h_{t-1} + b x),
    dA = Σ_t λ Δ a h_{t-1}, db = Σ λ Δ x. db and dc = Σ dy h are sums over the channels of one program: parts
    (tile, row, group, N).
    """
    WHOLE: tl.constexpr = rates is None
    part, group, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    own = size // groups
    within = part * BD + tl.arange(0, BD)
    channels, known = group * own + within, within < own
    states = tl.arange(0, BN)
    few = states < N
    first, steps = place(starts, sequence, length, PACKED)
    both = known[:, None] & few[None, :]
    cell = place_of(group, own, within, states, N, WHOLE)
    origin = sequence.to(tl.int64) * size * N
    A = 0.0
    if rates is not None:
        A = tl.load(rates + cell, mask=both, other=0.0)
    carried = tl.load(dfinal + origin + cell, mask=both, other=0.0)
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
        gates = gates_of(a, A, rows - 1, late, channels, known, cell, both, size, N, WHOLE)
        writes = writes_of(
            a, w, rows - 1, late, channels, known, states, few, groups, group, cell, both, size, N, WHOLE
        )  # fmt: skip
        earlier = rows_of(x, rows - 1, late, channels, known, size)
        gates, enters = tl.associative_scan((gates, writes * earlier[:, :, None]), 0, then)
        before = enters + gates * h[None, :, :]
        given = rows_of(x, rows, ok, channels, known, size)
        up = rows_of(dy, rows, ok, channels, known, size)
        read = rows_of(c, rows * groups + group, ok, states, few, N)
        later = gates_of(
            a, A, rows + 1, at + offsets + 1 < steps, channels, known, cell, both, size, N, WHOLE
        )
        later, L = tl.associative_scan(
            (later, up[:, :, None] * read[:, None, :]), 0, then, reverse=True
        )
        L += later * carried[None, :, :]
        carried = at_row(L, offsets, 0)
        passed = gates_of(a, A, rows, ok, channels, known, cell, both, size, N, WHOLE) * before
        writes = writes_of(
            a, w, rows, ok, channels, known, states, few, groups, group, cell, both, size, N, WHOLE
        )
        now = passed + writes * given[:, :, None]
        place_of_part = (rows * groups + group) * parts + part
        put_rows(dc, tl.sum(now * up[:, :, None], 1), place_of_part, ok, states, few, N)
        put_rows(dx, tl.sum(L * writes, 2), rows, ok, channels, known, size)
        of_writes = L * given[:, :, None]
        if WHOLE:
            put_whole_rows(da, L * before, rows, ok, cell, both, size * N)
            put_whole_rows(dw, of_writes, rows, ok, cell, both, size * N)
        else:
            step = rows_of(a, rows, ok, channels, known, size)
            write = rows_of(w, rows * groups + group, ok, states, few, N)
            put_rows(dw, tl.sum(of_writes * step[:, :, None], 1), place_of_part, ok, states, few, N)
            through = L * passed
            of_step = tl.sum(through * A[None, :, :] + of_writes * write[:, None, :], 2)
            put_rows(da, of_step, rows, ok, channels, known, size)
            of_rates += tl.sum(through * step[:, :, None], 0)
    there = (tl.zeros((1,), tl.int32) == 0) & (steps > 0)
    gate = gates_of(
        a, A, tl.zeros((1,), tl.int64) + first, there, channels, known, cell, both, size, N, WHOLE
    )
    tl.store(dstate + origin + cell, tl.sum(gate, 0) * carried, mask=both)
    if rates is not None:
        tl.store(drates + origin + cell, of_rates, mask=both)


@triton.jit
def backward_whole(
    x, a, w, c, kept, dy, dfinal, dx, da, dw, dc, dstate, starts, length, size, groups,
    N: tl.constexpr, BN: tl.constexpr, S: tl.constexpr, BD: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """`backward` where a and w are given whole."""
    backward(
        x, a, None, w, c, kept, dy, dfinal, dx, da, None, dw, dc, dstate, starts,
        length, size, groups, N, BN, S, BD, PACKED,
    )  # fmt: skip
