"""Loading and storing tiles of (rows, heads, channels), shared by every kernel."""

import triton
import triton.language as tl


@triton.jit
def place(starts, sequence, length, PACKED: tl.constexpr):
    """The first row of a sequence and its number of steps."""
    if PACKED:
        first = tl.load(starts + sequence)
        return first, (tl.load(starts + sequence + 1) - first).to(tl.int32)
    else:
        return sequence.to(tl.int64) * length, length


@triton.jit
def part(KT: tl.constexpr, VT: tl.constexpr):
    """A program's tile of keys and of values, of KT and VT, and its sequence · head.

    All in one axis of the grid, since the others end at 65535; those of one head are neighbours.
    """
    tiles: tl.constexpr = KT * VT
    at = tl.program_id(0)
    return at % KT, at % tiles // KT, at // tiles


@triton.jit
def tile(pointer, first, rows, length, heads, head, channels, size, UPCAST: tl.constexpr):
    """Rows × channels of one head, zero outside; `UPCAST` is for interpreted types without arithmetic."""
    where = ((first + rows)[:, None] * heads + head) * size + channels[None, :]
    found = tl.load(
        pointer + where, mask=(rows < length)[:, None] & (channels < size)[None, :], other=0.0
    )
    if UPCAST:
        found = found.to(tl.float32)
    return found


@triton.jit
def put(pointer, value, first, rows, length, heads, head, channels, size):
    """Store rows × channels of one head, in the pointer's type."""
    where = ((first + rows)[:, None] * heads + head) * size + channels[None, :]
    tl.store(
        pointer + where,
        value.to(pointer.dtype.element_ty),
        mask=(rows < length)[:, None] & (channels < size)[None, :],
    )


@triton.jit
def tile_of_chunk(
    pointer, row, offsets, left, heads, head, channels, size: tl.constexpr, UPCAST: tl.constexpr
):
    """Rows `row` + offsets × channels of one head, zero from the `left`-th on: 32 bits from a 64-bit row."""
    base = pointer + (row.to(tl.int64) * heads + head) * size
    where = offsets[:, None] * (heads * size) + channels[None, :]
    found = tl.load(
        base + where, mask=(offsets < left)[:, None] & (channels < size)[None, :], other=0.0
    )
    if UPCAST:
        found = found.to(tl.float32)
    return found


@triton.jit
def put_chunk(pointer, value, row, offsets, left, heads, head, channels, size: tl.constexpr):
    """Store such rows × channels of one head, in the pointer's type."""
    base = pointer + (row.to(tl.int64) * heads + head) * size
    where = offsets[:, None] * (heads * size) + channels[None, :]
    tl.store(
        base + where,
        value.to(pointer.dtype.element_ty),
        mask=(offsets < left)[:, None] & (channels < size)[None, :],
    )


@triton.jit
def put_column_of_chunk(pointer, value, row, offsets, left, heads, head):
    """Store one number per such row of a head."""
    base = pointer + row.to(tl.int64) * heads + head
    tl.store(base + offsets * heads, value, mask=offsets < left)


@triton.jit
def column(pointer, first, rows, length, heads, head):
    """One number per row of a head, in float32, zero outside."""
    return tl.load(pointer + (first + rows) * heads + head, mask=rows < length, other=0.0).to(
        tl.float32
    )


@triton.jit
def put_column(pointer, value, first, rows, length, heads, head):
    """Store one number per row of a head."""
    tl.store(pointer + (first + rows) * heads + head, value, mask=rows < length)


@triton.jit
def matrix(
    pointer, index, keys, values, K: tl.constexpr, V: tl.constexpr, ACROSS: tl.constexpr = False
):
    """The (keys, values) tile of one state (K, V), or of (V, K) where it lies across; float32, zero outside."""
    base = pointer + index.to(tl.int64) * (K * V)
    inside = (keys < K)[:, None] & (values < V)[None, :]
    return tl.load(base + _within(keys, values, K, V, ACROSS), mask=inside, other=0.0).to(
        tl.float32
    )


@triton.jit
def put_matrix(
    pointer, value, index, keys, values,
    K: tl.constexpr, V: tl.constexpr, ACROSS: tl.constexpr = False,
):  # fmt: skip
    """Store the (keys, values) tile of one state (K, V), or of (V, K) where it lies across."""
    base = pointer + index.to(tl.int64) * (K * V)
    inside = (keys < K)[:, None] & (values < V)[None, :]
    value = value.to(pointer.dtype.element_ty)
    tl.store(base + _within(keys, values, K, V, ACROSS), value, mask=inside)


@triton.jit
def _within(keys, values, K: tl.constexpr, V: tl.constexpr, ACROSS: tl.constexpr):
    """The place of each number in a state."""
    if ACROSS:
        return values[None, :] * K + keys[:, None]
    else:
        return keys[:, None] * V + values[None, :]
