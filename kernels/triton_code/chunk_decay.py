r"""Scalar decay in chunks: one program per sequence, head and tile of the state walks over its chunks.

With M_ij = Π_{l=j+1..i} a_l in the chunk, c_i = Π_{l≤i} a_l, e_i = Π_{l>i} a_l, S the state before it:
Y = s (QKᵀ ∘ M) V + s c ∘ (Q S), S' = c_C S + Kᵀ (e ∘ V). The state stays in registers.

Every gradient is the same walk with other tensors in the places of reads, writes and values, two of them backward in
time, where e and c change places: dQ of (dO, V, K), dK of (V, dO, Q), dV of (K, Q, dO). Its state is then Sᵀ, Zᵀ and
Z, with Z the gradient of the state after a step. A sequence may be cut in segments, packed one after the other: a walk
without reads says what each adds, `carry.over` brings the states over the segments.
"""

import triton
import triton.language as tl

from .decay import between, faded
from .memory import matrix, part, place, put_chunk, put_column_of_chunk, put_matrix, tile_of_chunk
from .slots import first_slot


@triton.jit
def walk(
    reads, writes, values, sums, state, out, final, decays, own, inner, marks, meets, far, starts,
    length, rows, scale,
    heads: tl.constexpr, read_heads: tl.constexpr, write_heads: tl.constexpr, value_heads: tl.constexpr,
    own_heads: tl.constexpr,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr, KT: tl.constexpr,
    BLOCK: tl.constexpr, MARK: tl.constexpr, REVERSE: tl.constexpr, ACROSS: tl.constexpr,
    REST: tl.constexpr, PACKED: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Outputs of all steps and the last state; what is None is left out, and the state is zero.

    `sums` (H, all rows, 4) has high, low (read with REST), since and until of `decay.py`, in blocks of BLOCK steps of
    a sequence. With REVERSE the walk is from the last chunk to the first; with ACROSS states lie in memory as (values,
    keys). `own` is the tensor that `out` is the gradient of, and `inner` takes ⟨own, out⟩ of every step.

    A walk forward in time leaves its state in `marks`, and one backward puts its product with the state that lies
    there into `meets`: where a chunk is a block of MARK steps, the state before it, faded over it, and `far` takes the
    sum of ⟨own, out⟩ from the state alone; where it is less, the state after each block.
    """
    VT: tl.constexpr = (V + BV - 1) // BV
    key_part, value_part, index = part(KT, VT)
    keys, channels = key_part * BK + tl.arange(0, BK), value_part * BV + tl.arange(0, BV)
    sequence, head = index // heads, index % heads
    read_head, write_head = head * read_heads // heads, head * write_heads // heads
    value_head, own_head = head * value_heads // heads, head * own_heads // heads
    first, steps = place(starts, sequence, length, PACKED)
    slot = first_slot(first, sequence, length, MARK, PACKED)
    S = tl.zeros((BK, BV), tl.float32)
    if state is not None:
        S = matrix(state, index, keys, channels, K, V, ACROSS)
    decay = 1.0
    offsets = tl.arange(0, C)
    chunks = (steps + C - 1) // C
    if chunks == 0:
        if final is not None:
            put_matrix(final, S, index, keys, channels, K, V, ACROSS)
    # Nothing is kept over the chunks that can be made again: registers are what there is least of.
    for turn in tl.range(0, chunks, disable_licm=True):
        at = turn * C
        if REVERSE:
            at = (chunks - 1 - turn) * C
        left, row = steps - at, first + at
        mark = (slot + at // MARK) * heads + head
        met = 0.0
        if REVERSE:
            if meets is not None:
                if C == MARK or ((at + C) % MARK == 0) | (left <= C):
                    # Rounded as the gradients of this chunk read it, so that what they share cancels.
                    read = S.to(writes.dtype.element_ty).to(tl.float32)
                    there = matrix(marks, mark, keys, channels, K, V, ACROSS)
                    met = tl.sum(there * read)
        elif C == MARK:
            if marks is not None:
                put_matrix(marks, S, mark, keys, channels, K, V, ACROSS)
        # What is loaded late is not in registers early.
        W = tile_of_chunk(writes, row, offsets, left, write_heads, write_head, keys, K, UPCAST)
        if out is not None:
            Q = tile_of_chunk(reads, row, offsets, left, read_heads, read_head, keys, K, UPCAST)
            P = tl.dot(Q, tl.trans(W), input_precision=PRECISION)
        at_sums = sums + 4 * (head.to(tl.int64) * rows + row)
        inside, last = offsets < left, 4 * (tl.minimum(left, C) - 1)
        # Sums up to each step (of those that are none, as of the last), the last one and the one before the first.
        high_last = tl.load(at_sums + last)
        high = tl.where(inside, tl.load(at_sums + 4 * offsets, mask=inside, other=0.0), high_last)
        low, low_last = None, None
        if REST:
            low_last = tl.load(at_sums + last + 1)
            low = tl.load(at_sums + 4 * offsets + 1, mask=inside, other=0.0)
            low = tl.where(inside, low, low_last)
        begun, high_first, low_first = 0, 0.0, 0.0
        if C < BLOCK:
            begun = at % BLOCK
            high_first = tl.load(at_sums - 4, mask=begun > 0, other=0.0)
            if REST:
                low_first = tl.load(at_sums - 3, mask=begun > 0, other=0.0)
        since_last = tl.load(at_sums + last + 2).to(tl.int32)
        until_first = tl.load(at_sums + 3).to(tl.int32)
        until_first = tl.where(tl.load(at_sums + 2).to(tl.int32) == begun, begun, until_first)
        numbers = begun + offsets
        whole = between(high_last, low_last, high_first, low_first, since_last < begun)
        from_start = between(high, low, high_first, low_first, numbers < until_first)
        to_end = between(high_last, low_last, high, low, numbers >= since_last)
        if REVERSE:
            near, late = to_end, from_start * scale
            border = tl.load(at_sums + 4 * offsets + 3, mask=inside, other=0.0).to(tl.int32)
            if meets is not None:
                if C == MARK:
                    met = met * whole
                if C == MARK or ((at + C) % MARK == 0) | (left <= C):
                    tl.store(meets + (mark * KT + key_part) * VT + value_part, met)
        else:
            near, late = from_start * scale, to_end
            border = tl.load(at_sums + 4 * offsets + 2, mask=inside, other=0.0).to(tl.int32)
        if out is not None:
            P = (faded(P, high, low, border, numbers, REVERSE) * scale).to(W.dtype)
            Y = tl.dot(Q, S.to(Q.dtype), input_precision=PRECISION) * near[:, None]
            if far is not None:
                X = tile_of_chunk(own, row, offsets, left, own_heads, own_head, channels, V, UPCAST)
                at_part = mark * (KT * VT) + key_part * VT + value_part
                tl.store(far + at_part, tl.sum(X.to(tl.float32) * Y))
        U = tile_of_chunk(values, row, offsets, left, value_heads, value_head, channels, V, UPCAST)
        if out is not None:
            Y = tl.dot(P, U, acc=Y, input_precision=PRECISION)
            put_chunk(out, Y, row, offsets, left, heads * KT, head * KT + key_part, channels, V)
            if own is not None:
                X = tile_of_chunk(own, row, offsets, left, own_heads, own_head, channels, V, UPCAST)
                each = tl.sum(X.to(tl.float32) * Y, 1)
                of_part = (head * KT + key_part) * VT + value_part
                put_column_of_chunk(inner, each, row, offsets, left, heads * KT * VT, of_part)
        U = (U.to(tl.float32) * late[:, None]).to(U.dtype)
        S = tl.dot(tl.trans(W), U, acc=S * whole, input_precision=PRECISION)
        if decays is not None:
            decay = decay * whole
        if final is not None:
            if at == 0 if REVERSE else left <= C:
                put_matrix(final, S, index, keys, channels, K, V, ACROSS)
        if C < MARK and not REVERSE:
            if marks is not None:
                if ((at + C) % MARK == 0) | (left <= C):
                    put_matrix(marks, S, mark, keys, channels, K, V, ACROSS)
    if decays is not None:
        tl.store(decays + index, decay, mask=key_part + value_part == 0)
