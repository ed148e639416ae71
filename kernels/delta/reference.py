r"""What the operator computes on the CPU: the package's chunk form on a system of diagonal plus low rank.

Rows that act one by one are steps of their own, Λ = D - β k (D b)ᵀ with D = I after a token's first row; rows that act
together are the columns of one step, Λ = D - Σ β k bᵀ. The form's own backward gives the gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

import dsf
from dsf.coupling import OuterCoupling
from dsf.kernels.shapes import repeated, windows
from dsf.state import State
from dsf.structure import DPLR, Diagonal, Scalar
from dsf.system import System


def run(
    q: Tensor,
    k: Tensor,
    b: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    state: Tensor,
    scale: float,
    together: bool,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs (B, T, H, V) and final states (N, H, K, V), differentiable; shapes as the operator's."""
    heads, wide, dtype = beta.shape[2], state.dtype, v.dtype
    tokens = q.shape[1]
    rows = k.shape[1] // tokens if tokens else 1
    q, k, b, v = (repeated(x, heads).to(wide) for x in (q, k, b, v))
    write, g = beta.to(wide)[..., None] * k, g.to(wide)
    each = _together if together else _one_by_one
    outputs, finals = [], []
    for window, first in windows(state, tokens, starts):
        inner = slice(window.start * rows, window.stop * rows)
        of_write, of_b, of_v = (x[:, inner] for x in (write, b, v))
        system, values = each(scale * q[:, window], of_write, of_b, of_v, g[:, window], rows)
        output, final = dsf.run(system, values, State(first), form="chunkwise")
        outputs.append(output if together else output[:, rows - 1 :: rows])
        finals.append(final.memory)
    found = torch.cat([*outputs, v[:, :0]], 1).to(dtype)
    return found, torch.cat([*finals, state[:0]])


def _gate(g: Tensor) -> Scalar | Diagonal:
    return Diagonal.from_log(g) if g.ndim == 4 else Scalar.from_log(g)


def _one_by_one(
    q: Tensor, write: Tensor, b: Tensor, v: Tensor, g: Tensor, rows: int
) -> tuple[System, Tensor]:
    """A step per row; the gate acts at the first row of a token, the read-out at the last."""
    gates = _beside(g, rows, 0)
    right = (gates if gates.ndim == 4 else gates[..., None]).exp() * b
    transition = DPLR(_gate(gates), -write[..., None], right[..., None])
    return System(transition, OuterCoupling(write), OuterCoupling(_beside(q, rows, rows - 1))), v


def _beside(x: Tensor, rows: int, place: int) -> Tensor:
    """x (B, T, …) at one row of each token, zero at the others: (B, T n, …)."""
    zero = torch.zeros_like(x)
    return torch.stack([x if i == place else zero for i in range(rows)], 2).flatten(1, 2)


def _together(
    q: Tensor, write: Tensor, b: Tensor, v: Tensor, g: Tensor, rows: int
) -> tuple[System, Tensor]:
    """A step per token of rank `rows`, with as many writes."""
    write, b, v = (x.unflatten(1, (q.shape[1], rows)).transpose(2, 3) for x in (write, b, v))
    transition = DPLR(_gate(g), -write.mT, b.mT)
    return System(transition, OuterCoupling(write), OuterCoupling(q)), v
