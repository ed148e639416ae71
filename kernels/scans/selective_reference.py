"""What the selective scan computes on the CPU: the package's scan, its gates held as Δ ⊗ A, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling, ScaledCoupling
from dsf.forms.core import Core
from dsf.forms.gated_scan import GatedScan
from dsf.forms.scan import Scan
from dsf.forms.segments import walk, walk_back
from dsf.kernels.shapes import windows
from dsf.structure import Discretised

from .selective import STEPS, room


def _core(
    x: Tensor, delta: Tensor, A: Tensor, b: Tensor, c: Tensor, state: Tensor, steps: slice
) -> Core:
    """Groups as heads of N keys, each with its channels as values; some steps of the given tensors."""
    batch, groups, wide = len(state), b.shape[2], state.dtype
    u, step = (y[:, steps].unflatten(2, (groups, -1)).to(wide) for y in (x, delta))
    write, read = (y[:, steps].to(wide) for y in (b, c))
    rate = A.unflatten(0, (groups, -1)).mT[None, None].expand(batch, -1, -1, -1, -1)
    return Core(
        Discretised(step[..., None, :], rate),
        ScaledCoupling(write, step),
        OuterCoupling(read),
        u,
        _by_groups(state, groups),
    )


def _by_groups(state: Tensor, groups: int) -> Tensor:
    """(B, D, N) as a memory (B, G, N, D / G)."""
    return state.unflatten(1, (groups, -1)).mT.contiguous()


def _by_channels(memory: Tensor) -> Tensor:
    return memory.mT.flatten(1, 2)


def _segment(core: Core) -> int:
    """Steps of a piece: whole tiles, since the states kept are those before tiles."""
    return -(-Scan().steps_at_once(core) // STEPS) * STEPS


def forward(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
    skip: Tensor,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (B, T, D), the last states, and room for those before tiles, filled where a piece starts."""
    kept, y, final = room(x, state).zero_(), torch.empty_like(x), state.clone()
    for n, (steps, h) in enumerate(windows(state, x.shape[1], starts)):
        core = _core(x, delta, A, b, c, h, steps)
        if not core.length:
            continue
        segment = _segment(core)
        outputs, memories, _ = walk(GatedScan(), core, segment, keeps=True)
        y[:, steps] = outputs.flatten(2).addcmul_(skip, x[:, steps])
        final[n : n + len(h)] = _by_channels(memories[-1])
        for piece, memory in enumerate(memories[:-1]):
            for row, each in enumerate(_by_channels(memory)):
                kept[_place(x, starts, n, row, steps) + piece * segment // STEPS] = each
    return y, final, kept


def _place(x: Tensor, starts: Tensor | None, sequence: int, row: int, steps: slice) -> int:
    """Where the states before the tiles of a sequence are kept, as the Triton programs count."""
    first = row * x.shape[1] if starts is None else steps.start
    return first // STEPS + (row if starts is None else sequence)


def backward(
    dy: Tensor,
    dfinal: Tensor,
    kept: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
    skip: Tensor,
    starts: Tensor | None,
) -> tuple[Tensor, ...]:
    """Gradients of x, Δ, A, b, c, the initial states and D: Δ is a step and a gain, and A is shared."""
    dx, ddelta, db, dc = (torch.zeros_like(each) for each in (x, delta, b, c))
    dA, dstate, groups = torch.zeros_like(A), dfinal.clone(), b.shape[2]
    dskip = (dy.to(skip.dtype) * x).sum((0, 1))
    for n, (steps, first) in enumerate(windows(state, x.shape[1], starts)):
        core = _core(x, delta, A, b, c, first, steps)
        if not core.length:
            continue
        segment = _segment(core)
        at = range(0, core.length, segment)
        places = [_place(x, starts, n, row, steps) for row in range(len(first))]
        memories = [
            _by_groups(torch.stack([kept[p + start // STEPS] for p in places]), groups)
            for start in at
        ]
        last = _by_groups(dfinal[n : n + len(first)], groups)
        above = dy[:, steps].unflatten(2, (groups, -1)).to(state.dtype)
        begun, found = walk_back(
            GatedScan(),
            core,
            segment,
            (memories, [() for _ in at]),
            (above, last),
            [True] * len(core.tensors),
        )
        of_step, of_rate, of_write, of_gain, of_read, of_x = (f for f in found if f is not None)
        dx[:, steps] = (of_x.flatten(2) + skip * dy[:, steps]).to(x.dtype)
        ddelta[:, steps] = (of_step[..., 0, :] + of_gain).flatten(2).to(delta.dtype)
        db[:, steps], dc[:, steps] = of_write.to(b.dtype), of_read.to(c.dtype)
        dA += of_rate.sum((0, 1)).mT.flatten(0, 1).to(A.dtype)
        dstate[n : n + len(first)] = _by_channels(begun)
    return dx, ddelta, dA, db, dc, dstate, dskip
