"""Chunks of sequences, and the slots in which what is kept of each lies (`dsf.kernels.shapes.Packing.slots`)."""

import triton
import triton.language as tl

from .memory import place


@triton.jit
def chunk_of(slot, starts, owners, length, CT: tl.constexpr, PACKED: tl.constexpr):
    """The first row and length of the sequence that owns a slot, and the chunk's number in it."""
    if PACKED:
        sequence = tl.load(owners + slot)
        first, tokens = place(starts, sequence, length, PACKED)
        return first, tokens, (slot - first // CT - sequence).to(tl.int32)
    else:
        chunks = (length + CT - 1) // CT
        sequence = slot // chunks
        first, tokens = place(starts, sequence, length, PACKED)
        return first, tokens, (slot % chunks).to(tl.int32)


@triton.jit
def first_slot(first, sequence, length, CT: tl.constexpr, PACKED: tl.constexpr):
    """The slot of a sequence's first chunk."""
    if PACKED:
        return first // CT + sequence
    else:
        return sequence.to(tl.int64) * ((length + CT - 1) // CT)


@triton.jit
def table(pointer, slot, heads, head, offsets, C: tl.constexpr):
    """A chunk's C × C matrix."""
    where = ((slot * heads + head) * C + offsets[:, None]) * C + offsets[None, :]
    return tl.load(pointer + where)


@triton.jit
def put_table(pointer, value, slot, heads, head, offsets, C: tl.constexpr):
    """Store a chunk's C × C matrix in the pointer's type."""
    where = ((slot * heads + head) * C + offsets[:, None]) * C + offsets[None, :]
    tl.store(pointer + where, value.to(pointer.dtype.element_ty))
