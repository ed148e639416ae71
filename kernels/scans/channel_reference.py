"""What the gated scan computes on the CPU: compiled, or the package's recurrence in place; and its gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.forms import native
from dsf.forms.accumulate import accumulate
from dsf.forms.core import Core
from dsf.forms.native.scan import STEPS
from dsf.forms.workspace import Workspace
from dsf.kernels.library import above_autograd
from dsf.kernels.pieces import own
from dsf.kernels.shapes import windows
from dsf.structure import Elementwise

_PIECE = 1 << 18  # numbers of the states of one piece: it stays near the cache


def forward(a: Tensor, b: Tensor, state: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
    """All states (B, T, D) and the last ones (N, D)."""
    run = _compiled if _compiles(a) else _in_torch
    if starts is None:
        return run(a, b, state)
    states, final = torch.empty_like(b, dtype=state.dtype), torch.empty_like(state)
    for n, (steps, first) in enumerate(windows(state, a.shape[1], starts)):
        states[:, steps], final[n : n + 1] = run(a[:, steps], b[:, steps], first)
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
    run = _compiled_back if _compiles(a) else _back_in_torch
    if starts is None:
        return run(dh, dfinal, h, a, b, state)
    da, db, dstate = torch.empty_like(a), torch.empty_like(b), torch.empty_like(state)
    for n, (at, first) in enumerate(windows(state, a.shape[1], starts)):
        cotangents = dh[:, at], dfinal[n : n + 1]
        found = run(*cotangents, h[:, at], a[:, at], b[:, at], first)
        da[:, at], db[:, at], dstate[n : n + 1] = found
    return da, db, dstate


def _compiles(a: Tensor) -> bool:
    return not a.is_complex() and native.missing("scan") is None


def _core(a: Tensor, b: Tensor, state: Tensor) -> Core:
    """A head of one key, with ones for what is written and read."""
    one, memory = OuterCoupling(state.new_ones(1, 1, 1, 1)), state[:, None, None].contiguous()
    gate, tokens = (x.to(state.dtype)[:, :, None] for x in (a, b))
    return Core(Elementwise(gate[..., None, :]), one, one, tokens, memory)


def _compiled(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    outputs, last, _ = native.NativeScan()(_core(a, b, state), Workspace(keeps=False, pieces=1))
    return own(outputs)[:, :, 0], last[:, 0, 0]


def _compiled_back(
    dh: Tensor, dfinal: Tensor, h: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    core, ups = _core(a, b, state), (dh.to(state.dtype)[:, :, None], dfinal[:, None, None])
    starts = torch.cat([state[:, None], h[:, STEPS - 1 : -1 : STEPS]], 1).transpose(0, 1)
    with above_autograd(), torch.no_grad():
        gate, write, read, tokens = core.tensors
        asked = (gate.detach().requires_grad_(), write, read, tokens.detach().requires_grad_())
        dmemory, da, _, _, db = native.NativeScan().vjp(
            core.rebuild(asked, core.memory),
            (starts.reshape(-1, *core.memory.shape[2:]),),
            ups,
            Workspace(keeps=True, pieces=1),
        )
    da, db = own(da)[:, :, 0, 0], own(db)[:, :, 0]
    return da.to(a.dtype), db.to(a.dtype), own(dmemory)[:, 0, 0]


def _in_torch(a: Tensor, b: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    h, before = b.to(state.dtype).clone(memory_format=torch.contiguous_format), state
    gates = a.to(state.dtype)
    for at in _pieces(h):
        gate = gates[:, at]
        h[:, at.start].addcmul_(gate[:, 0], before)
        accumulate(gate[:, 1:], h[:, at])
        before = h[:, at.stop - 1]
    return h, before.clone()


def _back_in_torch(
    dh: Tensor, dfinal: Tensor, h: Tensor, a: Tensor, b: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    db = dh.to(state.dtype).clone(memory_format=torch.contiguous_format)
    gates, da, carried = a.conj().to(state.dtype), torch.empty_like(db), dfinal.clone()
    for at in reversed(_pieces(db)):
        db[:, at.stop - 1] += carried
        accumulate(gates[:, at.start + 1 : at.stop], db[:, at], backward=True)
        carried = gates[:, at.start] * db[:, at.start]
    torch.mul(db[:, 1:], h[:, :-1].conj(), out=da[:, 1:])
    torch.mul(db[:, :1], state[:, None].conj()[:, : db.shape[1]], out=da[:, :1])
    return da.to(a.dtype), db.to(a.dtype), carried


def _pieces(states: Tensor) -> list[slice]:
    length = states.shape[1]
    steps = max(1, _PIECE // max(1, states[:, :1].numel()))
    return [slice(at, min(at + steps, length)) for at in range(0, length, steps)]
