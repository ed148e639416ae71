"""RWKV-6 (Finch): the current token is read past the state, with a bonus."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import Diagonal, Scalar
from dsf.system import System

from .architecture import Architecture, Draw, Sample


def rwkv6(
    r: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    w: Float[Tensor, "#B #T #H K"],
    u: Float[Tensor, "H K"],
) -> System:
    r"""y_i = (h_{i-1} + diag(u) k_i v_iᵀ)ᵀ r_i,  h_i = diag(e^{-e^{w_i}}) h_{i-1} + k_i v_iᵀ.

    System: Λ = diag(e^{-e^w}), B = k, C = r read before the update, D = Σ_k r u k. Receptance `r`, `k` and
    the decay's double logarithm `w` are (B, T, H, K), the bonus `u` is (H, K).

    Source: Peng et al., "Eagle and Finch" (2404.05892), own wording; code: fla, `fla/ops/rwkv6`.

    >>> import dsf
    >>> one, w = torch.ones(1, 3, 1, 1), torch.full((1, 3, 1, 1), -torch.inf)
    >>> dsf.run(rwkv6(one, one, w, torch.full((1, 1), 5.0)), one)[0].flatten()
    tensor([5., 6., 7.])
    """
    return System(
        Diagonal.from_log(-torch.exp(w)),
        OuterCoupling(k),
        OuterCoupling(r),
        feedthrough=Scalar((r * u * k).sum(-1)),
        timing="before",
    )


def _sample(draw: Draw) -> Sample:
    return Sample(
        {
            "r": draw.normal(*draw.lead, draw.keys),
            "k": draw.normal(*draw.lead, draw.keys),
            "w": draw.normal(*draw.lead, draw.keys) - 1,
            "u": draw.normal(draw.heads, draw.keys),
        },
        draw.normal(*draw.lead, draw.values),
    )


RWKV6 = Architecture(
    "rwkv6",
    "RWKV-6",
    r"$y_i = (h_{i-1} + \mathrm{diag}(u) k_i v_i^\top)^\top r_i, \quad "
    r"h_i = \mathrm{diag}(e^{-e^{w_i}}) h_{i-1} + k_i v_i^\top$",
    "Peng et al., 2404.05892, own wording",
    rwkv6,
    _sample,
)
