"""What the gated scan computes on the CPU: the package's recurrence in place, and backwards in time its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.forms.accumulate import accumulate
from dsf.kernels.shapes import windows

_PIECE = 1 << 18  # numbers of the states of one piece: it stays near the cache


def forward(a: Tensor, b: Tensor, state: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
    """All states (B, T, D) and the last ones (N, D)."""
    states, final = b.to(state.dtype).clone(memory_format=torch.contiguous_format), state.clone()
    gates = a.to(state.dtype)
    for n, (steps, first) in enumerate(windows(state, a.shape[1], starts)):
        h, before = states[:, steps], first
        for at in _pieces(h):
            own = gates[:, steps][:, at]
            h[:, at.start].addcmul_(own[:, 0], before)
            accumulate(own[:, 1:], h[:, at])
            before = h[:, at.stop - 1]
        final[n : n + len(first)] = before
    return states, final


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
    db = dh.to(state.dtype).clone(memory_format=torch.contiguous_format)
    gates, da, dstate = a.conj().to(state.dtype), torch.empty_like(db), dfinal.clone()
    for n, (steps, first) in enumerate(windows(state, a.shape[1], starts)):
        own, back, through, states = (x[:, steps] for x in (gates, db, da, h))
        carried = dstate[n : n + len(first)]
        for at in reversed(_pieces(back)):
            back[:, at.stop - 1] += carried
            accumulate(own[:, at.start + 1 : at.stop], back[:, at], backward=True)
            carried = own[:, at.start] * back[:, at.start]
        torch.mul(back[:, 1:], states[:, :-1].conj(), out=through[:, 1:])
        torch.mul(back[:, :1], first[:, None].conj()[:, : back.shape[1]], out=through[:, :1])
        dstate[n : n + len(first)] = carried
    return da.to(a.dtype), db.to(a.dtype), dstate


def _pieces(states: Tensor) -> list[slice]:
    length = states.shape[1]
    steps = max(1, _PIECE // max(1, states[:, :1].numel()))
    return [slice(at, min(at + steps, length)) for at in range(0, length, steps)]
