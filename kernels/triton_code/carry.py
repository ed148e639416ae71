"""Carrying states over segments: elementwise, one segment after another, in place."""

import triton
import triton.language as tl


@triton.jit
def over(
    states, decays, given, segments, heads,
    SIZE: tl.constexpr, BC: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """S_j = d_{j-1} S_{j-1} + x_{j-1} from the given S of each sequence, where `states` holds x_j = what j adds.

    `segments` says where the segments of each sequence start. With REVERSE from the last to the first:
    S_j = d_{j+1} S_{j+1} + x_{j+1}, the gradient of the state after segment j.
    """
    head, sequence = tl.program_id(1), tl.program_id(2)
    cells = tl.program_id(0) * BC + tl.arange(0, BC)
    inside = cells < SIZE
    own = sequence.to(tl.int64) * heads + head
    S = tl.load(given + own * SIZE + cells, mask=inside, other=0.0)
    first = tl.load(segments + sequence)
    count = (tl.load(segments + sequence + 1) - first).to(tl.int32)
    for turn in range(0, count):
        at = turn
        if REVERSE:
            at = count - 1 - turn
        place = (first + at) * heads + head
        added = tl.load(states + place * SIZE + cells, mask=inside, other=0.0)
        tl.store(states + place * SIZE + cells, S, mask=inside)
        S = S * tl.load(decays + place) + added
