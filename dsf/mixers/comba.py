"""Comba: a gated delta rule whose erasing key is weaker than its writing key, and a corrected read-out."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import DPLR, Scalar
from dsf.system import System

from .architecture import Architecture, Draw, Sample, delta_rule


def comba(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    beta: Float[Tensor, "#B #T #H"],
    g: Float[Tensor, "#B #T #H"],
    inner: Float[Tensor, " H"],
    correction: Float[Tensor, " H"],
) -> System:
    r"""h_i = α_i (I - β_i k_i p_iᵀ) h_{i-1} + β_i k_i v_iᵀ,  y_i = h_iᵀ (q_i - d p_i),  p_i = σ(inner) k_i, α = e^g.

    System: Λ = α I + (-α β k) pᵀ, B = β k, C = q - d p. `q`, `k` are (B, T, H, K), `beta` and the
    log-decays `g` (B, T, H), `inner` and `correction` d are (H,).

    Source: Hu et al., "Comba" (2506.02475), in the form of the code: fla, `fla/ops/comba/naive.py` and
    `fla/layers/comba.py` (where the norm of q, k and p is taken inside the kernel; here by the caller).

    >>> import dsf
    >>> k, one = torch.tensor([1.0, 0.0]).expand(1, 2, 1, 2), torch.ones(1, 2, 1)
    >>> system = comba(k, k, one, 0 * one, torch.tensor([0.0]), torch.tensor([0.0]))
    >>> dsf.run(system, torch.tensor([4.0, 4]).reshape(1, 2, 1, 1))[0].flatten()  # half is erased
    tensor([4., 6.])
    """
    erasing = inner.sigmoid()[:, None] * k
    erased = -(torch.exp(g) * beta)[..., None] * k
    return System(
        DPLR(Scalar.from_log(g), erased[..., None], erasing[..., None]),
        OuterCoupling(beta[..., None] * k),
        OuterCoupling(q - correction[:, None] * erasing),
    )


def _sample(draw: Draw) -> Sample:
    own = {"inner": draw.normal(draw.heads), "correction": draw.uniform(draw.heads)}
    return delta_rule(draw, g=-draw.uniform(*draw.lead), **own)


COMBA = Architecture(
    "comba",
    "Comba",
    r"$h_i = \alpha_i (I - \beta_i k_i p_i^\top) h_{i-1} + \beta_i k_i v_i^\top, \quad "
    r"y_i = h_i^\top (q_i - d\,p_i), \quad p_i = \sigma(b) k_i$",
    "Hu et al., 2506.02475, own wording",
    comba,
    _sample,
)
