"""Around the walks of scalar decay: sums of log-decays before them, the gradient of log-decays after them."""

import triton
import triton.language as tl

from .decay import borders, prefix
from .slots import chunk_of


@triton.jit
def sum_up(
    g, sums, starts, owners, length, rows, heads,
    BLOCK: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Of one block of steps of a sequence and head: high, low, since and until, as numbers, (H, all rows, 4)."""
    slot, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    first, steps, number = chunk_of(slot, starts, owners, length, BLOCK, PACKED)
    offsets = tl.arange(0, BLOCK)
    row, inside = first + number * BLOCK + offsets, number * BLOCK + offsets < steps
    logs = tl.load(g + row * heads + head, mask=inside, other=0.0)
    high, low = prefix(logs)
    since, until = borders(logs, offsets, BLOCK)
    at = sums + 4 * (head * rows + row)
    tl.store(at, high, mask=inside)
    tl.store(at + 1, low, mask=inside)
    tl.store(at + 2, since.to(tl.float32), mask=inside)
    tl.store(at + 3, until.to(tl.float32), mask=inside)


@triton.jit
def of_gates(
    g, reads, writes, meets, far, dg, starts, owners, length, heads,
    READ_PARTS: tl.constexpr, WRITE_PARTS: tl.constexpr, MEET_PARTS: tl.constexpr,
    MARK: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """dg_t = Σ_{t ≤ s ≤ e} (⟨q_s, dq_s⟩ - ⟨k_s, dk_s⟩) + ⟨S_e, dS_e⟩, with e the end of the block of MARK steps.

    A sum ends with its block, so that what does not cancel does not pile up. The last product is `meets` and, where it
    is of the state before the block, with `far` the part of Σ ⟨k, dk⟩ that leaves the block: what is subtracted of
    it is then the same numbers. Inner products come in parts; they are added up in float64. A decay of exactly zero
    has a log without gradient.
    """
    slot, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    first, steps, number = chunk_of(slot, starts, owners, length, MARK, PACKED)
    offsets = tl.arange(0, MARK)
    row, inside = first + number * MARK + offsets, number * MARK + offsets < steps
    at = row * heads + head
    each = tl.zeros((MARK,), tl.float64)
    for part in tl.static_range(READ_PARTS):
        each += tl.load(reads + at * READ_PARTS + part, mask=inside, other=0.0).to(tl.float64)
    for part in tl.static_range(WRITE_PARTS):
        each -= tl.load(writes + at * WRITE_PARTS + part, mask=inside, other=0.0).to(tl.float64)
    # There are slots between packed sequences in which nothing lies.
    end, some, mark = tl.zeros((1,), tl.float64), number * MARK < steps, slot * heads + head
    for part in tl.static_range(MEET_PARTS):
        end += tl.load(meets + mark * MEET_PARTS + part, mask=some, other=0.0).to(tl.float64)
    if far is not None:
        for part in tl.static_range(WRITE_PARTS):
            end += tl.load(far + mark * WRITE_PARTS + part, mask=some, other=0.0).to(tl.float64)
    found = tl.cumsum(each, 0, reverse=True) + end
    logs = tl.load(g + at, mask=inside, other=0.0)
    tl.store(dg + at, tl.where(logs == -float("inf"), 0.0, found), mask=inside)
