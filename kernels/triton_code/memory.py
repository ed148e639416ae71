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
def matrix(pointer, index, keys, values, K: tl.constexpr, V: tl.constexpr):
    """The (keys, values) tile of one state (K, V), float32, zero outside."""
    where = (index.to(tl.int64) * K + keys)[:, None] * V + values[None, :]
    return tl.load(pointer + where, mask=(keys < K)[:, None] & (values < V)[None, :], other=0.0).to(
        tl.float32
    )


@triton.jit
def put_matrix(pointer, value, index, keys, values, K: tl.constexpr, V: tl.constexpr):
    """Store the (keys, values) tile of one state (K, V)."""
    where = (index.to(tl.int64) * K + keys)[:, None] * V + values[None, :]
    tl.store(pointer + where, value, mask=(keys < K)[:, None] & (values < V)[None, :])
