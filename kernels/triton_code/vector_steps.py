"""A step of decoding on vector states, in place: the gated scan's, real and complex, and the selective scan's."""

import triton
import triton.language as tl

from .channel_scan import put_rows, rows_of, then, then_complex
from .steps import resting, slot_of


@triton.jit
def scan_step(
    a, b, state, slots, h, rows, stride, size,
    BC: tl.constexpr, COMPLEX: tl.constexpr,
):  # fmt: skip
    """h ← a h + b for every channel; pointers are to pairs (real, imaginary) where it is `COMPLEX`."""
    channels = tl.program_id(1) * BC + tl.arange(0, BC)
    sequence = tl.program_id(0).to(tl.int64)
    slot, row = slot_of(slots, sequence), tl.arange(0, 1)
    cache = state + slot * stride
    if (slot >= 0) & (slot < rows):
        if COMPLEX:
            real, other, pairs = 2 * channels, 2 * channels + 1, 2 * size
            hr = rows_of(cache, 0, row, 1, real, pairs, 0.0)
            hi = rows_of(cache, 0, row, 1, other, pairs, 0.0)
            _, _, hr, hi = then_complex(
                hr, hi, hr, hi,
                rows_of(a, sequence, row, 1, real, pairs, 1.0),
                rows_of(a, sequence, row, 1, other, pairs, 0.0),
                rows_of(b, sequence, row, 1, real, pairs, 0.0),
                rows_of(b, sequence, row, 1, other, pairs, 0.0),
            )  # fmt: skip
            put_rows(cache, hr, 0, row, 1, real, pairs)
            put_rows(cache, hi, 0, row, 1, other, pairs)
            put_rows(h, hr, sequence, row, 1, real, pairs)
            put_rows(h, hi, sequence, row, 1, other, pairs)
        else:
            H = rows_of(cache, 0, row, 1, channels, size, 0.0)
            A = rows_of(a, sequence, row, 1, channels, size, 1.0)
            _, H = then(H, H, A, rows_of(b, sequence, row, 1, channels, size, 0.0))
            put_rows(cache, H, 0, row, 1, channels, size)
            put_rows(h, H, sequence, row, 1, channels, size)
    else:
        nothing = tl.zeros((1, BC), tl.float32) + resting(slot)
        if COMPLEX:
            put_rows(h, nothing, sequence, row, 1, 2 * channels, 2 * size)
            put_rows(h, nothing, sequence, row, 1, 2 * channels + 1, 2 * size)
        else:
            put_rows(h, nothing, sequence, row, 1, channels, size)


@triton.jit
def channels_of(pointer, rows, ok, columns, inside, size):
    """Rows × columns in float32, zero outside; `rows` counts from the pointer's first."""
    where = rows[:, None] * size + columns[None, :]
    return tl.load(pointer + where, mask=ok[:, None] & inside[None, :], other=0.0).to(tl.float32)


@triton.jit
def put_channels(pointer, value, rows, ok, columns, inside, size):
    """Store rows × columns in the pointer's type."""
    where = rows[:, None] * size + columns[None, :]
    value = value.to(pointer.dtype.element_ty)
    tl.store(pointer + where, value, mask=ok[:, None] & inside[None, :])


@triton.jit
def selective_step(
    x, delta, A, b, c, skip, state, slots, y, rows, stride, size, groups,
    N: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """h ← e^{ΔA} h + Δ b x per channel and state, y = Σ_n c h + D x."""
    group, sequence = tl.program_id(2), tl.program_id(0).to(tl.int64)
    own = size // groups
    within = tl.program_id(1) * BD + tl.arange(0, BD)
    channels, known = group * own + within, within < own
    states = tl.arange(0, BN)
    few = states < N
    row = sequence + tl.arange(0, 1)
    ok = row >= 0
    slot = slot_of(slots, sequence)
    Y = tl.zeros((1, BD), tl.float32) + resting(slot)
    if (slot >= 0) & (slot < rows):
        place = channels[:, None] * N + states[None, :]
        cell, both = state + slot * stride + place, known[:, None] & few[None, :]
        rates = tl.load(A + place, mask=both, other=0.0)
        h = tl.load(cell, mask=both, other=0.0)
        step = channels_of(delta, row, ok, channels, known, size)
        write = channels_of(b, row * groups + group, ok, states, few, N)
        gates = tl.exp(step[:, :, None] * rates[None, :, :])
        writes = step[:, :, None] * write[:, None, :]
        given = channels_of(x, row, ok, channels, known, size)
        _, now = then(gates, h[None, :, :], gates, writes * given[:, :, None])
        tl.store(cell, tl.sum(now, 0), mask=both)
        read = channels_of(c, row * groups + group, ok, states, few, N)
        Y = tl.sum(now * read[:, None, :], 2)
        if skip is not None:
            direct = tl.load(skip + channels, mask=known, other=0.0).to(tl.float32)
            Y += direct[None, :] * channels_of(x, row, ok, channels, known, size)
    put_channels(y, Y, row, ok, channels, known, size)
