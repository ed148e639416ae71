"""What the gated scan computes on the CPU: the package's scan, forward and, run backwards in time, its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

import dsf
from dsf.coupling import OuterCoupling
from dsf.kernels.shapes import windows
from dsf.state import State
from dsf.structure import Scalar
from dsf.system import System


def forward(a: Tensor, b: Tensor, state: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
    """All states (B, T, D) and the last ones (N, D)."""
    found = [
        run(a[:, steps], b[:, steps], first) for steps, first in windows(state, a.shape[1], starts)
    ]
    empty = a[:, :0].to(state.dtype)
    return (
        torch.cat([*(h for h, _ in found), empty], 1),
        torch.cat([*(last for _, last in found), state[:0]]),
    )


def backward(
    dh: Tensor,
    dfinal: Tensor,
    h: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """λ_t = dh_t + a*_{t+1} λ_{t+1}: gradients λ of b, λ_t h*_{t-1} of a, a*_1 λ_1 of the initial states."""
    da, db, dstate = [], [], []
    for n, (steps, first) in enumerate(windows(state, a.shape[1], starts)):
        last = dfinal[n : n + 1] if starts is not None else dfinal
        gates, states, up = (x[:, steps] for x in (a.conj().resolve_conj(), h, dh))
        if not gates.shape[1]:
            dstate.append(last)
            continue
        later = torch.cat([torch.ones_like(gates[:, :1]), gates.flip(1)[:, :-1]], 1)
        found = run(later, up.flip(1), last)[0].flip(1)
        before = torch.cat([first[:, None], states[:, :-1]], 1)
        db.append(found)
        da.append(found * before.conj())
        dstate.append(gates[:, 0].to(state.dtype) * found[:, 0])
    empty = torch.zeros_like(h[:, :0])
    return (
        torch.cat([*da, empty], 1).to(a.dtype),
        torch.cat([*db, empty], 1).to(a.dtype),
        torch.cat([*dstate, state[:0]]),
    )


def run(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Channels as heads with one key and one value."""
    one = torch.ones(1, 1, a.shape[2], 1, dtype=state.dtype, device=a.device)
    system = System(Scalar(a.to(state.dtype)), OuterCoupling(one), OuterCoupling(one))
    with torch.no_grad():
        tokens = b[..., None].to(state.dtype)
        states, final = dsf.run(system, tokens, State(state[..., None, None]), form="scan")
    return states[..., 0], final.memory[..., 0, 0].clone()
