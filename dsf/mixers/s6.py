"""S6, the selective state space of Mamba-1: every channel and state has a decay of its own."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dsf.coupling import ChannelCoupling, OuterCoupling, ScaledCoupling
from dsf.errors import InvalidInput
from dsf.shapes import Float
from dsf.structure import Diagonal, Discretised
from dsf.system import System

from .architecture import Architecture, Draw, Sample


def s6(
    delta: Float[Tensor, "B T D"],
    A: Float[Tensor, "D N"],
    b: Float[Tensor, "B T N"],
    c: Float[Tensor, "B T N"],
    *,
    skip: Float[Tensor, " D"] | None = None,
    variant: Literal["paper", "code"] = "code",
) -> System:
    r"""h^{d,n}_i = exp(Δ^d_i A^{d,n}) h^{d,n}_{i-1} + Δ^d_i b^n_i x^d_i,  y^d_i = Σ_n c^n_i h^{d,n}_i + D^d x^d_i.

    System: Λ elementwise over (N, D) and B = Δ ⊗ b per channel, both held in their factors (`Discretised`,
    `ScaledCoupling`), C = c shared by the channels. `delta` is
    (B, T, D) after its softplus, `A` (D, N) negative, `b` and `c` (B, T, N), `skip` (D,). One head: the
    tokens are x as (B, T, 1, D). The code has Euler's rule for B, as above; the paper's equation 4 has
    zero-order hold for both, which writes (e^{ΔA} - 1)/A b in place of Δ b.

    Raises `InvalidInput` for another `variant`.

    Source: Gu and Dao, "Mamba" (2312.00752), equation 4 and algorithm 2; code: state-spaces/mamba,
    `mamba_ssm/ops/selective_scan_interface.py`.

    >>> import dsf
    >>> ones = torch.ones(1, 3, 1)
    >>> system = s6(ones, torch.full((1, 1), -0.6931472), ones, ones)
    >>> dsf.run(system, torch.ones(1, 3, 1, 1))[0].flatten()
    tensor([1.0000, 1.5000, 1.7500])
    """
    if variant not in ("paper", "code"):
        raise InvalidInput(f"`variant` must be 'paper' or 'code'; got {variant!r}")
    gates = Discretised(delta[:, :, None, None, :], A.T[None, None, None])
    write: ChannelCoupling = ScaledCoupling(b[:, :, None, :], delta[:, :, None, :])
    if variant == "paper":
        write = ChannelCoupling(torch.expm1(gates.log) / A.T * b[:, :, None, :, None])
    return System(
        gates,
        write,
        OuterCoupling(c[:, :, None, :]),
        feedthrough=None if skip is None else Diagonal(skip[None, None, None, :]),
    )


def _sample(draw: Draw) -> Sample:
    channels, states = draw.heads * draw.values, draw.keys
    step = (draw.batch, draw.length)
    return Sample(
        {
            "delta": draw.uniform(*step, channels),
            "A": -draw.uniform(channels, states) * states,
            "b": draw.normal(*step, states),
            "c": draw.normal(*step, states),
            "skip": draw.normal(channels),
        },
        draw.normal(*step, 1, channels),
    )


S6 = Architecture(
    "s6",
    "S6 (Mamba-1)",
    r"$h_i = e^{\Delta_i A} \odot h_{i-1} + \Delta_i b_i x_i, \quad y_i = c_i^\top h_i + D x_i$",
    "Gu and Dao, 2312.00752, section 3.2",
    s6,
    _sample,
)
