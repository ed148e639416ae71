"""The scan of a first-order gate, channels last: one program per sequence and tile of channels walks tiles of steps.

h_t = a_t h_{t-1} + b_t. Within a tile a prefix over pairs (a, b); between tiles the last h is carried. Complex numbers
are pairs of planes.
"""

import triton
import triton.language as tl

from .memory import place


@triton.jit
def then(a, b, later_a, later_b):
    """(a, b) and then (a', b'): h ↦ a' (a h + b) + b'."""
    return later_a * a, later_a * b + later_b


@triton.jit
def then_complex(ar, ai, br, bi, cr, ci, dr, di):
    """The same over complex numbers, each a real and an imaginary part."""
    return (
        cr * ar - ci * ai,
        cr * ai + ci * ar,
        cr * br - ci * bi + dr,
        cr * bi + ci * br + di,
    )


@triton.jit
def rows_of(pointer, first, rows, length, channels, size, other):
    """Rows × channels in float32; `other` outside."""
    inside = (rows >= 0)[:, None] & (rows < length)[:, None] & (channels < size)[None, :]
    where = (first + rows)[:, None] * size + channels[None, :]
    return tl.load(pointer + where, mask=inside, other=other).to(tl.float32)


@triton.jit
def put_rows(pointer, value, first, rows, length, channels, size):
    """Store rows × channels in the pointer's type."""
    inside = (rows < length)[:, None] & (channels < size)[None, :]
    where = (first + rows)[:, None] * size + channels[None, :]
    tl.store(pointer + where, value.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def row_at(tile, rows, at):
    """One row of a tile."""
    return tl.sum(tl.where((rows == at)[:, None], tile, 0.0), 0)


@triton.jit
def forward(
    a, b, state, h, final, starts, length, size,
    S: tl.constexpr, BC: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """All states, and the last."""
    channels = tl.program_id(0) * BC + tl.arange(0, BC)
    sequence = tl.program_id(2)
    first, steps = place(starts, sequence, length, PACKED)
    known = channels < size
    own = sequence.to(tl.int64) * size + channels
    carried = tl.load(state + own, mask=known, other=0.0)
    offsets = tl.arange(0, S)
    for at in range(0, steps, S):
        rows = at + offsets
        A = rows_of(a, first, rows, steps, channels, size, 1.0)
        X = rows_of(b, first, rows, steps, channels, size, 0.0)
        A, X = tl.associative_scan((A, X), 0, then)
        X += A * carried[None, :]
        put_rows(h, X, first, rows, steps, channels, size)
        carried = row_at(X, offsets, S - 1)
    tl.store(final + own, carried, mask=known)


@triton.jit
def backward(
    a, h, state, dh, dfinal, da, db, dstate, starts, length, size,
    S: tl.constexpr, BC: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """λ_t = dh_t + a_{t+1} λ_{t+1}, λ_T from dfinal; db = λ, da_t = λ_t h_{t-1}, dstate = a_1 λ_1."""
    channels = tl.program_id(0) * BC + tl.arange(0, BC)
    sequence = tl.program_id(2)
    first, steps = place(starts, sequence, length, PACKED)
    known = channels < size
    own = sequence.to(tl.int64) * size + channels
    carried = tl.load(dfinal + own, mask=known, other=0.0)
    start = tl.load(state + own, mask=known, other=0.0)
    offsets = tl.arange(0, S)
    tiles = (steps + S - 1) // S
    for turn in range(0, tiles):
        rows = (tiles - 1 - turn) * S + offsets
        later = rows_of(a, first, rows + 1, steps, channels, size, 1.0)
        L = rows_of(dh, first, rows, steps, channels, size, 0.0)
        later, L = tl.associative_scan((later, L), 0, then, reverse=True)
        L += later * carried[None, :]
        before = rows_of(h, first, rows - 1, steps, channels, size, 0.0)
        before = tl.where((rows == 0)[:, None], start[None, :], before)
        put_rows(db, L, first, rows, steps, channels, size)
        put_rows(da, L * before, first, rows, steps, channels, size)
        carried = row_at(L, offsets, 0)
    once = tl.load(a + first * size + channels, mask=known & (steps > 0), other=1.0).to(tl.float32)
    tl.store(dstate + own, once * carried, mask=known)


@triton.jit
def forward_complex(
    a, b, state, h, final, starts, length, size,
    S: tl.constexpr, BC: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """`forward` where every pointer is to pairs (real, imaginary)."""
    channels = tl.program_id(0) * BC + tl.arange(0, BC)
    sequence = tl.program_id(2)
    first, steps = place(starts, sequence, length, PACKED)
    known = channels < size
    own = (sequence.to(tl.int64) * size + channels) * 2
    cr = tl.load(state + own, mask=known, other=0.0)
    ci = tl.load(state + own + 1, mask=known, other=0.0)
    offsets, twice, pairs = tl.arange(0, S), 2 * channels, 2 * size
    for at in range(0, steps, S):
        rows = at + offsets
        ar = rows_of(a, first, rows, steps, twice, pairs, 1.0)
        ai = rows_of(a, first, rows, steps, twice + 1, pairs, 0.0)
        br = rows_of(b, first, rows, steps, twice, pairs, 0.0)
        bi = rows_of(b, first, rows, steps, twice + 1, pairs, 0.0)
        ar, ai, br, bi = tl.associative_scan((ar, ai, br, bi), 0, then_complex)
        hr = br + ar * cr[None, :] - ai * ci[None, :]
        hi = bi + ar * ci[None, :] + ai * cr[None, :]
        put_rows(h, hr, first, rows, steps, twice, pairs)
        put_rows(h, hi, first, rows, steps, twice + 1, pairs)
        cr, ci = row_at(hr, offsets, S - 1), row_at(hi, offsets, S - 1)
    tl.store(final + own, cr, mask=known)
    tl.store(final + own + 1, ci, mask=known)


@triton.jit
def backward_complex(
    a, h, state, dh, dfinal, da, db, dstate, starts, length, size,
    S: tl.constexpr, BC: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """`backward` over complex numbers: λ_t = dh_t + a*_{t+1} λ_{t+1}, da_t = λ_t h*_{t-1}."""
    channels = tl.program_id(0) * BC + tl.arange(0, BC)
    sequence = tl.program_id(2)
    first, steps = place(starts, sequence, length, PACKED)
    known = channels < size
    own = (sequence.to(tl.int64) * size + channels) * 2
    cr = tl.load(dfinal + own, mask=known, other=0.0)
    ci = tl.load(dfinal + own + 1, mask=known, other=0.0)
    sr = tl.load(state + own, mask=known, other=0.0)
    si = tl.load(state + own + 1, mask=known, other=0.0)
    offsets, twice, pairs = tl.arange(0, S), 2 * channels, 2 * size
    tiles = (steps + S - 1) // S
    for turn in range(0, tiles):
        rows = (tiles - 1 - turn) * S + offsets
        ar = rows_of(a, first, rows + 1, steps, twice, pairs, 1.0)
        ai = -rows_of(a, first, rows + 1, steps, twice + 1, pairs, 0.0)
        lr = rows_of(dh, first, rows, steps, twice, pairs, 0.0)
        li = rows_of(dh, first, rows, steps, twice + 1, pairs, 0.0)
        ar, ai, lr, li = tl.associative_scan((ar, ai, lr, li), 0, then_complex, reverse=True)
        lr, li = (
            lr + ar * cr[None, :] - ai * ci[None, :],
            li + ar * ci[None, :] + ai * cr[None, :],
        )
        hr = rows_of(h, first, rows - 1, steps, twice, pairs, 0.0)
        hi = rows_of(h, first, rows - 1, steps, twice + 1, pairs, 0.0)
        hr = tl.where((rows == 0)[:, None], sr[None, :], hr)
        hi = tl.where((rows == 0)[:, None], si[None, :], hi)
        put_rows(db, lr, first, rows, steps, twice, pairs)
        put_rows(db, li, first, rows, steps, twice + 1, pairs)
        put_rows(da, lr * hr + li * hi, first, rows, steps, twice, pairs)
        put_rows(da, li * hr - lr * hi, first, rows, steps, twice + 1, pairs)
        cr, ci = row_at(lr, offsets, 0), row_at(li, offsets, 0)
    here = known & (steps > 0)
    ar = tl.load(a + first * pairs + twice, mask=here, other=1.0)
    ai = -tl.load(a + first * pairs + twice + 1, mask=here, other=0.0)
    tl.store(dstate + own, ar * cr - ai * ci, mask=known)
    tl.store(dstate + own + 1, ar * ci + ai * cr, mask=known)
