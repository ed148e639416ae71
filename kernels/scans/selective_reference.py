"""What the selective scan computes on the CPU: the package's scan, over stretches of steps, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.kernels.shapes import windows

from .channel_reference import run
from .selective import STEPS, room

_STRETCH = 16 * STEPS  # states of so many steps are in memory at once


def _over_channels(x: Tensor, like: Tensor) -> Tensor:
    """b or c (B, T, G, N) for every channel of `like` (B, T, D), (B, T, D, N)."""
    return x.repeat_interleave(like.shape[2] // x.shape[2], dim=2)


def _stretches(steps: slice) -> list[slice]:
    ends = range(steps.start, steps.stop, _STRETCH)
    return [slice(at, min(at + _STRETCH, steps.stop)) for at in ends]


def _scan(gates: Tensor, enters: Tensor, state: Tensor) -> Tensor:
    """All states (B, T, D, N) from gates and what enters, both (B, T, D, N)."""
    states, _ = run(gates.flatten(2), enters.flatten(2), state.flatten(1))
    return states.unflatten(2, state.shape[1:])


def forward(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (B, T, D), the last states, and those before each tile of 16 steps."""
    wide, given, kept = state.dtype, (x, delta, b, c), room(x, state).zero_()
    y, final = torch.zeros_like(x), state.clone()
    for n, (steps, h) in enumerate(windows(state, x.shape[1], starts)):
        for stretch in _stretches(steps):
            u, step, write, read = (each[:, stretch].to(wide) for each in given)
            enters = (step * u)[..., None] * _over_channels(write, u)
            states = _scan(torch.exp(step[..., None] * A), enters, h)
            y[:, stretch] = (states * _over_channels(read, u)).sum(-1).to(y.dtype)
            before = torch.cat([h[:, None], states[:, STEPS - 1 : -1 : STEPS]], 1)
            for row, each in enumerate(before):
                kept[_first(x, starts, n, row, steps, stretch) :][: len(each)] = each
            h = states[:, -1]
        final[n : n + len(h)] = h
    return y, final, kept


def _first(
    x: Tensor, starts: Tensor | None, sequence: int, row: int, steps: slice, at: slice
) -> int:
    """Where the states before the tiles of a stretch are kept, as the Triton programs count."""
    first = row * x.shape[1] if starts is None else steps.start
    number = row if starts is None else sequence
    return first // STEPS + number + (at.start - steps.start) // STEPS


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
    starts: Tensor | None,
) -> tuple[Tensor, ...]:
    """λ_t = c_t dy_t + a_{t+1} λ_{t+1}, and from it the gradients of x, Δ, A, b, c and the initial states."""
    wide = state.dtype
    dx, ddelta, db, dc = (torch.zeros_like(each) for each in (x, delta, b, c))
    dA, dstate = torch.zeros_like(A), dfinal.clone()
    for n, (steps, first) in enumerate(windows(state, x.shape[1], starts)):
        carried = dfinal[n : n + len(first)]
        later = torch.ones_like(carried)  # the gates of the step after the stretch
        for at in reversed(_stretches(steps)):
            u, step, write, read, up = (e[:, at].to(wide) for e in (x, delta, b, c, dy))
            before = torch.stack(
                [kept[_first(x, starts, n, row, steps, at)] for row in range(len(u))]
            )
            write, read = _over_channels(write, u), _over_channels(read, u)
            gates = torch.exp(step[..., None] * A)
            states = _scan(gates, (step * u)[..., None] * write, before)
            passed = gates * torch.cat([before[:, None], states[:, :-1]], 1)
            shifted = torch.cat([later[:, None], gates.flip(1)[:, :-1]], 1)
            back = _scan(shifted, (up[..., None] * read).flip(1), carried).flip(1)
            carried, later = back[:, 0], gates[:, 0]
            inward, through = (back * write).sum(-1), back * passed
            dx[:, at] = (inward * step).to(x.dtype)
            ddelta[:, at] = ((through * A).sum(-1) + inward * u).to(x.dtype)
            dA += (through * step[..., None]).sum((0, 1)).to(A.dtype)
            db[:, at] = _of_groups(back * (step * u)[..., None], b)
            dc[:, at] = _of_groups(states * up[..., None], c)
        dstate[n : n + len(first)] = later * carried
    return dx, ddelta, dA, db, dc, dstate


def _of_groups(x: Tensor, like: Tensor) -> Tensor:
    """The sum over the channels that share a group, in its type."""
    return x.unflatten(2, (like.shape[2], -1)).sum(3).to(like.dtype)
