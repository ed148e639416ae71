"""Gated DeltaNet: forget everything a little, and what a key stored a lot."""

from __future__ import annotations

import torch
from torch import Tensor

from dsf.coupling import OuterCoupling
from dsf.shapes import Float
from dsf.structure import DPLR, Scalar
from dsf.system import System

from .architecture import Architecture, Draw, Sample


def gated_deltanet(
    q: Float[Tensor, "#B #T #H K"],
    k: Float[Tensor, "#B #T #H K"],
    g: Float[Tensor, "#B #T #H"],
    beta: Float[Tensor, "#B #T #H"],
) -> System:
    r"""h_i = α_i (I - β_i k_i k_iᵀ) h_{i-1} + β_i k_i v_iᵀ,  y_i = h_iᵀ q_i,  α_i = e^{g_i}.

    System: Λ = α I + (-α β k) kᵀ, B = β k, C = q. `q`, `k` are (B, T, H, K), keys of unit length for
    a contraction, queries scaled by the caller; `g` log-decays and `beta` write strengths (B, T, H).
    β in [0, 2] keeps |1 - β‖k‖²| <= 1.

    Source: Yang, Kautz, Hatamizadeh, "Gated delta networks" (2412.06464), equation 10.

    >>> import dsf
    >>> k = torch.tensor([1.0, 0.0]).expand(1, 3, 1, 2)
    >>> g, beta = torch.zeros(1, 3, 1), torch.ones(1, 3, 1)
    >>> dsf.run(gated_deltanet(k, k, g, beta), torch.tensor([5.0, 6, 7]).reshape(1, 3, 1, 1))[0].flatten()
    tensor([5., 6., 7.])
    """
    erased = -(torch.exp(g) * beta)[..., None] * k
    return System(
        DPLR(Scalar.from_log(g), erased[..., None], k[..., None]),
        OuterCoupling(beta[..., None] * k),
        OuterCoupling(q),
    )


def _sample(draw: Draw) -> Sample:
    lead = (draw.batch, draw.length, draw.heads)
    keys = draw.normal(*lead, draw.keys)
    return Sample(
        {
            "q": draw.normal(*lead, draw.keys),
            "k": torch.nn.functional.normalize(keys, dim=-1),
            "g": -draw.uniform(*lead),
            "beta": 2 * draw.uniform(*lead),
        },
        draw.normal(*lead, draw.values),
    )


GATED_DELTANET = Architecture(
    "gated-deltanet",
    "Gated DeltaNet",
    r"$h_i = \alpha_i (I - \beta_i k_i k_i^\top) h_{i-1} + \beta_i k_i v_i^\top, \quad y_i = h_i^\top q_i$",
    "Yang et al., 2412.06464, equation 10",
    gated_deltanet,
    _sample,
)
