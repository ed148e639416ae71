"""Mamba-3: a trapezoidal step that also weighs the last write, and a state that rotates."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.errors import InvalidInput
from dsf.shapes import Float
from dsf.structure import Block, Scalar
from dsf.system import System

from .architecture import Architecture, Draw, Sample


def mamba3(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    delta: Float[Tensor, "#B #T #H"],
    A: Float[Tensor, "#B #T #H"],
    trap: Float[Tensor, "#B #T #H"],
    angle: Float[Tensor, "#B #T #H P"],
    *,
    skip: Float[Tensor, " H"] | None = None,
    variant: Literal["paper", "code"] = "paper",
) -> System:
    r"""h_i = R_iᵀ (α_i h_{i-1} + β_i k_{i-1} v_{i-1}ᵀ) + γ_i k_i v_iᵀ,  y_i = h_iᵀ q_i + D v_i.

    α = e^{ΔA}, β = (1 - λ) Δ α, γ = λ Δ, λ = σ(trap); R_i turns each pair of key channels by its angle
    θ_i = Δ_i angle_i, or Δ_i π tanh(angle_i) in the code, which in place of turning the state turns q and k
    by the sum of the angles so far: the same outputs. λ = 1 is Euler's rule, λ = ½ the trapezoid.

    System: the last write k_{i-1} v_{i-1}ᵀ is a second half of the state, so Λ has blocks
    [[α Rᵀ, β Rᵀ], [0, 0]] of width 4, one per pair, and 2K key channels. `q`, `k` (biases added, K even)
    are (B, T, H, K), step `delta`, `A` < 0 and `trap` (B, T, H), `angle` (B, T, H, K/2), `skip` (H,). The
    single-input, single-output form.

    Source: Lahoti et al., "Mamba-3" (2603.15569), own wording; code: state-spaces/mamba,
    `tests/ops/triton/test_mamba3_siso.py`, `mamba3_siso_step_ref`.

    >>> import dsf
    >>> q, one = torch.tensor([1.0, 0.0]).expand(1, 3, 1, 2), torch.ones(1, 3, 1)
    >>> system = mamba3(q, q, one, 0 * one, 0 * one, torch.zeros(1, 3, 1, 1))
    >>> dsf.run(system, torch.ones(1, 3, 1, 1))[0].flatten()  # the integral of 1 by trapezoids
    tensor([0.5000, 1.5000, 2.5000])
    """
    if variant not in ("paper", "code"):
        raise InvalidInput(f"`variant` must be 'paper' or 'code'; got {variant!r}")
    if k.shape[-1] != 2 * angle.shape[-1]:
        raise InvalidInput(
            f"`angle` must have K/2 entries for K = {k.shape[-1]}; got {angle.shape[-1]}"
        )
    turn = delta[..., None] * (torch.pi * torch.tanh(angle) if variant == "code" else angle)
    share, decay = trap.sigmoid(), torch.exp(delta * A)
    cos, sin = torch.cos(turn), torch.sin(turn)
    back = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    old = decay[..., None, None, None] * back
    last = ((1 - share) * delta)[..., None, None, None] * old
    upper = torch.cat([old, last], -1)
    pairs = k.unflatten(-1, (-1, 2))
    written = torch.cat([(share * delta)[..., None, None] * pairs, pairs], -1)
    queried = q.unflatten(-1, (-1, 2))
    return System(
        Block(torch.cat([upper, torch.zeros_like(upper)], -2)),
        OuterCoupling(written.flatten(-2)),
        OuterCoupling(torch.cat([queried, torch.zeros_like(queried)], -1).flatten(-2)),
        feedthrough=None if skip is None else Scalar(skip[None, None]),
    )


def _sample(draw: Draw) -> Sample:
    return Sample(
        {
            "q": draw.normal(*draw.lead, draw.keys),
            "k": draw.normal(*draw.lead, draw.keys),
            "delta": 0.1 + draw.uniform(*draw.lead),
            "A": -draw.uniform(*draw.lead) - 0.5,
            "trap": draw.normal(*draw.lead),
            "angle": draw.normal(*draw.lead, draw.keys // 2),
            "skip": draw.normal(draw.heads),
        },
        draw.normal(*draw.lead, draw.values),
    )


MAMBA3 = Architecture(
    "mamba3",
    "Mamba-3",
    r"$h_i = R_i^\top (\alpha_i h_{i-1} + \beta_i k_{i-1} v_{i-1}^\top) + \gamma_i k_i v_i^\top, \quad "
    r"\alpha = e^{\Delta A}, \; \beta = (1 - \lambda) \Delta \alpha, \; \gamma = \lambda \Delta$",
    "Lahoti et al., 2603.15569, own wording",
    mamba3,
    _sample,
)
