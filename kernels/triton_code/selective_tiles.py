"""Tiles of the selective scan: S steps of a program's channels and states, all steps of one number in one thread.

A tile is (S, RN, RD, LD, LN): states n = rn LN + ln and channels d = rd LD + ld. The last two axes lie across threads
(LD LN are all of them), so that a scan of steps is a loop in a thread, and a sum over states one of RN numbers and a
few exchanges. A state is (RN, RD, LD, LN).
"""

import triton
import triton.language as tl

SHIFT: tl.constexpr = tl.constexpr(1.5 * 2**23 + 127)


@triton.jit
def owner_of(owners, sequence):
    """The sequence of a segment, where the sequences of a launch are segments of others."""
    if owners is None:
        return sequence
    else:
        return tl.load(owners + sequence)


@triton.jit
def channels_of(own, tile, RD: tl.constexpr, LD: tl.constexpr):
    """The channels of a program within their group, (RD, LD), and which there are."""
    within = tl.arange(0, RD)[:, None] * LD + tl.arange(0, LD)[None, :] + tile * (RD * LD)
    return within, within < own


@triton.jit
def states_of(N: tl.constexpr, RN: tl.constexpr, LN: tl.constexpr):
    """The states, (RN, LN), and which there are."""
    states = tl.arange(0, RN)[:, None] * LN + tl.arange(0, LN)[None, :]
    return states, states < N


@triton.jit
def by_channel(rows):
    """(S, RD, LD) beside a tile."""
    return rows[:, None, :, :, None]


@triton.jit
def by_state(rows):
    """(S, RN, LN) beside a tile."""
    return rows[:, :, None, None, :]


@triton.jit
def sum_of_states(tile):
    """(S, RD, LD)."""
    return tl.sum(tl.sum(tile, 1), 3)


@triton.jit
def sum_of_channels(tile):
    """(S, RN, LN)."""
    return tl.sum(tl.sum(tile, 2), 2)


@triton.jit
def rows_of(pointer, rows, ok, columns, known, size):
    """Rows of two axes of columns in float32, zero outside."""
    where = rows[:, None, None] * size + columns[None, :, :]
    mask = ok[:, None, None] & known[None, :, :]
    return tl.load(pointer + where, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def put_rows(pointer, value, rows, ok, columns, known, size):
    """Store rows of two axes of columns in the pointer's type."""
    where = rows[:, None, None] * size + columns[None, :, :]
    mask = ok[:, None, None] & known[None, :, :]
    tl.store(pointer + where, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def exponential(step, A, EXACT: tl.constexpr):
    """2^{Δ A}: the device's own, whose errors (2^-22) add up over steps, or right to a rounding.

    2^r is a polynomial of relative error 2^-28 for |r| <= 1/2, with none at 0.
    """
    if EXACT:
        power = tl.maximum(step * A, -127.0, propagate_nan=tl.PropagateNan.ALL)
        power = tl.minimum(power, 128.0, propagate_nan=tl.PropagateNan.ALL)
        # The sum's last bits are the nearest whole number and the offset of a float's exponent.
        shifted = power + SHIFT
        r = power - (shifted - SHIFT)
        p = tl.fma(r, 0.000153303379, 0.00133909786)
        p = tl.fma(p, r, 0.00961849745)
        p = tl.fma(p, r, 0.0555035956)
        p = tl.fma(p, r, 0.240226477)
        p = tl.fma(p, r, 0.693147182)
        p = tl.fma(p, r, 1.0)
        return p * (shifted.to(tl.int32, bitcast=True) << 23).to(tl.float32, bitcast=True)
    else:
        return tl.exp2(step * A)


@triton.jit
def row_of(tile, offsets, at):
    """One row of a tile beside it; what is added to -0.0 stays as it is, so a compiler adds nothing."""
    here = (offsets == at)[:, None, None, None, None]
    return tl.sum(tl.where(here, tile, -0.0), 0)[None, :, :, :, :]


@triton.jit
def with_row(tile, offsets, at, row):
    """A tile with another row."""
    return tl.where((offsets == at)[:, None, None, None, None], row, tile)


@triton.jit
def walk(gates, enters, h, offsets, S: tl.constexpr):
    """h_{t-1} of every step, and the last h, where h_t = a_t h_{t-1} + what enters."""
    earlier, row = tl.zeros_like(gates), h[None, :, :, :, :]
    for at in tl.static_range(S):
        earlier = with_row(earlier, offsets, at, row)
        # One row is taken of a whole tile, where a tile of one row would be laid out otherwise.
        row = row_of(gates * row + enters, offsets, at)
    return earlier, tl.reshape(row, h.shape)


@triton.jit
def walk_back(gates, above, carried, offsets, S: tl.constexpr):
    """λ of every step and a λ of the first, where λ_t = above_t + a_{t+1} λ_{t+1}."""
    found, row = tl.zeros_like(gates), carried[None, :, :, :, :]
    for turn in tl.static_range(S):
        L = above + row
        found = with_row(found, offsets, S - 1 - turn, L)
        row = row_of(gates * L, offsets, S - 1 - turn)
    return found, tl.reshape(row, carried.shape)
