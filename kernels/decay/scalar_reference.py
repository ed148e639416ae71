r"""What the operators compute on the CPU: the package's chunk form, forward and backward.

The gradients are runs of the same form: of S with its two sides exchanged for dq, and backwards in time for dk, dv
and the initial state, R_j = e^{g_{j+1}} R_{j+1} + s q_j dy_jᵀ from R_T = dS_T + s q_T dy_Tᵀ.
"""

from __future__ import annotations

import torch
from torch import Tensor

import dsf
from dsf.coupling import OuterCoupling
from dsf.kernels.shapes import Packing, repeated, shared, windows
from dsf.state import State
from dsf.structure import Scalar
from dsf.system import System

from .gates import of_gates

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    state: Tensor,
    scale: float,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, V) and final states (N, H, K, V)."""
    heads = g.shape[2]
    q, k, v = repeated(q, heads), repeated(k, heads), repeated(v, heads)
    outputs, finals = [], []
    for window, first in windows(state, q.shape[1], starts):
        output, final = _run(q[:, window], k[:, window], v[:, window], g[:, window], first, scale)
        outputs.append(output)
        finals.append(final)
    return torch.cat([*outputs, v[:, :0]], 1), torch.cat([*finals, state[:0]])


def backward(
    do: Tensor,
    dfinal: Tensor,
    final: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    state: Tensor,
    scale: float,
    starts: Tensor | None,
) -> Gradients:
    """Gradients of q, k, v, g and the initial states."""
    heads, wide = g.shape[2], state.dtype
    all_q, all_k, all_v, up = (repeated(x, heads).to(wide) for x in (q, k, v, do))
    dq, dk, dv, dstate = [], [], [], []
    for n, (window, first) in enumerate(windows(state, q.shape[1], starts)):
        last = dfinal[n : n + 1] if starts is not None else dfinal
        a, b, c, d, gate = (x[:, window] for x in (all_q, all_k, all_v, up, g))
        dq.append(_run(d, c, b, gate, first.mT, scale)[0])
        late = torch.cat([torch.zeros_like(gate[:, :1]), gate.flip(1)[:, :-1]], 1)
        a, b, c, d = (x.flip(1) for x in (a, b, c, d))
        dk.append(_run(c, d, scale * a, late, last.mT, 1.0)[0].flip(1))
        writes, whole = _run(b, scale * a, d, late, last, 1.0)
        dv.append(writes.flip(1))
        once = gate[:, 0].exp().to(wide)[..., None, None] if gate.shape[1] else 1.0
        dstate.append(once * whole)
    empty = all_q[:, :0]
    found_q, found_k = torch.cat([*dq, empty], 1), torch.cat([*dk, empty], 1)
    found_v = torch.cat([*dv, all_v[:, :0]], 1)
    inner = (dfinal.double() * final.double()).sum((-1, -2))
    dg = of_gates(q, k, found_q, found_k, g, inner, Packing.of(q, starts))
    first = torch.cat([*dstate, state[:0]])
    return shared(found_q, q), shared(found_k, k), shared(found_v, v), dg, first


def _run(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    system = System(Scalar.from_log(g.to(state.dtype)), OuterCoupling(k), OuterCoupling(scale * q))
    with torch.no_grad():
        outputs, final = dsf.run(system, v, State(state), form="chunkwise")
    return outputs, final.memory.clone()
